"""A thousand different cold keys asked for at once, from a Postgres table."""

import asyncio
import gc
import time
from typing import Any

import asyncpg

from asynccache import Cache, LoadContext, ReadThrough
from asynccache.postgres import PostgresTable
from asynccache.strategies.sources import Loading
from benchmarks.model import Context, Finding, Row, Series, Target

NAME = "cold-keys"
_KEYS = 1000


async def run(context: Context) -> Finding:
    statements = 0

    def log(record: Any) -> None:
        nonlocal statements
        statements += "bench_rows" in record.query

    async def watch(connection: Any) -> None:
        connection.add_query_logger(log)

    pool = await context.stack.enter_async_context(
        asyncpg.create_pool(context.database_url, min_size=10, max_size=10, init=watch)
    )
    await pool.execute("DROP TABLE IF EXISTS bench_rows")
    await pool.execute(
        "CREATE TABLE bench_rows AS SELECT n::bigint AS id, 'user ' || n AS name,"
        " 'user.' || n || '@example.com' AS email, repeat('x', 200) AS bio, (n * 7)::int AS points,"
        " n / 3.0::float8 AS ratio FROM generate_series(0, 9999) AS n"
    )
    await pool.execute("ALTER TABLE bench_rows ADD PRIMARY KEY (id)")
    cache = await context.stack.enter_async_context(Cache(context.redis_url, namespace="bench-cold", ttl=60))
    table = PostgresTable(pool, "bench_rows", key="id", model=Row)
    rows = ReadThrough(cache, "row", source=table)
    await rows.get(0)
    loading = Loading(table)
    context.stack.push_async_callback(loading.aclose)

    async def ours() -> None:
        await asyncio.gather(*(rows.get(key) for key in range(_KEYS)))

    async def one_query_a_key() -> None:
        await asyncio.gather(*(pool.fetchrow("SELECT * FROM bench_rows WHERE id = $1", key) for key in range(_KEYS)))

    async def one_call() -> None:
        await rows.get_many(range(_KEYS))

    async def no_cache() -> None:
        loading.expect_company()
        await asyncio.gather(*(loading.loader(key)(LoadContext(str(key))) for key in range(_KEYS)))

    contenders = {
        "asynccache": ours,
        "one query a key": one_query_a_key,
        "asynccache, one get_many": one_call,
        "a task a key, loads batched, no cache": no_cache,
    }
    took: dict[str, list[float]] = {name: [] for name in contenders}
    sent: list[int] = []
    for turn in range(context.rounds + 1):
        for name, contender in contenders.items():
            await rows.invalidate(*range(_KEYS))
            gc.collect()
            statements = 0
            began = time.perf_counter()
            await contender()
            if turn:
                took[name].append(_KEYS / (time.perf_counter() - began))
            if contender is ours:
                sent.append(statements)
    await pool.execute("DROP TABLE bench_rows")
    finding = Finding(
        NAME, "1,000 cold keys at once, cached on the way", "keys/s", [Series(*pair) for pair in took.items()]
    )
    finding.judge(Target("at least 15 x one query a key", at_least=15, against="one query a key"))
    finding.targets.append(("at most 2 SQL statements", float(max(sent)), max(sent) <= 2))
    finding.notes.append(
        "ours also takes 1,000 leases in Redis and stores 1,000 values; one query a key stores nothing, nor does"
        " the last line, which is the limit of any cache that lets each caller ask for itself"
    )
    return finding
