"""The key of a table's rows: which values fit it, and what is sent for them."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from asynccache.errors import InvalidKey
from asynccache.postgres.catalog import Column, Family, Table
from asynccache.postgres.transport import Transport, transport_for

__all__ = ["KEY_FAMILIES", "Parts", "RowKey", "check_arity"]

Parts: TypeAlias = tuple[Any, ...]
"""A key as the database has it: a value for each key column."""

_KINDS: dict[Family, tuple[type, ...]] = {
    Family.INTEGER: (int,),
    Family.NUMERIC: (int,),
    Family.TEXT: (str,),
    Family.ENUM: (str,),
    Family.UUID: (uuid.UUID,),
    Family.BOOLEAN: (bool,),
    Family.BYTES: (bytes,),
    Family.DATE: (dt.date,),
    Family.TIMESTAMP: (dt.datetime,),
    Family.TIMESTAMPTZ: (dt.datetime,),
}
KEY_FAMILIES = frozenset(_KINDS)
"""Types of which equal values look equal, to Python and to the database."""

_BITS = {"int2": 15, "int4": 31, "int8": 63}


class RowKey:
    """The key columns of one table."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.table = table
        self.columns = [table.columns[name] for name in columns]
        self.transports: list[Transport] = [transport_for(column.type) for column in self.columns]
        self._checks = [_check_for(table, column) for column in self.columns]
        self._plain = [_plain_for(column) for column in self.columns]
        self._range = _range_of(self.columns[0]) if len(self.columns) == 1 else None
        self._padded = {index for index, column in enumerate(self.columns) if column.type.base == "bpchar"}

    def check(self, key: Any) -> None:
        """Raises what `parts` would; a plain int that fits is seen at a glance."""
        limits = self._range
        if limits is None or type(key) is not int or not limits[0] <= key < limits[1]:
            self.parts(key)

    def parts(self, key: Any) -> Parts:
        """What is sent for a key.

        Raises:
            InvalidKey: its arity, a part's type, or a part's range does not fit.
        """
        check_arity(self.table.name, [column.name for column in self.columns], key)
        if len(self._checks) == 1:
            return (self._checks[0](key),)
        return tuple([check(part) for check, part in zip(self._checks, key, strict=True)])

    def columns_of(self, keys: Sequence[Any]) -> list[Sequence[Any]] | None:
        """What is sent for many keys, by column; None if `parts` must look at them one by one."""
        if len(self._plain) == 1:
            columns = [keys]
        elif {*map(type, keys)} == {tuple} and {*map(len, keys)} == {len(self._plain)}:
            columns = [*zip(*keys, strict=True)]
        else:
            return None
        return columns if all(plain(column) for plain, column in zip(self._plain, columns, strict=True)) else None

    def returned(self, parts: Parts) -> Parts:
        """The parts as they were sent, of what the database returned."""
        if not self._padded:
            return parts
        return tuple([part.rstrip(" ") if index in self._padded else part for index, part in enumerate(parts)])


def check_arity(table: str, columns: Sequence[str], key: Any) -> None:
    """Raises InvalidKey unless `key` has a part for each column: a tuple if there are several."""
    if len(columns) == 1:
        if isinstance(key, tuple):
            raise InvalidKey(f"{table} has the key {columns[0]!r}: got the tuple {key!r}, not a single value")
    elif not isinstance(key, tuple) or len(key) != len(columns):
        raise InvalidKey(
            f"{table} has the key ({', '.join(columns)}): got {type(key).__name__} {key!r}, not a tuple of"
            f" {len(columns)}"
        )


def _range_of(column: Column) -> tuple[int, int] | None:
    """The first int that a column of integers holds, and the first that it does not."""
    base = column.type.base
    return (-(1 << _BITS[base]), 1 << _BITS[base]) if base in _BITS else None


def _check_for(table: Table, column: Column) -> Callable[[Any], Any]:
    family, base = column.type.family, column.type.base
    kinds = _KINDS[family]
    most = 1 << _BITS[base] if base in _BITS else 0
    labels = frozenset(column.type.labels)

    def refuse(value: Any, why: str = "") -> InvalidKey:
        got = f"{table.name}.{column.name} is {column.type.shown}; got {type(value).__name__} {value!r:.100}"
        return InvalidKey(got + (f", {why}" if why else ""))

    def check(value: Any) -> Any:
        plain: Any = value
        if isinstance(value, enum.Enum):
            plain = value.name if family is Family.ENUM and value.value not in labels else value.value
        if not _is_one_of(plain, kinds) or (isinstance(plain, bool) and family is not Family.BOOLEAN):
            raise refuse(value)
        if most and not -most <= plain < most:
            raise refuse(value, "which is out of its range")
        if family is Family.TEXT:
            _check_text(plain, refuse, padded=base == "bpchar")
        elif family is Family.ENUM and plain not in labels:
            raise refuse(value, f"which is none of {', '.join(column.type.labels)}")
        elif family is Family.DATE and isinstance(plain, dt.datetime):
            raise refuse(value)
        elif family is Family.TIMESTAMPTZ and plain.utcoffset() is None:
            raise refuse(value, "which has no time zone")
        elif family is Family.TIMESTAMP and plain.tzinfo is not None:
            raise refuse(value, "which has a time zone")
        return plain

    return check


def _plain_for(column: Column) -> Callable[[Sequence[Any]], bool]:
    """Tells of many values at once that each may be sent as it is, as the column's check would say of each."""
    family, base = column.type.family, column.type.base
    most = 1 << _BITS[base] if base in _BITS else 0

    def plain(values: Sequence[Any]) -> bool:
        kinds = {*map(type, values)}
        if kinds == {int}:
            return family is Family.INTEGER and -most <= min(values) and max(values) < most
        if kinds == {str} and family is Family.TEXT and base != "bpchar":
            text = "".join(values)
            return text.isascii() and "\0" not in text
        return kinds == {uuid.UUID} and family is Family.UUID

    return plain


def _is_one_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds)


def _check_text(text: str, refuse: Callable[..., InvalidKey], *, padded: bool) -> None:
    if "\0" in text:
        raise refuse(text, "and no text in PostgreSQL holds a NUL character")
    if padded and text.endswith(" "):
        raise refuse(text, "and spaces at its end do not count: leave them out")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise refuse(text, f"which is not valid Unicode: {error.reason}") from None
