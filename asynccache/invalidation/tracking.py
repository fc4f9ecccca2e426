"""Learns of every change of cells and generations, by a connection of its own on which Redis pushes them.

`CLIENT TRACKING ON BCAST PREFIX ...` (https://redis.io/docs/latest/develop/reference/client-side-caching/): Redis sends
the names of all keys under the prefixes that change, whoever changes them, expiry and eviction included.

Invariant: the listener is on only while every push sent is read here within a bounded time. So

    connect   the listener is still off; tracking is asked for; after its OK no change goes unseen: on, and empty
    listen    a task does nothing but read; each push goes to the listener at once
    silence   a PING after `silence` seconds without a byte; a link that is half-open says nothing, so without an answer
              in as long again it counts as dead
    end       whatever the reason: off, and empty; the supervisor connects again

A push that names several changes of one key, or that stands for our own write and another's at once, is one push: no
write of this process may expect one of its own, or skip one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import hiredis
from redis.asyncio import Redis

from asynccache.errors import StoreUnavailable
from asynccache.supervision import logger

__all__ = ["Listener", "Tracker"]

_CHUNK: Final = 65_536
_GLANCE: Final = 0.02
"""How long is looked once more for an answer that did not come, in seconds: where the event loop was held up for longer
than the patience, the answer is there, and whoever waited for it was told of the timeout first."""
_MORE: Final = object()
"""What the parser answers when it needs more bytes."""


class Listener(Protocol):
    """Who is told."""

    def switch(self, on: bool) -> None:
        """Whether changes are seen from now on; either way, nothing known before counts."""
        ...

    def changed(self, key: str) -> None:
        """A key has changed."""
        ...

    def clear(self) -> None:
        """All keys may have changed."""
        ...


class Tracker:
    """The service that listens.

    Args:
        client: whose server to listen to.
        prefixes: of the keys to hear of; none may begin with another.
        listener: is told.
        silence: seconds without a byte after which the link is tested.
        timeout: longest time to connect, in seconds.
    """

    name = "tracking"

    def __init__(
        self,
        client: Redis,
        prefixes: Iterable[str],
        listener: Listener,
        *,
        silence: float = 0.25,
        timeout: float = 1.0,
    ) -> None:
        self._client = client
        self._prefixes = tuple(prefixes)
        self._listener = listener
        self._silence = silence
        self._timeout = timeout
        self.pushes = 0

    async def run(self, alive: Callable[[], None]) -> None:
        """Listens until cancelled, or until the link is dead."""
        pool = self._client.connection_pool
        options = {
            **pool.connection_kwargs,
            "protocol": 3,
            "decode_responses": False,
            "client_name": "asynccache-tracking",
        }
        connection: Any = pool.connection_class(**options)
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
            # From here on the stream is read here: redis-py delivers pushes only to whoever waits for a reply.
            await self._listen(connection._reader, connection._writer, alive)  # noqa: SLF001 - no public way to them
        finally:
            self._listener.switch(False)
            await connection.disconnect(nowait=True)

    async def _listen(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alive: Callable[[], None]
    ) -> None:
        replies = hiredis.Reader(notEnoughData=_MORE)
        prefixes = [part for prefix in self._prefixes for part in ("PREFIX", prefix)]
        command: Any = ("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
        writer.write(hiredis.pack_command(command))
        asked = "CLIENT TRACKING"  # what an answer is owed for
        patience, again = self._timeout, False
        while True:
            try:
                async with asyncio.timeout(patience):
                    data = await reader.read(_CHUNK)
            except TimeoutError:
                if again:
                    raise StoreUnavailable(f"no answer to {asked}: the link is half-open, or Redis is stuck") from None
                if asked:
                    patience, again = _GLANCE, True
                else:
                    writer.write(hiredis.pack_command(("PING",)))
                    asked = "PING"
                continue
            patience, again = self._silence, False
            if not data:
                raise StoreUnavailable("Redis closed the connection that tracks changes")
            replies.feed(data)
            while (message := replies.gets()) is not _MORE:
                if isinstance(message, hiredis.PushNotification):
                    self._push(message)
                elif isinstance(message, Exception):
                    raise StoreUnavailable(f"Redis does not track changes for us: {message}")
                elif asked == "CLIENT TRACKING":
                    self._listener.switch(True)
                    alive()
                    logger.info("tracking changes of %s", ", ".join(self._prefixes))
                    asked = ""
                else:
                    asked = ""

    def _push(self, message: Any) -> None:
        kind, *rest = message
        if kind != b"invalidate" or not rest:
            return
        self.pushes += 1
        if rest[0] is None:  # FLUSHALL or FLUSHDB
            self._listener.clear()
            return
        for key in rest[0]:
            self._listener.changed(key.decode("utf-8", "replace"))
