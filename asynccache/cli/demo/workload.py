"""One skewed workload, driven through the table itself and through each strategy."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from asynccache.cache import Cache
from asynccache.cli.demo.report import RunResult
from asynccache.clock import SYSTEM_CLOCK
from asynccache.postgres import PostgresTable
from asynccache.protocols import Batch, Put
from asynccache.strategies.cache_aside import CacheAside
from asynccache.strategies.read_through import ReadThrough
from asynccache.strategies.write_behind import WriteBehind
from asynccache.strategies.write_through import WriteThrough

Read: TypeAlias = "Callable[[int], Awaitable[Item | None]]"
Write: TypeAlias = "Callable[[int, Item], Awaitable[object]]"

__all__ = ["NAMES", "Item", "Statements", "Target", "Workload", "strategies"]


@dataclass(slots=True)
class Item:
    """One row of the demo's table."""

    name: str
    description: str
    cents: int
    stock: int


class Statements:
    """Counts the SQL statements of a pool's connections, but for the pool's own housekeeping."""

    def __init__(self) -> None:
        self.count = 0

    async def watch(self, connection: Any) -> None:
        """To be the pool's `init`."""
        connection.add_query_logger(self._log)

    def _log(self, record: Any) -> None:
        if not record.query.lstrip().startswith("SELECT pg_advisory_unlock_all"):
            self.count += 1


@dataclass(frozen=True, slots=True)
class Target:
    """A way to read and write items."""

    name: str
    read: Read
    write: Write
    finish: Callable[[], Awaitable[object]]
    cache: Cache | None


class Workload:
    """The same operations for every target.

    Args:
        rows: how many items there are.
        operations: how many to do.
        callers: how many at once.
        writes_share: share of writes.
        skew: exponent of the Zipf distribution of keys.
        seed: of the random keys.
    """

    def __init__(
        self, *, rows: int, operations: int, callers: int, writes_share: float, skew: float, seed: int
    ) -> None:
        rng = random.Random(seed)  # noqa: S311 - a workload, to be the same each time
        weights = itertools.accumulate(1 / (rank + 1) ** skew for rank in range(rows))
        ranks = rng.choices(range(1, rows + 1), cum_weights=list(weights), k=operations)
        self._operations = [(key, rng.random() < writes_share) for key in ranks]
        self._callers = callers

    async def run(self, target: Target, statements: Statements, step: Callable[[int], None]) -> RunResult:
        """Does all operations; `step` is told of each hundred."""
        latencies: list[float] = []
        operations = iter(self._operations)
        now = SYSTEM_CLOCK.monotonic
        before = target.cache.stats if target.cache else None
        sent = statements.count

        async def caller() -> None:
            for key, writes in operations:
                began = now()
                if writes:
                    await target.write(key, Item(f"item {key}", "x" * 200, len(latencies), key))
                else:
                    await target.read(key)
                latencies.append(now() - began)
                if len(latencies) % 100 == 0:
                    step(100)

        began = now()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._callers):
                group.create_task(caller())
        took = now() - began
        await target.finish()
        ratio = None
        if target.cache is not None and before is not None:
            after = target.cache.stats
            hits = after.hits + after.stale_hits - before.hits - before.stale_hits
            ratio = hits / max(1, after.reads - before.reads)
        latencies.sort()
        return RunResult(
            target.name,
            len(latencies),
            took,
            _percentile(latencies, 0.5) * 1000,
            _percentile(latencies, 0.99) * 1000,
            ratio,
            statements.count - sent,
        )


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


NAMES = ("no cache", "cache-aside", "read-through", "write-through", "write-behind")


@asynccontextmanager
async def strategies(
    name: str, redis_url: str, namespace: str, pool: asyncpg.Pool[Any], table_name: str
) -> AsyncIterator[Target]:
    """Opens one of NAMES."""
    table = PostgresTable(pool, table_name, key="id", model=Item)

    async def load(key: int) -> Item | None:
        return (await table.load_many([key])).get(key)

    async def save(key: int, item: Item) -> None:
        await table.apply(Batch([Put(key, item)]))

    async def nothing() -> None: ...

    await table.open()
    try:
        if name == "no cache":
            yield Target(name, load, save, nothing, None)
            return
        async with Cache(redis_url, namespace=namespace, ttl=300) as cache:
            yield _cached(name, cache, table, load, save, nothing)
    finally:
        await table.aclose()


def _cached(
    name: str, cache: Cache, table: PostgresTable[Item], load: Read, save: Write, nothing: Callable[[], Awaitable[None]]
) -> Target:
    if name == "cache-aside":
        aside = CacheAside(cache, "aside", type=Item)

        async def update(key: int, item: Item) -> None:
            async with aside.updating(key):
                await save(key, item)

        return Target(name, lambda key: aside.get(key, load), update, nothing, cache)
    if name == "read-through":
        # Writes go past it, so it has to be told.
        through = ReadThrough(cache, "read", source=table)

        async def write(key: int, item: Item) -> None:
            async with cache.updating(through.key(key)):
                await save(key, item)

        return Target(name, through.get, write, nothing, cache)
    if name == "write-through":
        items = WriteThrough(cache, "write", source=table)
        return Target(name, items.get, items.put, nothing, cache)
    behind = WriteBehind(cache, "behind", sink=table, flush_every=0.5)
    return Target(name, behind.get, behind.put, behind.flush, cache)
