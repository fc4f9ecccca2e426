"""Values as msgpack that says of each value what it is.

Plain msgpack knows nil, bool, int (64 bits), float, str, bin, array and map. Everything else is an extension whose code
is its kind, and whose data is msgpack again. A model or an enum's member is written with the name of its class.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from asynccache.codecs.names import Names, Plan, plan
from asynccache.codecs.pydantic_models import adapter
from asynccache.codecs.shapes import ADDRESSES, fields, model_kind
from asynccache.errors import EncodeError

__all__ = ["DEEPEST", "DumpWriter", "Kind", "Writer"]

DEEPEST: Final = 100
"""Levels to which values may be nested."""

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**64 - 1
_LONGEST_PATH: Final = 12


class Kind:
    """Codes of the extensions. They are on the wire: none may ever change or be used again."""

    TUPLE: Final = 1
    SET: Final = 2
    FROZENSET: Final = 3
    BYTEARRAY: Final = 4
    MAP: Final = 5
    INT: Final = 6
    MODEL: Final = 7
    ENUM: Final = 8
    DECIMAL: Final = 9
    UUID: Final = 10
    DATETIME: Final = 11
    DATE: Final = 12
    TIME: Final = 13
    TIMEDELTA: Final = 14
    ADDRESS: Final = 15


class _TooDeepError(EncodeError):
    """No path is of help here."""


_pack = msgspec.msgpack.Encoder().encode


def _ext(code: int, value: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _pack(value))


def _with_offset(value: Any) -> list[Any]:
    """A datetime or time in ISO 8601, and its fold; of its zone the offset is kept."""
    if value.tzinfo is not None and value.utcoffset() is None:
        raise EncodeError(f"a {type(value).__name__} whose zone ({value.tzinfo!r:.50}) has no offset cannot be encoded")
    return [value.isoformat(), value.fold]


_CONTAINERS: Final[dict[type, int]] = {tuple: Kind.TUPLE, set: Kind.SET, frozenset: Kind.FROZENSET}
_LEAVES: Final[dict[type, Callable[[Any], msgspec.msgpack.Ext]]] = {
    bytearray: lambda value: msgspec.msgpack.Ext(Kind.BYTEARRAY, bytes(value)),
    Decimal: lambda value: _ext(Kind.DECIMAL, str(value)),
    UUID: lambda value: msgspec.msgpack.Ext(Kind.UUID, value.bytes),
    dt.datetime: lambda value: _ext(Kind.DATETIME, _with_offset(value)),
    dt.date: lambda value: _ext(Kind.DATE, value.isoformat()),
    dt.time: lambda value: _ext(Kind.TIME, _with_offset(value)),
    dt.timedelta: lambda value: _ext(Kind.TIMEDELTA, [value.days, value.seconds, value.microseconds]),
    **dict.fromkeys(ADDRESSES, lambda value: _ext(Kind.ADDRESS, [type(value).__name__, str(value)])),
}
_ATOMS: Final = frozenset({str, int, float, bool, bytes, type(None)})
_TEXT: Final = frozenset({str})


class Writer:
    """Writes values of any kind.

    Args:
        names: finds classes by name.
        exact: looks at each int. Without it, containers of atoms go to msgspec as they are, which is several times as
            fast, and fails for an int of more than 64 bits.
    """

    def __init__(self, names: Names, *, exact: bool = False) -> None:
        self._names = names
        self._atoms = _ATOMS - {int} if exact else _ATOMS
        self._exact = self if exact else type(self)(names, exact=True)

    def write(self, value: Any) -> bytes:
        """The value as bytes.

        Raises:
            EncodeError: it holds what cannot be written, is nested too deep, or holds itself.
        """
        try:
            try:
                return _pack(self.lower(value, 0))
            except OverflowError:
                return _pack(self._exact.lower(value, 0))
        except _TooDeepError as error:
            raise EncodeError(str(error)) from None
        except EncodeError as error:
            where = self._path(value)
            raise EncodeError(f"{error} (at {where})" if where else str(error)) from error
        except RecursionError as error:
            raise EncodeError("a value nested too deep for the stack that is left, or one that holds itself") from error
        except UnicodeEncodeError as error:
            where = self._path(value)
            raise EncodeError(
                f"text with a lone surrogate cannot be encoded{f' (at {where})' * bool(where)}"
            ) from error
        # What properties and serialisers of the user's may raise is theirs.
        except Exception as error:
            raise EncodeError(f"{type(value).__qualname__} cannot be encoded: {error}") from error

    def lower(self, value: Any, depth: int) -> Any:
        """The value in terms of what msgpack knows."""
        kind = type(value)
        if kind is int:
            return value if _SMALLEST <= value <= _LARGEST else _ext(Kind.INT, f"{value:x}")
        if kind in _ATOMS:
            return value
        if depth >= DEEPEST:
            raise _TooDeepError(f"a value nested deeper than {DEEPEST} levels, or one that holds itself")
        lower, depth = self.lower, depth + 1
        if kind is dict:
            if _TEXT.issuperset(map(type, value)):
                if self._atoms.issuperset(map(type, value.values())):
                    return value
                return {key: lower(item, depth) for key, item in value.items()}
            return _ext(Kind.MAP, [[lower(key, depth), lower(item, depth)] for key, item in value.items()])
        if kind is list:
            return value if self._atoms.issuperset(map(type, value)) else [lower(item, depth) for item in value]
        if kind in _CONTAINERS:
            return _ext(_CONTAINERS[kind], [lower(item, depth) for item in value])
        if kind in _LEAVES:
            return _LEAVES[kind](value)
        return self._lower_other(value, depth)

    def _lower_other(self, value: Any, depth: int) -> Any:
        kind: Any = type(value)
        if isinstance(value, enum.Enum):
            # A combination of flags has no name of its own.
            member = value.name if value.name in kind.__members__ else int(value.value)
            return _ext(Kind.ENUM, [self._names.name(kind), member])
        if isinstance(value, UUID):  # asyncpg has its own
            return _LEAVES[UUID](value)
        how = plan(kind)
        if how is None:
            base = next((base.__name__ for base in kind.__mro__ if base in _BASES), None)
            raise EncodeError(
                f"{kind.__module__}.{kind.__qualname__} cannot be cached: use a dataclass, msgspec Struct, pydantic"
                f" model, NamedTuple or a built-in type, or turn it into one{f', such as {base}(...)' * bool(base)}"
            )
        return _ext(Kind.MODEL, [self._names.name(kind), self._body(value, how, depth)])

    def _body(self, value: Any, how: Plan, depth: int) -> Any:
        """What a model holds: what msgspec makes of it, its fields in order, or its fields by name."""
        if how.model == "pydantic":
            return DumpWriter(self._names, exact=self._exact is self).lower(adapter(value.__class__).dump(value), depth)
        if not how.open:
            return _pack(value)
        held = [(key, getattr(value, name)) for name, key in how.names]
        pairs = [(key, self.lower(item, depth)) for key, item in held if how.array or item is not msgspec.UNSET]
        if how.array:
            return [*(tag for _, tag in how.tag), *(item for _, item in pairs)]
        return dict((*how.tag, *pairs))

    def _path(self, value: Any, steps: int = 0) -> str:
        """Where in the value that is which cannot be written."""
        for step, child in _children(value):
            try:
                _pack(self._exact.lower(child, 0))
            except Exception:  # noqa: BLE001 - whatever it is, it is there
                return step + ("..." if steps >= _LONGEST_PATH else self._path(child, steps + 1))
        return ""


class DumpWriter(Writer):
    """Writes what pydantic dumped. Its schema knows the types, so that some may be written as something simpler."""

    def _lower_other(self, value: Any, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            try:
                return super()._lower_other(value, depth)
            except EncodeError:
                return self.lower(value.value, depth)
        kind: Any = type(value)
        # A secret's text hides it: what came back would not be the secret.
        textual = kind.__module__.partition(".")[0] in _TEXTUAL and not hasattr(value, "get_secret_value")
        return str(value) if textual and plan(kind) is None else super()._lower_other(value, depth)


_BASES: Final = frozenset({*_CONTAINERS, *_LEAVES, *_ATOMS, dict, list} - {bool, type(None)})
_TEXTUAL: Final = frozenset({"pydantic", "pydantic_core", "pathlib"})


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{key!r:.40}]" if isinstance(key, str | int) else f"[{type(key).__name__}]", item
            yield "[key]", key
    elif isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_fields"):
        for at, item in enumerate(value):
            yield f"[{at}]", item
    elif model_kind(type(value)) is not None:
        for name in getattr(value, "__struct_fields__", None) or [field.name for field in fields(type(value))]:
            yield f".{name}", getattr(value, name, None)
