"""`asynccache worker`, `pending` and `dead` as processes, on real servers: signals, kills, takeover, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import Cache, WriteBehind
from asynccache.postgres import PostgresTable
from tests.processes.cli_score import Score

ROOT = Path(__file__).parents[2]
APP = "tests.processes.cli_app"
Pool: TypeAlias = "asyncpg.Pool[Any]"
Scores: TypeAlias = WriteBehind[Score]

pytestmark = pytest.mark.one_loop


class Command:
    """A running `asynccache`, its lines read as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []

    async def until(self, event: str, when: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next event of this kind for which that holds."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self.process.stdout.readline():
                found: dict[str, Any] = json.loads(line)
                self.events.append(found)
                if found["event"] == event and when(found):
                    return found
        raise AssertionError(f"it ended with {await self.process.wait()} before {event!r}: {self.events}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code; what it printed until then is in `events`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self.process.stdout.readline():
                self.events.append(json.loads(line))
            return await self.process.wait()


class Shell:
    """Runs `asynccache` on the test's application."""

    def __init__(self, stack: AsyncExitStack, environment: dict[str, str]) -> None:
        self._stack = stack
        self._environment = environment

    async def start(self, *arguments: str, **environment: str) -> Command:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from asynccache.cli import main; main()",
            *arguments,
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "160", **self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._stack.push_async_callback(_kill, process)
        return Command(process)

    async def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = (await self.start(*arguments, **environment)).process
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def worker(self, *options: str, **environment: str) -> Command:
        return await self.start("worker", f"{APP}:cache", "--json", *options, **environment)


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.communicate()


@pytest.fixture
async def shell(redis_url: str, database_url: str, namespace: str, schema: str) -> AsyncIterator[Shell]:
    environment = {
        "APP_REDIS": redis_url,
        "APP_DATABASE": database_url,
        "APP_NAMESPACE": namespace,
        "APP_SCHEMA": schema,
        "PYTHONPATH": str(ROOT),
    }
    async with AsyncExitStack() as stack:
        yield Shell(stack, environment)


@pytest.fixture
async def scores(redis_url: str, namespace: str, pool: Pool, schema: str) -> AsyncIterator[Scores]:
    """The application's web part: it writes, and leaves flushing to workers."""
    await pool.execute("CREATE TABLE scores (id bigint PRIMARY KEY, points int NOT NULL CHECK (points < 1000000))")
    async with Cache(redis_url, namespace=namespace, ttl=60, background=False) as cache:
        table = PostgresTable(pool, f"{schema}.scores", key="id", model=Score)
        yield WriteBehind(cache, "score", sink=table, partitions=8, flush_every=0.1, max_batch=100)


async def rows(pool: Pool, count: int) -> None:
    """Waits until the table has so many."""
    async with asyncio.timeout(20):
        while await pool.fetchval("SELECT count(*) FROM scores") != count:
            await asyncio.sleep(0.02)


async def put(scores: Scores, keys: range) -> None:
    await scores.put_many({key: Score(key, key * 10) for key in keys})


class TestWorker:
    async def test_a_worker_may_have_nothing_but_a_database_to_follow(
        self, shell: Shell, scores: Scores, pool: Pool, redis_url: str, namespace: str
    ) -> None:
        code, _, err = await shell("install", f"{APP}:following")
        assert code == 0, err
        worker = await shell.start("worker", f"{APP}:following", "--json")
        started = await worker.until("started")
        assert started["strategies"] == []
        async with Cache(redis_url, namespace=namespace, ttl=60) as cache:
            await cache.set("all", 1, tags=["scores"])
            await pool.execute("INSERT INTO scores VALUES (1, 1)")
            async with asyncio.timeout(20):
                while await cache.get("all") == 1:
                    await asyncio.sleep(0.02)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0

    async def test_a_worker_flushes_what_others_write_and_drains_when_told_to_stop(
        self, shell: Shell, scores: Scores, pool: Pool
    ) -> None:
        worker = await shell.worker()
        started = await worker.until("started")
        assert started["strategies"] == ["score"]
        await put(scores, range(500))
        await rows(pool, 500)
        assert (await scores.get(7)) == Score(7, 70)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        assert worker.events[-1]["event"] == "stopped"
        assert worker.events[-1]["left"] == {"score": 0}

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_what_pends_at_the_signal_is_flushed_before_the_end(
        self, shell: Shell, scores: Scores, pool: Pool, number: int
    ) -> None:
        worker = await shell.worker(APP_FLUSH_EVERY="600")
        await worker.until("owned", lambda event: len(event["partitions"]) == 8)
        await put(scores, range(50))
        worker.signal(number)
        assert await worker.ended() == 0
        assert await pool.fetchval("SELECT count(*) FROM scores") == 50

    async def test_what_cannot_be_flushed_in_time_is_told_and_stays(
        self, shell: Shell, scores: Scores, pool: Pool
    ) -> None:
        worker = await shell.worker("--drain", "0.3")
        await worker.until("started")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE scores")
            await put(scores, range(20))
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 1
        assert worker.events[-1]["left"] == {"score": 20}
        again = await shell.worker()
        await rows(pool, 20)
        again.signal(signal.SIGTERM)
        assert await again.ended() == 0

    async def test_a_second_signal_ends_it_at_once_and_loses_nothing(
        self, shell: Shell, scores: Scores, pool: Pool
    ) -> None:
        worker = await shell.worker("--drain", "600")
        await worker.until("started")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE scores")
            await put(scores, range(20))
            worker.signal(signal.SIGTERM)
            await worker.until("stopping")
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 1
        assert worker.events[-1]["event"] == "left"
        await shell.worker()
        await rows(pool, 20)

    async def test_two_workers_share_and_the_one_that_is_left_takes_over_from_a_killed_one(
        self, shell: Shell, scores: Scores, pool: Pool
    ) -> None:
        first, second = await shell.worker(), await shell.worker()
        halves = [
            await worker.until("owned", lambda event: len(event["partitions"]) == 4) for worker in (first, second)
        ]
        assert sorted(halves[0]["partitions"] + halves[1]["partitions"]) == list(range(8))
        await put(scores, range(200))
        await rows(pool, 200)
        first.signal(signal.SIGKILL)
        await put(scores, range(200, 400))
        await second.until("owned", lambda event: len(event["partitions"]) == 8)
        await rows(pool, 400)
        second.signal(signal.SIGTERM)
        assert await second.ended() == 0

    async def test_its_health_is_a_file_and_a_port_while_it_is_well(
        self, shell: Shell, scores: Scores, tmp_path: Path
    ) -> None:
        path = tmp_path / "health.json"
        worker = await shell.worker("--health-file", str(path), "--health-port", "0")
        port = (await worker.until("started"))["health_port"]
        async with asyncio.timeout(10):
            while not path.exists():
                await asyncio.sleep(0.02)
        assert json.loads(path.read_text())["ok"]
        status, body = await _get(port)
        assert (status, body["ok"], list(body["strategies"])) == (200, True, ["score"])
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        assert not path.exists()

    async def test_its_health_says_when_the_database_refuses(
        self, shell: Shell, scores: Scores, pool: Pool, tmp_path: Path
    ) -> None:
        path = tmp_path / "health.json"
        worker = await shell.worker("--health-file", str(path), "--health-port", "0", "--drain", "0")
        port = (await worker.until("started"))["health_port"]
        await put(scores, range(1))
        await rows(pool, 1)
        await pool.execute("ALTER TABLE scores RENAME TO elsewhere")
        await put(scores, range(1, 5))
        async with asyncio.timeout(20):
            while (await _get(port))[0] != 503 or path.exists():
                await asyncio.sleep(0.05)
        assert (await _get(port))[1]["strategies"]["score"]["failing"]
        await worker.until("log", lambda event: event["level"] == "warning" and "partition" in event["message"])
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 1

    async def test_people_read_lines_not_objects(self, shell: Shell, scores: Scores) -> None:
        worker = await shell.start("worker", f"{APP}:make_cache_later")
        assert worker.process.stdout is not None
        async with asyncio.timeout(20):
            line = (await worker.process.stdout.readline()).decode()
        assert "flushes score of Cache(" in line
        worker.signal(signal.SIGTERM)
        out, err = await worker.process.communicate()
        assert worker.process.returncode == 0
        assert "nothing is left" in out.decode()
        assert "\x1b[" not in out.decode()
        # The tests' Redis has none, which is never passed over in silence.
        assert b"no append-only file" in err
        assert err.count(b"\n") == 1


class TestArguments:
    @pytest.mark.parametrize(
        ("where", "what"),
        [
            ("cache", "must be module:attribute"),
            ("nowhere.at.all:cache", "there is no module 'nowhere'"),
            (f"{APP}:nothing", "has no attribute 'nothing'"),
            (f"{APP}:number", "must be a Cache, or a function that returns one, not 42"),
            (f"{APP}:fail", "calling it failed: RuntimeError: no settings"),
            (f"{APP}:empty", "has no write-behind strategy"),
        ],
    )
    async def test_what_is_no_cache_is_said_in_one_line(self, shell: Shell, where: str, what: str) -> None:
        code, out, err = await shell("worker", where)
        assert code == 2
        assert what in out
        assert "Traceback" not in out + err

    async def test_a_redis_that_does_not_answer_is_said_in_one_line(self, shell: Shell) -> None:
        code, out, err = await shell("worker", f"{APP}:cache", APP_REDIS="redis://127.0.0.1:1/0")
        assert code == 1
        assert "Redis" in out
        assert "Traceback" not in out + err

    async def test_help_tells_the_exit_codes(self, shell: Shell) -> None:
        for command in (("worker",), ("pending",), ("dead",)):
            code, out, _ = await shell(*command, "--help")
            assert code == 0
            assert "Exit code" in out


class TestPending:
    async def test_what_waits_is_shown_by_partition(self, shell: Shell, scores: Scores) -> None:
        await put(scores, range(40))
        code, out, err = await shell("pending", f"{APP}:make_cache", "--json")
        assert code == 0, err
        (found,) = json.loads(out)
        assert (found["strategy"], found["pending"], found["in_batch"], len(found["partitions"])) == ("score", 40, 0, 8)
        assert sum(part["pending"] for part in found["partitions"]) == 40
        assert found["oldest"] > 0
        code, out, err = await shell("pending", f"{APP}:cache", "score", "--every")
        assert code == 0, err
        assert "score" in out
        assert "40" in out
        assert len([line for line in out.splitlines() if "score" in line]) == 9

    async def test_it_flushes_nothing_and_works_without_the_database(self, shell: Shell, scores: Scores) -> None:
        await put(scores, range(40))
        for _ in range(2):
            code, out, err = await shell(
                "pending", f"{APP}:cache", "--json", APP_DATABASE="postgresql://127.0.0.1:1/none"
            )
            assert code == 0, err
            (found,) = json.loads(out)
            assert (found["pending"], found["dead_letters"]) == (40, None)

    async def test_an_unknown_strategy_is_said_in_one_line(self, shell: Shell, scores: Scores) -> None:
        code, _, err = await shell("pending", f"{APP}:cache", "nobody")
        assert code == 2
        assert "no write-behind strategy 'nobody'; it has: score" in err


async def _get(port: int) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
