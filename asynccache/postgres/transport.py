"""How values of a column travel: as what array they are sent, how they are cast, and how they come back.

Only types that every asyncpg connection knows are on the wire: JSON, enums, arrays and types of extensions travel as
text and are cast by the statement. So no codec is ever set on a connection, which belongs to the application or, behind
pgbouncer, to somebody else next, and a codec that the application has set does no harm.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from asynccache.postgres.annotations import enum_of, innermost, members
from asynccache.postgres.catalog import Family, Type

__all__ = ["Transport", "transport_for"]

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Transport:
    """The way of one column's values.

    Attributes:
        parameter: the SQL type of the array that holds a batch's values.
        cast: appended to a parameter's value on its way into the column.
        read_cast: appended to the column when it is read.
        exact: values of just this class are sent as they are.
        encode: what is sent for any other value but None; raises TypeError or ValueError.
        decode: makes of what asyncpg returns what the model takes; None if it is that already.
    """

    parameter: str
    cast: str
    read_cast: str
    exact: type | None
    encode: Convert
    decode: Convert | None

    @property
    def element(self) -> str:
        """The SQL type of one value as it is sent."""
        return self.parameter.removesuffix("[]")

    def encode_all(self, values: Iterable[Any]) -> list[Any]:
        """What is sent for a batch's values."""
        exact, encode = self.exact, self.encode
        return [value if value is None or type(value) is exact else encode(value) for value in values]


def transport_for(
    type_: Type, annotation: Any = Any, *, to_member: bool = False, json_dump: Convert | None = None
) -> Transport:
    """The transport for a column.

    Args:
        type_: the column's type.
        annotation: the model's.
        to_member: makes members of an `Enum` on the way back, for a model whose library would not.
        json_dump: makes JSON text of a value, for a model whose library has its own way.
    """
    family = type_.family
    if family is Family.ARRAY:
        return _array(type_, annotation, to_member=to_member)
    if family is Family.JSON:
        return Transport("text[]", f"::{type_.name}", "::text", None, json_dump or _json, json.loads)
    if family in {Family.ENUM, Family.OTHER}:
        encode, decode = _enum(enum_of(annotation), type_.labels, to_member=to_member)
        return Transport("text[]", f"::{type_.name}", "::text", str, encode, decode)
    exact, scalar = _SCALARS[family]
    member = enum_of(annotation)
    convert: Convert | None = member if to_member and member else None
    if family is Family.TIMESTAMPTZ:
        convert = _with_zone
    if family is Family.NUMERIC and int in members(annotation):
        convert = _whole
    parameter = "text" if type_.base in {"varchar", "name"} else type_.name
    return Transport(f"{parameter}[]", "", "", exact, scalar, convert)


def _array(type_: Type, annotation: Any, *, to_member: bool) -> Transport:
    element = type_.element
    assert element is not None  # noqa: S101 - an array has one
    inner = transport_for(element, innermost(annotation), to_member=to_member)
    text = _TEXTS.get(element.family, str)

    def encode(value: Any) -> str:
        if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
            raise TypeError(f"a list is expected, not {type(value).__name__}")
        parts = []
        for item in value:
            if item is None:
                parts.append("NULL")
            elif isinstance(item, list | tuple) and element.family is not Family.JSON:
                parts.append(encode(item))
            else:
                plain = text(item if type(item) is inner.exact else inner.encode(item))
                parts.append('"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"')
        return "{" + ",".join(parts) + "}"

    def decode(value: list[Any]) -> list[Any]:
        convert = inner.decode
        assert convert is not None  # noqa: S101 - only used then
        return [None if item is None else decode(item) if isinstance(item, list) else convert(item) for item in value]

    # The element's name, since an array of a domain is a type that asyncpg would have to ask about.
    read_cast = "::text[]" if inner.read_cast else f"::{element.name}[]"
    return Transport("text[]", f"::{type_.name}", read_cast, None, encode, decode if inner.decode else None)


def _enum(
    member: type[enum.Enum] | None, labels: tuple[str, ...], *, to_member: bool
) -> tuple[Convert, Convert | None]:
    if member is None or {item.value for item in member} <= set(labels) or not labels:
        return _text, (member if to_member and member else None)
    by_name = {item.name: item if to_member else item.value for item in member}

    def encode(value: Any) -> str:
        if not isinstance(value, member):
            raise TypeError(f"{member.__name__} is expected, not {type(value).__name__}")
        return value.name

    return encode, lambda label: by_name.get(label, label)


def _wrong(value: Any, expected: str) -> TypeError:
    return TypeError(f"{expected} is expected, not {type(value).__name__}")


def _unwrapped(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _text(value: Any) -> str:
    value = _unwrapped(value)
    if not isinstance(value, str):
        raise _wrong(value, "str")
    return str(value)


def _integer(value: Any) -> int:
    value = _unwrapped(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, "int")
    return int(value)


def _numeric(value: Any) -> Decimal:
    value = _unwrapped(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _wrong(value, "Decimal")
    # repr: 0.1 is 0.1, not 0.1000000000000000055.
    return Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)


def _float(value: Any) -> float:
    value = _unwrapped(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, "float")
    return float(value)


def _timestamptz(value: Any) -> dt.datetime:
    value = _unwrapped(value)
    if not isinstance(value, dt.datetime):
        raise _wrong(value, "datetime")
    if value.utcoffset() is None:
        raise ValueError(f"{value!r} has no time zone, and the column has: give it one, such as tzinfo=UTC")
    return value


def _timestamp(value: Any) -> dt.datetime:
    value = _unwrapped(value)
    if not isinstance(value, dt.datetime):
        raise _wrong(value, "datetime")
    if value.tzinfo is not None:
        raise ValueError(f"{value!r} has a time zone, and the column has none: use timestamptz, or take it off")
    return value


def _date(value: Any) -> dt.date:
    value = _unwrapped(value)
    if isinstance(value, dt.datetime) or not isinstance(value, dt.date):
        raise _wrong(value, "date")
    return value


def _instance(kind: type) -> Convert:
    def check(value: Any) -> Any:
        value = _unwrapped(value)
        if not isinstance(value, kind):
            raise _wrong(value, kind.__name__)
        return value

    return check


def _bytes(value: Any) -> bytes:
    value = _unwrapped(value)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _wrong(value, "bytes")
    return bytes(value)


def _json(value: Any) -> str:
    # NaN is refused: JSON has none, and null would be another value.
    return json.dumps(msgspec.to_builtins(value, str_keys=True), allow_nan=False, ensure_ascii=False)


def _with_zone(value: dt.datetime) -> dt.datetime:
    # asyncpg reads infinity as a datetime without one.
    return value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)


def _whole(value: Decimal) -> Any:
    return int(value) if value.is_finite() and value == value.to_integral_value() else value


def _interval_text(value: dt.timedelta) -> str:
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"


_SCALARS: dict[Family, tuple[type | None, Convert]] = {
    Family.INTEGER: (int, _integer),
    Family.TEXT: (str, _text),
    Family.NUMERIC: (Decimal, _numeric),
    Family.FLOAT: (float, _float),
    Family.TIMESTAMPTZ: (None, _timestamptz),
    Family.TIMESTAMP: (None, _timestamp),
    Family.DATE: (dt.date, _date),
    Family.TIME: (dt.time, _instance(dt.time)),
    Family.INTERVAL: (dt.timedelta, _instance(dt.timedelta)),
    Family.UUID: (uuid.UUID, _instance(uuid.UUID)),
    Family.BOOLEAN: (bool, _instance(bool)),
    Family.BYTES: (bytes, _bytes),
}

_TEXTS: dict[Family, Callable[[Any], str]] = {
    Family.FLOAT: repr,
    Family.TIMESTAMPTZ: dt.datetime.isoformat,
    Family.TIMESTAMP: dt.datetime.isoformat,
    Family.DATE: dt.date.isoformat,
    Family.TIME: dt.time.isoformat,
    Family.INTERVAL: _interval_text,
    Family.BOOLEAN: lambda value: "t" if value else "f",
    Family.BYTES: lambda value: "\\x" + value.hex(),
}
"""How an array's element is written as text; `str` does for the others."""
