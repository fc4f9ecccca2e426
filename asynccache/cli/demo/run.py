"""The demo from start to end: servers, rows, runs, scenes, and leaving nothing behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asynccache import embedded
from asynccache.cli.demo.report import DemoReport
from asynccache.cli.demo.scenes import crash, stampede
from asynccache.cli.demo.workload import NAMES, Statements, Workload, strategies
from asynccache.errors import DatabaseUnavailable
from asynccache.keys import KeySpace
from asynccache.stores.redis import RedisStore
from asynccache.strategies.write_behind import PARTITIONS
from asynccache.write_behind.buffer import Buffer

__all__ = ["DemoOptions", "run_demo"]

_CALLERS = 64
_WRITES = 0.05
_SKEW = 1.1
_TABLES = """
CREATE TABLE "{schema}".items (id bigint PRIMARY KEY, name text NOT NULL, description text NOT NULL,
    cents int NOT NULL, stock int NOT NULL);
CREATE TABLE "{schema}".crash_items (LIKE "{schema}".items INCLUDING ALL);
CREATE TABLE "{schema}".loads (id bigint GENERATED ALWAYS AS IDENTITY)
"""
_ROWS = """
INSERT INTO "{schema}".items SELECT n, 'item ' || n, repeat('x', 200), n * 7, n FROM generate_series(1, $1) AS n
"""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How much to do.

    Attributes:
        quick: a fifth of the rows, operations and writes.
        seed: of the random keys.
    """

    quick: bool = False
    seed: int = 1

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return 20_000 if self.quick else 100_000

    @property
    def operations(self) -> int:
        """Operations of each run."""
        return 6_000 if self.quick else 50_000

    @property
    def writes(self) -> int:
        """Writes behind, in the crash scene."""
        return 10_000 if self.quick else 50_000


async def run_demo(options: DemoOptions, console: Console, *, progress: bool) -> DemoReport:
    """Runs the demo.

    Raises:
        StoreUnavailable, DatabaseUnavailable: a given server does not answer.
        MissingExtra: no servers are given, and the extra `embedded` is not installed.
    """
    tag = uuid4().hex[:8]
    schema, namespace = f"asynccache_demo_{tag}", f"asynccache-demo-{tag}"
    async with _servers(console) as (redis_url, database_url), _rows(database_url, schema, options.rows):
        try:
            return await _run(options, console, redis_url, database_url, schema, namespace, progress=progress)
        finally:
            await _forget(redis_url, namespace, options)


@asynccontextmanager
async def _servers(console: Console) -> AsyncIterator[tuple[str, str]]:
    redis_url, database_url = os.environ.get("REDIS_URL"), os.environ.get("DATABASE_URL")
    if redis_url and database_url:
        yield redis_url, database_url
        return
    console.print("Starting embedded Valkey and PostgreSQL ...", highlight=False)
    async with embedded.servers(append_only=True) as servers:
        yield redis_url or servers.redis_url, database_url or servers.database_url


@asynccontextmanager
async def _rows(database_url: str, schema: str, rows: int) -> AsyncIterator[None]:
    try:
        connection = await asyncpg.connect(database_url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise DatabaseUnavailable(f"DATABASE_URL: {type(error).__name__}: {error}") from error
    try:
        await connection.execute(f'CREATE SCHEMA "{schema}"')
        try:
            await connection.execute(_TABLES.format(schema=schema))
            await connection.execute(_ROWS.format(schema=schema), rows)
            yield
        finally:
            await connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
    finally:
        await connection.close()


async def _run(
    options: DemoOptions,
    console: Console,
    redis_url: str,
    database_url: str,
    schema: str,
    namespace: str,
    *,
    progress: bool,
) -> DemoReport:
    workload = Workload(
        rows=options.rows,
        operations=options.operations,
        callers=_CALLERS,
        writes_share=_WRITES,
        skew=_SKEW,
        seed=options.seed,
    )
    statements = Statements()
    bars = Progress(
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not progress,
    )
    async with asyncpg.create_pool(database_url, min_size=10, max_size=10, init=statements.watch) as pool:
        versions = await _versions(redis_url, pool)
        report = DemoReport(*versions, options.rows, _CALLERS, _WRITES, _SKEW)
        with bars:
            for name in NAMES:
                bar = bars.add_task(name, total=options.operations)
                async with strategies(name, redis_url, namespace, pool, f"{schema}.items") as target:
                    report.runs.append(await workload.run(target, statements, partial(bars.advance, bar)))
            bar = bars.add_task("stampede", total=1)
            scene = await stampede(
                redis_url, database_url, schema, namespace, processes=4, callers=1000, load_seconds=0.25
            )
            bars.advance(bar)
            bar = bars.add_task("crash", total=options.writes)
            fall = await crash(
                redis_url,
                database_url,
                schema,
                namespace,
                pool,
                writes=options.writes,
                step=partial(bars.advance, bar),
            )
    return replace(report, stampede=scene, crash=fall)


async def _versions(redis_url: str, pool: Any) -> tuple[str, str]:
    client = Redis.from_url(redis_url)
    try:
        info = await client.info("server")
    finally:
        await client.aclose()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version"))
    return f"{name} {version}", f"PostgreSQL {(await pool.fetchval('SHOW server_version')).split()[0]}"


async def _forget(redis_url: str, namespace: str, options: DemoOptions) -> None:
    """Removes the demo's keys by their names, which are known: a SCAN would slow down a Redis that others use."""
    space = KeySpace((namespace,))
    keys = [*space.own_generations(), str(space.cell("", "hot"))]
    for name in ("behind", "crash"):
        buffer = Buffer(RedisStore(redis_url), space, name, partitions=PARTITIONS, max_pending=1)
        keys += [*buffer.keys(), *(buffer.cell(key) for key in range(max(options.rows, options.writes) + 1))]
    for name in ("aside", "read", "write"):
        keys += [space.cell(name, key) for key in range(1, options.rows + 1)]
    client = Redis.from_url(redis_url)
    try:
        for at in range(0, len(keys), 5000):
            await client.unlink(*keys[at : at + 5000])
    finally:
        await client.aclose()
