"""`asynccache warm` and `asynccache top` as processes, on real servers: what they load, say, and end with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import Cache, HotKeys, ReadThrough
from tests.processes.warm_app_user import User
from tests.support.caches import MakeCache

ROOT = Path(__file__).parents[2]
APP = "tests.processes.warm_app"
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""Also where the tests run in the background of a shell, which has its children ignore SIGINT."""
Pool: TypeAlias = "asyncpg.Pool[Any]"

pytestmark = pytest.mark.one_loop


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The last of the events it printed."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


Start: TypeAlias = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(redis_url: str, database_url: str, namespace: str, schema: str) -> AsyncIterator[Start]:
    """Starts `asynccache` on the test's application."""
    started = []

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            INTERRUPTIBLE + "from asynccache.cli import main; main()",
            *arguments,
            cwd=ROOT,
            env={
                **os.environ,
                "NO_COLOR": "1",
                "COLUMNS": "160",
                "APP_REDIS": redis_url,
                "APP_DATABASE": database_url,
                "APP_NAMESPACE": namespace,
                "APP_SCHEMA": schema,
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def rows(pool: Pool) -> None:
    await pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL)")
    await pool.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 100) AS n")


async def run(start: Start, *arguments: str, stdin: str = "") -> Ended:
    process = await start(*arguments)
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def cached(redis: Redis, namespace: str, infix: str = ":user:") -> int:
    return len([key async for key in redis.scan_iter(match=f"{namespace}{infix}*", count=1000)])


async def test_a_query_is_warmed_and_nothing_else_happens(
    start: Start, rows: None, redis: Redis, namespace: str, schema: str
) -> None:
    query = f"SELECT id FROM {schema}.users WHERE id > 50"
    ended = await run(start, "warm", APP + ":cache", "user", "--query", query, "--json")
    assert ended.code == 0, ended
    assert (ended.last["event"], ended.last["loaded"], ended.last["position"]) == ("warmed", 50, 50)
    assert await cached(redis, namespace) == 50
    again = await run(start, "warm", APP + ":cache", "user", "--query", query)
    assert again.code == 0
    assert "0 loaded, 50 fresh, 0 missing, 0 failed" in again.out


async def test_keys_of_a_file_and_of_a_pipe(
    start: Start, rows: None, redis: Redis, namespace: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text("1\n2\n\n  3  \n999\n")
    ended = await run(start, "warm", APP + ":cache", "user", "--keys", str(file), "--json", "--rate", "1000")
    assert (ended.code, ended.last["loaded"], ended.last["missing"]) == (0, 3, 1)
    piped = await run(start, "warm", APP + ":cache", "tenant-7/user", "--keys", "-", "--json", stdin="4\n5\nsix\n")
    assert (piped.code, piped.last["loaded"], piped.last["failed"]) == (1, 2, 1)
    assert await cached(redis, namespace, "/tenant-7:user:") == 2


async def test_a_signal_ends_it_and_the_next_run_of_the_name_goes_on(
    start: Start, rows: None, redis: Redis, namespace: str
) -> None:
    command = ("warm", APP + ":cache", "user", "--keys", "-", "--resume", "night", "--batch", "10", "--json")
    process = await start(*command)
    assert process.stdin is not None
    process.stdin.write(b"".join(b"%d\n" % key for key in range(1, 31)))
    await process.stdin.drain()
    async with asyncio.timeout(20):
        while await cached(redis, namespace) < 30:
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    ended = Ended(process.returncode or 0, out.decode(), err.decode())
    assert (ended.code, ended.last["position"]) == (1, 30), ended
    assert ended.last["stopped"] == "told to by SIGINT"
    keys = "".join(f"{key}\n" for key in range(1, 101))
    rest = await run(start, *command, stdin=keys)
    assert (rest.code, rest.last["loaded"], rest.last["skipped"]) == (0, 70, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["user"], "say what to warm"),
        (["user", "--hot", "5", "--query", "SELECT 1"], "say what to warm"),
        (["nobody", "--hot", "5"], "has no strategy 'nobody'; it has: aside, tenant-7/user, user"),
        (["aside", "--hot", "5"], "has no source: warm it in the application, with load="),
        (["user", "--keys", "/nowhere/keys"], "--keys /nowhere/keys"),
        (["user", "--query", "SELECT id, name FROM users"], "must return the key"),
        (["user", "--hot", "5", "--resume", "no name"], "resume='no name'"),
    ],
)
async def test_bad_arguments_are_told_and_end_with_two(
    start: Start, rows: None, schema: str, arguments: list[str], message: str
) -> None:
    arguments = [one.replace("FROM users", f"FROM {schema}.users") for one in arguments]
    ended = await run(start, "warm", APP + ":cache", *arguments, "--json")
    assert (ended.code, ended.last["event"]) == (2, "failed")
    assert message in ended.last["error"]


async def test_the_hottest_are_shown_and_warmed(
    start: Start, rows: None, make_cache: MakeCache, redis: Redis, namespace: str, pool: Pool
) -> None:
    cache: Cache = await make_cache(hot_keys=HotKeys(half_life="1h"))
    empty = await run(start, "top", APP + ":cache", "user", "--json")
    assert json.loads(empty.out) == {"user": []}

    async def load(key: int) -> User:
        return User(key, f"user {key}")

    users = ReadThrough(cache, "user", source=load)
    for key, count in ((7, 5), (8, 9), (9, 1)):
        for _ in range(count):
            await users.get(key)
    assert cache.runtime.hot_keys is not None
    await cache.runtime.hot_keys.share()
    await cache.clear()

    shown = await run(start, "top", APP + ":cache", "-n", "2")
    assert shown.code == 0, shown
    assert "Hot keys of user" in shown.out
    assert shown.out.index(" 8 ") < shown.out.index(" 7 ")
    # Without its database, too.
    await pool.execute("ALTER TABLE users RENAME TO away")
    told = await run(start, "top", APP + ":cache", "user", "--json", "-n", "2")
    assert [(one["key"], round(one["weight"])) for one in json.loads(told.out)["user"]] == [(8, 9), (7, 5)]
    await pool.execute("ALTER TABLE away RENAME TO users")

    warmed = await run(start, "warm", APP + ":cache", "user", "--hot", "2", "--json")
    assert (warmed.code, warmed.last["loaded"]) == (0, 2), warmed


async def test_watching_goes_on_until_it_is_interrupted(start: Start, rows: None) -> None:
    process = await start("top", APP + ":cache", "user", "--json", "--watch")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        for _ in range(2):
            assert json.loads(await process.stdout.readline()) == {"user": []}
        process.send_signal(signal.SIGINT)
        assert await process.wait() in {1, 130, -signal.SIGINT}


async def test_a_cache_that_does_not_count_says_how_it_would(start: Start) -> None:
    ended = await run(start, "top", APP + ":uncounted")
    assert ended.code == 2
    assert "hot_keys=HotKeys()" in ended.err
