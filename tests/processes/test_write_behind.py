"""A storm: workers are killed, PostgreSQL is restarted and the connections to Redis are cut, while processes write.

ASYNCCACHE_TEST_STORM_SECONDS=60 ASYNCCACHE_TEST_STORM_WRITERS=8 ASYNCCACHE_TEST_SEED=7 pytest tests/processes
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from asynccache import Cache
from asynccache.embedded import Server
from tests.processes.score_table import CREATE, write_behind
from tests.processes.writer import COUNTERS
from tests.support.proxy import Proxy
from tests.support.workers import Worker, Workers

SECONDS = float(os.environ.get("ASYNCCACHE_TEST_STORM_SECONDS", "15"))
WRITERS = int(os.environ.get("ASYNCCACHE_TEST_STORM_WRITERS", "4"))
SEED = int(os.environ.get("ASYNCCACHE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
FLUSHERS = 3

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(SECONDS + 120)]


class Storm:
    """The processes, and all that the writers say."""

    def __init__(self, workers: Workers, config: dict[str, Any], rng: random.Random) -> None:
        self._workers = workers
        self._config = config
        self._rng = rng
        self._writers: list[Worker] = []
        self._listening: list[asyncio.Task[None]] = []
        self.flushers: list[Worker] = []
        self.kills = 0
        self.wrong: list[str] = []
        self.states: dict[int, list[int | None]] = {}
        self.added: Counter[int] = Counter()
        self.unsure: dict[int, list[int]] = {key: [] for key in range(COUNTERS)}
        self.counts: Counter[str] = Counter()

    async def start_flusher(self) -> None:
        self.flushers.append(await self._workers.start("tests.processes.flusher", json.dumps(self._config)))

    async def start_writer(self, number: int) -> None:
        config = {**self._config, "number": number, "seed": self._rng.randrange(1 << 30)}
        writer = await self._workers.start("tests.processes.writer", json.dumps(config))
        assert await writer.hear() == ["ready"]
        self._writers.append(writer)
        self._listening.append(asyncio.create_task(self._listen(writer)))

    async def kill_two(self) -> None:
        """Two of the three flushers, of which each may be anywhere; others take their places."""
        for victim in self._rng.sample(self.flushers, 2):
            self.flushers.remove(victim)
            assert victim._process.returncode is None, "it ended by itself"
            await victim.kill()
            self.kills += 1
        for _ in range(2):
            await self.start_flusher()

    async def stop(self) -> None:
        """The writers come to an end and say what they know; the flushers are killed, all of them."""
        await asyncio.gather(*(writer.say("stop") for writer in self._writers))
        await asyncio.gather(*self._listening)
        await asyncio.gather(*(flusher.kill() for flusher in self.flushers))

    async def _listen(self, writer: Worker) -> None:
        async for kind, *said in writer.lines():
            match kind:
                case "key":
                    self.states[said[0]] = said[1]
                case "counter":
                    self.added[said[0]] += said[1]
                    self.unsure[said[0]] += said[2]
                case "count":
                    self.counts[said[0]] += said[1]
                case _:
                    self.wrong.append(said[0])


async def flush_all(config: dict[str, Any], keys: list[int]) -> dict[int, int]:
    """Flushes what is left; returns what readers are told before that."""
    async with Cache(config["redis"], namespace=config["namespace"], ttl=60, background=False) as cache:
        scores = write_behind(cache, config["database"], config["schema"])
        found = await scores.get_many(keys)
        async with asyncio.timeout(60):
            await scores.flush()
        assert sum(status.pending + status.in_batch for status in await scores.pending()) == 0
    return {key: score.points for key, score in found.items()}


async def cut_late(proxy: Proxy) -> int:
    """Cuts all connections when some calls have arrived whose answers are on the way."""
    proxy.delay = 0.03
    await asyncio.sleep(0.045)
    proxy.delay = 0.0
    return proxy.cut()


def sums(amounts: list[int]) -> set[int]:
    """What some of the amounts come to, or none."""
    found = {0}
    for amount in amounts:
        found |= {one + amount for one in found}
    return found


async def test_writes_in_a_storm_are_each_counted_once(
    dedicated_redis: Server, dedicated_postgres: Server, namespace: str
) -> None:
    rng = random.Random(SEED)
    print(f"ASYNCCACHE_TEST_SEED={SEED}")  # noqa: T201 - shown if it fails
    connection = await asyncpg.connect(dedicated_postgres.url)
    await connection.execute(CREATE)
    await connection.close()
    config = {"redis": dedicated_redis.url, "database": dedicated_postgres.url, "schema": "public"}
    config["namespace"] = namespace
    target = urlsplit(dedicated_redis.url)
    cuts = 0
    async with Proxy.to(target.hostname or "", target.port or 0) as proxy, Workers() as workers:
        storm = Storm(workers, {**config, "redis": proxy.url(dedicated_redis.url)}, rng)
        for _ in range(FLUSHERS):
            await storm.start_flusher()
        await asyncio.gather(*(storm.start_writer(number) for number in range(WRITERS)))
        began = time.monotonic()
        restarts = [began + SECONDS / 3, began + SECONDS * 2 / 3]
        while time.monotonic() < began + SECONDS and not storm.wrong:
            await asyncio.sleep(rng.uniform(0.2, 1.5))  # the pace of trouble; nothing waits for this
            if restarts and time.monotonic() > restarts[0]:
                del restarts[0]
                await dedicated_postgres.kill()
                await dedicated_postgres.start()
            elif rng.random() < 0.5:
                cuts += await cut_late(proxy)
            else:
                await storm.kill_two()
        await storm.stop()
    assert storm.wrong == []
    told = await flush_all(config, [*storm.states, *range(COUNTERS)])
    connection = await asyncpg.connect(dedicated_postgres.url)
    rows = {row["id"]: row["points"] for row in await connection.fetch("SELECT * FROM scores")}
    batches = await connection.fetchval("SELECT count(*) FROM asynccache_batch")
    await connection.close()
    assert told == rows, "readers were told what the database does not have"
    wrong = {key: (rows.get(key), states) for key, states in storm.states.items() if rows.get(key) not in states}
    assert not wrong, "points, and what they may be"
    for key in range(COUNTERS):
        assert rows[key] - storm.added[key] in sums(storm.unsure[key]), f"counter {key}: {rows[key]}"
    assert storm.kills >= 2
    assert cuts
    assert not restarts
    assert batches > 5 * SECONDS, "it hardly flushed"
    for name in ("add", "put", "delete", "read"):
        assert storm.counts[name] > 5 * SECONDS, f"it hardly ran: {storm.counts}"
    print(f"{storm.counts}, {storm.kills} kills, {cuts} cuts, {batches} batches")  # noqa: T201
