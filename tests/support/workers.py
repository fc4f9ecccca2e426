"""Processes of a test: told what to do in lines of JSON, killed with the test.

async with Workers() as workers:
    worker = await workers.start("tests.processes.readers", redis_url)
    await worker.say({"do": "read"})
    answer = await worker.hear()
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

__all__ = ["Worker", "Workers"]

ROOT = Path(__file__).parents[2]


class Worker:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def say(self, what: Any) -> None:
        """Sends it one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> Any:
        """The next line it sends."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the worker ended with code {await self._process.wait()}")
        return json.loads(line)

    async def lines(self) -> AsyncIterator[Any]:
        """What it sends until it ends; a line cut short by its death is left out."""
        assert self._process.stdout is not None
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            yield json.loads(line)

    async def kill(self) -> None:
        """kill -9."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


class Workers:
    """The processes of one test; all are killed at its end."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    async def start(self, module: str, *arguments: object, **environment: str) -> Worker:
        """Runs `python -m module arguments`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *map(str, arguments),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        worker = Worker(process)
        self._workers.append(worker)
        return worker

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(worker.kill() for worker in self._workers))
