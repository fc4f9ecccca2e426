"""Recorded rows, as the Python values that strategies use for keys.

Triggers record the text of each value. It comes back as asyncpg returns the column: text, whole numbers and UUIDs are
read here, every other type by the server, which casts the text to the column's type. (A whole `numeric` is an int, as
it is in the keys of a `PostgresTable`.)
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from asynccache.postgres.catalog import Column, Family, Table
from asynccache.postgres.transport import transport_for

__all__ = ["Decoder"]

_HERE: Final[dict[Family, Callable[[str], Any]]] = {
    Family.INTEGER: int,
    Family.TEXT: str,
    Family.UUID: uuid.UUID,
}


class Decoder:
    """Reads some columns of one table's recorded rows.

    Args:
        table: as the catalog describes it now.
        names: the columns wanted.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._columns: list[Column] = [table.columns[name] for name in names]
        self._here = [_HERE.get(column.type.family) for column in self._columns]
        self._transports = [transport_for(column.type, int) for column in self._columns]
        casts = [
            f"(r.c{at}::{column.type.name}){transport.read_cast}"
            for at, (column, transport) in enumerate(zip(self._columns, self._transports, strict=True))
        ]
        places = range(len(casts))
        self._query = (
            f"SELECT {', '.join(f'{cast} AS c{at}' for at, cast in enumerate(casts))} FROM"  # noqa: S608 - names of the catalog
            f" ROWS FROM ({', '.join(f'unnest(${at + 1}::text[])' for at in places)}) WITH ORDINALITY"
            f" AS r({', '.join(f'c{at}' for at in places)}, at) ORDER BY r.at"
        )

    async def rows(
        self, connection: Any, recorded: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> list[dict[str, Any]]:
        """The wanted columns of recorded rows.

        Args:
            connection: of asyncpg.
            recorded: the names of the columns that were recorded, in order.
            rows: the texts.

        Raises:
            KeyError: a column was not recorded.
            ValueError, asyncpg.DataError: a text is no value of the column, whose type has been changed.
        """
        at = {name: index for index, name in enumerate(recorded)}
        places = [at[name] for name in self._names]
        if all(self._here):
            return [
                {
                    name: None if (text := row[place]) is None else convert(text)  # type: ignore[misc]  # all are there
                    for name, place, convert in zip(self._names, places, self._here, strict=True)
                }
                for row in rows
            ]
        found = await connection.fetch(self._query, *([row[place] for row in rows] for place in places))
        decoders = [transport.decode for transport in self._transports]
        return [
            {
                name: value if value is None or decode is None else decode(value)
                for name, value, decode in zip(self._names, record, decoders, strict=True)
            }
            for record in found
        ]

    def __repr__(self) -> str:
        return f"Decoder({', '.join(self._names)})"
