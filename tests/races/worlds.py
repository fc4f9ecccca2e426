"""Two processes on one namespace, the ways to read one entity, the ways to change it, and the points to stop a reader."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Applied, Batch, Cache, CacheAside, Delete, Put, ReadThrough, Reason, WriteThrough
from asynccache.decorators import CachedFunction
from asynccache.entry import Cell, generation_micros, parse_cell
from asynccache.keys import CellKey
from asynccache.steps import Acquire, Fill, Step
from asynccache.stores import step_calls
from asynccache.stores.scripts import Script
from tests.support.gates import Gate, Table, gated, until

KEY = "k"
TAG = "t"


class Rows:
    """A table as a Source and a Sink.

    Attributes:
        before, written: if set, hold writers right before and right after the table changes.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.before: Gate | None = None
        self.written: Gate | None = None

    async def load_many(self, keys: Sequence[Any], /) -> Mapping[Any, Any]:
        found = {key: await self.table.load(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    async def apply(self, batch: Batch[Any], /) -> Applied[Any]:
        if self.before is not None:
            await self.before.stop()
        for write in batch.writes:
            assert isinstance(write, Put | Delete)
            self.table.rows[write.key] = write.value if isinstance(write, Put) else None
        if self.written is not None:
            await self.written.stop()
        return Applied()


@dataclass
class World:
    """Two caches like two processes, over one table.

    Attributes:
        one: the process whose reader is held.
        two: the process that writes.
        table: the database.
    """

    one: Cache
    two: Cache
    table: Table

    @property
    def cell(self) -> CellKey:
        """The entity's cell."""
        return self.one.scope.space.cell("user", KEY)

    @property
    def generation(self) -> str:
        """The generation of the entity's tag."""
        return self.one.scope.space.generation(TAG)

    @property
    def row(self) -> Any:
        """What the database holds now."""
        return self.table.rows.get(KEY)


Read = Callable[[World, Cache], Coroutine[Any, Any, Any]]
Change = Callable[[World, Cache, Any], Coroutine[Any, Any, Any]]


async def _plain(world: World, cache: Cache) -> Any:
    return await cache.get_or_load(world.cell, world.table.load, tags=[TAG])


async def _cache_aside(world: World, cache: Cache) -> Any:
    users: CacheAside[Any] = CacheAside(cache, "user", tags=[TAG])
    return await users.get(KEY, world.table.load)


async def _cache_aside_many(world: World, cache: Cache) -> Any:
    users: CacheAside[Any] = CacheAside(cache, "user", tags=[TAG])
    return (await users.get_many([KEY, "other"], world.table.load)).get(KEY)


async def _read_through(world: World, cache: Cache) -> Any:
    return await ReadThrough(cache, "user", source=Rows(world.table), tags=[TAG]).get(KEY)


async def _read_through_many(world: World, cache: Cache) -> Any:
    users = ReadThrough(cache, "user", source=Rows(world.table), tags=lambda _: [TAG])
    return (await users.get_many(["other", KEY])).get(KEY)


async def _decorated(world: World, cache: Cache) -> Any:
    return await _decorate(world, cache)(KEY)


def _decorate(world: World, cache: Cache) -> CachedFunction[[str], Any]:
    @cache.cached(key="user:{key}", tags=[TAG])
    async def get_user(key: str) -> Any:
        return await world.table.load(key)

    return get_user


async def _refreshed(world: World, cache: Cache) -> Any:
    users: CacheAside[Any] = CacheAside(cache, "user", tags=[TAG])
    return await users.refresh(KEY, world.table.load)


READS: dict[str, Read] = {
    "get_or_load": _plain,
    "cache-aside": _cache_aside,
    "cache-aside many": _cache_aside_many,
    "read-through": _read_through,
    "read-through many": _read_through_many,
    "decorated": _decorated,
    "refresh": _refreshed,
}


async def _delete(world: World, cache: Cache, value: Any) -> None:
    world.table.rows[KEY] = value
    await cache.delete(world.cell)


async def _invalidate(world: World, cache: Cache, value: Any) -> None:
    world.table.rows[KEY] = value
    await CacheAside(cache, "user").invalidate(KEY, "other")


async def _decorated_invalidate(world: World, cache: Cache, value: Any) -> None:
    world.table.rows[KEY] = value
    await _decorate(world, cache).invalidate(KEY)


async def _invalidate_tag(world: World, cache: Cache, value: Any) -> None:
    world.table.rows[KEY] = value
    await cache.invalidate_tags(TAG)


async def _invalidate_namespace(world: World, cache: Cache, value: Any) -> None:
    world.table.rows[KEY] = value
    await cache.clear()


async def _set(world: World, cache: Cache, value: Any) -> None:
    world.table.rows[KEY] = value
    await cache.set(world.cell, value, tags=[TAG])


async def _updating(world: World, cache: Cache, value: Any) -> None:
    async with cache.updating(world.cell):
        world.table.rows[KEY] = value


async def _updating_and_failing(world: World, cache: Cache, value: Any) -> None:
    async def fail_after_the_change() -> None:
        async with cache.updating(world.cell):
            world.table.rows[KEY] = value
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_the_change()


async def _updating_tag(world: World, cache: Cache, value: Any) -> None:
    async with CacheAside(cache, "user").updating(tags=[TAG]):
        world.table.rows[KEY] = value


async def _put(world: World, cache: Cache, value: Any) -> None:
    await WriteThrough(cache, "user", source=Rows(world.table), tags=[TAG]).put(KEY, value)


async def _put_with_its_tag(world: World, cache: Cache, value: Any) -> None:
    await WriteThrough(cache, "user", source=Rows(world.table), tags=[TAG]).put_many(
        {KEY: value, "other": 1}, tags=[TAG]
    )


async def _drop(world: World, cache: Cache, value: Any) -> None:
    del value
    await WriteThrough(cache, "user", source=Rows(world.table), tags=[TAG]).delete(KEY)


CHANGES: dict[str, Change] = {
    "delete": _delete,
    "invalidate": _invalidate,
    "decorated invalidate": _decorated_invalidate,
    "tag": _invalidate_tag,
    "namespace": _invalidate_namespace,
    "set": _set,
    "updating": _updating,
    "updating, failed": _updating_and_failing,
    "updating tag": _updating_tag,
    "put": _put,
    "put with its tag": _put_with_its_tag,
    "write-through delete": _drop,
}

POINTS = ("miss seen", "lease taken", "loaded", "about to fill")


def hold(world: World, point: str) -> Gate:
    """Stops the next reader of process one at a named point."""
    match point:
        case "miss seen":
            return gated(world.one).before(Acquire, world.cell)
        case "lease taken":
            return gated(world.one).after(Acquire, world.cell)
        case "loaded":
            return world.table.hold()
        case "about to fill":
            return gated(world.one).before(Fill, world.cell)
        case _:
            raise AssertionError(point)


@dataclass(frozen=True)
class Race:
    """What a race came to.

    Attributes:
        held: what the held reader returned, which began before the change.
        later: what readers returned who began after the change and while the first was held.
        rest: what both processes read at the end, without a loader.
        row: what the database holds.
    """

    held: Any
    later: tuple[Any, ...]
    rest: tuple[Any, ...]
    row: Any

    @property
    def stale(self) -> bool:
        """Whether a reader who began after the change got anything older."""
        return any(value not in {self.row, None} for value in self.rest) or any(v != self.row for v in self.later)


async def race(world: World, read: Read, point: str, change: Change, *, crowd: bool = True) -> Race:
    """A reader of process one is held at a point; process two changes the row to "new"; others read (the crowd); the
    first goes on."""
    gate = hold(world, point)
    held = asyncio.create_task(read(world, world.one))
    await gate.reached()
    world.table.free()
    await change(world, world.two, "new")
    counts = [(cache, cache.stats.reads) for cache in (world.one, world.two) if crowd]
    later = [asyncio.create_task(_plain(world, cache)) for cache, _ in counts]
    await until(lambda: all(cache.stats.reads > before for cache, before in counts), "the later readers to look")
    gate.open()
    first = await held
    answers = await asyncio.gather(*later)
    rest = [await cache.get(world.cell) for cache in (world.one, world.two)]
    after = [await read(world, cache) for cache in (world.two, world.one)]
    return Race(first, (*answers, *after), tuple(rest), world.row)


async def make_known(world: World, tag: str) -> None:
    """Gives a tag a generation that is older than any load that begins from now on."""
    await world.two.invalidate_tags(tag)
    store = world.two.runtime.store
    (raw,) = await store.read([world.two.scope.space.generation(tag)])
    assert raw is not None
    await until(lambda: store.now_ms() > generation_micros(raw) // 1000 + 1, "the next millisecond")


async def cell_at(redis: Redis, key: str) -> Cell:
    """What stands under a key."""
    raw = await redis.get(key)
    assert raw is None or isinstance(raw, bytes)
    return parse_cell(raw)


async def is_gone(redis: Redis, key: str) -> bool:
    """Whether nothing stands under a key."""
    return not await redis.exists(key)


async def has_reason(cache: Cache, cell: CellKey, reason: Reason) -> bool:
    """Whether that is why the next read of a cell would do what it would do."""
    return (await cache.explain(cell)).reason is reason


def break_script(monkeypatch: pytest.MonkeyPatch, step: type[Step], guard: str, instead: str) -> None:
    """Runs a step's Lua script with one guard taken out of it."""
    script = step_calls._SCRIPTS[step]
    assert script.source.count(guard) == 1, f"{script.name} has no guard {guard!r}"
    source = script.source.replace(guard, instead)
    sha = hashlib.sha1(source.encode()).hexdigest()
    monkeypatch.setitem(step_calls._SCRIPTS, step, Script(script.name, source, sha))
