"""A cache in a Redis Cluster does what it does in a single Redis: its keys are on all nodes, each step on one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import pytest
from redis.asyncio import RedisCluster

from asynccache import Cache, CacheAside, ConfigurationError, DurabilityNotReached, LocalTier, WriteBehind, WriteThrough
from asynccache.postgres import PostgresTable
from tests.support.caches import MakeCache
from tests.support.cluster import ClusterNode
from tests.support.gates import Gate, Table, until

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class Score:
    player: str
    points: int = 0
    money: Decimal = Decimal(0)


@pytest.fixture
async def make_cluster_cache(cluster: RedisCluster, namespace: str) -> AsyncIterator[MakeCache]:
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> Cache:
            return await stack.enter_async_context(Cache(cluster, namespace=namespace, ttl=60, **options))

        yield make


@pytest.fixture
async def table(pool: Pool) -> PostgresTable[Score]:
    await pool.execute(
        "CREATE TABLE score (player text PRIMARY KEY, points bigint NOT NULL CHECK (points >= 0), money numeric)"
    )
    return PostgresTable(pool, "score", key="player", model=Score)


async def counts(nodes: tuple[ClusterNode, ...], prefix: str) -> list[int]:
    """How many keys each node holds."""
    return [len(await asyncio.to_thread(node.ask, "KEYS", f"{prefix}*")) for node in nodes]


async def test_entries_are_on_all_nodes_and_read_in_one_call(
    make_cluster_cache: MakeCache, cluster_nodes: tuple[ClusterNode, ...], namespace: str
) -> None:
    cache = await make_cluster_cache()
    keys = [f"key{number}" for number in range(100)]
    await asyncio.gather(*(cache.set(key, key) for key in keys))
    assert all(await counts(cluster_nodes, f"{namespace}:"))
    assert await cache.get_many(keys) == {key: key for key in keys}
    assert await asyncio.gather(*(cache.get(key) for key in keys)) == keys
    for key in keys[::2]:
        await cache.delete(key)
    assert await cache.get_many(keys) == {key: key for key in keys[1::2]}


async def test_a_key_is_loaded_once_for_callers_of_several_caches(make_cluster_cache: MakeCache) -> None:
    items = [CacheAside(await make_cluster_cache(), "item") for _ in range(2)]
    database = Table(**{f"k{number}": number for number in range(20)})
    held = database.hold()
    reading = [
        asyncio.create_task(one.get(key, load=database.load))
        for key in database.rows
        for one in items
        for _ in range(5)
    ]
    await held.reached(20)
    held.open()
    found = await asyncio.gather(*reading)
    assert found == [number for number in range(20) for _ in range(10)]
    assert database.loads == 20


async def test_a_load_that_began_before_a_write_leaves_nothing_stale(make_cluster_cache: MakeCache) -> None:
    items = [CacheAside(await make_cluster_cache(), "item") for _ in range(2)]
    database = Table(**{f"k{number}": 1 for number in range(20)})
    held = database.hold()
    reading = [asyncio.create_task(items[1].get(key, load=database.load)) for key in database.rows]
    await held.reached(20)
    async with items[0].updating(*database.rows):
        database.rows = dict.fromkeys(database.rows, 2)
        database.free()
    held.open()
    await asyncio.gather(*reading)
    found = [await one.get(key, load=database.load) for key in database.rows for one in items]
    assert set(found) == {2}


async def test_a_crowd_shares_the_connections_to_a_node(
    make_cluster_cache: MakeCache, table: PostgresTable[Score]
) -> None:
    cache = await make_cluster_cache(background=False, timeout=10)
    keys = [f"key{number}" for number in range(1500)]
    await cache.set_many({key: key for key in keys})
    await asyncio.gather(*(cache.set(key, key) for key in keys[:500]))
    assert await asyncio.gather(*(cache.get(key) for key in keys)) == keys
    scores = WriteBehind(cache, "score", sink=table, partitions=256)
    await asyncio.gather(*(scores.increment(key, points=1) for key in keys))
    found = await scores.get_many(keys)
    assert {score.points for score in found.values()} == {1}


async def test_tags_and_namespaces_reach_entries_on_all_nodes(make_cluster_cache: MakeCache) -> None:
    cache, other = await make_cluster_cache(), await make_cluster_cache()
    tenant = cache.namespace("tenant-7")
    for number in range(30):
        await cache.set(f"key{number}", 1, tags=["even" if number % 2 == 0 else "odd", "all"])
        await tenant.set(f"key{number}", 1)
    await other.invalidate_tags("even")
    found = await cache.get_many([f"key{number}" for number in range(30)])
    assert sorted(found) == sorted(f"key{number}" for number in range(1, 30, 2))
    await other.invalidate_tags("odd", "all")
    assert await cache.get_many([f"key{number}" for number in range(30)]) == {}
    assert len(await tenant.get_many([f"key{number}" for number in range(30)])) == 30
    await other.namespace("tenant-7").clear()
    assert await tenant.get_many([f"key{number}" for number in range(30)]) == {}


async def test_write_through_puts_and_deletes_keys_on_several_nodes(
    make_cluster_cache: MakeCache, table: PostgresTable[Score], pool: Pool
) -> None:
    scores = WriteThrough(await make_cluster_cache(), "score", source=table)
    rows = {f"p{number}": Score(f"p{number}", number) for number in range(30)}
    await scores.put_many(rows)
    await pool.execute("TRUNCATE score")
    assert await scores.get_many(rows) == rows  # from the cache
    await scores.delete(*rows)
    assert await scores.get_many(rows) == {}


async def test_scripts_that_a_node_has_forgotten_are_loaded_again(
    make_cluster_cache: MakeCache, cluster_nodes: tuple[ClusterNode, ...]
) -> None:
    cache = await make_cluster_cache()
    await asyncio.gather(*(cache.set(f"key{number}", 1) for number in range(30)))
    await asyncio.to_thread(cluster_nodes[1].ask, "SCRIPT", "FLUSH")
    await asyncio.gather(*(cache.set(f"key{number}", 2) for number in range(30)))
    assert set((await cache.get_many([f"key{number}" for number in range(30)])).values()) == {2}


async def test_write_behind_is_exact_over_partitions_on_all_nodes(
    make_cluster_cache: MakeCache,
    table: PostgresTable[Score],
    pool: Pool,
    cluster_nodes: tuple[ClusterNode, ...],
    namespace: str,
) -> None:
    writing, reading = [
        WriteBehind(await make_cluster_cache(background=False), "score", sink=table, partitions=8) for _ in range(2)
    ]
    names = [f"p{number}" for number in range(60)]
    await writing.put_many({name: Score(name, 1) for name in names})
    await asyncio.gather(*(writing.increment(name, points=2, money=Decimal("0.5")) for name in names for _ in range(3)))
    assert all(await counts(cluster_nodes, f"{namespace}#w"))
    expected = {name: Score(name, 7, Decimal("1.5")) for name in names}
    await reading.invalidate(*names)
    assert await reading.get_many(names) == expected

    applied, apply = Gate(), table.apply

    async def apply_and_wait(batch: Any, /) -> Any:
        found = await apply(batch)
        await applied.stop()
        return found

    table.apply = apply_and_wait  # type: ignore[assignment, method-assign]
    flushing = asyncio.create_task(writing.flush())
    await applied.reached(4)  # at once; in the database, and not acknowledged
    await asyncio.gather(*(writing.increment(name, points=1) for name in names[:30]))
    await writing.delete("p59")
    await reading.invalidate(*names)
    expected = {name: Score(name, 7 + (at < 30), Decimal("1.5")) for at, name in enumerate(names[:59])}
    assert await reading.get_many(names) == expected
    applied.open()
    await flushing
    await reading.flush()
    assert sum(status.pending + status.in_batch for status in await reading.pending()) == 0
    rows = {row["player"]: Score(row["player"], row["points"], row["money"]) for row in await pool.fetch("TABLE score")}
    assert rows == expected


async def test_workers_share_the_partitions_and_refused_writes_become_dead_letters(
    make_cluster_cache: MakeCache, table: PostgresTable[Score], pool: Pool
) -> None:
    workers = [
        WriteBehind(
            await make_cluster_cache(), "score", sink=table, partitions=8, flush_every=0.05, lease=2, defaults={}
        )
        for _ in range(2)
    ]
    for worker in workers:
        await worker.put("first", Score("first"))  # opens it
    await until(lambda: all(len(worker.flushed.owned) == 4 for worker in workers), "an even share")
    await asyncio.gather(*(workers[0].put(f"p{at}", Score(f"p{at}", at - 1)) for at in range(40)))

    async def all_written() -> bool:
        return bool(await pool.fetchval("SELECT count(*) FROM score") == 40)

    await until(all_written, "all rows but one")
    await until(lambda: sum(worker.flushed.rejected for worker in workers) == 1)
    assert [letter.key for letter in await workers[1].dead_letters.list()] == ["'p0'"]


async def test_a_node_that_dies_takes_only_its_share_of_hits_and_comes_back_without_a_restart(
    own_cluster: tuple[ClusterNode, ...], namespace: str
) -> None:
    client = RedisCluster(host="127.0.0.1", port=own_cluster[0].port, socket_timeout=1)
    try:
        async with Cache(client, namespace=namespace, ttl=60) as cache:
            database = Table(**{f"k{number}": number for number in range(30)})
            items = CacheAside(cache, "item")

            async def read() -> list[Any]:
                async with asyncio.timeout(60):
                    return [await items.get(key, load=database.load) for key in database.rows]

            assert await read() == list(range(30))
            await asyncio.to_thread(own_cluster[2].kill)
            assert await read() == list(range(30))  # what the node held is loaded
            await asyncio.to_thread(own_cluster[2].start)

            async def hits_only() -> bool:
                before = database.loads
                await read()
                return database.loads == before

            await until(hits_only, "all to be hits again")
    finally:
        await client.aclose()


async def test_what_a_cluster_cannot_do_is_refused_when_it_is_built(
    cluster: RedisCluster, namespace: str, table: PostgresTable[Score]
) -> None:
    with pytest.raises(ConfigurationError, match="cluster"):
        Cache(cluster, namespace=namespace, ttl=60, local=LocalTier(max_entries=10))
    cache = Cache(cluster, namespace=namespace, ttl=60)
    with pytest.raises(ConfigurationError, match="cluster"):
        WriteBehind(cache, "score", sink=table, durability="replicated")


async def test_a_node_that_may_evict_buffered_writes_is_found_among_all(
    own_cluster: tuple[ClusterNode, ...], namespace: str, table: PostgresTable[Score], caplog: pytest.LogCaptureFixture
) -> None:
    client = RedisCluster(host="127.0.0.1", port=own_cluster[0].port, socket_timeout=5)
    try:
        cache = Cache(client, namespace=namespace, ttl=60, background=False)
        scores = WriteBehind(cache, "score", sink=table)
        async with cache:
            await scores.put("ada", Score("ada"))
            assert "no append-only file" in caplog.text
            await asyncio.to_thread(own_cluster[1].ask, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            await scores._buffering.look()
            with pytest.raises(DurabilityNotReached, match="allkeys-lru"):
                await scores.put("ada", Score("ada"))
    finally:
        await client.aclose()
