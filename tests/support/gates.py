"""Gates that hold a reader or writer at a named point, so that a race happens the same way every time.

A cache whose calls to Redis pass through `gated(cache)` stops at

    miss seen              before(Acquire)
    lease taken            after(Acquire); in the background after(Refresh)
    about to fill          before(Fill)
    about to begin         before(BeginWrite)
    begun                  after(BeginWrite)
    about to end the write before(EndWrite), before(EndBump)

Loaders and writers of the tests hold a `Gate` themselves: "loaded" is after the database was read and before the loader
returns, "database written" is inside the write's body.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from asynccache import Cache
from asynccache.clock import SYSTEM_CLOCK
from asynccache.steps import Reply, Step
from asynccache.stores.redis import RedisStore
from asynccache.supervision import TaskOwner

PATIENCE = 10.0
"""Seconds until a state that never comes fails the test."""

PAUSE = 0.001
"""Seconds between two looks at a state that nobody announces."""


async def until(state: Callable[[], Any | Awaitable[Any]], what: str = "") -> Any:
    """Waits until `state()` is true; returns it."""
    deadline = SYSTEM_CLOCK.monotonic() + PATIENCE
    while True:
        found = state()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert SYSTEM_CLOCK.monotonic() < deadline, f"waited for {what or inspect.getsource(state).strip()}"
        await asyncio.sleep(PAUSE)


@dataclass(eq=False)
class Gate:
    """A point where tasks stop until it is opened."""

    arrived: int = 0
    _opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop(self) -> None:
        """To be awaited by whoever is to be held."""
        self.arrived += 1
        await self._opened.wait()

    async def reached(self, times: int = 1) -> None:
        """Waits until that many have arrived."""
        await until(lambda: self.arrived >= times, f"{times} to arrive at a gate, {self.arrived} have")

    def open(self) -> None:
        """Lets all go on, those who are yet to come, too."""
        self._opened.set()


class GatedStore:
    """A store whose calls stop at gates. Everything else is the inner store's.

    Attributes:
        steps: what has been asked for.
        commands_travel_on: a command reaches Redis although its caller is cancelled before it does, as one that is on
            the network.
        reading: if set, holds reads before Redis sees them.
        reads: how many calls have read.
    """

    def __init__(self, inner: RedisStore) -> None:
        self._inner = inner
        self._gates: list[tuple[bool, type[Step], str, Gate]] = []
        self.steps: list[tuple[str, Step]] = []
        self.commands_travel_on = False
        self.reading: Gate | None = None
        self.reads = 0
        self._travelling = TaskOwner("travelling")

    def before(self, step: type[Step], key: str = "") -> Gate:
        """Holds calls with this kind of step (on this key, else on any) before Redis sees them."""
        return self._add(False, step, key)

    def after(self, step: type[Step], key: str = "") -> Gate:
        """Holds such calls after Redis has answered, before the caller hears of it."""
        return self._add(True, step, key)

    def count(self, step: type[Step], key: str = "") -> int:
        """How many such steps have been asked for."""
        return sum(isinstance(one, step) and key in {"", name} for name, one in self.steps)

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        self.reads += 1
        if self.reading is not None:
            await self.reading.stop()
        return await self._inner.read(keys)

    async def apply(self, key: str, step: Step) -> Reply:
        return (await self._passing(((key, step),), lambda: self._one(key, step)))[0]

    async def apply_many(self, steps: Sequence[tuple[str, Step]]) -> Sequence[Reply]:
        return await self._passing(steps, lambda: self._inner.apply_many(steps))

    async def _one(self, key: str, step: Step) -> Sequence[Reply]:
        return [await self._inner.apply(key, step)]

    async def _passing(
        self, steps: Sequence[tuple[str, Step]], call: Callable[[], Awaitable[Sequence[Reply]]]
    ) -> Sequence[Reply]:
        self.steps += steps
        if self.commands_travel_on:
            return await asyncio.shield(self._travelling.start(self._travel(steps, call), handled=True))
        return await self._travel(steps, call)

    async def _travel(
        self, steps: Sequence[tuple[str, Step]], call: Callable[[], Awaitable[Sequence[Reply]]]
    ) -> Sequence[Reply]:
        await self._stop(False, steps)
        replies = await call()
        await self._stop(True, steps)
        return replies

    async def _stop(self, late: bool, steps: Sequence[tuple[str, Step]]) -> None:
        for when, kind, name, gate in self._gates:
            if when is late and any(isinstance(step, kind) and name in {"", key} for key, step in steps):
                await gate.stop()

    def _add(self, late: bool, step: type[Step], key: str) -> Gate:
        gate = Gate()
        self._gates.append((late, step, key, gate))
        return gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def gated(cache: Cache) -> GatedStore:
    """Puts gates between a cache's circuit breaker and Redis."""
    guard = cache.runtime.guard
    assert guard is not None
    if isinstance(guard.inner, GatedStore):
        return guard.inner
    store = GatedStore(guard.inner)
    guard._inner = cast("RedisStore", store)
    return store


class Table:
    """A database of one process, where no cache is the point: rows by key, and loaders that can be held.

    Attributes:
        rows: what a query finds now; None and absent are "no row".
        loads: how many queries there were.
        loaded: if set, holds loaders after the query, before they return what they saw.
    """

    def __init__(self, **rows: Any) -> None:
        self.rows: dict[Any, Any] = rows
        self.loads = 0
        self.loaded: Gate | None = None

    async def load(self, key: Any = "k") -> Any:
        """One query."""
        self.loads += 1
        seen, gate = self.rows.get(key), self.loaded
        await asyncio.sleep(0)
        if gate is not None:
            await gate.stop()
        return seen

    def hold(self) -> Gate:
        """Holds the queries that begin from now on; `free` ends that."""
        self.loaded = Gate()
        return self.loaded

    def free(self) -> None:
        """Holds no further queries; those that are held stay so."""
        self.loaded = None
