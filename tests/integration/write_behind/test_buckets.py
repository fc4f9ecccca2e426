"""Much that pends: spread over buckets, it is found, bounded in batches, and flushed once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import StoreUnavailable
from asynccache.codecs import codec_for
from asynccache.keys import KeySpace
from asynccache.stores.redis import RedisStore
from asynccache.stores.scripts import Argument, Call
from asynccache.write_behind.buffer import Buffer, Frozen
from asynccache.write_behind.lane import Outcome
from asynccache.write_behind.layout import Op
from asynccache.write_behind.records import Records


@dataclass(frozen=True)
class Item:
    name: str = "new"
    n: int = 0


CODEC = codec_for(Item)
RECORDS: Records[Item] = Records(CODEC)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_url, timeout=10.0)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
def buffer(store: RedisStore, namespace: str) -> Buffer:
    return Buffer(store, KeySpace((namespace,)), "item", partitions=1, max_pending=1500, spread_above=100)


def puts(keys: Sequence[int], n: int = 0, name: str = "x") -> list[Op]:
    return [RECORDS.put_op(key, CODEC.pack(Item(name, n)), None) for key in keys]


def keys_of(frozen: Frozen | None) -> set[int]:
    assert frozen is not None
    return {int(field) for field in frozen.records}


async def batches(buffer: Buffer, max_batch: int, max_bytes: int = 0) -> list[Frozen]:
    """All that pends, frozen and acknowledged batch by batch."""
    found = []
    left = (await buffer.status(0)).pending
    while (frozen := await buffer.freeze(0, max_batch, max_bytes)) is not None:
        status = await buffer.status(0)
        assert (status.in_batch, status.pending) == (len(frozen.records), frozen.left)
        left -= len(frozen.records)
        assert frozen.left == left
        found.append(frozen)
        assert await buffer.ack(0, frozen.id)
    return found


@pytest.mark.parametrize("max_batch", [7, 100, 260, 2000])
async def test_a_million_in_small_comes_out_in_bounded_batches_each_once(buffer: Buffer, max_batch: int) -> None:
    await buffer.apply(puts(range(1500)))
    found = await batches(buffer, max_batch)
    assert max(len(one.records) for one in found) <= max_batch
    assert sum(len(one.records) for one in found) == 1500
    assert set().union(*map(keys_of, found)) == set(range(1500))
    assert (await buffer.status(0)).age == 0


async def test_whole_buckets_are_taken_until_a_batch_is_nearly_full(buffer: Buffer) -> None:
    await buffer.apply(puts(range(1500)))
    sizes = [len(one.records) for one in await batches(buffer, 260)]
    assert len(sizes) <= 7, "batches of single buckets are a statement for each two dozen rows"


async def test_a_batch_is_bounded_in_bytes_across_buckets_too(buffer: Buffer) -> None:
    await buffer.apply(puts(range(400), name="x" * 1000))
    found = await batches(buffer, 1000, 20_000)
    assert max(sum(map(len, one.records.values())) for one in found) <= 20_000
    assert sum(len(one.records) for one in found) == 400
    assert max(len(one.records) for one in found) > 1


@pytest.mark.parametrize(("max_batch", "max_bytes"), [(5, 0), (101, 0), (1000, 500)])
async def test_buckets_are_flushed_although_new_keys_keep_coming(
    buffer: Buffer, max_batch: int, max_bytes: int
) -> None:
    await buffer.apply(puts(range(600)))
    left, new = set(range(600)), 600
    for _ in range(2000):
        frozen = await buffer.freeze(0, max_batch, max_bytes)
        left -= keys_of(frozen)
        assert frozen is not None
        await buffer.ack(0, frozen.id)
        if not left:
            break
        await buffer.apply(puts([new]))
        new += 1
    assert not left


async def test_a_key_is_merged_where_it_pends_and_counts_once(buffer: Buffer) -> None:
    await buffer.apply(puts(range(1500), 1))
    full = await buffer.apply([*puts([1500]), *puts([3, 1499], 2), RECORDS.delete_op(700)])
    assert [written.outcome for written in full] == [Outcome.FULL, *[Outcome.ACCEPTED] * 3]
    assert {written.pending for written in full} == {1500}
    await buffer.apply([RECORDS.increment_op(key, {"n": 5}) for key in (3, 1499, 4, 1400)])
    found = await buffer.lookup([3, 1499, 4, 1400, 700, 1500])
    values = {key: RECORDS.fold(None, buffered.pending) for key, buffered in found.items()}
    assert {key: value.n if value else None for key, value in values.items()} == {
        3: 7,
        1499: 7,
        4: 6,
        1400: 6,
        700: None,
        1500: None,
    }
    everything = [record for one in await batches(buffer, 100) for record in one.records.items()]
    assert len(everything) == len(dict(everything)) == 1500


async def test_what_is_frozen_is_found_beside_what_was_written_since(buffer: Buffer) -> None:
    await buffer.apply(puts(range(1500), 1))
    dice = random.Random(1)
    pending = dict.fromkeys(range(1500), 1)
    while pending:
        frozen = await buffer.freeze(0, 260)
        taken = keys_of(frozen)
        before = {key: pending.pop(key) for key in taken}
        again = dice.sample(range(1500), 20) if len(pending) > 800 else []
        await buffer.apply(puts(again, 2))
        pending |= dict.fromkeys(again, 2)
        for key, buffered in (await buffer.lookup(list(range(1500)))).items():
            above, below = (
                None if record is None else RECORDS.fold(None, record) for record in (buffered.pending, buffered.frozen)
            )
            assert (above and above.n, below and below.n) == (pending.get(key), before.get(key))
        assert frozen is not None
        await buffer.ack(0, frozen.id)
    assert await buffer.freeze(0, 7) is None


async def test_who_writes_past_the_buffer_is_told_of_a_batch_in_buckets(buffer: Buffer) -> None:
    await buffer.apply(puts(range(300)))
    frozen = await buffer.freeze(0, 200)
    taken = keys_of(frozen)
    for key in (min(taken), max(taken), next(iter(set(range(300)) - taken))):
        assert await buffer.overtake(key) == (key in taken)


async def test_writers_that_spread_differently_find_each_others_keys(
    store: RedisStore, namespace: str, buffer: Buffer
) -> None:
    space = KeySpace((namespace,))
    all_ = [buffer, *(Buffer(store, space, "item", partitions=1, max_pending=1500, spread_above=n) for n in (0, 5000))]
    dice = random.Random(2)
    for n in range(30):
        await dice.choice(all_).apply(puts(dice.sample(range(400), 40), n))
    keys = [key for one in await batches(buffer, 90) for key in keys_of(one)]
    assert len(keys) == len(set(keys))


async def test_a_batch_that_an_earlier_version_froze_is_flushed_by_this_one(buffer: Buffer, redis: Redis) -> None:
    """It knew one hash, and wrote no list of hashes."""
    await buffer.apply(puts(range(3)))
    frozen = await buffer.freeze(0, 10)
    assert frozen is not None
    await redis.hdel(buffer._partitions[0].meta, "parts", "spread", "turn")
    assert await buffer.freeze(0, 10) == frozen
    assert (await buffer.status(0)).in_batch == 3
    assert await buffer.ack(0, frozen.id)
    assert await buffer.freeze(0, 10) is None


async def test_buckets_that_redis_has_lost_keep_nobody_waiting(buffer: Buffer, redis: Redis) -> None:
    await buffer.apply(puts(range(300)))
    keys = buffer.keys()
    await redis.delete(*[key for key in keys if ":pending" in key])
    assert (await buffer.status(0)).pending == 200
    assert await buffer.freeze(0, 100) is None
    assert (await buffer.status(0)).pending == 0


async def test_no_key_of_the_buffer_is_left_when_all_is_flushed(buffer: Buffer, redis: Redis) -> None:
    await buffer.apply(puts(range(1500)))
    assert await redis.exists(*buffer.keys()) > 60
    await batches(buffer, 500)
    assert await redis.exists(*buffer.keys()) == 1, "but what counts its batches"


class Interfering(RedisStore):
    """Between the look at which batch is frozen and the look at what it holds, others flush it and freeze the next."""

    times = 0
    others: Buffer

    async def run_many(self, calls: Sequence[Call], then: Sequence[Sequence[Argument]] = ()) -> Sequence[Any]:
        if then and self.times:
            self.times -= 1
            frozen = await self.others.freeze(0, 20)
            assert frozen is not None
            await self.others.ack(0, frozen.id)
            await self.others.freeze(0, 20)
        return await super().run_many(calls, then)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_batch_is_never_read_under_the_id_of_the_one_before(
    redis_url: str, namespace: str, buffer: Buffer, times: int
) -> None:
    await buffer.apply(puts(range(1500)))
    store = Interfering(redis_url, timeout=10.0)
    await store.open()
    try:
        slow = Buffer(store, KeySpace((namespace,)), "item", partitions=1, max_pending=1500)
        store.others, store.times = buffer, times
        found = await slow.freeze(0, 100)
        assert found == await buffer.freeze(0, 100)
        store.times = 1000
        await buffer.apply(puts(range(1500)))
        with pytest.raises(StoreUnavailable, match="others acknowledged 20 batches"):
            await slow.freeze(0, 100)
    finally:
        await store.aclose()
