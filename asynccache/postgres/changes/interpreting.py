"""From recorded changes to what they outdate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Mapping as Mappings
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from asynccache.errors import InvalidKey, SchemaMismatch
from asynccache.postgres.catalog import Table
from asynccache.postgres.changes.decoding import Decoder
from asynccache.postgres.changes.mapping import Follows, Mapping, Outdated
from asynccache.postgres.changes.outbox import Change
from asynccache.postgres.changes.tables import TableChanges
from asynccache.supervision import logger

__all__ = ["ChangesStats", "Interpreter", "Read"]


@dataclass(slots=True)
class ChangesStats:
    """What listeners have counted in this process.

    Attributes:
        changes: recorded changes handled; one holds up to 500 keys of a statement.
        rows: rows in them, before and after their change; equal ones of a statement count once.
        entries: entries emptied, as far as different in a page.
        tags: tags and namespaces outdated, likewise.
        whole_tables: changes that outdated all that their table could.
        unmapped: rows that did so because a function of yours failed on them.
        cleared: how often everything was outdated because the position was lost, or new.
        pruned: recorded changes deleted.
    """

    changes: int = 0
    rows: int = 0
    entries: int = 0
    tags: int = 0
    whole_tables: int = 0
    unmapped: int = 0
    cleared: int = 0
    pruned: int = 0


Read: TypeAlias = Callable[[Decoder, tuple[str, ...], list[list[str | None]]], Awaitable[list[dict[str, Any]]]]
"""Decodes rows of these columns."""

_ROWS_A_BEAT: Final = 200


class Interpreter:
    """The mappings of one listener.

    Args:
        tables: what the user declared.
        schema: of tables that do not say their own.
        follower: the namespace.
        counts: counts.
    """

    def __init__(self, tables: Sequence[TableChanges], schema: str, follower: Follows, counts: ChangesStats) -> None:
        self._mappings: dict[str, list[Mapping]] = {}
        for table in tables:
            self._mappings.setdefault(table.relation(schema), []).append(Mapping(table, follower))
        self._decoders: dict[str, Decoder] = {}
        self._unreadable: set[str] = set()
        self._counts = counts

    @property
    def relations(self) -> list[str]:
        """The tables, as SQL."""
        return list(self._mappings)

    def describe(self, tables: Mappings[str, Table]) -> None:
        """Reads rows by these descriptions from now on; changes of a table that has none, or not the columns, count as
        changes of all of it."""
        self._decoders.clear()
        self._unreadable.clear()
        for relation, mappings in self._mappings.items():
            wanted = list(dict.fromkeys(name for mapping in mappings for name in mapping.table.columns))
            if relation in tables and all(name in tables[relation].columns for name in wanted):
                self._decoders[relation] = Decoder(tables[relation], wanted)

    def everything(self) -> Outdated:
        """All that any change of the tables could outdate."""
        outdated = Outdated()
        for mappings in self._mappings.values():
            for mapping in mappings:
                mapping.add_whole(outdated)
        return outdated

    async def outdated(self, changes: Sequence[Change], read: Read, beat: Callable[[], Awaitable[None]]) -> Outdated:
        """What these changes outdate.

        Args:
            changes: as they were recorded.
            read: decodes rows.
            beat: is awaited every now and then.
        """
        outdated = Outdated()
        self._counts.changes += len(changes)
        groups: dict[tuple[str, tuple[str, ...]], list[list[str | None]]] = {}
        for change in changes:
            if change.rows is None:
                self._whole(change.relation, outdated)
            else:
                groups.setdefault((change.relation, change.columns), []).extend(change.rows)
        for (relation, columns), recorded in groups.items():
            self._counts.rows += len(recorded)
            rows = await self._rows(read, relation, columns, recorded)
            if rows is None:
                self._whole(relation, outdated)
                continue
            for at, row in enumerate(rows):
                if at % _ROWS_A_BEAT == 0:
                    await beat()
                    await asyncio.sleep(0)  # others have the loop, too
                for mapping in self._mappings[relation]:
                    if not await mapping.add(row, outdated):
                        self._counts.unmapped += 1
        return outdated

    def _whole(self, relation: str, outdated: Outdated) -> None:
        self._counts.whole_tables += 1
        for mapping in self._mappings[relation]:
            mapping.add_whole(outdated)

    async def _rows(
        self, read: Read, relation: str, recorded: tuple[str, ...], rows: list[list[str | None]]
    ) -> list[dict[str, Any]] | None:
        """The rows with Python values; None if they cannot be read as the table is known."""
        decoder = self._decoders.get(relation)
        if decoder is None:
            return None
        try:
            return await read(decoder, recorded, rows)
        except (KeyError, ValueError, OverflowError, InvalidKey, SchemaMismatch) as error:
            # Recorded before a column was added to them, or its type changed.
            if relation not in self._unreadable:
                self._unreadable.add(relation)
                logger.warning(
                    "changes of %s that cannot be read count as changes of all of it (said once): %s: %s",
                    relation,
                    type(error).__name__,
                    error,
                )
            return None

    def __repr__(self) -> str:
        return f"Interpreter({', '.join(self._mappings)})"
