"""Takes buffered writes into the database: each exactly once, whatever crashes.

Invariant: what was acknowledged = what the database has + the frozen batch, if the database does not know its id
+ what pends. Per partition:

    freeze   up to `max_batch` pending writes become the batch, under a new id; if one is frozen, take that
    apply    one transaction: insert the id; only if it is new, apply the writes
    ack      drop the batch, if it still has this id

What a crash leaves behind
    after freeze   the batch, frozen; the next flusher applies it
    in apply       the transaction rolled back, or committed with its id: the next flusher applies the batch, or finds
                   its id and does nothing
    after apply    the same
    after ack      nothing

Any number of flushers may work on a partition at once: the id makes the second transaction a no-op, and an ack of a
batch that is gone does nothing. "Unknown" is the outcome of every error here, and repeating is always right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from asynccache.errors import Unavailable
from asynccache.protocols import Batch, Sink
from asynccache.supervision import gather, logger
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.records import Records

__all__ = ["Flusher", "FlusherStats"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class FlusherStats:
    """What one process has flushed.

    Attributes:
        batches: batches that this process applied.
        again: batches that the database had already.
        writes: rows put or deleted.
    """

    batches: int = 0
    again: int = 0
    writes: int = 0


class Flusher(Generic[V]):
    """Flushes one strategy's buffer, every so often and on demand.

    Args:
        name: names the service.
        buffer: where writes wait.
        records: reads them.
        sink: the database.
        flush_every: seconds between flushes.
        max_batch: most writes in one transaction.
    """

    def __init__(
        self, name: str, buffer: Buffer, records: Records[V], sink: Sink[V], *, flush_every: float, max_batch: int
    ) -> None:
        self._name = name
        self._buffer = buffer
        self._records = records
        self._sink = sink
        self._flush_every = flush_every
        self._max_batch = max_batch
        self._locks = [asyncio.Lock() for _ in range(buffer.partitions)]
        self._due = asyncio.Event()
        self._batches = self._again = self._writes = 0

    @property
    def name(self) -> str:
        """The service's name."""
        return f"flusher:{self._name}"

    @property
    def stats(self) -> FlusherStats:
        """What this process has flushed."""
        return FlusherStats(self._batches, self._again, self._writes)

    def wake(self) -> None:
        """Flushes soon, because much pends."""
        self._due.set()

    async def run(self, alive: Callable[[], None]) -> None:
        """Flushes until cancelled."""
        while True:
            await self.flush()
            alive()
            try:
                async with asyncio.timeout(self._flush_every):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()

    async def flush(self) -> None:
        """Flushes all that pends now, and waits for it.

        Raises:
            StoreUnavailable, DatabaseUnavailable: not all could be flushed; nothing is lost.
            WriteRejected: the database refused a row; its batch stays frozen.
        """
        await gather(self._flush_partition(number) for number in range(self._buffer.partitions))

    async def drain(self, limit: float) -> int:
        """Flushes for at most `limit` seconds; returns how many writes were left, which stay safe in Redis."""
        try:
            async with asyncio.timeout(limit):
                await self.flush()
        except (TimeoutError, Unavailable) as error:
            logger.warning("%s: not drained: %s", self.name, str(error) or "out of time")
        try:
            async with asyncio.timeout(limit + 1):
                statuses = [await self._buffer.status(number) for number in range(self._buffer.partitions)]
        except (TimeoutError, Unavailable):
            return -1
        return sum(status.pending + status.in_batch for status in statuses)

    async def _flush_partition(self, number: int) -> None:
        # The lock saves double work in this process; it is not needed for safety.
        async with self._locks[number]:
            pending = (await self._buffer.status(number)).pending
            # The batch frozen before, if any, and then as many as hold what pends now: not what comes meanwhile.
            for _ in range(1 + -(-pending // self._max_batch)):
                if not await self._flush_batch(number):
                    return

    async def _flush_batch(self, number: int) -> bool:
        frozen = await self._buffer.freeze(number, self._max_batch)
        if frozen is None:
            return False
        writes = [self._records.write(record) for record in frozen.records.values()]
        applied = await self._sink.apply(Batch(writes, frozen.id))
        await self._buffer.ack(number, frozen.id)
        if applied.again:
            self._again += 1
        else:
            self._batches += 1
            self._writes += len(writes)
        return True

    def __repr__(self) -> str:
        return f"Flusher({self._name!r}, {self.stats})"
