"""Two scenes that caches usually fail: a stampede over processes, and a worker killed while it flushes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from asynccache.cache import Cache
from asynccache.cli.demo.report import CrashResult, StampedeResult
from asynccache.cli.demo.workload import Item
from asynccache.clock import SYSTEM_CLOCK
from asynccache.postgres import PostgresTable
from asynccache.strategies.write_behind import WriteBehind
from asynccache.supervision import gather

__all__ = ["crash", "stampede"]

_WORKERS: Final = 3


class Worker:
    """A process of `asynccache.cli.demo.worker`: told what to do by arguments, says things in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *arguments: str) -> Worker:
        """Starts one."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "asynccache.cli.demo.worker",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def hear(self) -> Any:
        """The next thing it says."""
        assert self._process.stdout is not None  # noqa: S101 - piped
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker of the demo ended with code {await self._process.wait()}")
        return json.loads(line)

    async def go(self) -> None:
        """Lets it begin."""
        assert self._process.stdin is not None  # noqa: S101 - piped
        self._process.stdin.write(b"go\n")
        await self._process.stdin.drain()

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and waits for it."""
        if self._process.returncode is None:
            self._process.send_signal(how)
        await self._process.wait()


async def stampede(
    redis_url: str,
    database_url: str,
    schema: str,
    namespace: str,
    *,
    processes: int,
    callers: int,
    load_seconds: float,
) -> StampedeResult:
    """Lets `callers` in all miss one key at once, in so many processes; loads are counted by the database."""
    share = callers // processes
    workers = await gather(
        Worker.start("stampede", redis_url, database_url, schema, namespace, str(share), str(load_seconds))
        for _ in range(processes)
    )
    try:
        await gather(worker.hear() for worker in workers)  # all are ready
        await gather(worker.go() for worker in workers)
        results = await gather(worker.hear() for worker in workers)
    finally:
        await gather(worker.end(signal.SIGKILL) for worker in workers)
    connection = await asyncpg.connect(database_url)
    try:
        loads = await connection.fetchval(f'SELECT count(*) FROM "{schema}".loads')  # noqa: S608 - our own name
    finally:
        await connection.close()
    return StampedeResult(
        processes,
        share * processes,
        loads,
        load_seconds,
        max(result["slowest"] for result in results),
        sum(result["answered"] for result in results),
    )


async def crash(
    redis_url: str,
    database_url: str,
    schema: str,
    namespace: str,
    pool: asyncpg.Pool[Any],
    *,
    writes: int,
    step: Callable[[int], None],
) -> CrashResult:
    """Writes behind, with three workers that flush; kills two of them half way, starts others, and compares."""
    began = SYSTEM_CLOCK.monotonic()
    table = PostgresTable(pool, f"{schema}.crash_items", key="id", model=Item)
    acknowledged: dict[int, int] = {}
    arguments = ("flush", redis_url, database_url, schema, namespace)
    count = f'SELECT count(*) FROM "{schema}".crash_items'  # noqa: S608 - our own name
    async with Cache(redis_url, namespace=namespace, ttl=300, background=False) as cache:
        items = WriteBehind(cache, "crash", sink=table)
        workers = await gather(Worker.start(*arguments) for _ in range(_WORKERS))
        try:
            await gather(worker.hear() for worker in workers)
            keys = iter(range(writes))
            half_way = asyncio.Event()

            async def writer() -> None:
                for key in keys:
                    await items.put(key, Item(f"item {key}", "written behind", key * 7, key))
                    acknowledged[key] = key * 7
                    if len(acknowledged) == writes // 2:
                        half_way.set()
                    if len(acknowledged) % 500 == 0:
                        step(500)

            async def killer() -> int:
                await half_way.wait()
                await gather(worker.end(signal.SIGKILL) for worker in workers[1:])
                at_kill: int = await pool.fetchval(count)
                workers[1:] = await gather(Worker.start(*arguments) for _ in workers[1:])
                return at_kill

            async with asyncio.TaskGroup() as group:
                killing = group.create_task(killer())
                for _ in range(64):
                    group.create_task(writer())
            await gather(worker.hear() for worker in workers[1:])
            while any(status.pending or status.in_batch for status in await items.pending()):  # noqa: ASYNC110 - Redis
                await asyncio.sleep(0.05)
        finally:
            await gather(worker.end() for worker in workers)
    rows = await pool.fetch(f'SELECT id, cents FROM "{schema}".crash_items')  # noqa: S608 - our own name
    stored = {row["id"]: row["cents"] for row in rows}
    lost = sum(key not in stored for key in acknowledged)
    wrong = sum(stored.get(key, cents) != cents for key, cents in acknowledged.items())
    return CrashResult(len(acknowledged), killing.result(), lost, wrong, SYSTEM_CLOCK.monotonic() - began)
