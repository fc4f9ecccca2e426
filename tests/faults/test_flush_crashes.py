"""A flusher that dies at any of its steps, or goes on late, loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from asynccache import Cache, WriteBehind
from tests.processes.flusher import DIED, POINTS
from tests.processes.score_table import CREATE, Score, after, do, write_behind
from tests.support.workers import Workers

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(120)]

KEYS = 120


class Writing:
    """Writes whatever there is, and knows what it comes to."""

    def __init__(self, scores: WriteBehind[Score]) -> None:
        self.scores = scores
        self.points: dict[int, int | None] = {}
        self.once: set[int] = set()
        """Keys that were written once."""

    async def do(self, key: int, kind: str, number: int = 0) -> None:
        self.once = self.once - {key} if key in self.points else self.once | {key}
        await do(self.scores, key, (kind, number))
        self.points[key] = after(self.points.get(key), (kind, number))

    async def much(self, first: int) -> None:
        """Every kind of operation, alone and after others; some of the keys again and again."""
        for key in range(first, first + KEYS):
            match key % 6:
                case 0:
                    await self.do(key, "put", key)
                case 1:
                    await self.do(key, "add", key)
                case 2:
                    await self.do(key, "put", key)
                    await self.do(key, "add", 1)
                case 3:
                    await self.do(key, "put", key)
                    await self.do(key, "delete")
                case 4:
                    await self.do(key, "add", 1)
                    await self.do(key, "delete")
                    await self.do(key, "add", key)
                case _:
                    await self.do(-1 - key % 4, "add", key)

    def expected(self) -> dict[int, int]:
        return {key: points for key, points in self.points.items() if points is not None}

    async def check_readers(self) -> None:
        found = await self.scores.get_many(self.points)
        assert {key: score.points for key, score in found.items()} == self.expected()

    async def check_database(self, pool: asyncpg.Pool[Any]) -> None:
        """After a flush."""
        async with asyncio.timeout(60):
            await self.scores.flush()
        rows = {row["id"]: row for row in await pool.fetch("SELECT * FROM scores")}
        assert {key: row["points"] for key, row in rows.items()} == self.expected()
        assert {rows[key]["changes"] for key in self.once if key in rows} == {1}
        assert sum(status.pending + status.in_batch for status in await self.scores.pending()) == 0


@pytest.fixture
async def writing(
    redis_url: str, database_url: str, schema: str, namespace: str, pool: asyncpg.Pool[Any]
) -> AsyncIterator[Writing]:
    await pool.execute(CREATE)
    async with Cache(redis_url, namespace=namespace, ttl=60, background=False) as cache:
        writing = Writing(write_behind(cache, database_url, schema))
        await writing.do(10_000, "put", 1)
        await writing.scores.flush()  # so that the table of batch ids is there, and no point is one of its making
        yield writing


@pytest.fixture
def config(redis_url: str, database_url: str, schema: str, namespace: str) -> dict[str, Any]:
    return {"redis": redis_url, "database": database_url, "schema": schema, "namespace": namespace}


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("point", POINTS)
async def test_a_flusher_that_dies_leaves_each_write_to_be_applied_once(
    config: dict[str, Any], pool: asyncpg.Pool[Any], writing: Writing, point: str, at: int
) -> None:
    await writing.much(0)
    async with Workers() as workers:
        worker = await workers.start("tests.processes.flusher", json.dumps({**config, "point": point, "at": at}))
        await writing.much(KEYS)  # while it starts, flushes, and dies
        async for said in worker.lines():
            assert said == "ready"
        assert await worker._process.wait() == DIED
    await writing.check_readers()
    await writing.check_database(pool)
    await writing.check_readers()


@pytest.mark.parametrize("point", ["frozen", "committed", "before ack"])
async def test_a_flusher_that_goes_on_late_leaves_the_next_batch_alone(
    config: dict[str, Any], pool: asyncpg.Pool[Any], writing: Writing, point: str
) -> None:
    await writing.much(0)
    async with Workers() as workers:
        stopping = {**config, "point": point, "at": 2, "stop": True}
        worker = await workers.start("tests.processes.flusher", json.dumps(stopping))
        while await worker.hear() != "stopping":
            pass
        await writing.check_database(pool)  # what it had in its hands was flushed by others
        await writing.much(KEYS)
        buffer = writing.scores._flusher.buffer
        frozen = [await buffer.freeze(number, 20) for number in range(buffer.partitions)]
        assert all(frozen)
        os.kill(worker.pid, signal.SIGCONT)
        await worker.say("stop")  # it flushes all that it can before that
        assert await worker._process.wait() == 0
    await writing.check_readers()
    await writing.check_database(pool)
