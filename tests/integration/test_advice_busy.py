"""What is predicted of a recorded workload is what the cache did with it, also where callers crowd: many of them, one call
after the other, so that loads and writes of a key overlap as often as they can."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import Cache, CacheAside, LocalTier, Policy, WriteBehind, WriteThrough
from asynccache.advising import Operation, Outcome, Plan, World, read_trace, simulate
from asynccache.postgres import PostgresTable
from tests.support.caches import MakeCache

Pool: TypeAlias = "asyncpg.Pool[Any]"
Read = Callable[[int], Awaitable[Any]]

KEYS, CALLERS, OPERATIONS = 500, 16, 5_000
WEIGHTS = [(rank + 1) ** -0.8 for rank in range(KEYS)]


@dataclass
class Item:
    id: int
    name: str


@pytest.fixture
async def items(pool: Pool) -> PostgresTable[Item]:
    await pool.execute("CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL)")
    await pool.execute("INSERT INTO items SELECT n, 'item ' || n FROM generate_series(0, $1) n", KEYS)
    return PostgresTable(pool, "items", key="id", model=Item)


async def drive(read: Read, write: Read, *, writes: float) -> None:
    """Many callers, one operation after the other, on keys of Zipf's popularity."""
    plan = random.Random(7)
    keys = iter(plan.choices(range(KEYS), weights=WEIGHTS, k=OPERATIONS))

    async def call() -> None:
        for key in keys:
            await (write(key) if plan.random() < writes else read(key))

    await asyncio.gather(*(call() for _ in range(CALLERS)))


async def compare(cache: Cache, path: Path, plan: Plan, *, loads: bool = True) -> Outcome:
    """Closes the cache, simulates its trace, and holds the one against the other."""
    await cache.shutdown()
    with path.open() as lines:
        trace = read_trace(lines)
    predicted = simulate(trace, plan, World(query_cost=0.001))
    seen = cache.stats
    assert predicted.reads == trace.count(Operation.GET, Operation.GET_NOTHING) == seen.reads
    assert 0.2 < seen.hit_ratio < 0.97, "the workload tells one plan from another"
    assert predicted.hit_ratio == pytest.approx(seen.hit_ratio, abs=0.03)
    if loads:  # through the cache, which counts them
        assert predicted.loads == pytest.approx(seen.loads, rel=0.15)
    return predicted


@pytest.mark.parametrize("ttl", [0.3, 1.0])
async def test_cache_aside_with_writes_hits_as_often_as_predicted(
    ttl: float, make_cache: MakeCache, pool: Pool, items: PostgresTable[Item], tmp_path: Path
) -> None:
    cache = await make_cache(ttl=ttl, record=tmp_path / "trace")
    users = CacheAside(cache, "item", type=Item)

    async def load(key: int) -> Item:
        row = await pool.fetchrow("SELECT id, name, pg_sleep(0.002) FROM items WHERE id = $1", key)
        assert row is not None
        return Item(row["id"], row["name"])

    async def write(key: int) -> None:
        async with users.updating(key):
            await pool.execute("UPDATE items SET name = name WHERE id = $1", key)

    await drive(lambda key: users.get(key, load), write, writes=0.1)
    await compare(cache, tmp_path / "trace", Plan("cache-aside", ttl))


async def test_write_through_hits_as_often_as_predicted(
    make_cache: MakeCache, items: PostgresTable[Item], tmp_path: Path
) -> None:
    cache = await make_cache(ttl=0.5, record=tmp_path / "trace")
    table = WriteThrough(cache, "item", source=items)
    await drive(table.get, lambda key: table.put(key, Item(key, "new")), writes=0.3)
    await compare(cache, tmp_path / "trace", Plan("write-through", 0.5))


async def test_write_behind_hits_and_combines_as_predicted(
    make_cache: MakeCache, items: PostgresTable[Item], tmp_path: Path
) -> None:
    cache = await make_cache(ttl=0.5, record=tmp_path / "trace")
    # Many flushes, so that where the last one of the run fell does not matter.
    table = WriteBehind(cache, "item", sink=items, flush_every=0.05, unsafe="allow")
    await drive(table.get, lambda key: table.put(key, Item(key, "new")), writes=0.5)
    await table.flush()
    predicted = await compare(cache, tmp_path / "trace", Plan("write-behind", 0.5, flush_every=0.05))
    assert predicted.rows_written == pytest.approx(table.flushed.row_updates, rel=0.3)


async def test_stale_values_and_refreshes_are_predicted(
    make_cache: MakeCache, pool: Pool, items: PostgresTable[Item], tmp_path: Path
) -> None:
    cache = await make_cache(ttl=0.3, policy=Policy(stale=0.6, jitter=0.3), record=tmp_path / "trace")
    users = CacheAside(cache, "item", type=str)

    async def load(key: int) -> str:
        found = await pool.fetchval("SELECT name FROM items WHERE id = $1", key)
        assert isinstance(found, str)
        return found

    await drive(lambda key: users.get(key, load), users.invalidate, writes=0.05)
    await compare(cache, tmp_path / "trace", Plan("read-through", 0.3, stale=0.6, jitter=0.3))


async def test_a_decorated_function_is_predicted_though_it_hits_in_the_process(
    make_cache: MakeCache, pool: Pool, items: PostgresTable[Item], tmp_path: Path
) -> None:
    cache = await make_cache(ttl=0.5, record=tmp_path / "trace", local=LocalTier(max_entries=10_000))

    @cache.cached(key="item:{key}")
    async def name(key: int) -> str | None:
        found = await pool.fetchval("SELECT name FROM items WHERE id = $1", key)
        return None if key % 5 == 3 else str(found)  # a fifth is never stored

    await drive(name, name.invalidate, writes=0.05)
    assert cache.stats.local_hits > 0
    await compare(cache, tmp_path / "trace", Plan("read-through", 0.5))


async def test_a_cache_that_is_filled_by_hand_is_predicted(
    make_cache: MakeCache, pool: Pool, items: PostgresTable[Item], tmp_path: Path
) -> None:
    cache = await make_cache(ttl=0.5, record=tmp_path / "trace")

    async def read(key: int) -> str:
        found = await cache.get(key, type=str)
        if found is None:
            found = str(await pool.fetchval("SELECT name FROM items WHERE id = $1", key))
            await cache.set(key, found, type=str)
        return str(found)

    await drive(read, cache.delete, writes=0.05)
    await compare(cache, tmp_path / "trace", Plan("read-through", 0.5), loads=False)
