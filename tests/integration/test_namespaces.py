"""Namespaces: parts of a cache that never meet, and are cleared at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, CacheNotOpen, ConfigurationError, LocalTier, Policy, WriteBehind, WriteThrough
from asynccache.postgres import PostgresTable
from asynccache.steps import Bump
from tests.support.caches import MakeCache
from tests.support.gates import Table, gated, until


@dataclass
class Score:
    player: str
    points: int = 0


async def test_keys_and_tags_of_namespaces_never_meet(cache: Cache) -> None:
    one, two = cache.namespace("one"), cache.namespace("two")
    for where, value in ((cache, 0), (one, 1), (two, 2), (one.namespace("two"), 3)):
        await where.set("k", value, tags=["t"])
    await one.invalidate_tags("t")
    assert await one.get("k") is None
    assert [await where.get("k") for where in (cache, two, one.namespace("two"))] == [0, 2, 3]


async def test_clear_outdates_a_namespace_and_those_in_it_and_no_other(cache: Cache, make_cache: MakeCache) -> None:
    other = await make_cache()
    inner = cache.namespace("one").namespace("inner")
    for where in (cache, cache.namespace("one"), inner, cache.namespace("two")):
        await where.set("k", 1)
    await other.namespace("one").clear()
    assert await cache.namespace("one").get("k") is None
    assert await inner.get("k") is None
    assert await cache.get("k") == 1
    assert await cache.namespace("two").get("k") == 1
    await cache.clear()
    assert await cache.get("k") is None
    assert await cache.namespace("two").get("k") is None


async def test_clearing_costs_one_step_whatever_the_namespace_holds(cache: Cache) -> None:
    tenant = cache.namespace("tenant-7")
    await tenant.set_many(dict.fromkeys(range(500), 1))
    store = gated(cache)
    await tenant.clear()
    assert [(key, type(step)) for key, step in store.steps] == [(tenant.scope.space.own_generations()[-1], Bump)]
    assert store.reads == 0


async def test_a_load_that_began_before_a_clear_stores_nothing(cache: Cache) -> None:
    table = Table(k="old")
    gate = table.hold()
    tenant = cache.namespace("one").namespace("inner")
    held = asyncio.create_task(tenant.get_or_load("k", table.load))
    await gate.reached()
    table.rows["k"] = "new"
    await cache.namespace("one").clear()
    table.free()
    gate.open()
    assert await held == "old"
    assert await tenant.get_or_load("k", table.load) == "new"


async def test_the_local_tier_forgets_a_namespace_that_another_process_clears(make_cache: MakeCache) -> None:
    near, far = await make_cache(local=LocalTier()), await make_cache()
    await until(lambda: near.runtime.reader.entries is not None and near.runtime.reader.entries.on)
    tenant = near.namespace("tenant-7")
    await far.namespace("tenant-7").set("k", 1)
    await near.set("k", 0)

    async def local() -> bool:
        before = near.stats.local_hits
        assert await tenant.get("k") == 1
        assert await near.get("k") == 0
        return near.stats.local_hits >= before + 2

    await until(local)
    await far.namespace("tenant-7").clear()
    await until(lambda: _is_none(tenant))
    assert await near.get("k") == 0


async def _is_none(tenant: Any) -> bool:
    return await tenant.get("k") is None


async def test_strategies_and_decorators_work_in_a_namespace(
    cache: Cache, pool: asyncpg.Pool[Any], redis: Redis, namespace: str
) -> None:
    await pool.execute("CREATE TABLE scores (player text PRIMARY KEY, points int NOT NULL)")
    table = PostgresTable(pool, "scores", key="player", model=Score)
    tenant = cache.namespace("tenant-7", ttl=5, policy=Policy(jitter=0))
    through = WriteThrough(tenant, "score", source=table)
    assert through.policy.ttl_seconds == 5
    await through.put("ada", Score("ada", 1))
    assert await redis.exists(f"{namespace}/tenant-7:score:ada")
    assert 0 < await redis.pttl(f"{namespace}/tenant-7:score:ada") <= 5000

    calls = 0

    @tenant.cached(key="double:{number}")
    async def double(number: int) -> int:
        nonlocal calls
        calls += 1
        return 2 * number

    assert [await double(2), await double(2), calls] == [4, 4, 1]
    await tenant.clear()
    assert [await double(2), calls] == [4, 2]


async def test_buffers_of_two_tenants_are_two_and_nobody_who_tracks_cells_hears_of_them(
    make_cache: MakeCache, pool: asyncpg.Pool[Any], redis: Redis, namespace: str
) -> None:
    cache = await make_cache(background=False)
    await pool.execute("CREATE TABLE one (player text PRIMARY KEY, points int NOT NULL)")
    await pool.execute("CREATE TABLE two (player text PRIMARY KEY, points int NOT NULL)")
    scores = [
        WriteBehind(cache.namespace(name), "score", sink=PostgresTable(pool, name, key="player", model=Score))
        for name in ("one", "two")
    ]
    for at, strategy in enumerate(scores):
        await strategy.increment("ada", points=at + 1)
    assert [await strategy.get("ada") for strategy in scores] == [Score("ada", 1), Score("ada", 2)]
    buffers = [key async for key in redis.scan_iter(f"{namespace}#w*")]
    assert buffers
    assert not [key async for key in redis.scan_iter(f"{namespace}/*#w*")]
    tracked = cache.scope.space.tracked_prefixes()
    assert not [key for key in buffers if key.decode().startswith(tracked)]
    for strategy in scores:
        await strategy.flush()
    assert await pool.fetchval("SELECT points FROM one") == 1
    assert await pool.fetchval("SELECT points FROM two") == 2
    assert {report.name for report in cache.health().write_behind} == {"one/score", "two/score"}


def test_a_name_or_policy_that_cannot_work_is_refused_at_once() -> None:
    cache = Cache("redis://localhost", namespace="shop")
    for name in ("a:b", "", "a/b", 7):
        with pytest.raises(ConfigurationError, match="namespace"):
            cache.namespace(name)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.namespace("a", ttl="soon")
    with pytest.raises(ConfigurationError, match="no TTL"):
        CacheAside(cache.namespace("a"), "user")
    assert CacheAside(cache.namespace("a", ttl=5), "user").policy.ttl_seconds == 5
    assert CacheAside(cache.namespace("a", ttl=5).namespace("b"), "user").policy.ttl_seconds == 5
    kept = Cache("redis://localhost", namespace="shop", ttl=7).namespace("a", policy=Policy(stale=3))
    assert (CacheAside(kept, "user").policy.ttl_seconds, CacheAside(kept, "user").policy.stale) == (7, 3)
    assert repr(cache.namespace("a").namespace("b")) == "Namespace('shop/a/b', not open yet)"


async def test_a_namespace_is_open_as_long_as_its_cache(redis_url: str, namespace: str) -> None:
    cache = Cache(redis_url, namespace=namespace, ttl=5)
    tenant = cache.namespace("one")
    async with cache:
        await tenant.set("k", 1)
    with pytest.raises(CacheNotOpen):
        await tenant.get("k")
