"""Takes buffered writes into the database: each exactly once, whatever crashes.

Invariant: what was acknowledged = what the database has + the frozen batch, if the database does not know its id
+ what pends. Per partition:

    freeze   up to `max_batch` pending writes become the batch, under a new id; if one is frozen, take that
    apply    one transaction: insert the id; only if it is new, apply the writes
    ack      drop the batch, if it still has this id, and what readers were shown of writes that were refused

What a crash leaves behind
    after freeze   the batch, frozen; the next flusher applies it
    in apply       the transaction rolled back, or committed with its id: the next flusher applies the batch, or finds
                   its id and does nothing
    after apply    the same
    after ack      nothing

Any number of flushers may work on a partition at once: the id makes the second transaction a no-op, and an ack of a
batch that is gone does nothing. "Unknown" is the outcome of every error here, and repeating is always right.

One partition has one batch at a time. Several partitions are worked on at once, so that the transaction of one overlaps
with freezing and acknowledging those of others; each fails, and is tried again, by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar
from uuid import UUID

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import StoreUnavailable, Unavailable
from asynccache.protocols import Applied, Batch, DeadLetters, Halves, Sink, Write
from asynccache.supervision import TaskOwner, backoff, finish, gather, logger
from asynccache.write_behind.buffer import Frozen
from asynccache.write_behind.ownership import Claims, Ownership
from asynccache.write_behind.pacing import Pace
from asynccache.write_behind.progress import FlusherStats, Progress
from asynccache.write_behind.pruning import Prune, Pruner, Statuses

__all__ = ["FlushBuffer", "Flusher", "FlusherStats", "OnRejected"]

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)
OnRejected: TypeAlias = Callable[[Sequence[Any]], Awaitable[None]]
"""Is told the keys whose writes the database refused, after readers have ceased to see them in the buffer."""

_LOOK: Final = 0.25
"""Longest time between two looks at what pends, in seconds: how late "sooner, because much pends" may be."""
_STORE_BACKOFF: Final = (0.1, 2.0)


class FlushBuffer(Statuses, Protocol):
    """Where writes wait, as a flusher sees it."""

    async def freeze(self, number: int, max_batch: int, max_bytes: int = 0, /) -> Frozen | None:
        """The frozen batch, else a new one of so many writes and bytes at most; None if nothing pends."""
        ...

    async def ack(self, number: int, batch: UUID, misread: Sequence[Any] = (), /) -> bool:
        """Drops a batch that the database has, and the readable values of some keys; False if another flusher did."""
        ...


class RecordReader(Protocol[V_co]):
    """Reads buffered writes."""

    def write(self, record: bytes, /) -> Write[V_co]:
        """What a record asks for; `DecodeError` if this version of the model cannot read it."""
        ...

    def writes(self, records: Sequence[bytes], /) -> Sequence[Write[V_co]]:
        """What each record asks for; `DecodeError` if this version of the model cannot read one."""
        ...

    def halves(self, record: bytes, /) -> Halves[V_co] | None:
        """A record with adjustments as what it was without them, and they; None if it is not both."""
        ...


class Flusher(Generic[V]):
    """Flushes one strategy's buffer: what this process owns of it every so often, and all on demand.

    Args:
        name: the strategy's name.
        buffer: where writes wait.
        records: reads them.
        sink: the database.
        flush_every: seconds after which a write is flushed.
        max_batch: most writes in one transaction, unless it is behind (see `Pace`); so many are flushed sooner.
        max_batch_bytes: most bytes of records in one transaction, unless one alone is larger; None does not bound it.
        at_once: most partitions at a time.
        claims: where worker processes share the partitions; None if this is the only one, which has all.
        lease: seconds after which others take over from a process that was killed.
        on_rejected: told the keys whose writes the database refused.
        prune: deletes ids of this buffer's batches that are older than so many seconds, some at a time.
        keep_ids: seconds for which the ids of batches are kept.
        dead_letters: where the sink puts what the database refuses.
        clock: reads time.

    Attributes:
        origin: the strategy's name, under which its dead letters stand.
        buffer: where writes wait.
        records: reads them, and those of dead letters.
        dead_letters: where refused writes are; None if the sink keeps none.
        drain_limit: replaces the limit of `drain`, in seconds: who stops the process may know better than the strategy.
        left: how many writes the last `drain` left; None before it.
    """

    def __init__(
        self,
        name: str,
        buffer: FlushBuffer,
        records: RecordReader[V],
        sink: Sink[V],
        *,
        flush_every: float,
        max_batch: int,
        max_batch_bytes: int | None = None,
        at_once: int = 4,
        claims: Claims | None = None,
        lease: float = 5.0,
        on_rejected: OnRejected | None = None,
        prune: Prune | None = None,
        keep_ids: float = 7 * 86400.0,
        dead_letters: DeadLetters | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.origin = name
        self.buffer = buffer
        self.records = records
        self._sink = sink
        self._flush_every = flush_every
        self._max_batch = max_batch
        self._pace = Pace(max_batch)
        self._clock = clock
        self._expected = 0
        self._max_bytes = max_batch_bytes or 0
        self._on_rejected = on_rejected
        self._locks = [asyncio.Lock() for _ in range(buffer.partitions)]
        self._slots = asyncio.Semaphore(at_once)
        self._due = asyncio.Event()
        self._owner = TaskOwner(self.name)
        self._telling = TaskOwner(f"{self.name}:rejected")  # also for callers of `flush`: not ended with the service
        self._ownership: Ownership | None = None
        if claims is not None:
            self._ownership = Ownership(
                claims,
                buffer.partitions,
                lease=lease,
                busy=lambda number: self._locks[number].locked(),
                changed=self.wake,
                clock=clock,
            )
        self._pruner = None
        if prune is not None:
            self._pruner = Pruner(name, buffer, prune, keep=keep_ids, every=min(3600.0, keep_ids / 4))
        self._working: set[int] = set()
        self._ages: dict[int, float] = {}
        self._progress = Progress(self.name, clock)
        self._paused = False
        self.dead_letters = dead_letters
        self.drain_limit: float | None = None
        self.left: int | None = None

    @property
    def name(self) -> str:
        """The service's name."""
        return f"flusher:{self.origin}"

    @property
    def ownership(self) -> Ownership | None:
        """This process's share of the partitions; None if it has all."""
        return self._ownership

    @property
    def stats(self) -> FlusherStats:
        """What this process has flushed."""
        lag = max((age for number, age in self._ages.items() if self._owns(number)), default=0.0)
        return self._progress.stats(owned=self._owned(), lag=lag, paused=self._paused)

    @property
    def ok(self) -> bool:
        """Whether nothing fails now."""
        return self._progress.ok

    def expect(self, writes: int) -> None:
        """Tells of so many new writes: after a batch of them it looks soon."""
        self._expected += writes
        if self._expected >= self._max_batch:
            self._expected = 0
            self._due.set()

    def wake(self) -> None:
        """Looks soon, because much pends."""
        self._due.set()

    def pause(self) -> None:
        """Begins no more batches in this process until `resume`; `flush` still does. What pends stays in Redis."""
        self._paused = True

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._paused = False
        self._due.set()

    async def run(self, alive: Callable[[], None]) -> None:
        """Flushes until cancelled, and then gives its partitions up."""
        self._working.clear()  # a task cancelled before its first step did not come to do that
        works: list[Awaitable[None]] = [self._watch(alive)]
        if self._ownership is not None:
            works.append(self._ownership.run())
        if self._pruner is not None:
            works.append(self._pruner.run())
        try:
            await gather(works)
        finally:
            await self._owner.aclose()

    async def flush(self) -> None:
        """Flushes all that pends now in any partition, whoever owns it, and waits for it.

        While others write faster than the database takes it, that may be long: bound it with `asyncio.timeout`.

        Raises:
            StoreUnavailable, DatabaseUnavailable: not all could be flushed; nothing is lost.
        """
        if errors := await self._flush_all(range(self.buffer.partitions)):
            raise errors[0]

    async def drain(self, limit: float) -> int:
        """Flushes for at most `limit` seconds what no other worker will.

        Returns:
            How many writes were left of that, which stay safe in Redis; -1 if Redis does not say.
        """
        if self.drain_limit is not None:
            limit = self.drain_limit
        alone = self._ownership is None or len(self._ownership.workers) <= 1
        mine = range(self.buffer.partitions) if alone else self._owned()
        try:
            async with asyncio.timeout(limit):
                if not self._paused and (errors := await self._flush_all(mine)):
                    logger.warning("%s: not drained: %s", self.name, errors[0])
        except TimeoutError:
            logger.warning("%s: not drained: out of time", self.name)
        try:
            async with asyncio.timeout(1.0 + limit):
                statuses = await gather(self.buffer.status(number) for number in mine)
        except (TimeoutError, Unavailable):
            self.left = -1
        else:
            self.left = sum(status.pending + status.in_batch for status in statuses)
        return self.left

    # -- one batch

    async def _flush_batch(self, number: int) -> Frozen | None:
        frozen = await self.buffer.freeze(number, self._pace.size(number), self._max_bytes)
        if frozen is None:
            return None
        batch = self._read(frozen)
        began = self._clock.monotonic()
        applied = await self._sink.apply(batch)
        self._pace.applied(number, self._clock.monotonic() - began, frozen.left)
        misread = _misread(batch, applied)
        await self.buffer.ack(number, frozen.id, misread)
        self._count(batch, applied)
        await self.invalidate(misread)
        return frozen

    def _read(self, frozen: Frozen) -> Batch[V]:
        records = tuple(frozen.records.values())
        return Batch(
            self.records.writes(records), frozen.id, self.origin, records, self.buffer.name, self.records.halves
        )

    def _count(self, batch: Batch[V], applied: Applied[V]) -> None:
        self._progress.applied(len(batch.writes), applied)
        for rejected in applied.rejected:
            key = getattr(batch.writes[rejected.at], "key", None)
            logger.warning("%s: the database refused the write of %r: %s", self.origin, key, rejected.reason)

    async def invalidate(self, keys: Sequence[Any]) -> None:
        """Tells that the database holds something else for these keys than readers were shown."""
        if self._on_rejected is not None and keys:
            # To its end: what a cancellation leaves out here, readers would see until its TTL.
            await finish(self._telling, _call(self._on_rejected, keys))

    # -- what is due

    async def _watch(self, alive: Callable[[], None]) -> None:
        failures = 0
        while True:
            self._due.clear()
            try:
                delay = await self._look()
            except StoreUnavailable as error:
                failures += 1
                self._progress.store_failed(error)
                await asyncio.sleep(backoff(failures, *_STORE_BACKOFF))
                continue
            failures = 0
            self._progress.store_answered()
            alive()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._due.wait()

    async def _look(self) -> float:
        """Begins work on partitions that are due; returns in how many seconds to look again."""
        self._progress.keep_only(self._owns)
        delay = min(_LOOK, self._flush_every)
        numbers = []
        for number in self._owned():
            if wait := self._progress.wait(number):
                delay = min(delay, wait)
            elif number not in self._working:
                numbers.append(number)
        for status in await gather(self.buffer.status(number) for number in numbers):
            self._ages[status.partition] = status.age
            if self._paused or not (status.pending or status.in_batch):
                continue
            wait = self._flush_every - status.age
            if status.in_batch or status.pending >= self._max_batch or wait <= 0:
                self._working.add(status.partition)
                self._owner.start(self._work(status.partition))
            else:
                delay = min(delay, wait)
        return max(delay, 0.001)

    async def _work(self, number: int) -> None:
        """Flushes a partition, on and on while it is behind."""
        frozen: Frozen | Exception | None = None
        more = True
        try:
            while more and self._owns(number) and not self._paused:
                frozen = await self._attempt(number)
                more = isinstance(frozen, Frozen) and frozen.left > 0
            if isinstance(frozen, Frozen):
                self._due.set()
        finally:
            self._working.discard(number)

    async def _attempt(self, number: int) -> Frozen | Exception | None:
        try:
            # The lock saves double work in this process; it is not needed for safety. The slot is given back after
            # each batch, so that partitions take turns.
            async with self._locks[number], self._slots:
                frozen = await self._flush_batch(number)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and the batch tried again
            self._progress.failed(number, error)
            self._pace.failed(number)
            return error
        self._progress.succeeded(number)
        return frozen

    async def _flush_all(self, numbers: Iterable[int]) -> list[Exception]:
        results = await gather(self._flush_partition(number) for number in numbers)
        return [result for result in results if result is not None]

    async def _flush_partition(self, number: int) -> Exception | None:
        while True:
            frozen = await self._attempt(number)
            if isinstance(frozen, Exception):
                return frozen
            # What pended when this was called is in this batch, or was in one before.
            if frozen is None or not frozen.left:
                return None

    # -- whose, and how it is

    def _owns(self, number: int) -> bool:
        return self._ownership is None or self._ownership.owns(number)

    def _owned(self) -> tuple[int, ...]:
        return tuple(range(self.buffer.partitions)) if self._ownership is None else self._ownership.owned

    def __repr__(self) -> str:
        return f"Flusher({self.origin!r}, {self.stats})"


def _misread(batch: Batch[Any], applied: Applied[Any]) -> list[Any]:
    """The keys of which readers may have been shown what the database refused."""
    # What was refused then, only the worker that did not come back knew: let readers ask for all of it.
    at = range(len(batch.writes)) if applied.again else [rejected.at for rejected in applied.rejected]
    keys = (getattr(batch.writes[one], "key", None) for one in at)
    return [key for key in keys if key is not None]


async def _call(on_rejected: OnRejected, keys: Sequence[Any]) -> None:
    try:
        await on_rejected(keys)
    except Exception:  # noqa: BLE001 - the flush was right all the same
        logger.exception("readers may see refused writes until their TTL: %r", keys)
