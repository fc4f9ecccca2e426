"""How soon a local tier knows of a row changed by another client of the database, and what recording costs that one."""

import asyncio
import statistics
import time

import asyncpg

from asynccache import Cache, CacheAside, LocalTier
from asynccache.postgres import PostgresChanges, TableChanges
from benchmarks.model import Context, Finding, Series, Target
from benchmarks.timing import percentile

NAME = "database-changes"

_SCHEMA = "bench_database_changes"
_ROWS = 10_000


async def run(context: Context) -> Finding:
    pool = await context.stack.enter_async_context(
        asyncpg.create_pool(context.database_url, server_settings={"search_path": _SCHEMA})
    )
    await pool.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE; CREATE SCHEMA {_SCHEMA}")
    context.stack.push_async_callback(pool.execute, f"DROP SCHEMA {_SCHEMA} CASCADE")
    for table in ("followed", "bare"):
        await pool.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, value float NOT NULL)")
        await pool.execute(f"INSERT INTO {table} SELECT i, 0 FROM generate_series(1, {_ROWS}) i")
    caches = [Cache(context.redis_url, namespace=NAME, ttl=60, local=LocalTier()) for _ in range(2)]
    listening, here = caches
    changes = PostgresChanges(
        pool,
        tables=[TableChanges("followed", key="id", entries=[CacheAside(listening, "row")])],
        schema=_SCHEMA,
    )
    await changes.install()
    listening.follow(changes)  # in another cache than the one that is looked at: another process would do
    for cache in caches:
        await context.stack.enter_async_context(cache)
    rows = CacheAside(here, "row")
    entries = here.runtime.reader.entries
    assert entries is not None
    while not (entries.on and listening.health().changes[0].active):
        await asyncio.sleep(0.001)

    async def load(key: int) -> float:
        return float(await pool.fetchval("SELECT value FROM followed WHERE id = $1", key))

    p99s, p50s = [], []
    writer = await context.stack.enter_async_context(pool.acquire())
    value = 0.0
    for _ in range(context.rounds):
        lags = []
        for _ in range(50 if context.quick else 200):
            value += 1
            while entries.get(rows.key(1)) is None:
                await rows.get(1, load=load)
                await asyncio.sleep(0)
            await writer.execute("UPDATE followed SET value = $1 WHERE id = 1", value)
            began = time.perf_counter()
            while await rows.get(1, load=load) != value:
                await asyncio.sleep(0)
            lags.append((time.perf_counter() - began) * 1000)
        lags.sort()
        p99s.append(percentile(lags, 0.99))
        p50s.append(percentile(lags, 0.5))
    finding = Finding(
        NAME,
        "Another client's UPDATE is acknowledged -> the local tier of another cache serves the new row",
        "ms",
        [Series("asynccache, p99", p99s), Series("asynccache, p50", p50s)],
    )
    finding.judge(Target("p99 at most 100 ms", at_most=100))
    for what, statement, times in (
        ("an UPDATE of one row", "UPDATE {} SET value = value + 1 WHERE id = 7", 200),
        ("an UPDATE of 10,000 rows", "UPDATE {} SET value = value + 1", 5),
    ):
        took = {table: await _took(writer, statement.format(table), times) for table in ("bare", "followed")}
        finding.notes.append(
            f"{what} takes {took['followed']:.2f} ms where it is recorded, {took['bare']:.2f} ms where it is not"
        )
    return finding


async def _took(connection: asyncpg.pool.PoolConnectionProxy, statement: str, times: int) -> float:
    """The median, in milliseconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        await connection.execute(statement)
        found.append((time.perf_counter() - began) * 1000)
    return statistics.median(found)
