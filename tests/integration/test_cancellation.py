"""Every public operation, cancelled at each of its awaits: nothing of it is left, and nobody else notices.

An operation runs until its n-th suspension and is cancelled there, for n = 0, 1, 2, ... until it ends before that. It is
cancelled either while it waits, or in the moment in which what it waits for arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import Applied, Batch, Cache, CacheAside, Delete, Put, ReadThrough, WriteThrough
from asynccache.steps import BeginWrite, EndBump, EndWrite
from tests.support.awaits import MOST_AWAITS, AtAwait, nothing_is_left, outcome, tasks_end
from tests.support.caches import MakeCache
from tests.support.gates import gated, until


class Rows:
    """Numbers by name in Postgres, as a Source and a Sink."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def load_many(self, keys: Any, /) -> dict[str, int]:
        rows = await self._pool.fetch("SELECT name, value FROM item WHERE name = ANY($1)", list(keys))
        return {row["name"]: row["value"] for row in rows}

    async def load(self, key: str = "k") -> int | None:
        return (await self.load_many([key])).get(key)

    async def apply(self, batch: Batch[int], /) -> Applied[int]:
        async with self._pool.acquire() as connection, connection.transaction():
            for write in batch.writes:
                if isinstance(write, Put):
                    await connection.execute(
                        "INSERT INTO item VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
                        write.key,
                        write.value,
                    )
                elif isinstance(write, Delete):
                    await connection.execute("DELETE FROM item WHERE name = $1", write.key)
        return Applied()

    async def write(self, value: int) -> None:
        await self.apply(Batch([Put("k", value)]))


@dataclass
class Service:
    """What an operation works with: one cache, the entity "k" in its cell, and its row."""

    cache: Cache
    rows: Rows

    @property
    def aside(self) -> CacheAside[int]:
        return CacheAside(self.cache, "item", tags=["t"])

    @property
    def through(self) -> WriteThrough[int]:
        return WriteThrough(self.cache, "item", source=self.rows, tags=["t"])

    @property
    def cell(self) -> Any:
        return self.cache.scope.space.cell("item", "k")

    def decorated(self) -> Any:
        @self.cache.cached(key="item:{name}", tags=["t", "name:{name}"])
        async def item(name: str) -> int | None:
            return await self.rows.load(name)

        return item


Operation = Callable[[Service], Coroutine[Any, Any, Any]]


async def _updating(service: Service) -> None:
    async with service.cache.updating(service.cell, "other", tags=["t"]):
        await service.rows.write(2)


async def _aside_updating(service: Service) -> None:
    async with service.aside.updating("k"):
        await service.rows.write(2)


OPERATIONS: dict[str, Operation] = {
    "get": lambda s: s.cache.get(s.cell),
    "get_many": lambda s: s.cache.get_many([s.cell, "a", "b"]),
    "get_or_load": lambda s: s.cache.get_or_load(s.cell, s.rows.load, tags=["t"]),
    "set": lambda s: s.cache.set(s.cell, 2, tags=["t"]),
    "set_many": lambda s: s.cache.set_many({s.cell: 2, "a": 3}, tags=["t", "new"]),
    "delete": lambda s: s.cache.delete(s.cell, "a"),
    "invalidate_tags": lambda s: s.cache.invalidate_tags("t", "u"),
    "explain": lambda s: s.cache.explain(s.cell),
    "updating": _updating,
    "decorated call": lambda s: s.decorated()("k"),
    "decorated refresh": lambda s: s.decorated().refresh("k"),
    "decorated invalidate": lambda s: s.decorated().invalidate("k"),
    "CacheAside.get": lambda s: s.aside.get("k", s.rows.load),
    "CacheAside.get_many": lambda s: s.aside.get_many(["k", "l", "m"], s.rows.load),
    "CacheAside.refresh": lambda s: s.aside.refresh("k", s.rows.load),
    "CacheAside.invalidate": lambda s: s.aside.invalidate("k"),
    "CacheAside.updating": _aside_updating,
    "ReadThrough.get": lambda s: ReadThrough(s.cache, "item", source=s.rows, tags=["t"]).get("k"),
    "ReadThrough.get_many": lambda s: s.through.get_many(["k", "l", "m"]),
    "ReadThrough.warm": lambda s: s.through.warm(["k", "l"]).run(),
    "WriteThrough.put": lambda s: s.through.put("k", 2),
    "WriteThrough.put, tags": lambda s: s.through.put("k", 2, tags=["u"]),
    "WriteThrough.put_many": lambda s: s.through.put_many({"k": 2, "l": 3}),
    "WriteThrough.delete": lambda s: s.through.delete("k"),
}
STATES = ["cold", "cached", "outdated", "being loaded"]


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "with the answer"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.one_loop
async def test_an_operation_cancelled_at_any_await_leaves_nothing_behind(
    make_cache: MakeCache, redis: Redis, pool: asyncpg.Pool[Any], namespace: str, name: str, state: str, late: bool
) -> None:
    await pool.execute("CREATE TABLE item (name text PRIMARY KEY, value int)")
    rows = Rows(pool)
    cache, other = await make_cache(write_timeout=600), await make_cache()
    service, neighbour = Service(cache, rows), Service(other, rows)
    tasks = asyncio.all_tasks()
    for at in range(MOST_AWAITS):
        await _prepare(service, state)
        waiting: list[asyncio.Task[Any]] = []
        if state == "being loaded":
            waiting = await _start_loading(service, neighbour)
        cancelled = AtAwait(at, late=late)
        work = asyncio.create_task(cancelled.run(OPERATIONS[name](service)))
        error = await outcome(work)
        assert error is None or not isinstance(error, Exception), error
        # Other callers are answered, in this process and in another.
        async with asyncio.timeout(5):
            for answer in await asyncio.gather(*waiting):
                assert answer in {1, 2, None}
        await tasks_end(tasks)
        await nothing_is_left(redis, cache, namespace)
        # The next commands are right: what is read is what the database holds.
        row = await rows.load()
        assert await service.through.get("k") == row or name in {"set", "set_many"}
        assert await neighbour.through.get("k") == row or name in {"set", "set_many"}
        await cache.set("next", at)
        assert await cache.get("next") == at
        if not cancelled.reached:
            break
    assert at > 0


async def _prepare(service: Service, state: str) -> None:
    await service.rows.write(1)
    await service.cache.delete(service.cell, "a", "b", service.aside.key("l"), service.aside.key("m"))
    if state in {"cached", "outdated"}:
        assert await service.aside.get("k", service.rows.load) == 1
    if state == "outdated":
        await service.cache.invalidate_tags("t")


async def _start_loading(service: Service, neighbour: Service) -> list[asyncio.Task[Any]]:
    """Callers of two processes, one of whom has taken the lease."""
    before = service.cache.stats.loads
    tasks = [asyncio.create_task(service.aside.get("k", service.rows.load))]
    await until(lambda: service.cache.stats.loads > before)
    tasks += [asyncio.create_task(one.aside.get("k", one.rows.load)) for one in (service, neighbour)]
    return tasks


LOADING: dict[str, Operation] = {
    "get_or_load": OPERATIONS["get_or_load"],
    "decorated call": OPERATIONS["decorated call"],
    "CacheAside.get_many": lambda s: s.aside.get_many(["k"], s.rows.load),
    "ReadThrough.get": OPERATIONS["ReadThrough.get"],
}


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "with the answer"])
@pytest.mark.parametrize("state", ["cold", "outdated", "new tag"])
@pytest.mark.parametrize("name", LOADING)
@pytest.mark.one_loop
async def test_a_load_whose_last_caller_leaves_at_any_of_its_awaits_leaves_nothing_behind(
    make_cache: MakeCache,
    redis: Redis,
    pool: asyncpg.Pool[Any],
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    state: str,
    late: bool,
) -> None:
    await pool.execute("CREATE TABLE item (name text PRIMARY KEY, value int)")
    rows = Rows(pool)
    cache, other = await make_cache(), await make_cache()
    service, neighbour = Service(cache, rows), Service(other, rows)
    owner = cache.runtime.reader._owner
    start = owner.start
    tasks = asyncio.all_tasks()
    for at in range(MOST_AWAITS):
        await _prepare(service, state)
        if state == "new tag":
            await redis.delete(cache.scope.space.generation("t"))
        caller = asyncio.create_task(LOADING[name](service))
        cancelled = AtAwait(at, late=late, do=caller.cancel)
        monkeypatch.setattr(
            owner,
            "start",
            lambda work, c=cancelled, **options: start(c.run(work), **options),
        )
        error = await outcome(caller)
        monkeypatch.undo()
        assert error in (1, {"k": 1}) or isinstance(error, asyncio.CancelledError), error
        await tasks_end(tasks)
        await nothing_is_left(redis, cache, namespace)
        assert await neighbour.aside.get("k", rows.load) == 1
        assert await service.aside.get("k", rows.load) == 1
        if not cancelled.reached:
            break
    assert at > 2


@pytest.mark.parametrize("kind", ["key", "tag", "key and tag"])
async def test_the_marks_of_a_cancelled_writer_do_not_come_after_their_end(
    make_cache: MakeCache, redis: Redis, namespace: str, kind: str
) -> None:
    # The command is on its way, and reaches Redis although its caller has been cancelled.
    cache = await make_cache(write_timeout=600)
    store = gated(cache)
    store.commands_travel_on = True
    gate = store.before(BeginWrite)
    begun = False

    async def write() -> None:
        nonlocal begun
        async with cache.updating(*(["k"] if "key" in kind else []), tags=["t"] if "tag" in kind else []):
            begun = True

    writer = asyncio.create_task(write())
    await gate.reached()
    writer.cancel()
    await asyncio.sleep(0)
    gate.open()
    error = await outcome(writer)
    assert isinstance(error, asyncio.CancelledError)
    assert not begun
    await nothing_is_left(redis, cache, namespace, inside=store)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("kind", ["key", "tag", "key and tag"])
async def test_a_writer_cancelled_at_its_end_still_ends(
    make_cache: MakeCache, redis: Redis, namespace: str, kind: str, times: int
) -> None:
    cache = await make_cache(write_timeout=600)
    store = gated(cache)
    gate = store.before(EndBump if kind == "tag" else EndWrite)

    async def write() -> None:
        async with cache.updating(*(["k"] if "key" in kind else []), tags=["t"] if "tag" in kind else []):
            pass

    writer = asyncio.create_task(write())
    await gate.reached()
    for _ in range(times):
        writer.cancel()
        await asyncio.sleep(0)
    assert not writer.done()
    gate.open()
    error = await outcome(writer)
    assert isinstance(error, asyncio.CancelledError)
    await nothing_is_left(redis, cache, namespace, inside=store)


async def test_a_writer_that_times_out_at_its_end_has_ended(
    make_cache: MakeCache, redis: Redis, namespace: str
) -> None:
    cache = await make_cache(write_timeout=600)
    store = gated(cache)
    gate = store.before(EndWrite)

    async def write() -> None:
        async with asyncio.timeout(0.01), cache.updating("k"):
            pass

    writer = asyncio.create_task(write())
    await gate.reached()
    await until(lambda: writer.cancelling() > 0, "the timeout")
    gate.open()
    with pytest.raises(TimeoutError):
        await writer
    await nothing_is_left(redis, cache, namespace, inside=store)
