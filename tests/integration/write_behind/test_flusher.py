"""The flusher's loop: when it flushes, what it does about errors, and what it leaves when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from asynccache import ConfigurationError, DatabaseUnavailable, StoreUnavailable
from asynccache.clock import SYSTEM_CLOCK
from asynccache.errors import DecodeError
from asynccache.keys import KeySpace
from asynccache.protocols import Applied, Batch, Put, Rejected
from asynccache.stores.redis import RedisStore
from asynccache.write_behind.buffer import Frozen, PartitionStatus
from asynccache.write_behind.flusher import Flusher
from asynccache.write_behind.ownership import RedisClaims
from asynccache.write_behind.pruning import Pruner


class Waiting:
    """Writes in this process's memory, with the rules of the buffer in Redis."""

    def __init__(self, partitions: int = 4) -> None:
        self.pending: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
        self.batch: list[Frozen | None] = [None] * partitions
        self.since: list[float | None] = [None] * partitions
        self.down = False

    @property
    def partitions(self) -> int:
        return len(self.pending)

    def put(self, number: int, *keys: int) -> None:
        self.pending[number].update({str(key).encode(): str(key).encode() for key in keys})
        self.since[number] = self.since[number] or SYSTEM_CLOCK.monotonic()

    def left(self) -> int:
        return sum(map(len, self.pending)) + sum(len(batch.records) for batch in self.batch if batch)

    async def freeze(self, number: int, max_batch: int, /, *_: int) -> Frozen | None:
        await self._ask()
        if self.batch[number] is None and (pending := self.pending[number]):
            self.batch[number] = Frozen(uuid4(), {key: pending.pop(key) for key in list(pending)[:max_batch]})
            self.since[number] = SYSTEM_CLOCK.monotonic() if pending else None
        return self.batch[number]

    async def ack(self, number: int, batch: UUID, /) -> bool:
        await self._ask()
        frozen = self.batch[number]
        if frozen is None or frozen.id != batch:
            return False
        self.batch[number] = None
        return True

    async def status(self, number: int, /) -> PartitionStatus:
        await self._ask()
        batch, since = self.batch[number], self.since[number]
        age = 0.0 if since is None else SYSTEM_CLOCK.monotonic() - since
        pending = len(self.pending[number])
        return PartitionStatus(number, pending, len(batch.records) if batch else 0, age, batch.id if batch else None)

    async def _ask(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("Redis: it is down")


class Written:
    """A database that remembers ids; `before` is called with each batch, and may raise."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.sizes: list[int] = []
        self.ids: set[UUID | None] = set()
        self.at_once = self.most_at_once = self.calls = 0
        self.before: Callable[[Batch[int]], object] = lambda _: None
        self.refused: frozenset[int] = frozenset()
        self.gate: asyncio.Event | None = None

    async def apply(self, batch: Batch[int], /) -> Applied[int]:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            self.before(batch)
            refused = [
                at for at, write in enumerate(batch.writes) if isinstance(write, Put) and write.key in self.refused
            ]
            rejected = tuple(Rejected(at, "CHECK", "23514") for at in refused)
            if batch.id in self.ids:
                return Applied(again=True, rejected=rejected)
            self.ids.add(batch.id)
            self.sizes.append(len(batch.writes))
            self.rows += [
                write.key for write in batch.writes if isinstance(write, Put) and write.key not in self.refused
            ]
            return Applied(rejected=rejected)
        finally:
            self.at_once -= 1


class Numbers:
    """Records that are a number; anything else cannot be read."""

    def write(self, record: bytes, /) -> Put[int]:
        try:
            return Put(int(record), int(record))
        except ValueError:
            raise DecodeError(f"{record!r} is no number") from None

    def writes(self, records: Sequence[bytes], /) -> list[Put[int]]:
        return [self.write(record) for record in records]


@asynccontextmanager
async def running(*flushers: Flusher[int]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(flusher.run(lambda: None)) for flusher in flushers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until(state: Callable[[], object], within: float = 5.0) -> float:
    begun = SYSTEM_CLOCK.monotonic()
    async with asyncio.timeout(within):
        while not state():
            await asyncio.sleep(0.005)
    return SYSTEM_CLOCK.monotonic() - begun


@pytest.fixture
def buffer() -> Waiting:
    return Waiting()


@pytest.fixture
def sink() -> Written:
    return Written()


def make(buffer: Waiting, sink: Written, **options: Any) -> Flusher[int]:
    options.setdefault("flush_every", 0.05)
    options.setdefault("max_batch", 10)
    return Flusher("score", buffer, Numbers(), sink, **options)


class TestWhen:
    async def test_a_write_is_flushed_after_flush_every_and_not_before(self, buffer: Waiting, sink: Written) -> None:
        async with running(make(buffer, sink, flush_every=0.3)):
            buffer.put(1, 7)
            assert 0.25 < await until(lambda: sink.rows == [7]) < 1.0

    async def test_a_full_batch_is_flushed_sooner(self, buffer: Waiting, sink: Written) -> None:
        async with running(make(buffer, sink, flush_every=60.0)):
            buffer.put(0, *range(10))
            buffer.put(1, 99)
            assert await until(lambda: len(sink.rows) == 10) < 2.0
        assert buffer.left() == 1  # less than a batch, and young

    async def test_what_is_behind_is_flushed_without_a_pause(self, buffer: Waiting, sink: Written) -> None:
        buffer.put(0, *range(1000))
        async with running(make(buffer, sink, flush_every=1.0)):
            assert await until(lambda: len(sink.rows) == 1000) < 2.0  # 100 batches
        assert set(sink.sizes) == {10}

    async def test_a_batch_that_a_crashed_worker_left_is_flushed_at_once(self, buffer: Waiting, sink: Written) -> None:
        buffer.put(0, 1, 2)
        await buffer.freeze(0, 10)
        async with running(make(buffer, sink, flush_every=60.0)):
            assert await until(lambda: sorted(sink.rows) == [1, 2]) < 2.0

    async def test_partitions_are_worked_on_side_by_side_up_to_a_bound(self, sink: Written) -> None:
        buffer = Waiting(partitions=8)
        sink.gate = asyncio.Event()
        for number in range(8):
            buffer.put(number, number)
        async with running(make(buffer, sink, at_once=3)):
            await until(lambda: sink.at_once == 3)
            sink.gate.set()
            await until(lambda: len(sink.rows) == 8)
        assert sink.most_at_once == 3

    async def test_a_partition_that_is_far_behind_does_not_keep_the_others_waiting(
        self, buffer: Waiting, sink: Written
    ) -> None:
        buffer.put(0, *range(1000))
        buffer.put(1, *range(5000, 5010))
        async with running(make(buffer, sink, at_once=1)):
            await until(lambda: 5000 in sink.rows)
        assert sink.rows.index(5000) < 500  # they take turns

    async def test_a_paused_flusher_begins_nothing_and_goes_on_when_resumed(
        self, buffer: Waiting, sink: Written
    ) -> None:
        flusher = make(buffer, sink, flush_every=0.01)
        flusher.pause()
        async with running(flusher):
            await flusher.flush()  # a look has passed
            buffer.put(0, 1)
            await until(lambda: flusher.stats.lag > 0.05)
            assert (sink.calls, flusher.stats.paused) == (0, True)
            assert await flusher.drain(1.0) == 1
            flusher.resume()
            await until(lambda: sink.rows == [1])


class TestErrors:
    async def test_one_bad_partition_does_not_stop_the_others(self, buffer: Waiting, sink: Written) -> None:
        def refuse(batch: Batch[int]) -> None:
            if any(isinstance(write, Put) and write.key == 13 for write in batch.writes):
                raise DatabaseUnavailable("it is restarting")

        sink.before = refuse
        flusher = make(buffer, sink)
        for number in range(4):
            buffer.put(number, 13 if number == 2 else number)
        async with running(flusher):
            await until(lambda: sorted(sink.rows) == [0, 1, 3])
            await until(lambda: flusher.stats.failures >= 2)  # it is tried again
            assert list(flusher.stats.failing) == [2]
            assert not flusher.ok
            sink.before = lambda _: None
            await until(lambda: 13 in sink.rows)
            await until(lambda: flusher.ok)
        assert sorted(sink.rows) == [0, 1, 3, 13]

    async def test_what_somebody_has_to_see_to_is_not_tried_in_a_hot_loop(
        self, buffer: Waiting, sink: Written, caplog: pytest.LogCaptureFixture
    ) -> None:
        flusher = make(buffer, sink, flush_every=0.01)
        buffer.put(0)
        buffer.pending[0][b"x"] = b"not a number"
        buffer.put(1, 1)
        async with running(flusher):
            await until(lambda: flusher.stats.failing)
            looks = 0
            for key in range(2, 12):  # ten flushes of another one, and not one more attempt
                buffer.put(1, key)
                await until(lambda key=key: key in sink.rows)  # type: ignore[misc]
                looks += 1
        assert looks == 10
        assert flusher.stats.failures == 1
        assert flusher.stats.failing == {0: "DecodeError: b'not a number' is no number"}
        assert "partition 0: DecodeError" in caplog.text
        assert buffer.left() == 1

    async def test_without_redis_it_waits_and_goes_on_by_itself(self, buffer: Waiting, sink: Written) -> None:
        flusher = make(buffer, sink)
        async with running(flusher):
            buffer.down = True
            await until(lambda: not flusher.ok)
            buffer.put(0, 1)
            buffer.down = False
            await until(lambda: sink.rows == [1])
            await until(lambda: flusher.ok)

    async def test_an_acknowledgement_that_is_lost_doubles_nothing(self, buffer: Waiting, sink: Written) -> None:
        flusher = make(buffer, sink)
        buffer.put(0, 1)

        def cut(batch: Batch[int]) -> None:
            buffer.down = True

        sink.before = cut
        with pytest.raises(StoreUnavailable):
            await flusher.flush()
        buffer.down = False
        sink.before = lambda _: None
        await flusher.flush()
        assert sink.rows == [1]
        assert (flusher.stats.batches, flusher.stats.again) == (0, 1)  # the attempt that did it never heard so
        assert buffer.left() == 0

    async def test_refused_writes_are_counted_logged_and_told_once_no_reader_sees_them(
        self, buffer: Waiting, sink: Written, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[tuple[Sequence[Any], int]] = []

        async def on_rejected(keys: Sequence[Any]) -> None:
            told.append((keys, buffer.left()))

        sink.refused = frozenset({2})
        flusher = make(buffer, sink, on_rejected=on_rejected)
        buffer.put(0, 1, 2, 3)
        await flusher.flush()
        assert told == [([2], 0)]
        assert sink.rows == [1, 3]
        stats = flusher.stats
        assert (stats.writes, stats.row_updates, stats.rejected) == (3, 2, 1)
        assert "the database refused the write of 2: CHECK" in caplog.text


class TestOnDemand:
    async def test_a_flush_takes_all_partitions_whoever_owns_them(
        self, buffer: Waiting, sink: Written, redis_url: str, namespace: str
    ) -> None:
        store = RedisStore(redis_url)
        await store.open()
        claims = RedisClaims(store, KeySpace((namespace,)), "score")
        owner, other = (make(buffer, sink, flush_every=60.0, claims=claims) for _ in range(2))
        async with running(owner):
            await until(lambda: len(owner.stats.owned) == 4)
            for number in range(4):
                buffer.put(number, number)
            await other.flush()
            assert sorted(sink.rows) == [0, 1, 2, 3]
        await store.aclose()

    async def test_a_flush_has_all_that_pended_when_it_was_called(self, buffer: Waiting, sink: Written) -> None:
        flusher = make(buffer, sink)
        buffer.put(0, *range(95))
        buffer.put(3, *range(100, 105))
        await buffer.freeze(0, 10)
        await flusher.flush()
        assert sorted(sink.rows) == [*range(95), *range(100, 105)]

    async def test_a_flush_tries_all_partitions_and_then_tells_what_failed(
        self, buffer: Waiting, sink: Written
    ) -> None:
        buffer.pending[0][b"x"] = b"not a number"
        buffer.put(3, 3)
        with pytest.raises(DecodeError):
            await make(buffer, sink).flush()
        assert sink.rows == [3]

    async def test_a_drain_ends_at_its_limit_and_says_what_is_left(self, buffer: Waiting, sink: Written) -> None:
        flusher = make(buffer, sink)
        buffer.put(0, *range(25))
        sink.gate = asyncio.Event()
        begun = SYSTEM_CLOCK.monotonic()
        assert await flusher.drain(0.2) == 25
        assert SYSTEM_CLOCK.monotonic() - begun < 2.0
        sink.gate.set()
        assert await flusher.drain(5.0) == 0
        assert flusher.left == 0
        assert sorted(sink.rows) == list(range(25))

    async def test_a_drain_without_redis_does_not_raise(self, buffer: Waiting, sink: Written) -> None:
        buffer.down = True
        assert await make(buffer, sink).drain(0.1) == -1


class TestPruning:
    async def test_ids_are_pruned_until_none_is_left(self, buffer: Waiting) -> None:
        old = [3, 3, 1]

        async def prune(older_than: float) -> int:
            assert older_than == 100
            return old.pop(0) if old else 0

        pruner = Pruner("score", buffer, prune, keep=100, every=10)
        assert await pruner.once() == 0  # the first look only sees what is frozen
        assert await pruner.once() == 7

    async def test_nothing_is_pruned_while_a_batch_may_come_back(self, buffer: Waiting) -> None:
        async def prune(older_than: float) -> int:
            pruned.append(older_than)
            return 0

        pruned: list[float] = []
        pruner = Pruner("score", buffer, prune, keep=100, every=10)
        buffer.put(0, 1)
        frozen = await buffer.freeze(0, 10)
        assert frozen is not None
        await pruner.once()
        await pruner.once()
        assert pruned == []  # the same batch twice: it may be a week old, and in the database
        await buffer.ack(0, frozen.id)
        buffer.put(0, 2)
        await buffer.freeze(0, 10)
        await pruner.once()
        assert pruned == [100]  # a younger one: its id is kept long enough

    def test_ids_that_would_not_be_kept_long_enough_are_refused(self, buffer: Waiting, sink: Written) -> None:
        async def prune(_: float) -> int:
            return 0

        with pytest.raises(ConfigurationError, match="keep_ids"):
            Pruner("score", buffer, prune, keep=10, every=6)
