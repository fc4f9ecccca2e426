"""What the flush model writes: operations on one row, the records in which they wait, and what both do to the row.

How adjustments add up is the code's part: `Adjustment`. A row is (number, kept): one column that operations change, and one that the model of the strategy does not know, which a
put of an existing row keeps and a new row gets the default of.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, TypeAlias

from asynccache.protocols import Adjustment

__all__ = [
    "DEFAULT",
    "KEPT",
    "Operation",
    "Record",
    "Row",
    "add",
    "apply",
    "delete",
    "maximum",
    "merge",
    "minimum",
    "needs_database",
    "perform",
    "put",
    "write",
]

Row: TypeAlias = "tuple[int, int] | None"

DEFAULT = 0
KEPT = 9
"""What stands in the column that the strategy does not know, in a row that was there before."""


class Operation(NamedTuple):
    """What a caller asks for."""

    kind: str
    """put, delete or adjust."""
    value: int = 0
    by: Adjustment = Adjustment()

    def __str__(self) -> str:
        if self.kind != "adjust":
            return f"put {self.value}" if self.kind == "put" else self.kind
        if self.by.floor is not None:
            return f"maximum {self.by.floor}"
        return f"add {self.by.add}" if self.by.ceiling is None else f"minimum {self.by.ceiling}"


def put(value: int) -> Operation:
    return Operation("put", value)


def delete() -> Operation:
    return Operation("delete")


def add(amount: int) -> Operation:
    return Operation("adjust", by=Adjustment(amount))


def maximum(value: int) -> Operation:
    return Operation("adjust", by=Adjustment(floor=value))


def minimum(value: int) -> Operation:
    return Operation("adjust", by=Adjustment(ceiling=value))


class Record(NamedTuple):
    """The operations of one key that wait, merged. Its base: N nothing, P a put, R a put after a delete, D a delete."""

    base: str
    value: int = 0
    by: Adjustment | None = None


@cache
def perform(row: Row, operation: Operation) -> Row:
    """The row after one operation, as SQL would have it."""
    if operation.kind == "delete":
        return None
    number, kept = row or (DEFAULT, DEFAULT)
    return (operation.value if operation.kind == "put" else int(operation.by(number))), kept


@cache
def merge(record: Record | None, operation: Operation) -> Record:
    """The record after one more operation."""
    record = record or Record("N")
    if operation.kind == "put":
        return Record("R" if record.base in {"R", "D"} else "P", operation.value)
    if operation.kind == "delete":
        return Record("D")
    return record._replace(by=operation.by if record.by is None else record.by.then(operation.by))


@cache
def apply(row: Row, record: Record | None) -> Row:
    """The row after a record: what the sink does with it, and a reader in its head."""
    if record is None:
        return row
    if record.base in {"R", "D"}:
        row = None
    if record.base in {"P", "R"}:
        row = record.value, row[1] if row else DEFAULT
    return row if record.by is None else perform(row, Operation("adjust", by=record.by))


@cache
def write(row: Row, record: Record | None, most: int | None) -> tuple[Row, bool]:
    """The row after a record, and whether some of it was refused: adjustments alone if the rest can be written."""
    for part in (record, record and record._replace(by=None)):
        after = apply(row, part)
        if most is None or after is None or after[0] <= most:
            return after, part != record
        if record is None or record.base == "N":
            break
    return row, True


def needs_database(pending: Record | None, batch: Record | None) -> bool:
    """Whether what waits does not say by itself what the row's number is."""
    return all(record is None or record.base == "N" for record in (pending, batch))
