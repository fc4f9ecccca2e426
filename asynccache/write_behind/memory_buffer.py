"""Writes that wait for the database in this process: the fastest, and lost with it.

The same interface as `Buffer`, and the reference for what the scripts do. Only this process sees what pends here. The
readable cells stay in the cache's store: a write empties its cell before it returns, and so does the acknowledgement of
its batch, for another process may have filled the cell from the database meanwhile.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import StoreUnavailable
from asynccache.keys import CellKey, KeySpace, encode_key
from asynccache.protocols import KeyValue
from asynccache.steps import Invalidate, Step
from asynccache.write_behind.buffer import Buffered, Frozen, PartitionStatus
from asynccache.write_behind.lane import Outcome, Written
from asynccache.write_behind.layout import Op
from asynccache.write_behind.merging import merge

__all__ = ["Cells", "MemoryBuffer"]

_CHUNK: Final = 500


class Cells(Protocol):
    """Where the readable values stand."""

    async def apply(self, key: str, step: Step) -> object:
        """Carries out a step."""
        ...

    async def apply_many(self, steps: Sequence[tuple[str, Step]]) -> Sequence[object]:
        """Carries out steps on several keys."""
        ...


class _Partition:
    def __init__(self) -> None:
        self.pending: dict[str, bytes] = {}
        self.since: float | None = None
        self.batch: UUID | None = None
        self.frozen: dict[str, bytes] = {}
        self.frozen_since = 0.0
        self.acks = 0
        self.cells: dict[str, CellKey] = {}  # of fields that pend or are frozen


class MemoryBuffer:
    """The buffered writes of one strategy in one process.

    Args:
        cells: where the readable values stand; None if there are none.
        space: names the cells.
        name: the strategy's name.
        partitions: how many batches may be under way at once.
        max_pending: most keys that may pend in one partition.
        clock: reads time.
    """

    def __init__(
        self,
        cells: Cells | None,
        space: KeySpace,
        name: str,
        *,
        partitions: int,
        max_pending: int,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._cells = cells
        self._space = space
        self._name = name
        self._max_pending = max_pending
        self._clock = clock
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
        return zlib.crc32(field.encode()) % len(self._partitions)

    async def apply_one(self, op: Op) -> Written:
        """Merges one operation; see `apply`."""
        return (await self.apply((op,)))[0]

    async def apply(self, ops: Sequence[Op]) -> list[Written]:
        """Merges operations. Unlike in Redis, nothing of it can fail or be of unknown outcome."""
        written, changed = [], []
        for op in ops:
            number = self._number(op.field)
            outcome = self._merge(self._partitions[number], op)
            if outcome is Outcome.ACCEPTED and op.kind != "A":
                changed.append(self.cell(op.key))
                self._partitions[number].cells[op.field] = changed[-1]
            written.append(Written(outcome, len(self._partitions[number].pending), 0))
        await self._empty(changed)
        return written

    def _merge(self, partition: _Partition, op: Op) -> Outcome:
        old = partition.pending.get(op.field)
        if old is None and len(partition.pending) >= self._max_pending:
            return Outcome.FULL
        record = merge(old, op)
        if record is None:
            return Outcome.OUT_OF_RANGE
        if not partition.pending:
            partition.since = self._clock.monotonic()
        partition.pending[op.field] = record
        return Outcome.ACCEPTED

    async def _empty(self, cells: Sequence[CellKey]) -> None:
        if self._cells is None:
            return
        if len(cells) == 1:
            with contextlib.suppress(StoreUnavailable):
                await self._cells.apply(cells[0], Invalidate())  # together with those of other callers
            return
        for at in range(0, len(cells), _CHUNK):
            with contextlib.suppress(StoreUnavailable):  # a guarded store serves nothing until it has caught up
                await self._cells.apply_many([(cell, Invalidate()) for cell in cells[at : at + _CHUNK]])

    async def lookup(self, keys: Sequence[KeyValue]) -> dict[Any, Buffered]:
        """What is buffered of each key."""
        found = {}
        for key in keys:
            field = encode_key(key)
            partition = self._partitions[self._number(field)]
            found[key] = Buffered(
                partition.pending.get(field), partition.frozen.get(field), partition.batch, partition.acks
            )
        return found

    async def freeze(self, number: int, max_batch: int, max_bytes: int = 0) -> Frozen | None:
        """The batch to flush next: the frozen one, else a new one; None if nothing pends."""
        partition = self._partitions[number]
        if partition.batch is None:
            if not partition.pending:
                return None
            size = 0
            for field in list(partition.pending)[:max_batch]:
                size += len(partition.pending[field])
                if max_bytes and size > max_bytes and partition.frozen:
                    break
                partition.frozen[field] = partition.pending.pop(field)
            partition.batch = uuid4()
            partition.frozen_since = partition.since or 0.0
            if not partition.pending:
                partition.since = None
        records = {field.encode(): record for field, record in partition.frozen.items()}
        return Frozen(partition.batch, records, len(partition.pending))

    async def ack(self, number: int, batch: UUID, misread: Sequence[KeyValue] = ()) -> bool:  # noqa: ARG002
        """Drops a batch that the database has, and all its readable values; False if it is gone."""
        partition = self._partitions[number]
        if partition.batch != batch:
            return False
        cells = [partition.cells[field] for field in partition.frozen if field in partition.cells]
        for field in partition.frozen:
            if field not in partition.pending:
                partition.cells.pop(field, None)
        partition.frozen, partition.batch = {}, None
        partition.acks += 1
        await self._empty(cells)
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
