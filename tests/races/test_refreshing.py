"""A refresh in the background against everything that changes the row meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, LoadContext, Policy, Reason
from asynccache.clock import SYSTEM_CLOCK
from asynccache.entry import Value
from asynccache.steps import Fill, Refresh
from tests.races.worlds import CHANGES, KEY, READS, TAG, World, break_script, cell_at, has_reason, is_gone
from tests.support.caches import MakeCache
from tests.support.gates import Gate, Table, gated, until

KINDS = ["stale", "early", "asked for"]
POINTS = ["lease asked for", "lease taken", "loaded", "about to fill"]


class SlowLoads:
    """A clock that a load moves by an hour, so that XFetch refreshes at the next read for sure."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self._ahead

    def wall_ms(self) -> int:
        return SYSTEM_CLOCK.wall_ms()

    def load_takes_an_hour(self) -> None:
        self._ahead += 3600


async def _refresher(make_cache: MakeCache, kind: str, world: World) -> Cache:
    """A cache with an entry whose next read refreshes it in the background."""
    if kind == "stale":
        cache = await make_cache(ttl=0.001, policy=Policy(stale=600, jitter=0, early=0))
        assert await READS["get_or_load"](world, cache) == "old"
        await until(lambda: has_reason(cache, world.cell, Reason.STALE))
        return cache
    if kind == "asked for":
        cache = await make_cache()
        assert await READS["get_or_load"](world, cache) == "old"
        return cache
    clock = SlowLoads()
    cache = await make_cache(clock=clock, policy=Policy(early=1000))

    async def load() -> Any:
        clock.load_takes_an_hour()
        return await world.table.load()

    # ln(rand()) * 3,600,000 ms * 1000 is below -60,000 ms for all but one draw in 60,000.
    assert await cache.get_or_load(world.cell, load, tags=[TAG]) == "old"
    return cache


def _hold(world: World, cache: Cache, point: str) -> Gate:
    match point:
        case "lease asked for":
            return gated(cache).before(Refresh, world.cell)
        case "lease taken":
            return gated(cache).after(Refresh, world.cell)
        case "loaded":
            return world.table.hold()
        case _:
            return gated(cache).before(Fill, world.cell)


async def _race(world: World, make_cache: MakeCache, kind: str, point: str, change: str) -> tuple[Any, ...]:
    """What both processes serve after a change that came while a refresh was at a point."""
    cache = await _refresher(make_cache, kind, world)
    gate = _hold(world, cache, point)
    read = READS["refresh"] if kind == "asked for" else READS["get_or_load"]
    reader = asyncio.create_task(read(world, cache))
    if kind != "asked for":
        assert await reader == "old"
    await gate.reached()
    world.table.free()
    await CHANGES[change](world, world.two, "new")
    after_change = [await READS["cache-aside"](world, one) for one in (world.two, world.one)]
    gate.open()
    await reader
    await until(lambda: len(cache.runtime.reader._owner) == 0, "the refresh to end")
    at_the_end = [await READS["cache-aside"](world, one) for one in (cache, world.two, world.one)]
    return (*after_change, *at_the_end)


@pytest.mark.one_loop
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_refresh_leaves_nothing_older_than_a_change(
    make_cache: MakeCache, world: World, kind: str, change: str, point: str
) -> None:
    served = await _race(world, make_cache, kind, point, change)
    assert set(served) == {world.row}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_guard_is_needed_a_refresh_fills_with_its_token(
    make_cache: MakeCache, world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    break_script(monkeypatch, Fill, "if not holds(ARGV[1]) then", "if false then")
    assert "old" in await _race(world, make_cache, kind, "about to fill", "updating")


async def test_a_refresh_that_lost_its_value_to_another_does_not_load(make_cache: MakeCache, world: World) -> None:
    cache = await _refresher(make_cache, "stale", world)
    gate = gated(cache).before(Refresh, world.cell)
    assert await READS["get_or_load"](world, cache) == "old"
    await gate.reached()
    await CHANGES["set"](world, world.two, "new")
    gate.open()
    await until(lambda: len(cache.runtime.reader._owner) == 0)
    assert world.table.loads == 1
    assert cache.stats.refreshes == 0


@pytest.mark.parametrize("found", ["row is gone", "loader skips"])
async def test_a_refresh_that_finds_nothing_to_store_empties_the_entry(
    make_cache: MakeCache, world: World, redis: Redis, found: str
) -> None:
    cache = await _refresher(make_cache, "stale", world)
    world.table.rows[KEY] = None if found == "row is gone" else "new"

    async def load(ctx: LoadContext) -> Any:
        assert ctx.refresh
        ctx.skip()
        return await world.table.load()

    assert await cache.get_or_load(world.cell, load, tags=[TAG]) == "old"
    await until(lambda: is_gone(redis, world.cell))
    assert await READS["get_or_load"](world, cache) == world.row


async def test_a_refresh_that_finds_nothing_leaves_a_newer_value_alone(
    make_cache: MakeCache, world: World, redis: Redis
) -> None:
    cache = await _refresher(make_cache, "stale", world)
    world.table.rows[KEY] = None
    loaded = world.table.hold()
    assert await READS["get_or_load"](world, cache) == "old"
    await loaded.reached()
    world.table.free()
    await CHANGES["put"](world, world.two, "new")
    assert isinstance(await cell_at(redis, world.cell), Value)
    loaded.open()
    await until(lambda: len(cache.runtime.reader._owner) == 0)
    assert await READS["cache-aside"](world, world.one) == "new"


async def test_asking_for_a_refresh_joins_nobody_and_stores_what_is_newest(make_cache: MakeCache) -> None:
    cache = await make_cache()
    table = Table(k="old")
    users: CacheAside[str] = CacheAside(cache, "user")
    first = gated(cache).before(Fill)
    slow = asyncio.create_task(users.refresh("k", table.load))
    await first.reached()
    table.rows["k"] = "new"
    assert await users.refresh("k", table.load) == "new"
    first.open()
    # The first had the lease, and stores what it loaded: nobody said that the row has changed.
    assert await slow == "old"
    await users.invalidate("k")
    assert await users.get("k", table.load) == "new"
