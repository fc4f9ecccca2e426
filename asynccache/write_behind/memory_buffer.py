"""Writes that wait for the database in this process: the fastest, and lost with it.

The same interface as `Buffer`, and the reference for what the scripts do.

Invariant: the readable cells hold what the database holds, and nothing that waits here. So no other process reads what
may still be lost, and a write need not go to Redis: this process finds its own writes here (see `overlay.py` of the
strategies). Per partition:

    write    merge into the pending record of the key
    freeze   up to so many pending records become the batch, under a new id
    ack      the database has the batch, and no cell holds what was before it: drop its records

That no cell holds what was before a batch is up to whoever applies it: `MarkedSink` of the strategies. The end of the
process takes what waits. `tests/model/overlay_model.py` explores all of this with its readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final
from uuid import UUID, uuid4
from zlib import crc32

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.keys import CellKey, KeySpace, encode_key
from asynccache.protocols import KeyValue
from asynccache.write_behind.buffer import Buffered, Frozen, PartitionStatus
from asynccache.write_behind.lane import Outcome, Written
from asynccache.write_behind.layout import Op
from asynccache.write_behind.merging import merge

__all__ = ["MemoryBuffer"]

_UNBROKEN: Final = 64
"""Writes between two turns of others: less than a millisecond."""


class _Partition:
    def __init__(self) -> None:
        self.pending: dict[str, bytes] = {}
        self.since: float | None = None
        self.batch: UUID | None = None
        self.frozen: dict[str, bytes] = {}
        self.frozen_since = 0.0
        self.acks = 0


class MemoryBuffer:
    """The buffered writes of one strategy in one process.

    Args:
        space: names the cells.
        name: the strategy's name.
        partitions: how many batches may be under way at once.
        max_pending: most keys that may pend in one partition.
        clock: reads time.
    """

    def __init__(
        self,
        space: KeySpace,
        name: str,
        *,
        partitions: int,
        max_pending: int,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._space = space
        self._name = name
        self._max_pending = max_pending
        self._clock = clock
        self._unbroken = 0
        self._partitions = [_Partition() for _ in range(partitions)]

    async def open(self) -> None:
        """Nothing to check."""

    async def aclose(self) -> None:
        """What pends stays, as long as this object."""

    async def check(self) -> bool:
        """Always true: it is lost with the process only."""
        return True

    @property
    def losses(self) -> int:
        """None."""
        return 0

    @property
    def waiting(self) -> int:
        """None: operations are merged at once."""
        return 0

    @property
    def name(self) -> str:
        """Its name among all buffers whose writes come into one database: the namespace's, and the strategy's."""
        return "/".join((*self._space.path, self._name))

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self._partitions)

    def cell(self, key: KeyValue) -> CellKey:
        """Where the readable value of a key stands."""
        return self._space.partition_cell(self._name, self._number(encode_key(key)), key)

    def _number(self, field: str) -> int:
        return crc32(field.encode()) % len(self._partitions)

    async def apply_one(self, op: Op) -> Written:
        """Merges one operation; see `apply`."""
        await self.turn()
        return self._take(op)

    async def apply(self, ops: Sequence[Op]) -> list[Written]:
        """Merges operations, each for itself. Unlike in Redis, nothing of it can fail or be of unknown outcome."""
        written = []
        for op in ops:
            await self.turn()
            written.append(self._take(op))
        return written

    async def turn(self) -> None:
        """Now and then lets others have their turn, the flusher first of all: nothing else waits in a write, nor in a
        read that is answered here."""
        self._unbroken += 1
        if self._unbroken >= _UNBROKEN:
            self._unbroken = 0
            await asyncio.sleep(0)

    def _take(self, op: Op) -> Written:
        partition = self._partitions[self._number(op.field)]
        pending = partition.pending
        old = pending.get(op.field)
        if old is None and len(pending) >= self._max_pending:
            return Written(Outcome.FULL, len(pending), 0)
        record = merge(old, op)
        if record is None:
            return Written(Outcome.OUT_OF_RANGE, len(pending), 0)
        if not pending:
            partition.since = self._clock.monotonic()
        pending[op.field] = record
        return Written(Outcome.ACCEPTED, len(pending), 0)

    def find(self, key: KeyValue) -> Buffered:
        """What is buffered of a key, now."""
        field = encode_key(key)
        partition = self._partitions[self._number(field)]
        return Buffered(partition.pending.get(field), partition.frozen.get(field), partition.batch, partition.acks)

    async def lookup(self, keys: Sequence[KeyValue]) -> dict[Any, Buffered]:
        """What is buffered of each key."""
        return {key: self.find(key) for key in keys}

    async def freeze(self, number: int, max_batch: int, max_bytes: int = 0) -> Frozen | None:
        """The batch to flush next: the frozen one, else a new one; None if nothing pends."""
        partition = self._partitions[number]
        if partition.batch is None:
            if not partition.pending:
                return None
            partition.frozen = _first(partition.pending, max_batch, max_bytes)
            partition.batch = uuid4()
            partition.frozen_since = partition.since or 0.0
            if not partition.pending:
                partition.since = None
        records = {field.encode(): record for field, record in partition.frozen.items()}
        return Frozen(partition.batch, records, len(partition.pending))

    async def ack(self, number: int, batch: UUID, misread: Sequence[KeyValue] = ()) -> bool:  # noqa: ARG002
        """Drops a batch that the database has; False if it is gone."""
        partition = self._partitions[number]
        if partition.batch != batch:
            return False
        partition.frozen, partition.batch = {}, None
        partition.acks += 1
        return True

    async def overtake(self, key: KeyValue) -> bool:
        """Tells readers that a row was written past the buffer; whether the frozen batch holds its key, too."""
        field = encode_key(key)
        partition = self._partitions[self._number(field)]
        partition.acks += 1
        return field in partition.frozen

    async def status(self, number: int) -> PartitionStatus:
        """How much of one partition waits."""
        partition = self._partitions[number]
        since = partition.frozen_since if partition.batch is not None else partition.since
        age = 0.0 if since is None else self._clock.monotonic() - since
        return PartitionStatus(
            number, len(partition.pending), len(partition.frozen), age, partition.batch, partition.acks
        )

    def __repr__(self) -> str:
        return f"MemoryBuffer({self._name!r}, partitions={self.partitions})"


def _first(pending: dict[str, bytes], most: int, max_bytes: int) -> dict[str, bytes]:
    """Takes the first records out of what pends: at most so many, and so many bytes unless the first one is larger."""
    taken: dict[str, bytes] = {}
    size = 0
    for field, record in islice(pending.items(), most):
        size += len(record)
        if max_bytes and size > max_bytes and taken:
            break
        taken[field] = record
    if len(taken) == len(pending):
        pending.clear()
    else:
        for field in taken:
            del pending[field]
    return taken
