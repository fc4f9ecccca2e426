"""The codec of any value: msgpack that says of each value what it is.

Plain msgpack knows nil, bool, int (64 bits), float, str, bin, array and map. Everything else is written as an extension
whose code is its kind. A model (dataclass, Struct, NamedTuple, pydantic model, enum) is written with the name of its
class, and restored only if this process has imported that class already: nothing is ever imported for the data's sake,
and nothing but models is ever made from it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sys
import typing
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from asynccache.codecs.base import Codec, Limits
from asynccache.errors import DecodeError, EncodeError

__all__ = ["UntypedCodec", "contains_any"]

_TUPLE, _SET, _FROZENSET, _BYTEARRAY, _MAP, _BIG, _MODEL, _ENUM = range(1, 9)
_DECIMAL, _UUID, _DATETIME, _DATE, _TIME, _TIMEDELTA = range(9, 15)
_DEEPEST: Final = 100
_LARGEST: Final = 2**64 - 1
_SMALLEST: Final = -(2**63)

_pack = msgspec.msgpack.Encoder().encode


class UntypedCodec(Codec[Any]):
    """Writes what a value is with the value."""

    id = 1

    def __init__(self, type_: Any, fingerprint: bytes, limits: Limits) -> None:
        super().__init__(type_, fingerprint, limits)
        origin = typing.get_origin(type_) or type_
        self._only = origin if isinstance(origin, type) and origin is not Any else None
        self._decode = msgspec.msgpack.Decoder(ext_hook=_revive).decode

    def encode(self, value: Any) -> bytes:
        if self._only is not None and not isinstance(value, self._only):
            raise EncodeError(f"the entry holds {self._only.__name__}, not {type(value).__name__} ({value!r:.100})")
        return _pack(_lower(value, 0))

    def decode(self, payload: bytes) -> Any:
        try:
            value = self._decode(payload)
        except DecodeError:
            raise
        # What a damaged payload may raise is up to the class that it names.
        except Exception as error:
            raise DecodeError(f"not a value: {type(error).__name__}: {error}") from error
        if self._only is not None and not isinstance(value, self._only):
            raise DecodeError(f"a {type(value).__name__}, not a {self._only.__name__}")
        return value


def contains_any(type_: Any) -> bool:
    """Whether a type leaves open what some of its values are: `Any`, `object`, or a bare container."""
    if type_ in {Any, object, dict, list, tuple, set, frozenset}:
        return True
    return any(contains_any(argument) for argument in typing.get_args(type_) if argument is not Ellipsis)


def _ext(code: int, value: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, value if isinstance(value, bytes) else _pack(value))


def _lower(value: Any, depth: int) -> Any:
    """The value in terms of what msgpack knows."""
    if depth > _DEEPEST:
        raise EncodeError(f"a value nested deeper than {_DEEPEST} levels, or one that holds itself")
    kind = type(value)
    if kind in {str, float, bool, bytes} or value is None:
        return _checked_text(value) if kind is str else value
    if kind is int:
        return value if _SMALLEST <= value <= _LARGEST else _ext(_BIG, str(value))
    deeper = depth + 1
    if kind is list:
        return [_lower(item, deeper) for item in value]
    if kind is dict:
        if all(type(key) is str for key in value):
            return {_checked_text(key): _lower(item, deeper) for key, item in value.items()}
        return _ext(_MAP, [[_lower(key, deeper), _lower(item, deeper)] for key, item in value.items()])
    if kind in _CONTAINERS:
        return _ext(_CONTAINERS[kind], [_lower(item, deeper) for item in value])
    if kind in _TEXTS:
        code, write = _TEXTS[kind]
        return _ext(code, write(value))
    if isinstance(value, enum.Enum):
        return _ext(_ENUM, [_name(kind), value.name])
    return _ext(_MODEL, [_name(kind), *_lower_model(value, kind, deeper)])


def _checked_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"text with a lone surrogate cannot be encoded: {text!r:.100}") from error
    return text


def _lower_model(value: Any, kind: type, depth: int) -> tuple[str, Any]:
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        return "struct", {field.name: _lower(getattr(value, field.name), depth) for field in fields}
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return "dataclass", {name: _lower(getattr(value, name), depth) for name in names}
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return "namedtuple", [_lower(item, depth) for item in value]
    if hasattr(kind, "__pydantic_core_schema__") and hasattr(kind, "model_validate"):
        return "pydantic", _lower(value.model_dump(mode="python", round_trip=True), depth)
    raise EncodeError(
        f"{kind.__module__}.{kind.__qualname__} ({value!r:.100}) cannot be cached: use a dataclass, msgspec Struct,"
        " pydantic model, NamedTuple or a built-in type, or turn it into one"
    )


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


_CONTAINERS: Final[dict[type, int]] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}
_TEXTS: Final[dict[type, tuple[int, Any]]] = {
    bytearray: (_BYTEARRAY, bytes),
    Decimal: (_DECIMAL, str),
    UUID: (_UUID, lambda value: value.bytes),
    dt.datetime: (_DATETIME, lambda value: [value.isoformat(), value.fold]),
    dt.date: (_DATE, dt.date.isoformat),
    dt.time: (_TIME, lambda value: [value.isoformat(), value.fold]),
    dt.timedelta: (_TIMEDELTA, lambda value: [value.days, value.seconds, value.microseconds]),
}


def _revive(code: int, data: memoryview) -> Any:
    """The value of one extension."""
    raw = bytes(data)
    if code == _UUID:
        return UUID(bytes=raw)
    if code == _BYTEARRAY:
        return bytearray(raw)
    value = msgspec.msgpack.decode(raw, ext_hook=_revive)
    match code:
        case 1:  # _TUPLE
            return tuple(value)
        case 2:  # _SET
            return set(value)
        case 3:  # _FROZENSET
            return frozenset(value)
        case 5:  # _MAP
            return {key: item for key, item in value}  # noqa: C416 - pairs, checked by unpacking
        case 6:  # _BIG
            return int(value)
        case 7:  # _MODEL
            return _revive_model(*value)
        case 8:  # _ENUM
            kind, name = _class(value[0]), value[1]
            if not issubclass(kind, enum.Enum):
                raise DecodeError(f"{value[0]} is not an enum here")
            return kind[name]
        case 9:  # _DECIMAL
            return Decimal(value)
        case 11:  # _DATETIME
            return dt.datetime.fromisoformat(value[0]).replace(fold=value[1])
        case 12:  # _DATE
            return dt.date.fromisoformat(value)
        case 13:  # _TIME
            return dt.time.fromisoformat(value[0]).replace(fold=value[1])
        case 14:  # _TIMEDELTA
            return dt.timedelta(*value)
        case _:
            raise DecodeError(f"an extension of the unknown kind {code}")


def _class(name: str) -> type:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise DecodeError(f"{name} is not a class that this process has imported")
    return found


def _revive_model(name: str, how: str, fields: Any) -> Any:
    kind = _class(name)
    fits = {
        "struct": issubclass(kind, msgspec.Struct),
        "dataclass": dataclasses.is_dataclass(kind),
        "namedtuple": issubclass(kind, tuple) and hasattr(kind, "_fields"),
        "pydantic": hasattr(kind, "__pydantic_core_schema__") and hasattr(kind, "model_validate"),
    }
    if not fits.get(how, False):
        raise DecodeError(f"{name} is not a {how} here")
    if how == "pydantic":
        return kind.model_validate(fields)  # type: ignore[attr-defined]  # it is a pydantic model
    if how == "namedtuple":
        return msgspec.convert(fields, kind, from_attributes=True) if _fields_typed(kind) else kind(*fields)
    return msgspec.convert(_renamed(kind, fields), kind, from_attributes=True)


def _fields_typed(kind: type) -> bool:
    return bool(getattr(kind, "__annotations__", None))


def _renamed(kind: type, fields: Any) -> Any:
    """Struct fields under the names that `convert` expects, which a `rename=` may have changed."""
    if not issubclass(kind, msgspec.Struct):
        return fields
    names = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}
    lowered = {names[name]: value for name, value in fields.items()}
    tag = kind.__struct_config__
    return {**lowered, tag.tag_field: tag.tag} if tag.tag_field else lowered
