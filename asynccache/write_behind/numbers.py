"""Adjustments of numeric columns as bytes that Lua combines without losing a digit.

One column after the other: length and name, kind, flags, and one to three numbers (what is added, then the floor and
the ceiling, if the flags say so). A number of the kind

    d  exact: three doubles H, L, F with the value H * 10^9 + L + F / 10^9, 0 <= L, F < 10^9, H a whole number
    f  float: one double

Lua knows doubles only, which hold whole numbers up to 2^53: three of them hold any int64, and 24 digits before the
point with 9 behind it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Final

from asynccache.errors import ConfigurationError, DecodeError
from asynccache.protocols import Adjustment, Number

__all__ = [
    "CEILING",
    "EXACT",
    "FLOAT",
    "FLOOR",
    "NUMBER",
    "WIDE",
    "add_exact",
    "amount",
    "column_head",
    "pack_column",
    "pack_number",
    "parse_columns",
]

EXACT: Final = b"d"
FLOAT: Final = b"f"
WIDE: Final = Context(prec=100)
"""Enough digits to compute with any number that fits, whatever context the application has set."""

_UNIT: Final = 10**9
_HIGHEST: Final = 10**15
_LIMIT: Final = _HIGHEST * _UNIT * _UNIT
FLOOR: Final = 1
CEILING: Final = 2
_EXACT: Final = struct.Struct(">ddd")
NUMBER: Final = _EXACT.size
"""Bytes of an exact number."""
_FLOAT: Final = struct.Struct(">d")
_FIX: Final = "it must be below 10^24 and have at most 9 digits behind the point"


def amount(column: str, value: object, type_: type) -> Number:
    """The amount as a number of the column's type.

    Args:
        column: named in errors.
        value: what the caller gave.
        type_: int, Decimal or float.

    Raises:
        ConfigurationError: it is not such a number, or is out of the range that can be buffered exactly.
    """
    if type_ is int:
        if type(value) is int and -_UNIT < value < _UNIT:
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise _refused(column, value, "the column holds ints, so pass an int")
    elif type_ is float:
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise _refused(column, value, "the column holds floats, so pass a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _refused(column, value, "it must be finite")
        return number
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        fix = f"pass Decimal({str(value)!r})" if isinstance(value, float) else "pass a Decimal or an int"
        raise _refused(column, value, f"the column is exact: {fix}")
    try:
        _scaled(value)
    except ValueError:
        raise _refused(column, value, _FIX) from None
    return value


def _refused(column: str, value: object, fix: str) -> ConfigurationError:
    return ConfigurationError(f"{column}={value!r:.100} ({type(value).__name__}) cannot be buffered: {fix}")


def _scaled(value: Number) -> int:
    """The value times 10^9, a whole number.

    Raises:
        ValueError: it is not whole, or too large.
    """
    if isinstance(value, int):
        scaled = value * _UNIT
    elif isinstance(value, Decimal):
        if not value.is_finite() or value.adjusted() > 24 or len(value.as_tuple().digits) > 90:
            raise ValueError(value)
        shifted = value.scaleb(9, WIDE)
        if shifted != shifted.to_integral_value():
            raise ValueError(value)
        scaled = int(shifted)
    else:
        raise ValueError(value)  # noqa: TRY004 - the caller names the argument
    if not -_LIMIT <= scaled < _LIMIT:
        raise ValueError(value)
    return scaled


def pack_number(kind: bytes, value: Number) -> bytes:
    """One number, which fits, as `amount` has checked.

    Raises:
        ValueError: it does not fit.
    """
    if kind == FLOAT:
        return _FLOAT.pack(value)
    if type(value) is int and 0 <= value < _UNIT:
        return _EXACT.pack(0, value, 0)
    high, rest = divmod(_scaled(value), _UNIT * _UNIT)
    return _EXACT.pack(high, *divmod(rest, _UNIT))


def add_exact(one: bytes, other: bytes, at: int, other_at: int) -> bytes | None:
    """The sum of two exact numbers that stand in bytes; None if it does not fit."""
    high, low, fraction = _EXACT.unpack_from(one, at)
    more_high, more_low, more_fraction = _EXACT.unpack_from(other, other_at)
    # Of doubles, but whole ones below 2^53: nothing is rounded.
    high, low, fraction = high + more_high, low + more_low, fraction + more_fraction
    if fraction >= _UNIT:
        fraction -= _UNIT
        low += 1
    if low >= _UNIT:
        low -= _UNIT
        high += 1
    return _EXACT.pack(high, low, fraction) if -_HIGHEST <= high < _HIGHEST else None


def column_head(name: str, kind: bytes, flags: int) -> bytes:
    """What stands before a column's numbers."""
    encoded = name.encode()
    return b"%c%b%b%c" % (len(encoded), encoded, kind, flags)


def pack_column(name: str, kind: bytes, adjustment: Adjustment) -> bytes:
    """One column's adjustment.

    Raises:
        ValueError: a number does not fit.
    """
    numbers = [adjustment.add]
    flags = 0
    if adjustment.floor is not None:
        flags |= FLOOR
        numbers.append(adjustment.floor)
    if adjustment.ceiling is not None:
        flags |= CEILING
        numbers.append(adjustment.ceiling)
    return column_head(name, kind, flags) + b"".join(pack_number(kind, number) for number in numbers)


def parse_columns(raw: bytes, at: int = 0) -> Mapping[str, tuple[bytes, Adjustment]]:
    """What `pack_column` and Lua wrote: kind and adjustment by column. Whole exact numbers come back as int.

    Raises:
        DecodeError: they did not write this.
    """
    columns: dict[str, tuple[bytes, Adjustment]] = {}
    try:
        while at < len(raw):
            start = at + 1 + raw[at]
            name = raw[at + 1 : start].decode()
            kind, flags = raw[start : start + 1], raw[start + 1]
            at = start + 2
            add, at = _parse(kind, raw, at)
            floor = ceiling = None
            if flags & FLOOR:
                floor, at = _parse(kind, raw, at)
            if flags & CEILING:
                ceiling, at = _parse(kind, raw, at)
            columns[name] = (kind, Adjustment(add, floor, ceiling))
    except (IndexError, ValueError, OverflowError, struct.error) as error:
        raise DecodeError(f"not the adjustments of a buffered write: {error}") from error
    return columns


def _parse(kind: bytes, raw: bytes, at: int) -> tuple[Number, int]:
    if kind == FLOAT:
        return _FLOAT.unpack_from(raw, at)[0], at + _FLOAT.size
    if kind != EXACT:
        raise ValueError(f"unknown kind {kind!r}")
    high, low, fraction = _EXACT.unpack_from(raw, at)
    whole = int(high) * _UNIT + int(low)
    if not fraction:
        return whole, at + _EXACT.size
    return Decimal(whole * _UNIT + int(fraction)).scaleb(-9, WIDE).normalize(WIDE), at + _EXACT.size
