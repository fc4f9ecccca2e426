"""When a flusher flushes by itself, what a flush on demand takes, and which ids of batches are forgotten when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import ConfigurationError
from asynccache.clock import ManualClock
from asynccache.errors import DecodeError
from asynccache.keys import KeySpace
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.ownership import RedisClaims
from asynccache.write_behind.pruning import Pruner
from tests.integration.write_behind.flushing import World, running, world
from tests.support.gates import Gate, until

Pool: TypeAlias = "asyncpg.Pool[Any]"


@pytest.fixture(name="world")
async def world_of_the_test(redis_url: str, namespace: str, pool: Pool, redis: Redis) -> AsyncIterator[World]:
    async with world(redis_url, namespace, pool, redis) as made:
        yield made


class TestWhen:
    async def test_a_write_is_flushed_once_it_is_flush_every_old_and_not_before(self, world: World) -> None:
        async with running(world.flusher(flush_every=600.0)) as looks:
            (key,) = await world.put(1)
            await looks.several()
            assert world.table.calls == 0
            await world.make_old(1)
            await until(lambda: world.table.keys == [key])

    async def test_a_full_batch_is_flushed_sooner(self, world: World) -> None:
        async with running(world.flusher(flush_every=600.0)) as looks:
            await world.put(1)
            await world.put(0, 10)
            await until(lambda: len(world.table.keys) == 10)
            await looks.several()
        assert world.table.sizes == [10]
        assert await world.left() == 1  # less than a batch, and young

    async def test_what_is_behind_is_flushed_without_a_look_for_each_batch(self, world: World) -> None:
        await world.put(0, 400)
        async with running(world.flusher(flush_every=600.0, clock=ManualClock())) as looks:
            await until(lambda: len(world.table.keys) == 400)
        assert world.table.sizes == [10, 20, 40, *[50] * 6, 30]
        assert looks.count < len(world.table.sizes)

    async def test_a_batch_that_a_crashed_worker_left_is_flushed_at_once(self, world: World) -> None:
        keys = await world.put(0, 2)
        await world.writers.freeze(0, 10)
        async with running(world.flusher(flush_every=600.0)):
            await until(lambda: sorted(world.table.keys) == keys)

    async def test_partitions_are_worked_on_side_by_side_up_to_a_bound(self, world: World) -> None:
        world.partition(8)
        world.table.before = Gate()
        for number in range(8):
            await world.put(number)
        async with running(world.flusher(at_once=3)) as looks:
            await world.table.before.reached(3)
            await looks.several()
            assert world.table.at_once == 3
            world.table.before.open()
            await until(lambda: len(world.table.keys) == 8)
        assert world.table.most_at_once == 3

    async def test_a_partition_that_is_far_behind_does_not_keep_the_others_waiting(self, world: World) -> None:
        await world.put(0, 400)
        other = await world.put(1, 10)
        async with running(world.flusher(at_once=1)):
            await until(lambda: other[0] in world.table.keys)
        assert world.table.keys.index(other[0]) < 200  # they take turns

    async def test_a_paused_flusher_begins_nothing_and_goes_on_when_resumed(self, world: World) -> None:
        flusher = world.flusher(flush_every=0.01)
        flusher.pause()
        async with running(flusher) as looks:
            (key,) = await world.put(0)
            await until(lambda: flusher.stats.lag > 0.01)
            await looks.several()
            assert (world.table.calls, flusher.stats.paused) == (0, True)
            assert await flusher.drain(10.0) == 1
            flusher.resume()
            await until(lambda: world.table.keys == [key])


class TestOnDemand:
    async def test_a_flush_takes_all_partitions_whoever_owns_them(self, world: World) -> None:
        claims = RedisClaims(world.store, world.space, "item")
        owner, other = (world.flusher(flush_every=600.0, claims=claims) for _ in range(2))
        async with running(owner):
            await until(lambda: len(owner.stats.owned) == 4)
            keys = [key for number in range(4) for key in await world.put(number)]
            await other.flush()
            assert sorted(world.table.keys) == sorted(keys)

    async def test_a_flush_has_all_that_pended_when_it_was_called(self, world: World) -> None:
        keys = await world.put(0, 95) + await world.put(3, 5)
        await world.writers.freeze(0, 10)
        await world.flusher().flush()
        assert await world.rows() == dict.fromkeys(keys, 0)

    async def test_a_flush_tries_all_partitions_and_then_tells_what_failed(self, world: World) -> None:
        await world.put_nonsense(0)
        keys = await world.put(3)
        with pytest.raises(DecodeError):
            await world.flusher().flush()
        assert world.table.keys == keys

    async def test_a_drain_ends_at_its_limit_and_says_what_is_left(self, world: World) -> None:
        flusher = world.flusher()
        async with world.unwritable(0):
            keys = await world.put(0, 10)
            assert await flusher.drain(0.3) == 10
        assert await flusher.drain(30.0) == 0
        assert flusher.left == 0
        assert await world.rows() == dict.fromkeys(keys, 0)


class TestPruning:
    @staticmethod
    async def old_ids(pool: Pool, buffer: str, count: int, minutes: int = 1440) -> None:
        await pool.execute(
            "INSERT INTO asynccache_batch (id, applied_at, buffer) SELECT gen_random_uuid(), now() - $3 * interval '1 minute', $1"
            " FROM generate_series(1, $2)",
            buffer,
            count,
            minutes,
        )

    @staticmethod
    async def ids(pool: Pool) -> dict[str, int]:
        rows = await pool.fetch("SELECT buffer, count(*) FROM asynccache_batch GROUP BY buffer")
        return {row[0]: row[1] for row in rows}

    async def test_ids_are_pruned_until_none_is_left(self, world: World, pool: Pool) -> None:
        await self.old_ids(pool, world.buffer.name, 20_001)
        await self.old_ids(pool, world.buffer.name, 3, minutes=1)
        pruner = Pruner("item", world.buffer, world.table.prune, keep=3600, every=10)
        assert await pruner.once() == 0  # the first look only sees what is frozen
        assert await pruner.once() == 20_001
        assert await self.ids(pool) == {world.buffer.name: 3}

    async def test_a_strategy_that_forgets_sooner_leaves_the_ids_of_those_that_share_its_table(
        self, world: World, pool: Pool
    ) -> None:
        other = Buffer(world.store, KeySpace(("bank",)), "item", partitions=1, max_pending=1)
        for buffer in (world.buffer, other):
            await self.old_ids(pool, buffer.name, 5)
        hasty = Pruner("item", world.buffer, world.table.prune, keep=3600, every=10)
        thorough = Pruner("item", other, world.table.prune, keep=7 * 86_400, every=10)
        for pruner in (hasty, thorough, hasty, thorough):
            await pruner.once()
        assert await self.ids(pool) == {other.name: 5}

    async def test_the_flusher_records_ids_under_the_name_by_which_they_are_pruned(
        self, world: World, pool: Pool
    ) -> None:
        flusher = world.flusher()
        for number in range(3):
            await world.put(0, n=number)
            await flusher.flush()
        await pool.execute("UPDATE asynccache_batch SET applied_at = now() - interval '2 hours'")
        pruner = Pruner("item", world.buffer, world.table.prune, keep=3600, every=10)
        assert [await pruner.once(), await pruner.once()] == [0, 3]

    async def test_nothing_is_pruned_while_a_batch_may_come_back(self, world: World, pool: Pool) -> None:
        await self.old_ids(pool, world.buffer.name, 1)
        pruner = Pruner("item", world.buffer, world.table.prune, keep=3600, every=10)
        await world.put(0)
        frozen = await world.writers.freeze(0, 10)
        assert frozen is not None
        # The same batch twice: it may be a day old, and in the database.
        assert [await pruner.once(), await pruner.once()] == [0, 0]
        await world.writers.ack(0, frozen.id)
        await world.put(0)
        await world.writers.freeze(0, 10)
        assert await pruner.once() == 1  # a younger one: its id is kept long enough

    def test_ids_that_would_not_be_kept_long_enough_are_refused(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match="keep_ids"):
            Pruner("item", world.buffer, world.table.prune, keep=10, every=6)
