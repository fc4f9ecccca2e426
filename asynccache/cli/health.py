"""A worker's health for orchestrators: a file that is there while it is well, and a port that answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from asynccache.cache import Cache
from asynccache.errors import ConfigurationError
from asynccache.write_behind.flusher import Flusher

__all__ = ["Report", "report", "serving", "write_file"]

Report = dict[str, Any]
_REQUEST_WITHIN: Final = 5.0
_LONGEST_REQUEST: Final = 16 * 1024


def report(cache: Cache, flushers: list[Flusher[Any]]) -> Report:
    """How a worker is; `ok` is the cache's own, which looks at the flushers, too."""
    health = cache.health()
    return {
        "ok": health.ok,
        "state": health.state,
        "redis": health.circuit.value if health.circuit else None,
        "services": {service.name: service.state.value for service in health.services},
        "strategies": {flusher.origin: asdict(flusher.stats) for flusher in flushers},
    }


def write_file(path: Path, health: Report | None) -> None:
    """Writes the report, never half of it, if all is well; removes the file if not, or without a report."""
    if health is None or not health["ok"]:
        path.unlink(missing_ok=True)
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(health) + "\n", encoding="utf-8")
    partial.replace(path)


@asynccontextmanager
async def serving(host: str, port: int, health: Callable[[], Report]) -> AsyncIterator[int]:
    """Answers every HTTP request with the report, 200 if all is well and 503 if not; yields the port.

    Raises:
        ConfigurationError: the port cannot be had.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_REQUEST_WITHIN):
                request = await reader.readuntil(b"\r\n\r\n")
                found = health()
                body = json.dumps(found).encode() + b"\n"
                status = HTTPStatus.OK if found["ok"] else HTTPStatus.SERVICE_UNAVAILABLE
                head = (
                    f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                ).encode()
                writer.write(head if request.startswith(b"HEAD ") else head + body)
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=_LONGEST_REQUEST)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"--health-port {port} on {host} cannot be had: {error}") from error
    async with server:
        yield server.sockets[0].getsockname()[1]
