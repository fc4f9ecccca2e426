"""A process of the demo's scenes: `python -m asynccache.cli.demo.worker stampede|flush ...`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import asyncpg

from asynccache.cache import Cache
from asynccache.cli.demo.workload import Item
from asynccache.clock import SYSTEM_CLOCK
from asynccache.postgres import PostgresTable
from asynccache.strategies.write_behind import WriteBehind
from asynccache.supervision import gather


def say(what: object) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def stampede(redis_url: str, database_url: str, schema: str, namespace: str, share: str, took: str) -> None:
    """So many callers miss one key; says how many had an answer, and how long the slowest waited."""
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool,
        Cache(redis_url, namespace=namespace, ttl=60) as cache,
    ):

        async def load() -> str:
            await pool.execute(f'INSERT INTO "{schema}".loads DEFAULT VALUES')
            await pool.execute("SELECT pg_sleep($1)", float(took))
            return "expensive"

        async def caller() -> float:
            began = SYSTEM_CLOCK.monotonic()
            value = await cache.get_or_load("hot", load)
            return SYSTEM_CLOCK.monotonic() - began if value == "expensive" else -1.0

        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        waits = await gather(caller() for _ in range(int(share)))
        say({"answered": sum(wait >= 0 for wait in waits), "slowest": max(waits)})
        await asyncio.to_thread(sys.stdin.readline)


async def flush(redis_url: str, database_url: str, schema: str, namespace: str) -> None:
    """Flushes what is written behind, until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool,
        Cache(redis_url, namespace=namespace, ttl=60) as cache,
    ):
        table = PostgresTable(pool, f"{schema}.crash_items", key="id", model=Item)
        WriteBehind(cache, "crash", sink=table, flush_every=0.05)
        say("ready")
        await stop.wait()


if __name__ == "__main__":
    work, *arguments = sys.argv[1:]
    asyncio.run(stampede(*arguments) if work == "stampede" else flush(*arguments))
