"""Processes that share a listener: one is killed, and another goes on where it was."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import asyncpg
import pytest

from asynccache.postgres import PostgresChanges, TableChanges
from tests.support.changes import CREATE
from tests.support.gates import until
from tests.support.workers import Worker, Workers

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(180)]

MODULE = "tests.processes.changes_app"


async def ask(worker: Worker, **what: int) -> dict[str, Any]:
    await worker.say(what)
    answer: dict[str, Any] = await worker.hear()
    return answer


async def started(running: Workers, count: int, **environment: str) -> list[Worker]:
    workers = await asyncio.gather(*(running.start(MODULE, **environment) for _ in range(count)))
    for worker in workers:
        assert await worker.hear() == "ready"
    return workers


async def active_of(workers: list[Worker]) -> Worker:
    """The one that does the work."""

    async def look() -> list[Worker]:
        answers = await asyncio.gather(*(ask(worker, health=1) for worker in workers))
        return [worker for worker, answer in zip(workers, answers, strict=True) if answer["active"]]

    found: list[Worker] = await until(look, "one of them to be active")
    assert len(found) == 1
    return found[0]


async def all_see(workers: list[Worker], key: int, name: str) -> None:
    async def seen() -> bool:
        answers = await asyncio.gather(*(ask(worker, get=key) for worker in workers))
        return all(answer["name"] == name for answer in answers)

    await until(seen, f"user {key} to be {name!r} in all processes")


@pytest.fixture
async def environment(
    redis_url: str, namespace: str, database_url: str, pool: asyncpg.Pool[Any], schema: str
) -> dict[str, str]:
    """Of workers that follow the table `users`, whose triggers are installed."""
    await pool.execute(CREATE)
    # The workers' declarations are what their places are named for; triggers are the same for all.
    tables = [TableChanges("users", key="id", tags=["users"])]
    await PostgresChanges(pool, tables=tables, schema=schema).install()
    return {
        "APP_REDIS": redis_url,
        "APP_NAMESPACE": namespace,
        "APP_DATABASE": database_url,
        "APP_SCHEMA": schema,
        "APP_POLL": "0.05",
    }


async def test_the_active_process_is_killed_amid_changes_and_none_is_missed(
    pool: asyncpg.Pool[Any], environment: dict[str, str]
) -> None:
    await pool.execute("INSERT INTO users SELECT i, 'old' FROM generate_series(1, 500) i")
    async with Workers() as running:
        workers = await started(running, 3, **environment)
        for turn in range(2):
            active = await active_of(workers)
            for key in range(1, 501, 50):
                await all_see(workers, key, "old" if turn == 0 else f"turn{turn - 1}")

            async def change_on(turn: int = turn) -> None:
                for key in range(1, 501):
                    await pool.execute("UPDATE users SET name = $1 WHERE id = $2", f"turn{turn}", key)

            changing = asyncio.create_task(change_on())
            await until(lambda: pool.fetchval("SELECT count(*) > 40 FROM asynccache_change"))
            await active.kill()
            workers.remove(active)
            await changing
            for key in range(1, 501, 50):
                await all_see(workers, key, f"turn{turn}")
        assert (await ask(workers[0], health=1))["ok"]
        assert await pool.fetchval("SELECT count(*) FROM asynccache_listener") == 1


async def test_a_process_that_stands_still_is_replaced_and_does_no_harm_when_it_goes_on(
    pool: asyncpg.Pool[Any], environment: dict[str, str]
) -> None:
    await pool.execute("INSERT INTO users VALUES (1, 'old')")
    async with Workers() as running:
        workers = await started(running, 2, **environment)
        still = await active_of(workers)
        await all_see(workers, 1, "old")
        (other,) = (worker for worker in workers if worker is not still)
        os.kill(still.pid, signal.SIGSTOP)
        try:
            await pool.execute("UPDATE users SET name = 'new'")
            await all_see([other], 1, "new")
            assert await active_of([other]) is other
        finally:
            os.kill(still.pid, signal.SIGCONT)
        await pool.execute("UPDATE users SET name = 'newer'")
        await all_see(workers, 1, "newer")
        assert await active_of(workers) is other
