"""`explain` says what the next read would do, cell by cell; and the next read does it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asynccache import AfterRequests, Cache, CacheAside, NextRead, Policy, Reason
from asynccache.stores.guarded import CircuitState
from tests.support.caches import MakeCache
from tests.support.gates import Gate, Table, until

POLICY = Policy(jitter=0, early=0, stale=600, negative_ttl=60, load_timeout=0.2)


class World:
    """One entity in a cache, and what a test has under way."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.table = Table(k="value")
        self.rows: CacheAside[Any] = CacheAside(cache, "row", type=str, tags=["t"], policy=POLICY)
        self.brief: CacheAside[Any] = CacheAside(cache, "row", type=str, tags=["t"], policy=POLICY, ttl=0.001)
        self.gate = Gate()
        self.tasks: list[asyncio.Task[Any]] = []

    async def nothing(self) -> None:
        """Leaves the cell empty."""

    async def fresh(self) -> None:
        await self.rows.get("k", self.table.load)

    async def not_found(self) -> None:
        self.table.rows["k"] = None
        await self.rows.get("k", self.table.load)

    async def stale(self) -> None:
        await self.brief.get("k", self.table.load)

    async def stale_and_tried(self) -> None:
        await self.stale()
        await until(lambda: self.reason(Reason.STALE))

        async def fail(_: str) -> Any:
            raise ConnectionError

        await self.brief.get("k", fail)
        await until(lambda: self.cache.stats.load_failures == 1)

    async def leased(self) -> None:
        gate = self.table.hold()
        self.tasks.append(asyncio.create_task(self.rows.get("k", self.table.load)))
        await gate.reached()
        self.table.free()

    async def writing(self) -> None:
        async def write() -> None:
            async with self.rows.updating("k"):
                await self.gate.stop()

        self.tasks.append(asyncio.create_task(write()))
        await self.gate.reached()

    async def tag_written(self) -> None:
        async def write() -> None:
            async with self.cache.updating(tags=["t"]):
                await self.gate.stop()

        self.tasks.append(asyncio.create_task(write()))
        await self.gate.reached()

    async def expired(self) -> None:
        once: CacheAside[Any] = CacheAside(
            self.cache, "row", type=str, tags=["t"], ttl=0.02, policy=Policy(jitter=0, early=0)
        )
        await once.get("k", self.table.load)
        await until(lambda: self.reason(Reason.EMPTY, Reason.EXPIRED))

    async def outdated(self) -> None:
        await self.fresh()
        await self.cache.invalidate_tags("t")

    async def unreadable(self) -> None:
        other: CacheAside[Any] = CacheAside(self.cache, "row", type=int, tags=["t"], ttl=60)

        async def load(_: str) -> int:
            return 1

        await other.get("k", load)

    async def unavailable(self) -> None:
        guard = self.cache.runtime.guard
        assert guard is not None
        guard._state = CircuitState.OPEN

    async def refused(self) -> None:
        self.rows = CacheAside(self.cache, "row", type=str, tags=["t"], policy=POLICY, admit=AfterRequests(2))

    async def reason(self, *reasons: Reason) -> bool:
        return (await self.rows.explain("k")).reason in reasons


CASES: dict[str, tuple[Callable[[World], Awaitable[None]], set[Reason], NextRead, bool]] = {
    # what stands there: the reasons, what the next read would do, and whether it loads
    "nothing": (World.nothing, {Reason.EMPTY}, NextRead.LOAD, True),
    "fresh": (World.fresh, {Reason.FRESH}, NextRead.SERVE, False),
    "not found": (World.not_found, {Reason.NOT_FOUND}, NextRead.SERVE, False),
    "stale": (World.stale, {Reason.STALE}, NextRead.SERVE_AND_REFRESH, True),
    "stale, tried just now": (World.stale_and_tried, {Reason.STALE_REFRESHING}, NextRead.SERVE, False),
    "leased": (World.leased, {Reason.LEASED}, NextRead.WAIT, True),
    "written": (World.writing, {Reason.WRITING}, NextRead.BYPASS, True),
    "its tag is written": (World.tag_written, {Reason.WRITING}, NextRead.BYPASS, True),
    "expired": (World.expired, {Reason.EMPTY, Reason.EXPIRED}, NextRead.LOAD, True),
    "outdated": (World.outdated, {Reason.OUTDATED}, NextRead.LOAD, True),
    "unreadable": (World.unreadable, {Reason.UNREADABLE}, NextRead.LOAD, True),
    "unavailable": (World.unavailable, {Reason.UNAVAILABLE}, NextRead.BYPASS, True),
    "refused": (World.refused, {Reason.REFUSED}, NextRead.BYPASS, True),
}


def test_every_reason_is_looked_at() -> None:
    in_memory = {Reason.PENDING}  # write_behind/test_in_memory.py
    assert set.union(*(reasons for _, reasons, _, _ in CASES.values())) | in_memory == set(Reason)


@pytest.mark.parametrize("case", CASES)
async def test_the_next_read_does_what_is_explained(make_cache: MakeCache, case: str) -> None:
    arrange, reasons, next_read, loads = CASES[case]
    world = World(await make_cache())
    await arrange(world)
    if case == "stale":
        await until(lambda: world.reason(Reason.STALE))
    explained = await world.rows.explain("k")
    assert explained.reason in reasons, str(explained)
    assert explained.next is next_read
    assert explained.reason.value in str(explained)
    before, fills = world.table.loads, world.cache.stats.fills
    other = World(await make_cache()) if case == "leased" else world  # in this process the load would be shared
    if case == "unavailable":
        guard = world.cache.runtime.guard
        assert guard is not None
        found = await world.rows.get("k", world.table.load)
        guard._state = CircuitState.CLOSED
    else:
        found = await other.rows.get("k", other.table.load)
    assert found == (None if case == "not found" else "value")
    await until(lambda: other.table.loads + (world.table.loads if other is not world else 0) - before == int(loads))
    if next_read is NextRead.BYPASS:
        assert world.cache.stats.fills == fills
    world.gate.open()
    for task in world.tasks:
        if case == "leased":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: len(world.cache.runtime.reader._owner) == 0)
