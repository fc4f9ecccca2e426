"""Names in Redis: injective, readable, and never at the mercy of the data in them.

    cell         shop:user:42                      namespace, name, parts
    generation   shop#g:users  shop#g              of a tag; of the namespace itself
                 shop#g:~v:user:42                 of an entity with a counted version
    buffer       shop#w:{score.3}:pending          write-behind, by partition; {...} is the hash tag
                 shop:score:{score.3}:ada          its cells, in the same slot
    versioned    shop:user@3:42                    entries of a version
    nested       shop/tenant-7:user:42             a namespace in a namespace; shop/tenant-7#g its generation
                 shop#w/tenant-7:{score.3}:...     its buffers
    hot keys     shop#h:{user}:hot                 of a strategy; {...} is the hash tag
    checkpoint   shop#c:user:nightly               how far a warming has come

A part says its type: an int is `42`, a string that could be taken for something else begins with `'` (`'42`), and every
other type begins with `~` and a code. Data is percent-encoded, so that it holds no separator, no brace and no wildcard.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import re
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote_from_bytes
from uuid import UUID

from asynccache.errors import ConfigurationError, InvalidKey

__all__ = ["CellKey", "KeySpace", "check_name", "encode_key", "encode_part", "escape", "in_sample"]

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.@+=-]*").fullmatch
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}").fullmatch
_SAFE: Final = "@+=-_."  # with letters and digits; quote() also leaves ~ alone, which begins a code
_HUGE: Final = 10**199  # with its sign, as long as an encoding may be
_EPOCH: Final = dt.datetime(1, 1, 1)  # noqa: DTZ001 - of the time zone at hand
_TICK: Final = dt.timedelta(microseconds=1)
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
    if kind is int and -_HUGE < value < _HUGE:
        return str(value)
    if kind is str:
        return value if _PLAIN(value) else "'" + escape(value)
    return _encode_other(value)


def _encode_int(value: int) -> str:
    # Python refuses to print ints of some thousands of digits; how many is a setting of the process.
    return str(value) if -_HUGE < value < _HUGE else f"~i{value:x}"


def _encode_other(value: Any) -> str:
    if type(value) is UUID:
        return f"~u{value.hex}"
    if isinstance(value, enum.Enum):  # before int and str, which it may be, too
        return _encode_member(value)
    match value:
        case None:
            return "~none"
        case bool():
            return "~true" if value else "~false"
        case tuple():
            return f"({','.join(map(encode_part, value))})"
        case int():
            return _encode_int(int.__int__(value))
        case str():
            return encode_part(str.__str__(value))
        case bytes():
            return f"~x{value.hex()}"
        case UUID():
            return f"~u{value.hex}"
        case dt.datetime() if not getattr(value, "nanosecond", 0):  # pandas has them; they would be lost
            return _encode_datetime(value)
        case dt.date() if not isinstance(value, dt.datetime):
            return f"~d{dt.date.isoformat(value)}"
        case dt.time():
            return _encode_time(value)
        case _:
            kind = type(value)
            fix = next((fix for base, fix in _FIXES if issubclass(kind, base)), "turn it into one of these")
            raise InvalidKey(
                f"{kind.__module__}.{kind.__qualname__} cannot be part of a key: use int, str, bytes, UUID, bool, None,"
                f" an enum, a date, a time, a datetime, or a tuple of them; {fix}"
            )


_FIXES: Final[tuple[tuple[type, str], ...]] = (
    (float, "a float is rarely equal to itself after a calculation: round it to an int, or format it as text"),
    (Decimal, "equal Decimals may differ in digits: normalise it and pass str(value)"),
    (list, "pass tuple(value)"),
    (set, "pass tuple(sorted(value))"),
    (frozenset, "pass tuple(sorted(value))"),
    (dict, "pass tuple(sorted(value.items()))"),
    (bytearray, "pass bytes(value)"),
    (dt.timedelta, "pass its microseconds, value // timedelta(microseconds=1)"),
    (dt.datetime, "its nanoseconds would be lost: pass value.value"),
)
"""What to do instead, by base class."""


def _encode_member(value: enum.Enum) -> str:
    kind = type(value)
    # A combination of flags has no name of its own. A dot in a name would move the border between the two.
    member = escape(value.name).replace(".", "%2E") if value.name in kind.__members__ else _encode_int(int(value.value))
    return f"~e{escape(kind.__qualname__)}.{member}"


def _encode_datetime(value: dt.datetime) -> str:
    # A new one: subclasses override what is asked of it below.
    fields = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
    local = dt.datetime(*fields)  # noqa: DTZ001 - of the time zone at hand
    offset = value.utcoffset()
    if offset is None:
        return f"~n{escape(local.isoformat())}"
    # Equal instants are equal keys, in whatever zone they are written.
    try:
        return f"~z{escape((local - offset).isoformat())}"
    except OverflowError:  # an instant before the year 1 or after 9999 in UTC
        return f"~z{(local - _EPOCH - offset) // _TICK}"


def _encode_time(value: dt.time) -> str:
    offset = value.utcoffset()
    if offset is not None:  # like Python, which compares such times by their distance from midnight in UTC
        hours, minutes = dt.timedelta(hours=value.hour), dt.timedelta(minutes=value.minute)
        since = hours + minutes + dt.timedelta(seconds=value.second, microseconds=value.microsecond) - offset
        return f"~o{since // _TICK}"
    if value.tzinfo is not None:
        raise InvalidKey(
            "a time whose zone has no offset without a date cannot be part of a key: pass value.replace(tzinfo=None)"
            " and the zone's name, or a datetime"
        )
    return f"~t{escape(dt.time.isoformat(value))}"


def encode_key(value: Any) -> str:
    """Encodes a key value: a single part, or the parts of a tuple with `:` between them.

    Injective: two values have the same encoding only if they are equal and of the same type (encodings above 200
    characters are replaced by a 128-bit BLAKE2b hash). Subclasses of a built-in type other than enums are that type;
    aware datetimes are their instant; enums of the same qualified name in two modules are one.

    Raises:
        InvalidKey: a part's type cannot be part of a key.
    """
    kind = type(value)
    if kind is int and -_HUGE < value < _HUGE:
        return str(value)  # bounded as it is
    if kind is str:
        encoded = value if _PLAIN(value) else "'" + escape(value)
    elif kind is tuple or isinstance(value, tuple):
        encoded = ":".join(map(encode_part, value)) if len(value) > 1 else f"({''.join(map(encode_part, value))})"
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
        if not path:
            raise ConfigurationError("path=() must hold the name of a namespace")
        self._path = tuple(check_name(name, "namespace") for name in path)
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

    def counter(self, name: str, key: Any) -> CellKey:
        """The generation that counts the versions of an entity; no tag's, since `~` is escaped in tags."""
        return CellKey(f"{self._prefix}#g:~v:{name}:{encode_key(key)}")

    def own_generations(self) -> tuple[str, ...]:
        """The generations that every entry here carries: the namespace's, and those of the ones that it is in."""
        return tuple(f"{'/'.join(self._path[: depth + 1])}#g" for depth in range(len(self._path)))

    def tracked_prefixes(self) -> tuple[str, ...]:
        """What cells and generations of this namespace, and of those in it, begin with; buffers do not."""
        return (self._cells, f"{self._prefix}#g", f"{self._prefix}/")

    def buffer(self, name: str, partition: int, part: str) -> str:
        """A key of a write-behind buffer's partition."""
        return f"{self._untracked('w')}:{{{name}.{partition}}}:{part}"

    def hot(self, name: str, part: str) -> str:
        """A key of a strategy's list of hot keys."""
        return f"{self._untracked('h')}:{{{name}}}:{part}"

    def checkpoint(self, name: str, checkpoint: str) -> str:
        """How far a warming of a strategy has come."""
        return f"{self._untracked('c')}:{name}:{escape(checkpoint)}"

    def _untracked(self, kind: str) -> str:
        # The outermost name first, so that nobody who tracks cells and generations hears of what is nested either.
        return "/".join((f"{self._path[0]}#{kind}", *self._path[1:]))

    def partition_cell(self, name: str, partition: int, key: Any) -> CellKey:
        """The cell of an entity, in the slot of its partition's buffer."""
        return CellKey(f"{self.partition_cells(name, partition)}{encode_key(key)}")

    def partition_cells(self, name: str, partition: int) -> str:
        """What the cells of a partition begin with, before the encoded key."""
        return f"{self._cells}{name}:{{{name}.{partition}}}:"

    def __repr__(self) -> str:
        return f"KeySpace({self._prefix!r})"


def in_sample(key: str, share: float) -> bool:
    """Whether a key is among this share of all keys, chosen by its hash: in every process and at any time the same.

    "Spatial sampling" of Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015.
    """
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big") < share * 2**56
