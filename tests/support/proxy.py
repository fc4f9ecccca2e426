"""A TCP proxy that misbehaves on demand: it refuses, resets, delays, stalls, loses, and cuts."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Mode", "Proxy"]

_CHUNK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Mode(enum.Enum):
    """What the proxy does with connections and bytes."""

    PASS = "pass"
    REFUSE = "refuse"
    """Nobody listens: new connections are refused; those that are open go on (`cut` ends them)."""
    RESET = "reset"
    """New connections are accepted and reset at once; those that are open go on (`cut` ends them)."""
    STALL = "stall"
    """Bytes are held, on all connections, and delivered when the mode changes: a slow or paused peer."""
    BLACKHOLE = "blackhole"
    """Half-open: connections stay open and new ones are accepted, but no byte arrives, nor ever will on these."""


class Proxy:
    """A listener on 127.0.0.1 in front of one server. Made by `Proxy.to`.

    Attributes:
        delay: seconds by which each chunk is late, in each direction.
        accepted: how many connections it has accepted.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._mode = Mode.PASS
        self._flow = asyncio.Event()
        self._flow.set()
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._links: set[_Link] = set()
        self.delay = 0.0
        self.accepted = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, host: str, port: int) -> AsyncIterator[Proxy]:
        """Runs a proxy to `host`:`port`."""
        proxy = cls(host, port)
        await proxy._listen()
        try:
            yield proxy
        finally:
            await proxy._aclose()

    @property
    def port(self) -> int:
        """Where it listens; the same for its whole life."""
        return self._port

    @property
    def mode(self) -> Mode:
        """What it does now."""
        return self._mode

    @property
    def links(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def url(self, original: str) -> str:
        """The URL `original`, led through this proxy."""
        parts = urlsplit(original)
        credentials = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{credentials}127.0.0.1:{self._port}"))

    async def set(self, mode: Mode, *, cut: bool = False) -> None:
        """Changes the mode; `cut` resets what is open, too."""
        self._mode = mode
        if mode is Mode.BLACKHOLE:
            for link in self._links:
                link.lost = True
        if mode is Mode.STALL:
            self._flow.clear()
        else:
            self._flow.set()
        if mode is Mode.REFUSE and self._listener is not None:
            self._listener.close()
            self._listener = None
        elif mode is not Mode.REFUSE and self._listener is None:
            await self._listen()
        if cut:
            self.cut()

    def cut(self) -> int:
        """Resets all open connections on both sides; returns how many there were."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, reader, writer, lost=self._mode is Mode.BLACKHOLE)
        if self._mode is Mode.RESET:
            link.reset()
            return
        self._links.add(link)
        try:
            await link.run(*self._target)
        finally:
            self._links.discard(link)

    async def flow(self) -> None:
        """Waits until bytes may pass."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._flow.wait()

    async def _aclose(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._flow.set()
        while self._links:
            self.cut()
            await asyncio.wait([link.task for link in self._links])

    def __repr__(self) -> str:
        return f"Proxy(127.0.0.1:{self._port}, {self._mode.value}, links={len(self._links)})"


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, lost: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.lost = lost
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]

    async def run(self, host: str, port: int) -> None:
        pumps: list[asyncio.Task[None]] = []
        try:
            reader, writer = await asyncio.open_connection(host, port)
            self._writers.append(writer)
            pumps = [
                asyncio.create_task(self._pump(self._client[0], writer)),
                asyncio.create_task(self._pump(reader, self._client[1])),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            self.reset()  # the server is gone: so are we
        except asyncio.CancelledError:
            self.reset()  # by `reset`, or by the end of the loop
        finally:
            for pump in pumps:
                pump.cancel()
            for writer in self._writers:
                writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK):
                await self._proxy.flow()
                if not self.lost:
                    sink.write(chunk)
                    await sink.drain()
            if self.lost:  # the end of one side is not told to the other, either
                await asyncio.get_running_loop().create_future()

    def reset(self) -> None:
        """Ends it with RST instead of FIN."""
        for writer in self._writers:
            if (sock := writer.get_extra_info("socket")) is not None:
                with suppress(OSError, ValueError):  # uvloop's word for a socket that is closed already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
        if self.task is not asyncio.current_task():
            self.task.cancel()
