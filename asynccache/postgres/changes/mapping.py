"""From rows that have changed to cells and generations that are out of date.

What a row cannot tell, because a function of the user's fails on it or its columns were not recorded, outdates
everything that the table could: a change is never passed over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from asynccache.keys import CellKey
from asynccache.postgres.changes.tables import Keyed, Row, TableChanges
from asynccache.supervision import logger

__all__ = ["Follows", "Mapping", "Outdated"]


class Follows(Protocol):
    """The namespace that is told."""

    @property
    def path(self) -> str:
        """Its name, after those of the namespaces around it."""
        ...

    @property
    def where(self) -> str:
        """`tenant-7/` for a nested one, else empty."""
        ...

    @property
    def outdated_by(self) -> tuple[str, ...]:
        """Generations each of which outdates all of it; the first is its own."""
        ...

    def cell(self, key: Any) -> str:
        """The cell of a key of the plain cache."""
        ...

    def generation(self, tag: str) -> str:
        """The generation of a tag."""
        ...

    async def invalidate(self, cells: Sequence[str], generations: Sequence[str]) -> None:
        """Empties cells and outdates what carries the generations; raises StoreUnavailable unless it is certain."""
        ...


@dataclass(slots=True)
class Outdated:
    """What is to be told: cells and generations, each once, in order."""

    cells: dict[str, None] = field(default_factory=dict)
    generations: dict[str, None] = field(default_factory=dict)

    def batches(self, size: int) -> Iterator[tuple[list[str], list[str]]]:
        """Cells and generations, so many at a time; generations first, since they are few and reach the most."""
        generations, cells = list(self.generations), list(self.cells)
        for at in range(0, len(generations), size):
            yield [], generations[at : at + size]
        for at in range(0, len(cells), size):
            yield cells[at : at + size], []


class Mapping:
    """One table's rows, as one namespace keeps them.

    Attributes:
        table: what the user declared.
        whole: generations that outdate all that a change of any row could.
        failures: how many rows could not be mapped.
    """

    def __init__(self, table: TableChanges, follower: Follows) -> None:
        self.table = table
        self._follower = follower
        self._tags = tuple(follower.generation(tag) for tag in table.fixed)
        self.whole = self._whole()
        self.failures = 0

    def _whole(self) -> tuple[str, ...]:
        table, follower = self.table, self._follower
        if table.whole is not None:
            return tuple(dict.fromkeys((*self._tags, *(follower.generation(tag) for tag in table.whole))))
        found = dict.fromkeys(self._tags)
        for entry in table.entries:
            if not isinstance(entry, Keyed):
                found[follower.outdated_by[0]] = None  # what it names is not known without a row
            elif not set(entry.outdated_by) & set(self._tags):
                found[entry.outdated_by[0]] = None
        if table.varies:
            found[follower.outdated_by[0]] = None
        return tuple(found)

    def add_whole(self, outdated: Outdated) -> None:
        """Adds all that any row could outdate."""
        outdated.generations.update(dict.fromkeys(self.whole))

    async def add(self, row: Row, outdated: Outdated) -> bool:
        """Adds what this row outdates, or everything if that cannot be told; returns whether it could."""
        try:
            cells = [cell for entry in self.table.entries for cell in await self._cells(entry, row)]
            tags = self.table.row_tags(row) if self.table.varies else ()
            generations = [*self._tags, *map(self._follower.generation, tags)]
        except Exception:  # noqa: BLE001 - of the user's functions; none may make a change go unheard
            self.failures += 1
            if self.failures == 1:
                logger.exception(
                    "%r cannot map a row, and outdates all that it could: %r (said once)", self.table, dict(row)
                )
            self.add_whole(outdated)
            return False
        outdated.cells.update(dict.fromkeys(cells))
        outdated.generations.update(dict.fromkeys(generations))
        return True

    async def _cells(self, entry: Keyed | Callable[[Row], Any], row: Row) -> Iterable[str]:
        if isinstance(entry, Keyed):
            key = self.table.row_key(row)
            # A function takes the parts of a key as its arguments.
            return (await (entry.key_now(*key) if callable(entry) and isinstance(key, tuple) else entry.key_now(key)),)
        found = entry(row)
        if inspect.isawaitable(found):
            found = await found
        if found is None:
            return ()
        if isinstance(found, str | bytes | tuple) or not isinstance(found, Iterable):
            return (self._cell(found),)
        return [self._cell(one) for one in found]

    def _cell(self, key: Any) -> str:
        return key if isinstance(key, CellKey) else self._follower.cell(key)

    def __repr__(self) -> str:
        return f"Mapping({self.table!r}, {self._follower.path!r})"
