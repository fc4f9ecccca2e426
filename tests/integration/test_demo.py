"""`asynccache demo`: it holds what it shows, on servers of its own or on given ones, and leaves nothing there."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

ROOT = Path(__file__).parents[2]


async def asynccache(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from asynccache.cli import main; main()",
        *arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.one_loop
async def test_the_demo_holds_on_given_servers_and_leaves_nothing_behind(redis_url: str, database_url: str) -> None:
    code, out, err = await asynccache("demo", "--quick", "--json", REDIS_URL=redis_url, DATABASE_URL=database_url)
    assert code == 0, err
    report: dict[str, Any] = json.loads(out)
    assert report["held"]
    assert report["stampede"]["loads"] == 1
    assert report["stampede"]["answered"] == 1000
    assert report["crash"]["lost"] == report["crash"]["wrong"] == 0
    assert 0 < report["crash"]["in_database_at_kill"] < report["crash"]["acknowledged"]
    assert [run["name"] for run in report["runs"]] == [
        "no cache",
        "cache-aside",
        "read-through",
        "write-through",
        "write-behind",
    ]
    bare, *cached = report["runs"]
    assert bare["hit_ratio"] is None
    for run in cached:
        assert run["hit_ratio"] > 0.3
        assert run["statements"] < bare["statements"]
    async with Redis.from_url(redis_url) as redis:
        assert [key async for key in redis.scan_iter(match="asynccache-demo-*")] == []
    connection = await asyncpg.connect(database_url)
    try:
        left = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'asynccache_demo_%'")
    finally:
        await connection.close()
    assert left == []


@pytest.mark.one_loop
async def test_the_demo_starts_servers_of_its_own_and_prints_a_table() -> None:
    code, out, err = await asynccache("demo", "--quick", REDIS_URL="", DATABASE_URL="", NO_COLOR="1", COLUMNS="100")
    assert code == 0, err
    for name in ("no cache", "cache-aside", "read-through", "write-through", "write-behind"):
        assert name in out
    assert "1 load of" in out
    assert "0 lost, 0 wrong" in out
    assert "\x1b[" not in out


@pytest.mark.one_loop
async def test_a_server_that_cannot_be_had_is_said_in_one_line(redis_url: str) -> None:
    code, _, err = await asynccache(
        "demo", "--json", REDIS_URL=redis_url, DATABASE_URL="postgresql://me:secret@127.0.0.1:1/none"
    )
    assert code == 3
    assert "DATABASE_URL" in err
    assert "secret" not in err
    assert "Traceback" not in err


@pytest.mark.one_loop
async def test_the_command_says_its_version_and_helps() -> None:
    import importlib.metadata

    assert (await asynccache("--version"))[1].strip() == importlib.metadata.version("asynccache")
    code, out, _ = await asynccache("demo", "--help")
    assert code == 0
    assert "--quick" in out
    assert (await asynccache("nonsense"))[0] == 2
