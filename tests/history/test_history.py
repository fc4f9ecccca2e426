"""A randomized history over real processes and servers, with kills and restarts: promise 1 holds for every read.

ASYNCCACHE_TEST_HISTORY_SECONDS=30 ASYNCCACHE_TEST_SEED=7 pytest tests/history

The seed sets what is done, and what is killed and when; what the machine makes of it differs from run to run.
"""

import asyncio
import json
import os
import random
import time
from typing import Any

import asyncpg
import pytest

from asynccache import Cache, CacheAside
from asynccache.embedded import Server
from tests.history.checking import History, Operation, Violation
from tests.history.client import BREAKS
from tests.history.plan import LATE, PAIR, POLICIES, ROWS, STRICT, TAG, Row
from tests.support.fixtures import StartServer
from tests.support.workers import Worker, Workers

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("ASYNCCACHE_TEST_HISTORY_SECONDS", "30"))
SEED = int(os.environ.get("ASYNCCACHE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
PROCESSES = 4


class Run:
    """Processes that come and go, and all that they say."""

    def __init__(
        self, workers: Workers, config: dict[str, Any], environment: dict[str, str], rng: random.Random
    ) -> None:
        self._workers = workers
        self._config = config
        self._environment = environment
        self._rng = rng
        self._listening: list[asyncio.Task[None]] = []
        self.alive: list[Worker] = []
        self.history = History(strict=range(STRICT))
        self.errors: list[str] = []
        self.kills = 0

    async def start(self) -> None:
        """Starts one process."""
        config = {**self._config, "seed": self._rng.randrange(1 << 30)}
        worker = await self._workers.start("tests.history.client", json.dumps(config), **self._environment)
        self.alive.append(worker)
        self._listening.append(asyncio.create_task(self._listen(worker)))

    async def kill(self) -> None:
        """Kills one at random, and starts another."""
        worker = self.alive.pop(self._rng.randrange(len(self.alive)))
        self.kills += 1
        await worker.kill()
        await self.start()

    async def stop(self) -> None:
        """Lets those who are left come to an end."""
        await asyncio.gather(*(worker.say("stop") for worker in self.alive))
        await asyncio.gather(*self._listening)

    async def _listen(self, worker: Worker) -> None:
        async for kind, *said in worker.lines():
            if kind == "error":
                self.errors.append(said[0])
            elif kind in {"read", "write"}:
                row, start, end, version = said
                self.history.add(Operation(str(worker.pid), kind, row, start, end, version))


async def until_first_violation(run: Run, seconds: float) -> list[Violation]:
    """Looks from time to time, so that a broken guard need not run for long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        if found := run.history.violations():
            return found
    return []


@pytest.fixture
async def table(pool: "asyncpg.Pool[Any]") -> None:
    await pool.execute("CREATE TABLE rows (key int PRIMARY KEY, version int NOT NULL)")
    await pool.execute("INSERT INTO rows SELECT n, 1 FROM generate_series(0, $1) AS n", ROWS - 1)


def configuration(server: Server, database_url: str, schema: str, namespace: str) -> dict[str, Any]:
    return {"redis": server.url, "database": database_url, "schema": schema, "namespace": namespace}


async def test_no_read_is_older_than_a_write_acknowledged_before_it(
    start_redis: StartServer, database_url: str, schema: str, namespace: str, pool: "asyncpg.Pool[Any]", table: None
) -> None:
    rng = random.Random(SEED)
    print(f"ASYNCCACHE_TEST_SEED={SEED}")  # noqa: T201 - shown if it fails
    server = await start_redis(append_only=True, settings={"appendfsync": "always"})
    async with Workers() as workers:
        run = Run(workers, configuration(server, database_url, schema, namespace), {}, rng)
        for _ in range(PROCESSES):
            await run.start()
        end = time.monotonic() + SECONDS
        restarts = 0
        pauses = 0
        while time.monotonic() < end and not run.errors:
            await asyncio.sleep(rng.uniform(0.3, 1.2))  # the pace of trouble; nothing waits for this
            match rng.choices(("kill", "kill Redis", "restart Redis", "pause Redis"), (55, 18, 9, 18))[0]:
                case "kill":
                    await run.kill()
                case "kill Redis":
                    await server.kill()
                    await server.start()
                    restarts += 1
                case "restart Redis":
                    await server.restart()
                    restarts += 1
                case _:
                    # Up to some timeouts long: what was given up is carried out afterwards, late.
                    await server.pause()
                    await asyncio.sleep(rng.uniform(0.1, 1.2))
                    await server.resume()
                    pauses += 1
        await run.stop()
    assert run.errors == []
    found = run.history.violations()
    assert not found, "\n".join(map(str, [f"{len(found)} violations", *found[:5]]))
    assert run.history.count("read") > 100 * SECONDS, "it hardly ran"
    assert run.history.count("write") > 10 * SECONDS, "it hardly ran"
    assert run.kills
    assert restarts + pauses
    await no_stale_rest(server, namespace, pool, run.history)


async def no_stale_rest(server: Server, namespace: str, pool: "asyncpg.Pool[Any]", history: History) -> None:
    """What is cached now is what the database has."""
    truth = {row["key"]: row["version"] for row in await pool.fetch("SELECT key, version FROM rows")}

    async def nothing(_: Any = None) -> None:
        return None

    async with Cache(server.url, namespace=namespace, ttl=60) as cache:
        rows = CacheAside(cache, "row", type=Row, policy=POLICIES["row"])
        pairs = CacheAside(cache, "pair", type=list[int], policy=POLICIES["pair"], tags=[TAG])
        for row in range(ROWS):
            assert history.seen(row) <= truth[row], f"row {row} was seen as it never was"
            found = await cache.get(rows.key(row), type=Row)
            # Who changed the database behind the cache's back, and was killed before it could say so, promised nothing.
            least = truth[row] if row < STRICT else history.acknowledged(row)
            assert found is None or least <= found.version <= truth[row], f"row {row}"
        for pair in (await pairs.get("pair", nothing), await cache.get(LATE, type=list[int])):
            assert pair is None or pair == [truth[row] for row in PAIR]


@pytest.mark.parametrize("guard", BREAKS)
async def test_the_history_tells_when_a_guard_is_missing(
    start_redis: StartServer, database_url: str, schema: str, namespace: str, table: None, guard: str
) -> None:
    server = await start_redis()
    async with Workers() as workers:
        config = configuration(server, database_url, schema, namespace)
        run = Run(workers, config, {"ASYNCCACHE_TEST_BREAK": guard}, random.Random(1))
        for _ in range(PROCESSES):
            await run.start()
        found = await until_first_violation(run, 60)
        for worker in run.alive:
            await worker.kill()
        await asyncio.gather(*run._listening)
    assert found, f"{run.history.count('read')} reads, and nothing noticed"
