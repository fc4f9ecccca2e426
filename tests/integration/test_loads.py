"""Loads: bounded in number and in time, of many keys at once, and what a loader may not do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, LoadTimeout, Policy, RecursiveLoad
from asynccache.entry import parse_cell
from asynccache.strategies.loading import LoadContext
from tests.support.caches import MakeCache
from tests.support.gates import Gate, Table, gated, until


@pytest.fixture
def table() -> Table:
    return Table(k="value")


def _cell(cache: Cache) -> str:
    return cache.scope.space.cell("", "k")


async def _kind(redis: Redis, cache: Cache) -> type | None:
    raw = await redis.get(_cell(cache))
    assert raw is None or isinstance(raw, bytes)
    return None if raw is None else type(parse_cell(raw))


async def _is_empty(redis: Redis, cache: Cache) -> bool:
    return await _kind(redis, cache) is None


async def test_loads_during_a_write_are_bounded_in_number(make_cache: MakeCache, table: Table) -> None:
    cache = await make_cache(max_concurrent_loads=3)
    users: CacheAside[int] = CacheAside(cache, "user")
    running = most = 0

    async def load(key: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        await gate.stop()
        running -= 1
        return key

    gate = Gate()
    async with users.updating(*range(10)):
        calls = [asyncio.create_task(users.get(key, load)) for key in range(10)]
        await until(lambda: cache.stats.misses == 10 and gate.arrived == 3)
        gate.open()
        assert await asyncio.gather(*calls) == list(range(10))
    assert most == 3


async def test_when_one_key_of_many_fails_the_call_fails_and_no_lease_is_left(
    make_cache: MakeCache, redis: Redis
) -> None:
    cache = await make_cache()
    users: CacheAside[int] = CacheAside(cache, "user")
    gate = Gate()

    async def load(key: int) -> int:
        if key == 3:
            await gate.reached(4)
            raise KeyError(key)
        await gate.stop()
        return key

    with pytest.raises(KeyError):
        await users.get_many(range(5), load)
    await until(lambda: _no_keys(redis, [users.key(key) for key in range(5)]))
    gate.open()
    assert await users.get_many([0, 1], load) == {0: 0, 1: 1}


async def _no_keys(redis: Redis, keys: list[Any]) -> bool:
    return not await redis.exists(*keys)


async def test_a_load_that_waits_for_its_turn_ends_at_its_timeout(make_cache: MakeCache, table: Table) -> None:
    cache = await make_cache(max_concurrent_loads=1, policy=Policy(load_timeout=0.2))
    users: CacheAside[Any] = CacheAside(cache, "user", policy=Policy(load_timeout=60))
    gate = table.hold()
    async with users.updating("k"), cache.updating("other"):
        first = asyncio.create_task(users.get("k", table.load))
        await gate.reached()
        with pytest.raises(LoadTimeout, match="max_concurrent_loads"):
            await cache.get_or_load("other", table.load)
        gate.open()
        assert await first == "value"
    assert await cache.get_or_load("other", table.load) == "value"


async def test_a_loader_that_asks_for_its_own_key_is_told_so_instead_of_waiting_for_itself(
    make_cache: MakeCache, redis: Redis
) -> None:
    cache = await make_cache()

    async def one() -> Any:
        return await cache.get_or_load("k", two)

    async def two() -> Any:
        return await cache.get_or_load("other", one)

    async def spawn() -> Any:
        tasks.append(asyncio.create_task(cache.get_or_load("late", _later)))
        return "value"

    async def _later() -> str:
        return "later"

    tasks: list[asyncio.Task[Any]] = []
    with pytest.raises(RecursiveLoad, match=r"^the loader of '[^']*:k' asks .* would wait for itself"):
        await cache.get_or_load("k", two)
    async with cache.updating("k", "other"):
        with pytest.raises(RecursiveLoad):
            await cache.get_or_load("k", two)
    await until(lambda: _is_empty(redis, cache))
    assert await cache.get_or_load("k", spawn) == "value"
    assert await tasks[0] == "later"


async def test_late_tags_of_many_entries_are_read_in_one_call(make_cache: MakeCache) -> None:
    cache = await make_cache()
    users: CacheAside[str] = CacheAside(cache, "user")

    async def load(key: int, ctx: LoadContext) -> str:
        ctx.tags([f"team:{key % 3}"])
        return str(key)

    keys = range(20)
    while cache.stats.fills < len(keys):  # the tags' generations are made by the first loads, which are not stored
        await users.get_many(keys, load)
    store = gated(cache)
    hits = cache.stats.hits
    assert await users.get_many(keys, load) == {key: str(key) for key in keys}
    assert store.reads == 2
    assert cache.stats.hits == hits + len(keys)
    await cache.invalidate_tags("team:1")
    await users.get_many(keys, load)
    assert cache.stats.hits == hits + len(keys) + sum(key % 3 != 1 for key in keys)
