"""Two pipelines of writes in flight: each key keeps to one of them, and none is lost or counted twice between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from asynccache.codecs import codec_for
from asynccache.errors import StoreUnavailable
from asynccache.keys import KeySpace
from asynccache.stores.redis import RedisStore
from asynccache.stores.scripts import Call
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.lane import Outcome
from asynccache.write_behind.layout import Op
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows
from tests.support.gates import Gate, until


@dataclass(frozen=True)
class Score:
    points: int = 0


RECORDS = Records(codec_for(Score), Rows(Score))


class Way:
    """How a buffer's calls go to Redis: through a gate and past a list of errors, by the lane that sends them.

    Attributes:
        gates: by lane, the first that ever sent being 0.
        errors: what a lane's calls end with instead of being sent.
    """

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.gates: dict[int, Gate] = {}
        self.errors: dict[int, Exception] = {}
        self.sent: list[int] = []

    async def __call__(self, calls: Sequence[Call]) -> tuple[Sequence[Any], int]:
        # Keys are pending, meta, seen, cells; partitions have their number in the hash tag.
        lane = int(calls[0].keys[0].partition(".")[2].partition("}")[0]) % 2
        if lane in self.gates:
            await self.gates[lane].stop()
        if lane in self.errors:
            raise self.errors[lane]
        self.sent.append(lane)
        return await self._store.run_many(calls), 0


@pytest.fixture
async def way(redis_url: str) -> AsyncIterator[Way]:
    store = RedisStore(redis_url)
    await store.open()
    yield Way(store)
    await store.aclose()


@pytest.fixture
async def buffer(way: Way, namespace: str) -> AsyncIterator[Buffer]:
    buffer = Buffer(way._store, KeySpace((namespace,)), "score", partitions=4, max_pending=1000, send=way)
    await buffer.open()
    yield buffer
    await buffer.aclose()


def keys_of(buffer: Buffer, lane: int, count: int) -> list[int]:
    """Keys whose partitions belong to a lane."""
    return [key for key in range(1000) if buffer.partition_of(key) % 2 == lane][:count]


def increment(key: int) -> Op:
    return RECORDS.increment_op(key, {"points": 1})


async def points(buffer: Buffer, key: int) -> int:
    found = RECORDS.fold(None, (await buffer.lookup([key]))[key].pending)
    return 0 if found is None else found.points


async def test_a_pipeline_that_takes_long_does_not_hold_up_the_other(buffer: Buffer, way: Way) -> None:
    (slow, later), (quick,) = keys_of(buffer, 0, 2), keys_of(buffer, 1, 1)
    gate = way.gates[0] = Gate()
    held = [asyncio.create_task(buffer.apply([increment(key)])) for key in (slow,)]
    await until(lambda: gate.arrived == 1)
    held.append(asyncio.create_task(buffer.apply([increment(later)])))
    assert (await buffer.apply_one(increment(quick))).outcome is Outcome.ACCEPTED
    # One call of a lane at a time: were there two, a late copy of the first could void the second.
    assert gate.arrived == 1
    assert buffer.waiting == 1
    del way.gates[0]
    gate.open()
    assert [[one.outcome for one in written] for written in await asyncio.gather(*held)] == [[Outcome.ACCEPTED]] * 2
    assert [await points(buffer, key) for key in (slow, later, quick)] == [1, 1, 1]


async def test_writes_of_many_keys_are_told_in_their_order_whichever_way_they_go(buffer: Buffer) -> None:
    for turn in range(3):
        keys = list(range(turn, 300))
        written = await buffer.apply([increment(key) for key in keys])
        assert [one.outcome for one in written] == [Outcome.ACCEPTED] * len(keys)
    found = await buffer.lookup(range(300))
    assert [RECORDS.fold(None, found[key].pending) for key in (0, 1, 2, 299)] == [
        Score(1),
        Score(2),
        Score(3),
        Score(3),
    ]
    assert await buffer.apply([]) == []


async def test_the_verdicts_of_full_partitions_are_those_of_their_own_writes(way: Way, namespace: str) -> None:
    buffer = Buffer(way._store, KeySpace((namespace,)), "score", partitions=4, max_pending=3, send=way)
    await buffer.open()
    written = await buffer.apply([increment(key) for key in range(40)])
    taken = {key for key, one in enumerate(written) if one.outcome is Outcome.ACCEPTED}
    assert len(taken) == 12
    assert taken == {key for key in range(40) if await points(buffer, key)}
    await buffer.aclose()


async def test_a_lane_that_fails_leaves_what_the_other_wrote_and_the_caller_waits_for_both(
    buffer: Buffer, way: Way
) -> None:
    failing, (fine, *_) = keys_of(buffer, 0, 3), keys_of(buffer, 1, 3)
    way.errors[0] = StoreUnavailable("no way")
    gate = way.gates[1] = Gate()
    asked = asyncio.create_task(buffer.apply([increment(key) for key in (*failing, fine)]))
    await until(lambda: gate.arrived == 1)
    await asyncio.sleep(0)
    assert not asked.done()
    gate.open()
    with pytest.raises(StoreUnavailable, match="no way"):
        await asked
    assert [await points(buffer, key) for key in (*failing, fine)] == [0, 0, 0, 1]


async def test_a_caller_who_leaves_takes_back_what_was_not_sent_of_both_lanes(buffer: Buffer, way: Way) -> None:
    pairs = [keys_of(buffer, lane, 2) for lane in (0, 1)]
    gates = [way.gates.setdefault(lane, Gate()) for lane in (0, 1)]
    first = asyncio.create_task(buffer.apply([increment(pair[0]) for pair in pairs]))
    await until(lambda: [gate.arrived for gate in gates] == [1, 1])
    left = asyncio.create_task(buffer.apply([increment(pair[1]) for pair in pairs]))
    await until(lambda: buffer.waiting == 2)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    for gate in gates:
        gate.open()
    await first
    assert [await points(buffer, key) for pair in pairs for key in pair] == [1, 0, 1, 0]


async def test_writes_of_one_key_keep_their_order_among_those_of_others(buffer: Buffer) -> None:
    async def write(key: int) -> None:
        for _ in range(20):
            await buffer.apply_one(increment(key))

    def put(key: int, value: int) -> Op:
        return RECORDS.put_op(key, codec_for(Score).pack(Score(value)), None)

    others = [asyncio.create_task(write(key)) for key in range(1100, 1140)]

    async def write_one(op: Op) -> None:
        await buffer.apply_one(op)

    own = [keys_of(buffer, lane, 1)[0] for lane in (0, 1)]
    for value in range(0, 200, 10):
        works: list[Any] = []
        for at in range(10):  # alone, and together with others
            for key in own:
                op = put(key, value + at)
                works.append(buffer.apply([op, increment(2000 + at)]) if at % 2 == 0 else write_one(op))
        await asyncio.gather(*works)  # tasks, which begin in this order
        assert [await points(buffer, key) for key in own] == [value + 9] * 2
    await asyncio.gather(*others)
    assert [await points(buffer, key) for key in range(1100, 1140)] == [20] * 40


async def test_closing_answers_the_callers_of_both_lanes_and_forgets_what_redis_kept_of_them(
    buffer: Buffer, way: Way, redis: Any, namespace: str
) -> None:
    await buffer.apply([increment(key) for key in range(40)])
    kept = [key async for key in redis.scan_iter(f"{namespace}*seen*")]
    assert len(kept) == 4
    await buffer.aclose()
    assert [key async for key in redis.scan_iter(f"{namespace}*seen*")] == []
    for lane in (0, 1):
        with pytest.raises(StoreUnavailable, match="closed"):
            await buffer.apply([increment(key) for key in keys_of(buffer, lane, 1)])
    with pytest.raises(StoreUnavailable, match="closed"):
        await buffer.apply([increment(key) for key in range(40)])


async def two_of_each(buffer: Buffer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two keys of each of two partitions that share commands; the first of each is written."""
    first, second = ([key for key in range(1000) if buffer.partition_of(key) == at][:2] for at in (0, 2))
    await buffer.apply([increment(first[0])])
    await buffer.apply([increment(second[0])])
    return (first[0], first[1]), (second[0], second[1])


async def test_a_full_partition_refuses_its_writes_behind_one_that_takes_them_in_the_same_command(
    way: Way, namespace: str
) -> None:
    buffer = Buffer(way._store, KeySpace((namespace,)), "score", partitions=4, max_pending=1, send=way)
    await buffer.open()
    (full, refused), (other, also_refused) = await two_of_each(buffer)
    written = await buffer.apply([increment(key) for key in (full, refused, also_refused, other)])
    assert [one.outcome for one in written] == [Outcome.ACCEPTED, Outcome.FULL, Outcome.FULL, Outcome.ACCEPTED]
    assert [await points(buffer, key) for key in (full, refused, also_refused, other)] == [2, 0, 0, 2]
    await buffer.aclose()


async def test_what_one_partition_spreads_over_buckets_does_not_spread_another_in_the_same_command(
    way: Way, namespace: str
) -> None:
    space = KeySpace((namespace,))
    buffer = Buffer(way._store, space, "score", partitions=4, max_pending=9, spread_above=1, send=way)
    await buffer.open()
    (first, spread), (second, _) = await two_of_each(buffer)
    assert await buffer.freeze(2, 10) is not None  # so that there is room in the hash of all
    await buffer.apply([increment(key) for key in (spread, second)])
    assert [await points(buffer, key) for key in (first, spread, second)] == [1, 1, 1]
    await buffer.aclose()
