"""A randomized history over real processes and servers, with kills and restarts: promise 1 holds for every read.

ASYNCCACHE_TEST_HISTORY_SECONDS=30 ASYNCCACHE_TEST_SEED=7 pytest tests/history

The seed sets what is done, and what is killed and when; what the machine makes of it differs from run to run.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from asynccache import Cache, CacheAside
from asynccache.embedded import Server
from tests.history.checking import History, Operation, Violation
from tests.history.client import BREAKS, LOCAL_BREAKS
from tests.history.plan import LATE, PAIR, POLICIES, ROWS, STRICT, TAG, Row
from tests.support.fixtures import StartServer
from tests.support.proxy import Mode, Proxy
from tests.support.workers import Worker, Workers

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("ASYNCCACHE_TEST_HISTORY_SECONDS", "30"))
SEED = int(os.environ.get("ASYNCCACHE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
PROCESSES = 4
PUSH_DELAY = 0.05
"""Seconds by which pushes are late: what a process has written itself must not depend on them."""
LAG = 1.0
"""Seconds after which another's write is seen whatever befalls the pushes: a half-open link is noticed in about 0.6 s."""


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
        self._started = 0
        self.alive: list[Worker] = []
        # What another process has seen, its local tier need not show yet.
        self.history = History(lag=LAG) if config["pushes"] else History(strict=range(STRICT))
        self.counted: Counter[str] = Counter()
        self.errors: list[str] = []
        self.kills = 0

    async def start(self) -> None:
        """Starts one process."""
        self._started += 1
        writes = self._config["pushes"] is None or self._started % 2 == 0
        config = {**self._config, "seed": self._rng.randrange(1 << 30), "writes": writes}
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
            elif kind == "stats":
                self.counted.update(said[0])
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


def configuration(
    server: Server, database_url: str, schema: str, namespace: str, pushes: Proxy | None = None
) -> dict[str, Any]:
    return {
        "redis": server.url,
        "database": database_url,
        "schema": schema,
        "namespace": namespace,
        "pushes": pushes and pushes.url(server.url),
    }


@asynccontextmanager
async def late_pushes(server: Server) -> AsyncIterator[Proxy]:
    parts = urlsplit(server.url)
    async with Proxy.to(parts.hostname or "", parts.port or 0) as proxy:
        proxy.delay = PUSH_DELAY
        yield proxy


async def no_pushes(proxy: Proxy, mode: Mode, seconds: float) -> None:
    """Takes the links that bring pushes away for so long; the rest of Redis goes on."""
    await proxy.set(mode, cut=mode is not Mode.BLACKHOLE)
    await asyncio.sleep(seconds)
    await proxy.set(Mode.PASS, cut=True)


@pytest.mark.parametrize(("local", "seconds"), [(False, SECONDS), (True, SECONDS / 2)], ids=["redis", "local tier"])
async def test_no_read_is_older_than_a_write_acknowledged_before_it(
    start_redis: StartServer,
    database_url: str,
    schema: str,
    namespace: str,
    pool: "asyncpg.Pool[Any]",
    table: None,
    local: bool,
    seconds: float,
) -> None:
    rng = random.Random(SEED)
    print(f"ASYNCCACHE_TEST_SEED={SEED}")  # noqa: T201 - shown if it fails
    server = await start_redis(append_only=True, settings={"appendfsync": "always"})
    async with Workers() as workers, late_pushes(server) as pushes:
        config = configuration(server, database_url, schema, namespace, pushes if local else None)
        run = Run(workers, config, {}, rng)
        for _ in range(PROCESSES):
            await run.start()
        end = time.monotonic() + seconds
        restarts = pauses = lulls = 0
        while time.monotonic() < end and not run.errors:
            await asyncio.sleep(rng.uniform(0.3, 1.2))  # the pace of trouble; nothing waits for this
            troubles = ("kill", "kill Redis", "restart Redis", "pause Redis", "no pushes")
            match rng.choices(troubles, (55, 18, 9, 18, 40 if local else 0))[0]:
                case "kill":
                    await run.kill()
                case "no pushes":
                    await no_pushes(pushes, rng.choice((Mode.REFUSE, Mode.BLACKHOLE)), rng.uniform(0.1, 2 * LAG))
                    lulls += 1
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
    assert run.history.count("read") > 100 * seconds, "it hardly ran"
    assert run.history.count("write") > 10 * seconds, "it hardly ran"
    assert bool(run.counted["local_hits"]) is local
    assert run.kills
    assert restarts + pauses + lulls
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


@pytest.mark.parametrize("guard", [*BREAKS, *LOCAL_BREAKS])
async def test_the_history_tells_when_a_guard_is_missing(
    start_redis: StartServer, database_url: str, schema: str, namespace: str, table: None, guard: str
) -> None:
    server = await start_redis()
    async with Workers() as workers, late_pushes(server) as pushes:
        config = configuration(server, database_url, schema, namespace, pushes if guard in LOCAL_BREAKS else None)
        run = Run(workers, config, {"ASYNCCACHE_TEST_BREAK": guard}, random.Random(1))
        for _ in range(PROCESSES):
            await run.start()
        watching = asyncio.create_task(until_first_violation(run, 90))
        while guard == LOCAL_BREAKS[1] and not watching.done():
            # First with the link: a tier that was never on holds nothing that could be stale.
            await asyncio.wait((watching,), timeout=2 * LAG)
            await no_pushes(pushes, Mode.REFUSE, 2 * LAG)
        found = await watching
        for worker in run.alive:
            await worker.kill()
        await asyncio.gather(*run._listening)
    assert found, f"{run.history.count('read')} reads, and nothing noticed"
