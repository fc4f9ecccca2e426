"""The SQL of one table. Every name in it comes from the catalog and is quoted; every value is a parameter."""

# ruff: noqa: S608 - names are quoted, and parameters carry all else

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from asynccache.postgres.binding import Binding, BoundField
from asynccache.postgres.names import quoted

__all__ = ["Statements"]


# The first half of the advisory locks' numbers, so that they are nobody else's.
_TURNS = 279_622_225


class Statements:
    """The statements that read and write one bound table.

    Each takes one array for each key column, in the key's order; an upsert takes one more for each column it writes.
    Rows come back as the fields of the binding, then the key columns.

    Attributes:
        load: the rows of some keys, in no order.
        delete: removes rows; they are locked in the order of the arrays first, since a bare DELETE has no order.
        lock: locks rows in the order of the arrays.
        take_turns: no parameters; waits for other transactions that do this for the same table.
    """

    def __init__(self, binding: Binding[Any]) -> None:
        self._binding = binding
        self._upserts: dict[tuple[tuple[str, ...], bool], str] = {}
        transports = binding.key.transports
        self._key_names = [column.name for column in binding.key.columns]
        keys = [f"k{position}" for position in range(1, len(transports) + 1)]
        arrays = ", ".join(f"${position}::{item.parameter}" for position, item in enumerate(transports, 1))
        source = f"unnest({arrays}) WITH ORDINALITY AS d({', '.join(keys)}, n)"
        # A domain over an enum has no `=` of its own; other casts are empty here.
        columns = [f"t.{quoted(name)}{item.cast}" for name, item in zip(self._key_names, transports, strict=True)]
        matches = " AND ".join(
            f"{column} = d.{key}{item.cast}" for column, key, item in zip(columns, keys, transports, strict=True)
        )
        found = f"FROM {source} JOIN {binding.table.sql} AS t ON {matches}"
        self._fields = [f"t.{quoted(bound.column.name)}{bound.transport.read_cast}" for bound in binding.read]
        self._returned_keys = [
            f"t.{quoted(name)}{item.read_cast}" for name, item in zip(self._key_names, transports, strict=True)
        ]
        returned = ", ".join([*self._fields, *self._returned_keys])
        if len(transports) == 1:
            # A join with the array may be planned as a scan of the table; this is a lookup in the index.
            array = f"$1::{transports[0].parameter}{transports[0].cast and transports[0].cast + '[]'}"
            self.load = f"SELECT {returned} FROM {binding.table.sql} AS t WHERE {columns[0]} = ANY({array})"
        else:
            self.load = f"SELECT {returned} {found}"
        listed = ", ".join(f"{column} AS {key}" for column, key in zip(columns, keys, strict=True))
        same = " AND ".join(f"{column} = g.{key}" for column, key in zip(columns, keys, strict=True))
        locked = f"{found} ORDER BY d.n FOR UPDATE OF t"
        self.delete = (
            f"WITH gone AS MATERIALIZED (SELECT {listed} {locked}) DELETE FROM {binding.table.sql} AS t"
            f" USING gone AS g WHERE {same}"
        )
        self.take_turns = f"SELECT pg_catalog.pg_advisory_xact_lock({_TURNS}, {_number(binding.table.sql)})"
        self.lock = f"SELECT count(*) FROM (SELECT 1 {locked}) AS locked"

    def upsert(self, fields: Sequence[BoundField], *, returning: bool) -> str:
        """Inserts rows, or updates these columns of those that exist.

        Args:
            fields: what is written, beside the key.
            returning: return the rows as stored. Where `fields` is empty, rows that
                exist are left alone and not returned.
        """
        shape = (tuple(bound.column.name for bound in fields), returning)
        if (known := self._upserts.get(shape)) is not None:
            return known
        if len(self._upserts) >= 256:  # a dict may have any shape
            self._upserts.clear()
        return self._upserts.setdefault(shape, self._upsert(fields, returning=returning))

    def _upsert(self, fields: Sequence[BoundField], *, returning: bool) -> str:
        binding = self._binding
        transports = [*binding.key.transports, *(bound.transport for bound in fields)]
        written = [bound.column.name for bound in fields]
        names = ", ".join(quoted(name) for name in [*self._key_names, *written])
        arrays = ", ".join(f"${position}::{item.parameter}" for position, item in enumerate(transports, 1))
        aliases = [f"c{position}" for position in range(1, len(transports) + 1)]
        values = ", ".join(f"d.{alias}{item.cast}" for alias, item in zip(aliases, transports, strict=True))
        always = any(column.identity == "always" for column in binding.key.columns)
        update = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in written)
        returned = ", ".join([*self._fields, *self._returned_keys])
        return (
            f"INSERT INTO {binding.table.sql} AS t ({names}){' OVERRIDING SYSTEM VALUE' if always else ''}"
            f" SELECT {values} FROM unnest({arrays}) AS d({', '.join(aliases)})"
            f" ON CONFLICT ({', '.join(quoted(name) for name in self._key_names)})"
            f" {f'DO UPDATE SET {update}' if update else 'DO NOTHING'}"
            f"{f' RETURNING {returned}' if returning else ''}"
        )


def _number(name: str) -> int:
    """A signed number of 32 bits, the same in every process."""
    return zlib.crc32(name.encode()) - 2**31
