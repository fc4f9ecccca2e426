"""Connections to one Redis, on which commands are exchanged without redis-py's bookkeeping for each command.

redis-py knows where and how to connect (addresses, TLS, passwords, the handshake), and its connections are used for
that. But a command through its pool and client costs a condition, three timers, a task and eight turns of the event
loop, which is more than all the rest of a read. Here an exchange is one write, one future, and as many replies as
commands; hiredis packs and parses. What that brings: `python -m benchmarks --scenario redis-hit`.

Invariant: a connection is used again only after exactly as many replies as commands were read from it. Whatever else
ends an exchange (a timeout, a cancellation, bytes that are no reply, the end of the connection) closes it, since its
late replies would be taken for answers to somebody else; and so do bytes that nobody has asked for.

A reply that has arrived is not too late, though the event loop was held up for longer than the timeout: the loop looks
at its sockets before its timers, and a timer here finds the answer done. `asyncio.timeout` would cancel who awaits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import hiredis
import redis.exceptions
from redis._parsers import BaseParser
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import UnixDomainSocketConnection

from asynccache.stores.scripts import Argument

__all__ = ["Wires"]

_MORE: Final = object()
"""What the parser answers when it needs more bytes."""
_POOLS: Final = (ConnectionPool, BlockingConnectionPool)
_CONNECTIONS: Final = (Connection, SSLConnection, UnixDomainSocketConnection)


class _Wire(asyncio.Protocol):
    """One connection, in place of redis-py's reader.

    Args:
        connection: redis-py's, connected.
        among: holds it for as long as it is open.
    """

    def __init__(self, connection: Any, among: set[_Wire]) -> None:
        self._connection = connection
        self._reader = hiredis.Reader(notEnoughData=_MORE, replyError=BaseParser.parse_error)
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - as `Tracker` does
        self._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._answer: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None
        self.usable = True
        self._among = among
        among.add(self)

    def exchange(self, packed: bytes, replies: int, deadline: float) -> asyncio.Future[list[Any]]:
        """Sends commands; the future has their replies, errors among them, or a `TimeoutError` at `deadline`."""
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._answer, self._replies, self._expected = answer, [], replies
        self._timer = self._loop.call_at(deadline, self._expire)
        self._transport.write(packed)
        return answer

    def end(self) -> None:
        """To be called when nobody waits for the answer any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self._answer is not None:
            self._fail(TimeoutError("no answer in time"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _MORE:
                if isinstance(reply, hiredis.PushNotification):
                    continue  # of a server that is maintained; that it closes the connection is seen by itself
                if self._answer is None:
                    self.close()
                    return
                self._replies.append(reply)
                if len(self._replies) == self._expected:
                    answer, self._answer = self._answer, None
                    if not answer.done():
                        answer.set_result(self._replies)
        except hiredis.ProtocolError as error:
            self._fail(redis.exceptions.InvalidResponse(f"Redis sent what is no reply: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection._close()  # noqa: SLF001 - so that it knows; `disconnect` would wait for the reader it has lost
        self._among.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)
        self._fail(redis.exceptions.ConnectionError(f"connection closed by Redis{f': {exc}' if exc else ''}"))

    def _fail(self, error: Exception) -> None:
        self.usable = False
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def close(self) -> None:
        """Ends the connection at once; `lost` is done when it has ended."""
        self.usable = False
        self._transport.abort()


class Wires:
    """The connections to one server.

    Args:
        client: whose pool says where and how to connect; its own connections are left alone.
        most: connections at the same time; an exchange waits for one that is free.
    """

    def __init__(self, client: Redis, most: int) -> None:
        self._pool: Any = client.connection_pool
        self._most = most
        self._turns = asyncio.Semaphore(most)
        self._idle: list[_Wire] = []
        self._open: set[_Wire] = set()
        self._closed = False

    @classmethod
    def of(cls, client: object, most: int) -> Wires | None:
        """Connections for this client; None if they may not be made here.

        Pools and connections of other kinds may do more when they send and read (such as Sentinel's, which look whether
        the master has changed), and passwords may be renewed on the pool's own connections.
        """
        if not isinstance(client, Redis):
            return None
        pool = client.connection_pool
        known = type(pool) in _POOLS and pool.connection_class in _CONNECTIONS
        return cls(client, most) if known and not pool.connection_kwargs.get("credential_provider") else None

    async def exchange(self, commands: Sequence[Sequence[Argument]], timeout: float) -> list[Any]:  # noqa: ASYNC109
        """Sends commands in one write, and reads their replies.

        Args:
            commands: a name and arguments each.
            timeout: the longest all of it may take, in seconds.

        Returns:
            The reply of each; of one that the server refused, redis-py's `ResponseError`.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: no connection, it was lost, or no answer in time; each
                command may have run or not.
        """
        if not commands:
            return []
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]  # any Sequence
        deadline = asyncio.get_running_loop().time() + timeout
        if self._turns.locked():
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        else:
            await self._turns.acquire()  # which does not wait
        try:
            wire = self._take() or await self._connect(deadline)
            try:
                replies = await wire.exchange(packed, len(commands), deadline)
            except BaseException:
                wire.close()
                raise
            finally:
                wire.end()
            if wire.usable and not self._closed:
                self._idle.append(wire)
            else:
                wire.close()
            return replies
        finally:
            self._turns.release()

    def open(self) -> None:
        """Lets connections be kept, again after `aclose`; in any event loop."""
        self._closed = False
        self._turns = asyncio.Semaphore(self._most)

    def drop_idle(self) -> None:
        """Closes those that nobody uses: after an outage they may be half-open, and each would cost a timeout."""
        while self._idle:
            self._idle.pop().close()

    async def aclose(self) -> None:
        """Closes all of them."""
        self._closed = True
        self._idle.clear()
        wires = list(self._open)
        for wire in wires:
            wire.close()
        # The loop closes a socket in its next turn, which may be one that it no longer has.
        for wire in wires:
            await wire.lost

    def _take(self) -> _Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.usable:
                return wire
            wire.close()
        return None

    async def _connect(self, deadline: float) -> _Wire:
        connection: Any = self._pool.make_connection()
        try:
            async with asyncio.timeout_at(deadline):
                await connection.connect()
            return _Wire(connection, self._open)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    def __repr__(self) -> str:
        return f"Wires(idle={len(self._idle)})"
