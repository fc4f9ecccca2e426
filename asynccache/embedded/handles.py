"""`Server`: an embedded server for use on an event loop. Each method does the blocking work in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio

from asynccache.embedded.server import SyncServer

__all__ = ["Server", "Servers", "SyncServers", "finish_in_thread"]

T = TypeVar("T")


async def finish_in_thread(call: Callable[[], T], abort: threading.Event | None = None) -> T:
    """Runs blocking work in a thread and returns when it is done, even if cancelled meanwhile.

    Args:
        call: the work.
        abort: set when this is cancelled, so that the work can be cut short.

    Raises:
        asyncio.CancelledError: this was cancelled; the work has ended, one way or the other.
    """
    future = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled: asyncio.CancelledError | None = None
    # The shield holds off anyio's cancel scopes, the loop a task's own cancel().
    with anyio.CancelScope() as scope:
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                scope.shield = True
                if abort is not None:
                    abort.set()
    if cancelled is not None:
        if not future.cancelled():
            future.exception()
        raise cancelled
    return future.result()


class Server:
    """A running embedded server. Made by `redis_server` and `postgres_server`.

    Every method may be cancelled: it then raises once the work in its thread has ended.

    Args:
        sync: the server whose blocking methods this one runs in a thread.
    """

    def __init__(self, sync: SyncServer) -> None:
        self._sync = sync

    @property
    def url(self) -> str:
        """Where clients connect; the same after a restart."""
        return self._sync.url

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after a restart."""
        return self._sync.port

    @property
    def pid(self) -> int:
        """The server's process id; 0 while it does not run."""
        return self._sync.pid

    @property
    def running(self) -> bool:
        """Whether the process runs (a paused one does)."""
        return self._sync.running

    @property
    def path(self) -> Path:
        """The folder it lives in."""
        return self._sync.path

    @property
    def log_path(self) -> Path:
        """The file it prints to, begun anew by each process that uses the folder."""
        return self._sync.log_path

    async def start(self) -> None:
        """Starts it again, on the port and the data it had; does nothing while it runs.

        Raises:
            ConfigurationError: it refuses its settings.
            StoreUnavailable, DatabaseUnavailable: it did not come up; the message ends with its log.
        """
        abort = threading.Event()
        await finish_in_thread(lambda: self._sync.start(abort), abort)

    async def stop(self) -> None:
        """Ends it in order: what it has acknowledged is on disk. Does nothing if it does not run."""
        await finish_in_thread(self._sync.stop)

    async def kill(self) -> None:
        """Ends it, and all that it started, with SIGKILL, and returns when they are gone."""
        await finish_in_thread(self._sync.kill)

    async def restart(self) -> None:
        """Stops it in order and starts it again."""
        await self.stop()
        await self.start()

    async def pause(self) -> None:
        """Stops its processes as SIGSTOP does: connections stay open and nothing answers. Ends with `resume`.

        Where the system is not Linux, sessions that a Postgres has open go on.
        """
        await finish_in_thread(self._sync.pause)

    async def resume(self) -> None:
        """Lets a paused server go on."""
        await finish_in_thread(self._sync.resume)

    def __repr__(self) -> str:
        return f"<embedded {self._sync.kind} on port {self.port}, pid {self.pid}>"


@dataclass(frozen=True, slots=True)
class Servers:
    """A Redis and a PostgreSQL, running."""

    redis: Server
    postgres: Server

    @property
    def redis_url(self) -> str:
        """Where Redis clients connect."""
        return self.redis.url

    @property
    def database_url(self) -> str:
        """Where PostgreSQL clients connect."""
        return self.postgres.url


@dataclass(frozen=True, slots=True)
class SyncServers:
    """A Redis and a PostgreSQL, running, with blocking methods."""

    redis: SyncServer
    postgres: SyncServer

    @property
    def redis_url(self) -> str:
        """Where Redis clients connect."""
        return self.redis.url

    @property
    def database_url(self) -> str:
        """Where PostgreSQL clients connect."""
        return self.postgres.url
