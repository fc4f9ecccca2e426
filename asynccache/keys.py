"""Names in Redis: injective, readable, and never at the mercy of the data in them.

    cell         shop:user:42                      namespace, name, parts
    generation   shop#g:users  shop#g              of a tag; of the namespace itself
    buffer       shop#w:{score.3}:pending          write-behind, by partition; {...} is the hash tag
                 shop:score:{score.3}:ada          its cells, in the same slot
    nested       shop/tenant-7:user:42             a namespace in a namespace

A part says its type: an int is `42`, a string that could be taken for something else begins with `'` (`'42`), and every
other type begins with `~` and a code. Data is percent-encoded, so that it holds no separator, no brace and no wildcard.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import re
from typing import Any, Final
from urllib.parse import quote_from_bytes
from uuid import UUID

from asynccache.errors import ConfigurationError, InvalidKey

__all__ = ["CellKey", "KeySpace", "check_name", "encode_key", "encode_part", "escape"]

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.@+=-]*").fullmatch
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}").fullmatch
_SAFE: Final = "@+=-_."  # with letters and digits; quote() also leaves ~ alone, which begins a code
LONGEST: Final = 200
"""Longer encodings are replaced by their hash: keys are bounded, too."""


class CellKey(str):
    """A complete key in Redis, as a strategy's `key(...)` returns it: not data to be escaped."""

    __slots__ = ()


def escape(text: str) -> str:
    """Percent-encodes everything but letters, digits and `_.@+=-`, surrogates included."""
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe=_SAFE).replace("~", "%7E")


def encode_part(value: Any) -> str:
    """Encodes one part of a key; a tuple in parentheses.

    Raises:
        InvalidKey: its type cannot be part of a key.
    """
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is str:
        return value if _PLAIN(value) else "'" + escape(value)
    return _encode_other(value)


def _encode_other(value: Any) -> str:
    if isinstance(value, enum.Enum):  # before int and str, which it may be, too
        kind = type(value)
        return f"~e{escape(kind.__qualname__)}.{escape(value.name)}"
    match value:
        case None:
            return "~none"
        case bool():
            return "~true" if value else "~false"
        case tuple():
            return f"({','.join(map(encode_part, value))})"
        case int():
            return str(int(value))
        case str():
            return encode_part(str(value))
        case bytes():
            return f"~x{value.hex()}"
        case UUID():
            return f"~u{value.hex}"
        case dt.datetime() if value.tzinfo is not None:
            # Equal instants are equal keys, in whatever zone they are written.
            return f"~z{escape(value.astimezone(dt.UTC).replace(tzinfo=None, fold=0).isoformat())}"
        case dt.datetime():
            return f"~n{escape(value.replace(fold=0).isoformat())}"
        case dt.date():
            return f"~d{value.isoformat()}"
        case _:
            raise InvalidKey(
                f"{type(value).__name__} ({value!r:.100}) cannot be part of a key: use int, str, bytes, UUID, bool,"
                " None, an enum, a date, a datetime, or a tuple of them; turn anything else into one of these first"
            )


def encode_key(value: Any) -> str:
    """Encodes a key value: a single part, or the parts of a tuple with `:` between them.

    Injective: two values have the same encoding only if they are equal and of the same type (encodings above 200
    characters are replaced by a 128-bit BLAKE2b hash).

    Raises:
        InvalidKey: a part's type cannot be part of a key.
    """
    kind = type(value)
    if kind is int:
        encoded = str(value)
    elif kind is tuple and len(value) > 1:
        encoded = ":".join(map(encode_part, value))
    else:
        encoded = encode_part(value)
    return encoded if len(encoded) <= LONGEST else shorten(encoded)


def shorten(encoded: str) -> str:
    """The hash that stands for an encoding that is too long."""
    return f"~h{hashlib.blake2b(encoded.encode(), digest_size=16).hexdigest()}"


def check_name(value: object, what: str) -> str:
    """A namespace's or strategy's name, as it is.

    Raises:
        ConfigurationError: not 1 to 100 letters, digits, `_`, `-` and `.`, or begins with `-` or `.`.
    """
    if not isinstance(value, str) or not _NAME(value):
        raise ConfigurationError(
            f"{what}={value!r} ({type(value).__name__}) must be 1 to 100 letters, digits, '_', '-' or '.', and may not"
            " begin with one of the last two"
        )
    return value


class KeySpace:
    """The keys of one namespace.

    Args:
        path: its name, after those of the namespaces that it is in.
    """

    def __init__(self, path: tuple[str, ...]) -> None:
        self._path = path
        self._prefix = "/".join(path)
        self._cells = f"{self._prefix}:"

    @property
    def path(self) -> tuple[str, ...]:
        """The namespace's name, after those of the namespaces that it is in."""
        return self._path

    def cell(self, name: str, key: Any) -> CellKey:
        """The cell of an entity; keys of the plain cache have the empty name."""
        return CellKey(f"{self._cells}{name}:{encode_key(key)}")

    @property
    def cells(self) -> str:
        """What all cells begin with."""
        return self._cells

    def generation(self, tag: str) -> str:
        """The generation of a tag of this namespace."""
        encoded = escape(tag)
        return f"{self._prefix}#g:{encoded if len(encoded) <= LONGEST else shorten(encoded)}"

    def own_generations(self) -> tuple[str, ...]:
        """The generations that every entry here carries: the namespace's, and those of the ones that it is in."""
        return tuple(f"{'/'.join(self._path[: depth + 1])}#g" for depth in range(len(self._path)))

    def tracked_prefixes(self) -> tuple[str, ...]:
        """What cells and generations of this namespace, and of those in it, begin with; buffers do not."""
        return (self._cells, f"{self._prefix}#g", f"{self._prefix}/")

    def buffer(self, name: str, partition: int, part: str) -> str:
        """A key of a write-behind buffer's partition."""
        return f"{self._prefix}#w:{{{name}.{partition}}}:{part}"

    def partition_cell(self, name: str, partition: int, key: Any) -> CellKey:
        """The cell of an entity, in the slot of its partition's buffer."""
        return CellKey(f"{self._cells}{name}:{{{name}.{partition}}}:{encode_key(key)}")

    def __repr__(self) -> str:
        return f"KeySpace({self._prefix!r})"
