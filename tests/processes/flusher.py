"""A process that flushes: `python -m tests.processes.flusher CONFIG-JSON`. It ends when it is told anything.

`point` in its configuration names one at which it ends at once, and `at` the how-manieth time it comes there; with `stop`
it says so, and stops until it gets SIGCONT:

    before freeze, frozen, transaction begun, applied, committed, before ack, after ack
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import asyncpg

from asynccache import Cache
from tests.processes.score_table import open_cache, write_behind

DIED = 42
POINTS = ("before freeze", "frozen", "transaction begun", "applied", "committed", "before ack", "after ack")


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Fate:
    """Ends or stops the process at one of the points."""

    def __init__(self, point: str, at: int, *, stop: bool) -> None:
        assert point in POINTS, point
        self._point = point
        self._left = at
        self._stop = stop

    def reached(self, point: str) -> None:
        if point != self._point:
            return
        self._left -= 1
        if self._left:
            return
        if not self._stop:
            os._exit(DIED)
        say("stopping")
        os.kill(os.getpid(), signal.SIGSTOP)

    def lurk(self, buffer: Any) -> None:
        """Stands around the buffer's methods, and the statements that begin and end transactions."""
        freeze, ack, execute = buffer.freeze, buffer.ack, asyncpg.Connection.execute

        async def freeze_or_not(*args: Any) -> Any:
            self.reached("before freeze")
            frozen = await freeze(*args)
            if frozen is not None:
                self.reached("frozen")
            return frozen

        async def ack_or_not(*args: Any) -> Any:
            self.reached("before ack")
            done = await ack(*args)
            self.reached("after ack")
            return done

        async def execute_or_not(connection: Any, query: str, *args: Any, **options: Any) -> str:
            if query == "COMMIT":
                self.reached("applied")
            status: str = await execute(connection, query, *args, **options)
            if query.startswith("BEGIN"):
                self.reached("transaction begun")
            elif query == "COMMIT":
                self.reached("committed")
            return status

        buffer.freeze, buffer.ack = freeze_or_not, ack_or_not
        connections: Any = asyncpg.Connection  # for the rest of this process's life
        connections.execute = execute_or_not


async def main(config: dict[str, Any]) -> None:
    cache = Cache(config["redis"], namespace=config["namespace"], ttl=60, timeout=1)
    # One that is to stand still has no second transaction open, for whose locks the others would have to wait.
    one_by_one = {"at_once": 1} if config.get("stop") else {}
    scores = write_behind(cache, config["database"], config["schema"], **one_by_one)
    if config.get("point"):
        Fate(config["point"], config["at"], stop=config.get("stop", False)).lurk(scores._flusher.buffer)
    await open_cache(cache)
    say("ready")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await cache.shutdown()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
