"""What each level of durability costs a put: memory, redis, fsync (an append-only file), replicated (one replica)."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.asyncio import Redis

from asynccache import Cache, ConfigurationError, WriteBehind, embedded
from asynccache.postgres import PostgresTable
from benchmarks.model import Context, Finding
from benchmarks.timing import latencies, percentile, race

NAME = "durability"
_CALLERS = 64


@dataclass(slots=True)
class Score:
    """A row of `bench_durability`."""

    id: int
    points: int = 0


async def run(context: Context) -> Finding:
    stack = context.stack
    pool = await stack.enter_async_context(asyncpg.create_pool(context.database_url, min_size=2, max_size=10))
    await pool.execute("DROP TABLE IF EXISTS bench_durability")
    await pool.execute("CREATE TABLE bench_durability (id bigint PRIMARY KEY, points bigint NOT NULL)")
    table = PostgresTable(pool, "bench_durability", key="id", model=Score)
    single = await stack.enter_async_context(embedded.redis_server(append_only=True))
    pair = await stack.enter_async_context(embedded.redis_server(append_only=True))
    replica = await stack.enter_async_context(embedded.redis_server())
    async with Redis.from_url(pair.url) as main, Redis.from_url(replica.url) as other:
        address = main.connection_pool.connection_kwargs
        await other.slaveof(address["host"], address["port"])
        while (await other.info("replication")).get("master_link_status") != "up":
            await asyncio.sleep(0.05)
    contenders: dict[str, Any] = {}
    for level in ("redis", "memory", "replicated", "fsync"):
        server = pair if level == "replicated" else single
        cache = Cache(server.url, namespace=f"bench-{level}-{time.time_ns()}", ttl=60)
        scores = WriteBehind(cache, "score", sink=table, durability=level)
        try:
            await stack.enter_async_context(cache)
            await scores.put(0, Score(0))
        except ConfigurationError as error:  # no WAITAOF
            context.failed[f"durability={level}"] = str(error)
            continue
        contenders[f"durability={level}"] = lambda at, scores=scores: scores.put(at, Score(at, at))
    series = await race(context, contenders, callers=_CALLERS)
    finding = Finding(NAME, f"Write-behind put by durability, {_CALLERS} callers", "operations/s", series)
    for name, operation in contenders.items():
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                waits = await latencies(operation, 8, max(context.window, 2.0))
        half, most = percentile(waits, 0.5), percentile(waits, 0.99)
        finding.notes.append(f"{name}: half of the puts of 8 callers took up to {half:.2f} ms, 99% up to {most:.2f} ms")
    finding.notes.append("fsync waits for Redis' own rhythm, appendfsync everysec; with always it waits for the disk")
    return finding
