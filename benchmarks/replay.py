"""Replays a trace on real servers, at the speed at which it was made."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from asynccache import Cache, Policy, ReadThrough, WriteBehind, WriteThrough
from asynccache.advising import Operation, Plan, Trace
from asynccache.observability.recording import Recorder
from asynccache.postgres import PostgresTable

__all__ = ["Item", "Replayed", "make_table", "replay"]

_CALLERS: Final = 8


@dataclass
class Item:
    """The rows."""

    id: int
    count: int


@dataclass(frozen=True)
class Replayed:
    """What came out.

    Attributes:
        hit_ratio: the share of reads that the cache counted as hits.
        outdated_share: the share of reads that returned what had been overwritten before they began.
    """

    hit_ratio: float
    outdated_share: float


async def make_table(pool: asyncpg.Pool[Any], keys: int) -> None:
    """Makes the table and its rows."""
    await pool.execute("DROP TABLE IF EXISTS items")
    await pool.execute("CREATE TABLE items (id bigint PRIMARY KEY, count bigint NOT NULL)")
    await pool.execute("INSERT INTO items SELECT n, 0 FROM generate_series(0, $1::bigint - 1) AS n", keys)


async def _load(pool: asyncpg.Pool[Any], seconds: float, key: int) -> Item | None:
    row = await pool.fetchrow("SELECT id, count FROM items, pg_sleep($2) WHERE id = $1", key, seconds)
    return None if row is None else Item(*row)


async def replay(
    trace: Trace,
    plan: Plan,
    redis_url: str,
    pool: asyncpg.Pool[Any],
    namespace: str,
    record: str | Path | Recorder | None = None,
    *,
    query_seconds: float = 0.0,
    foreign: bool = False,
) -> Replayed:
    """Runs a trace on real servers.

    Args:
        trace: what to do, and when.
        plan: how to cache it: read-through, write-through or write-behind.
        redis_url, pool: the servers.
        namespace: of the cache.
        record: records what is done.
        query_seconds: how long a load takes at least, of read-through; 0: as long as it takes.
        foreign: writes are made as others make them, without a word to the cache.
    """
    table = PostgresTable(pool, "items", key="id", model=Item)
    policy = Policy(ttl=plan.ttl, stale=plan.stale, jitter=plan.jitter, early=plan.early)
    async with Cache(redis_url, namespace=namespace, policy=policy, record=record) as cache:
        items: Any
        if plan.strategy == "write-behind":
            items = WriteBehind(cache, "item", sink=table, flush_every=plan.flush_every, unsafe="allow")
        elif plan.strategy == "write-through":
            items = WriteThrough(cache, "item", source=table)
        else:
            items = ReadThrough(cache, "item", source=partial(_load, pool, query_seconds) if query_seconds else table)
        await items.get(-1)  # connects, in its own time
        before = cache.stats
        loop = asyncio.get_running_loop()
        start = loop.time()
        rest = iter(zip(trace.times, trace.operations, trace.keys, strict=True))
        values = itertools.count(1)
        written: dict[int, int] = {}
        reads = outdated = 0

        async def call() -> None:
            nonlocal reads, outdated
            for at, operation, key in rest:
                await asyncio.sleep(start + at - loop.time())
                if operation == Operation.GET:
                    known = written.get(key, 0)
                    item = await items.get(key)
                    reads += 1
                    outdated += item.count < known
                    continue
                value = next(values)
                if foreign:
                    await pool.execute("UPDATE items SET count = $2 WHERE id = $1", key, value)
                elif plan.strategy == "read-through":
                    async with cache.updating(items.key(key)):
                        await pool.execute("UPDATE items SET count = $2 WHERE id = $1", key, value)
                else:
                    await items.put(key, Item(key, value))
                written[key] = value

        async with asyncio.TaskGroup() as group:
            for _ in range(_CALLERS):
                group.create_task(call())
        after = cache.stats
    hits = after.hits + after.stale_hits - before.hits - before.stale_hits
    return Replayed(hits / (hits + after.misses - before.misses), outdated / reads)
