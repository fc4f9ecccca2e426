"""What a flusher does about a database that waits, a Redis that is away, writes that are refused, and nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import StoreUnavailable
from tests.integration.write_behind.flushing import WatchedTable, World, running, world
from tests.support.gates import Gate, until
from tests.support.proxy import Mode

Pool: TypeAlias = "asyncpg.Pool[Any]"


@pytest.fixture(name="world")
async def world_of_the_test(redis_url: str, namespace: str, pool: Pool, redis: Redis) -> AsyncIterator[World]:
    async with world(redis_url, namespace, pool, redis) as made:
        yield made


async def test_a_partition_whose_rows_somebody_holds_does_not_stop_the_others(world: World, pool: Pool) -> None:
    world.table = WatchedTable(pool, "item", key="id", model=world.table.model, timeout=0.5)
    flusher = world.flusher()
    async with world.unwritable(2) as held:
        keys = [key for number in range(4) for key in await world.put(number)]
        async with running(flusher):
            others = sorted(set(keys) - {held})
            await until(lambda: sorted(world.table.keys) == others)
            await until(lambda: flusher.stats.failures >= 2)  # it is tried again
            assert list(flusher.stats.failing) == [2]
            assert not flusher.ok
    async with running(flusher):
        await until(lambda: held in world.table.keys)
        await until(lambda: flusher.ok)
    assert await world.rows() == dict.fromkeys(keys, 0)


async def test_what_somebody_has_to_see_to_is_not_tried_in_a_hot_loop(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    flusher = world.flusher(flush_every=0.01)
    await world.put_nonsense(0)
    async with running(flusher):
        await until(lambda: flusher.stats.failing)
        for number in range(10):  # ten flushes of another one, and not one more attempt
            (key,) = await world.put(1, skip=number)
            await until(partial(world.table.keys.__contains__, key))
    assert flusher.stats.failures == 1
    assert list(flusher.stats.failing) == [0]
    assert flusher.stats.failing[0].startswith("DecodeError: ")
    assert "partition 0: DecodeError" in caplog.text
    assert await world.left() == 1


async def test_without_redis_it_waits_and_goes_on_by_itself(world: World) -> None:
    flusher = world.flusher()
    async with running(flusher):
        await world.proxy.set(Mode.REFUSE, cut=True)
        await until(lambda: not flusher.ok)
        (key,) = await world.put(0)
        await world.proxy.set(Mode.PASS)
        await until(lambda: world.table.keys == [key])
        await until(lambda: flusher.ok)


async def test_an_acknowledgement_that_is_lost_doubles_nothing(world: World) -> None:
    flusher = world.flusher()
    key = await world.increment(0)
    world.table.after = Gate()
    flushing = asyncio.create_task(flusher.flush())
    await world.table.after.reached()
    await world.proxy.set(Mode.REFUSE, cut=True)  # the database has it, and Redis does not hear so
    world.table.after.open()
    with pytest.raises(StoreUnavailable):
        await flushing
    assert await world.left() == 1
    await world.proxy.set(Mode.PASS)
    await world.store.reset()  # connections that were cut
    await flusher.flush()
    assert await world.rows() == {key: 1}
    assert (flusher.stats.batches, flusher.stats.again) == (0, 1)  # the attempt that did it never heard so
    assert await world.left() == 0


async def test_an_acknowledgement_whose_answer_is_lost_doubles_nothing(world: World) -> None:
    flusher = world.flusher()
    key = await world.increment(0)
    world.table.after = Gate()
    flushing = asyncio.create_task(flusher.flush())
    await world.table.after.reached()
    await world.proxy.set(Mode.STALL)
    world.table.after.open()
    with pytest.raises(StoreUnavailable):
        await flushing
    await world.increment(0)  # a new one, which the late acknowledgement must leave alone
    await world.proxy.set(Mode.PASS)
    world.table.after = None
    await flusher.flush()
    await flusher.flush()
    assert await world.rows() == {key: 2}
    assert await world.left() == 0


async def test_refused_writes_are_counted_logged_and_told_once_no_reader_sees_them(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[Sequence[Any], int]] = []

    async def on_rejected(keys: Sequence[Any]) -> None:
        told.append((keys, await world.left()))

    flusher = world.flusher(on_rejected=on_rejected)
    good = await world.put(0, 2)
    (bad,) = await world.put(0, skip=2, n=-1)
    await flusher.flush()
    assert told == [([bad], 0)]
    assert await world.rows() == dict.fromkeys(good, 0)
    stats = flusher.stats
    assert (stats.writes, stats.row_updates, stats.rejected) == (3, 2, 1)
    assert f"the database refused the write of {bad}: " in caplog.text
    assert [letter.key for letter in await world.table.dead_letters.list()] == [str(bad)]


async def test_a_drain_without_redis_does_not_raise(world: World) -> None:
    await world.put(0)
    await world.proxy.set(Mode.REFUSE, cut=True)
    assert await world.flusher().drain(0.1) == -1
    assert await world.left() == 1
