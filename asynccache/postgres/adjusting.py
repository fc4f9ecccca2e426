"""Changes of numbers in rows that may or may not exist.

Rows are never inserted to find out whether they exist: that would take a value of each sequence behind a default, and
let them run out. So: lock the rows there are, in the order of keys; change them; insert the others. What somebody else
inserts in between is found by the next round.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

from asynccache.adjustments import Adjustment, Number
from asynccache.errors import WriteRejected
from asynccache.postgres.binding import Binding, BoundField
from asynccache.postgres.catalog import Family
from asynccache.postgres.names import did_you_mean
from asynccache.postgres.row_keys import Parts
from asynccache.postgres.rows import RowMaker, key_arrays
from asynccache.postgres.statements import Statements
from asynccache.protocols import Adjust

__all__ = ["Adjuster", "Adjusting", "adjustable_fields"]

V = TypeVar("V")

_ADJUSTABLE = frozenset({Family.INTEGER, Family.NUMERIC, Family.FLOAT})
"""Types of columns that can be adjusted; all but floats are exact."""

_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Adjusting(Generic[V]):
    """One row to adjust.

    Attributes:
        key: as the caller gave it.
        parts: the same as it is sent.
        fields: the columns, in the order of their names.
        numbers: four for each column: what NULL counts as, what is added, floor and ceiling.
        row: what to insert if there is none.
    """

    key: Any
    parts: Parts
    fields: tuple[BoundField, ...]
    numbers: list[Any]
    row: V


class Adjuster(Generic[V]):
    """Adjusts rows of one bound table."""

    def __init__(self, binding: Binding[V], statements: Statements, rows: RowMaker[V]) -> None:
        self._table = binding.table
        self._statements = statements
        self._rows = rows
        self._columns = {bound.field: bound for bound in binding.written}
        self._returned = binding.key.returned

    def prepare(self, adjusts: Sequence[tuple[Parts, Adjust[V]]]) -> list[Adjusting[V]]:
        """Checks adjustments, and sorts them by key.

        Raises:
            WriteRejected: a column cannot be adjusted, or not by this number.
        """
        made = [self._adjusting(parts, adjust) for parts, adjust in adjusts]
        made.sort(key=_parts_of)
        return made

    async def apply(self, connection: Any, rows: list[Adjusting[V]]) -> None:
        """Adjusts rows, and inserts those that are missing.

        Args:
            connection: in a transaction.
            rows: in the order of their keys.

        Raises:
            WriteRejected: a row can neither be inserted nor found.
        """
        for _ in range(_ROUNDS):
            records = await connection.fetch(self._statements.present, *_key_arrays(rows))
            present = {record[0] - 1 for record in records}
            await self._change(connection, [row for at, row in enumerate(rows) if at in present])
            rows = await self._insert(connection, [row for at, row in enumerate(rows) if at not in present])
            if not rows:
                return
        raise WriteRejected(
            f"{self._table.name} {rows[0].key!r}: the row is not there and cannot be inserted: a trigger suppresses it,"
            " or somebody inserts and deletes it all the time"
        )

    async def _change(self, connection: Any, rows: list[Adjusting[V]]) -> None:
        # The rows are locked, so their order counts no more.
        rows.sort(key=_columns_of)
        for _, group in itertools.groupby(rows, key=_columns_of):
            same = list(group)
            if same[0].fields:
                numbers = zip(*(row.numbers for row in same), strict=True)
                statement = self._statements.adjust(same[0].fields)
                await connection.execute(statement, *_key_arrays(same), *(list(column) for column in numbers))

    async def _insert(self, connection: Any, rows: list[Adjusting[V]]) -> list[Adjusting[V]]:
        """Inserts rows; returns those that are there by now."""
        inserted: set[Parts] = set()
        for run in self._rows.runs((row.key, row.parts, row.row) for row in rows):
            statement = self._statements.insert_missing(run.fields)
            records = await connection.fetch(statement, *run.keys, *run.arrays)
            inserted.update(self._returned(tuple(record.values())) for record in records)
        return [row for row in rows if row.parts not in inserted]

    def _adjusting(self, parts: Parts, adjust: Adjust[V]) -> Adjusting[V]:
        fields: list[BoundField] = []
        numbers: list[Any] = []
        for name in sorted(adjust.columns):
            bound = self._columns.get(name)
            if bound is None or bound.column.type.family not in _ADJUSTABLE:
                raise WriteRejected(
                    f"{self._table.name} {adjust.key!r}: {name!r} is no column that can be adjusted: it must hold"
                    f" numbers, and be neither computed nor part of the key{did_you_mean(name, self._columns)}"
                )
            fields.append(bound)
            numbers.extend(self._numbers(bound, adjust.key, adjust.columns[name], adjust.defaults.get(name, 0)))
        return Adjusting(adjust.key, parts, tuple(fields), numbers, adjust.row)

    def _numbers(self, bound: BoundField, key: Any, adjustment: Adjustment, default: Number) -> list[Any]:
        family = bound.column.type.family
        sent: list[Any] = []
        for number in (default, adjustment.add, adjustment.floor, adjustment.ceiling):
            try:
                sent.append(None if number is None else _sent(number, family))
            except (OverflowError, ValueError) as error:
                raise WriteRejected(
                    f"{self._table.name} {key!r}: {bound.column.name} ({bound.column.type.shown}) cannot be adjusted by"
                    f" {number!r:.100}: {error}"
                ) from None
        return sent


def adjustable_fields(binding: Binding[Any]) -> dict[str, str]:
    """The fields that can be adjusted: `exact` or `float`."""
    return {
        bound.field: "float" if bound.column.type.family is Family.FLOAT else "exact"
        for bound in binding.written
        if bound.column.type.family in _ADJUSTABLE
    }


def _sent(number: Number, family: Family) -> Any:
    if family is Family.FLOAT:
        return float(number)
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    if family is Family.INTEGER and exact != exact.to_integral_value():
        # The database would round each sum, so that the result would depend on what was combined.
        raise ValueError("it is not whole")
    return exact


def _key_arrays(rows: list[Adjusting[V]]) -> list[list[Any]]:
    return key_arrays([row.parts for row in rows])


def _parts_of(row: Adjusting[Any]) -> Parts:
    return row.parts


def _columns_of(row: Adjusting[Any]) -> tuple[str, ...]:
    return tuple([bound.column.name for bound in row.fields])
