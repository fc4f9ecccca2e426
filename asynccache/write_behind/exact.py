"""Exact reads: database + the frozen batch, if the database does not have it yet, + what pends.

Invariant: an answer is what the row was at some moment between the call and its return, with every write that was
acknowledged before the call.

    look    the key's records in the buffer, the batch's id, and how many batches were acknowledged
    load    only if a record needs what is below it: the row, and whether the database has the batch's id, at one moment
    look    again: if the batch's id and the number of acknowledgements are the same, the row belongs to these records:
            the answer is pending(row) if the database has the batch, else pending(frozen(row)); if not, from the start

The id alone is not enough: a batch may have been frozen, applied and acknowledged between the two looks, with none in
flight at either. A key without any record needs no second look, since a batch is acknowledged only after the database
has it: what was in neither then is in the row. Nothing is written here, so a crash leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar
from uuid import UUID

from asynccache.errors import StoreUnavailable
from asynccache.protocols import KeyValue
from asynccache.supervision import backoff
from asynccache.write_behind.buffer import Buffered
from asynccache.write_behind.records import Records

__all__ = ["ExactReads", "LoadExact"]

V = TypeVar("V")

LoadExact: TypeAlias = Callable[[Sequence[Any], Sequence[UUID]], Awaitable[tuple[Mapping[Any, V], frozenset[UUID]]]]
"""Rows by key, and which of the batches they contain, as they were at one moment."""

_TRIES: Final = 30
"""A batch is in flight for milliseconds, and a read takes one: so many in a row mean that something is wrong."""


class Lookup(Protocol):
    """Where writes wait, as a reader sees it."""

    async def lookup(self, keys: Sequence[KeyValue]) -> dict[Any, Buffered]:
        """What is buffered of each key."""
        ...


class ExactReads(Generic[V]):
    """Reads rows as they will be when everything has been flushed.

    Args:
        buffer: where writes wait.
        records: reads them.
        load: reads the database; None without one, for strategies that only write.
    """

    def __init__(self, buffer: Lookup, records: Records[V], load: LoadExact[V] | None) -> None:
        self._buffer = buffer
        self._records = records
        self._load = load

    async def read(self, keys: Sequence[Any]) -> dict[Any, V | None]:
        """What each key is; None if it does not exist.

        Raises:
            StoreUnavailable: Redis does not say, or says otherwise each time.
            DatabaseUnavailable: the database does not.
            DecodeError: a record is a newer version's.
        """
        found: dict[Any, V | None] = {}
        seen = await self._buffer.lookup(list(keys))
        for attempt in range(1, _TRIES + 1):
            below = [key for key, buffered in seen.items() if not self._fold_alone(key, buffered, found)]
            if not below:
                return found
            if attempt > 1:
                await asyncio.sleep(backoff(attempt, 0.001, 0.05))
            ids = dict.fromkeys(seen[key].batch for key in below)
            rows, applied = await self._rows(below, [id_ for id_ in ids if id_ is not None])
            adjusted = [key for key in below if seen[key].pending is not None or seen[key].frozen is not None]
            for key in below:
                if seen[key].pending is None and seen[key].frozen is None:
                    found[key] = rows.get(key)
            latest = await self._buffer.lookup(adjusted) if adjusted else {}
            seen_before, seen = seen, {}
            for key, now in latest.items():
                before = seen_before[key]
                if (now.batch, now.acks) != (before.batch, before.acks):
                    seen[key] = now
                    continue
                row = rows.get(key)
                frozen = row if now.batch in applied else self._records.fold(row, now.frozen)
                found[key] = self._records.fold(frozen, now.pending)
        raise StoreUnavailable(f"batches were acknowledged during each of {_TRIES} reads of {list(seen)!r:.200}")

    def _fold_alone(self, key: Any, buffered: Buffered, found: dict[Any, V | None]) -> bool:
        """Answers from the records, if they need nothing below them."""
        needs, fold = self._records.needs_below, self._records.fold
        if not needs(buffered.pending):
            found[key] = fold(None, buffered.pending)
        elif not needs(buffered.frozen):
            found[key] = fold(fold(None, buffered.frozen), buffered.pending)
        else:
            return False
        return True

    async def _rows(self, keys: Sequence[Any], ids: Sequence[UUID]) -> tuple[Mapping[Any, V], frozenset[UUID]]:
        if self._load is None:
            return {}, frozenset()
        return await self._load(keys, ids)
