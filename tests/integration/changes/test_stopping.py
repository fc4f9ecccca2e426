"""A listener ends when it is told to, whatever it is doing, and leaves its place to the next at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from tests.integration.changes.conftest import Follow
from tests.support.changes import World
from tests.support.gates import Gate, until


class Held:
    """Invalidations that stop at a gate; told to end there, they go on as if they had not been (as `asyncio.wait_for`
    of Python 3.11 does, if the cancellation comes when what it waits for is done)."""

    def __init__(self, world: World, *, deaf: bool) -> None:
        follower = world.changes._listeners[0]._follower
        self._tell = follower.invalidate
        self._deaf = deaf
        self.gate = Gate()
        follower.invalidate = self.invalidate  # type: ignore[method-assign]  # in front of it

    async def invalidate(self, cells: Sequence[str], generations: Sequence[str]) -> None:
        try:
            await self.gate.stop()
        except asyncio.CancelledError:
            if not self._deaf:
                raise
            self.gate.open()
        await self._tell(cells, generations)


async def owner(pool: asyncpg.Pool[Any]) -> object:
    return await pool.fetchval("SELECT owner FROM asynccache_listener")


@pytest.mark.parametrize("deaf", [False, True])
async def test_amid_an_invalidation(follow: Follow, deaf: bool) -> None:
    world = await follow()
    await world.at_work()
    held = Held(world, deaf=deaf)
    await world.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
    await held.gate.reached()
    async with asyncio.timeout(10):
        await world.cache.shutdown()
    assert await owner(world.pool) is None
    held.gate.open()
    await world.cache.startup()
    await world.sees(u1="Ada")


async def test_while_it_stands_by_and_while_it_waits(follow: Follow) -> None:
    first = await follow()
    await first.at_work()
    second = await follow()
    await until(lambda: second.cache.health().changes[0].position_age is not None)
    for world in (second, first):
        async with asyncio.timeout(10):
            await world.cache.shutdown()
        await world.cache.startup()


@pytest.mark.one_loop
async def test_no_session_is_left_behind(follow: Follow) -> None:
    world = await follow()
    for _ in range(3):
        await world.at_work()
        await world.cache.shutdown()

        async def gone() -> bool:
            return not await world.pool.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asynccache changes:default'"
            )

        await until(gone, "the session to end")
        await world.cache.startup()
