"""The SQL of one table. Every name in it comes from the catalog and is quoted; every value is a parameter."""

# ruff: noqa: S608 - names are quoted, and parameters carry all else

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from asynccache.postgres.binding import Binding, BoundField
from asynccache.postgres.catalog import Family
from asynccache.postgres.names import quoted
from asynccache.postgres.transport import Transport

__all__ = ["Statements"]


# The first half of the advisory locks' numbers, so that they are nobody else's.
_TURNS = 279_622_225


class Statements:
    """The statements that read and write one bound table.

    Each takes one array for each key column, in the key's order; an upsert takes one more for each column it writes.
    What inserts rows that have been staged takes none.
    Rows come back as the fields of the binding, then the key columns.

    Attributes:
        load: the rows of some keys, in no order.
        present: locks rows as an UPDATE of other columns does, in the order of the arrays; returns the positions, from
            1, of keys that have a row.
        delete: removes rows; they are locked in the order of the arrays first, since a bare DELETE has no order.
        lock: locks rows in the order of the arrays.
        take_turns: no parameters; waits for other transactions that do this for the same table.
    """

    def __init__(self, binding: Binding[Any]) -> None:
        self._binding = binding
        self._made: dict[tuple[Any, ...], str] = {}
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
        if len(transports) == 1:
            # A join with the array may be planned as a scan of the table; this is a lookup in the index.
            array = f"$1::{transports[0].parameter}{transports[0].cast and transports[0].cast + '[]'}"
            self._found = f"FROM {binding.table.sql} AS t WHERE {columns[0]} = ANY({array})"
        else:
            self._found = found
        self._columns = [*self._fields, *self._returned_keys]
        self.load = f"SELECT {', '.join(self._columns)} {self._found}"
        listed = ", ".join(f"{column} AS {key}" for column, key in zip(columns, keys, strict=True))
        same = " AND ".join(f"{column} = g.{key}" for column, key in zip(columns, keys, strict=True))
        locked = f"{found} ORDER BY d.n FOR UPDATE OF t"
        self.delete = (
            f"WITH gone AS MATERIALIZED (SELECT {listed} {locked}) DELETE FROM {binding.table.sql} AS t"
            f" USING gone AS g WHERE {same}"
        )
        self.take_turns = f"SELECT pg_catalog.pg_advisory_xact_lock({_TURNS}, {_number(binding.table.sql)})"
        self.lock = f"SELECT count(*) FROM (SELECT 1 {locked}) AS locked"
        self.present = f"SELECT d.n {found} ORDER BY d.n FOR NO KEY UPDATE OF t"
        self._matches = matches

    def load_exact(self, batches: str) -> str:
        """Rows of some keys and, in a last column that each of them repeats, which batch ids of an array there are.

        One statement sees one moment. Without any rows, one comes back whose other columns are NULL.

        Args:
            batches: the table of batch ids, quoted.
        """
        named = ", ".join(f"{column} AS c{position}" for position, column in enumerate(self._columns, 1))
        last = len(self._key_names) + 1
        return (
            f"SELECT x.*, b.ids FROM (SELECT ARRAY(SELECT id FROM {batches} WHERE id = ANY(${last}::uuid[])) AS ids)"
            f" AS b LEFT JOIN (SELECT {named} {self._found}) AS x ON true"
        )

    def upsert(self, fields: Sequence[BoundField], *, returning: bool, staged: str = "") -> str:
        """Inserts rows, or updates these columns of those that exist.

        Args:
            fields: what is written, beside the key.
            returning: return the rows as stored. Where `fields` is empty, rows that
                exist are left alone and not returned.
            staged: the table that has the rows; empty if they come as arrays.
        """
        update = ", ".join(f"{quoted(b.column.name)} = EXCLUDED.{quoted(b.column.name)}" for b in fields)
        returned = ", ".join(self._columns) if returning else ""
        return self._once(
            ("upsert", _names(fields), returning, staged),
            lambda: self._insert(fields, f"DO UPDATE SET {update}" if update else "DO NOTHING", returned, staged),
        )

    def insert_missing(self, fields: Sequence[BoundField]) -> str:
        """Inserts rows where there are none, and returns the key columns of those it inserted."""
        return self._once(
            ("missing", _names(fields)), lambda: self._insert(fields, "DO NOTHING", ", ".join(self._returned_keys))
        )

    def append(self, fields: Sequence[BoundField], *, staged: str = "") -> str:
        """Inserts rows of these columns, the key's among them if it is given; one array for each column, or `staged`,
        the table that has the rows."""
        return self._once(("append", _names(fields), staged), lambda: self._append(fields, staged))

    def adjust(self, fields: Sequence[BoundField]) -> str:
        """Changes numbers; for each column four arrays follow the keys: what NULL counts as, add, floor and ceiling.

        Whole and decimal numbers are computed as numeric, so that only what comes out must fit the column.
        """
        return self._once(("adjust", _names(fields)), lambda: self._adjust(fields))

    def _once(self, name: tuple[Any, ...], make: Callable[[], str]) -> str:
        if (known := self._made.get(name)) is not None:
            return known
        if len(self._made) >= 256:  # a dict may have any shape
            self._made.clear()
        return self._made.setdefault(name, make())

    def _insert(self, fields: Sequence[BoundField], conflict: str, returned: str, staged: str = "") -> str:
        binding = self._binding
        always = any(column.identity == "always" for column in binding.key.columns)
        names = [*self._key_names, *_names(fields)]
        transports = [*binding.key.transports, *(bound.transport for bound in fields)]
        return (
            f"{_insert_rows(binding.table.sql, names, transports, overriding=always, staged=staged)}"
            f" ON CONFLICT ({', '.join(quoted(name) for name in self._key_names)}) {conflict}"
            f"{f' RETURNING {returned}' if returned else ''}"
        )

    def _append(self, fields: Sequence[BoundField], staged: str) -> str:
        if not fields:
            return f"INSERT INTO {self._binding.table.sql} DEFAULT VALUES"
        always = any(bound.column.identity == "always" for bound in fields)
        transports = [bound.transport for bound in fields]
        return _insert_rows(self._binding.table.sql, _names(fields), transports, overriding=always, staged=staged)

    def _adjust(self, fields: Sequence[BoundField]) -> str:
        keys = [(f"k{n}", item.parameter) for n, item in enumerate(self._binding.key.transports, 1)]
        arrays = list(keys)
        changes = []
        for n, bound in enumerate(fields, 1):
            number = "float8" if bound.column.type.family is Family.FLOAT else "numeric"
            arrays += [(f"{part}{n}", f"{number}[]") for part in ("z", "a", "f", "c")]
            name = quoted(bound.column.name)
            # GREATEST and LEAST leave NULLs out: a bound that is not set.
            changes.append(
                f"{name} = LEAST(GREATEST(COALESCE(t.{name}::{number}, d.z{n}) + d.a{n}, d.f{n}), d.c{n})"
                f"::{bound.column.type.name}"
            )
        source = ", ".join(f"${position}::{type_}" for position, (_, type_) in enumerate(arrays, 1))
        aliases = ", ".join(alias for alias, _ in arrays)
        return (
            f"UPDATE {self._binding.table.sql} AS t SET {', '.join(changes)}"
            f" FROM unnest({source}) AS d({aliases}) WHERE {self._matches}"
        )


def _insert_rows(
    table: str, names: Sequence[str], transports: Sequence[Transport], *, overriding: bool, staged: str
) -> str:
    aliases = [f"c{position}" for position in range(1, len(transports) + 1)]
    values = ", ".join(f"d.{alias}{item.cast}" for alias, item in zip(aliases, transports, strict=True))
    if staged:
        # Rows are reached in the order in which everybody reaches them. A scan alone does not keep the order in which
        # they were copied: a short row may go where a page that was left had room.
        source = f"{staged} AS d ORDER BY d.n"
    else:
        arrays = ", ".join(f"${position}::{item.parameter}" for position, item in enumerate(transports, 1))
        source = f"unnest({arrays}) AS d({', '.join(aliases)})"
    return (
        f"INSERT INTO {table} AS t ({', '.join(quoted(name) for name in names)})"
        f"{' OVERRIDING SYSTEM VALUE' if overriding else ''} SELECT {values} FROM {source}"
    )


def _names(fields: Sequence[BoundField]) -> tuple[str, ...]:
    return tuple([bound.column.name for bound in fields])


def _number(name: str) -> int:
    """A signed number of 32 bits, the same in every process."""
    return zlib.crc32(name.encode()) - 2**31
