"""A process that writes: `python -m tests.processes.writer CONFIG-JSON`. It ends when it is told anything.

Each of its tasks has keys of its own, which nobody else writes, and writes one operation of a key after another, so that
it knows what a key may be: in one state, or in several if the outcome of an operation is unknown. It reads them, too,
and complains if what it gets is none of these. All processes add to the same few counters. At the end it says

    ["key", key, [states]]              each key of its own: points, or null for no row
    ["counter", key, added, [unknown]]  what was added and acknowledged, and each amount that may have been
    ["count", name, number]             what was done how often
    ["wrong", text]                     a read that never was; at once
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from collections import Counter, defaultdict
from typing import Any

from asynccache import Cache, DatabaseUnavailable, StoreUnavailable
from tests.processes.flusher import say
from tests.processes.score_table import Operation, do, open_cache, possible, write_behind

COUNTERS = 5
KEYS = 8
TASKS = 6
TOO_UNSURE = 64


class Writer:
    """What this process's tasks share."""

    def __init__(self, scores: Any, number: int, seed: int) -> None:
        self._scores = scores
        self._rng = random.Random(seed)
        self._first = (number + 1) * 1000
        self._states: dict[int, set[int | None]] = {}
        self._added: Counter[int] = Counter()
        self._unsure: dict[int, list[int]] = defaultdict(list)
        self._counts: Counter[str] = Counter()
        self.stopping = asyncio.Event()

    async def run(self, task: int) -> None:
        keys = range(self._first + task * KEYS, self._first + (task + 1) * KEYS)
        self._states.update((key, {None}) for key in keys)
        while not self.stopping.is_set():
            key = self._rng.choice(keys)
            what = self._rng.random()
            if what < 0.3:
                await self._count(self._rng.randrange(COUNTERS))
            elif what < 0.5:
                await self._read(key)
            else:
                await self._write(key)

    async def _write(self, key: int) -> None:
        number = self._rng.randrange(1, 1000)
        kinds = ("delete", "put", "add")
        (kind,) = self._rng.choices(kinds, (1, 2, 4)) if len(self._states[key]) < TOO_UNSURE else ("put",)
        operation: Operation = (kind, number)
        certain = await self._done(key, operation)
        self._states[key] = possible(self._states[key], operation, certain=certain)

    async def _count(self, key: int) -> None:
        amount = self._rng.randrange(1, 1000)
        if await self._done(key, ("add", amount)):
            self._added[key] += amount
        else:
            self._unsure[key].append(amount)

    async def _done(self, key: int, operation: Operation) -> bool:
        """Whether it was acknowledged."""
        try:
            await do(self._scores, key, operation)
        except StoreUnavailable:
            self._counts["unknown"] += 1
            await asyncio.sleep(0.02)
            return False
        self._counts[operation[0]] += 1
        return True

    async def _read(self, key: int) -> None:
        # Half of them from the buffer and the database, whatever is cached.
        read = self._rng.choice((self._scores.get, self._scores.refresh))
        try:
            found = await read(key)
        except (StoreUnavailable, DatabaseUnavailable):
            await asyncio.sleep(0.02)
            return
        self._counts["read"] += 1
        states = self._states[key]
        if (found and found.points) not in states:
            say(["wrong", f"{read.__name__}({key}) is {found}, not any of {sorted(states, key=repr)}"])

    def report(self) -> None:
        for key, states in self._states.items():
            say(["key", key, sorted(states, key=repr)])
        for key in range(COUNTERS):
            say(["counter", key, self._added[key], self._unsure[key]])
        for name, number in self._counts.items():
            say(["count", name, number])


async def main(config: dict[str, Any]) -> None:
    logging.getLogger("asynccache").setLevel(logging.CRITICAL)  # it says much when Redis is away
    cache = Cache(config["redis"], namespace=config["namespace"], ttl=60, timeout=1, background=False)
    scores = write_behind(cache, config["database"], config["schema"])
    await open_cache(cache)
    writer = Writer(scores, config["number"], config["seed"])
    tasks = [asyncio.create_task(writer.run(task)) for task in range(TASKS)]
    say(["ready"])
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    writer.stopping.set()
    await asyncio.gather(*tasks)
    writer.report()
    await cache.shutdown()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
