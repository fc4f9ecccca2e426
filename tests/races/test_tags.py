"""Tags that a loader adds, and generations that Redis forgets: neither brings an outdated entry back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Cache, LoadContext, Policy, Reason
from asynccache.steps import Acquire, EndBump, Ensure, Fill
from asynccache.strategies.filling import Filler
from tests.races.worlds import CHANGES, KEY, POINTS, READS, TAG, World, has_reason, hold, is_gone, make_known
from tests.support.caches import MakeCache
from tests.support.gates import Gate, gated, until


async def _read(world: World, cache: Cache, policy_tags: tuple[str, ...] = ()) -> Any:
    async def load(ctx: LoadContext) -> Any:
        value = await world.table.load()
        ctx.tags(["late"])
        return value

    return await cache.get_or_load(world.cell, load, tags=policy_tags)


async def _invalidate(world: World) -> None:
    world.table.rows[KEY] = "new"
    await world.two.invalidate_tags("late")


async def _update(world: World) -> None:
    async with world.two.updating(tags=["late"]):
        world.table.rows[KEY] = "new"


@pytest.mark.parametrize("change", [_invalidate, _update])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("point", POINTS)
async def test_a_late_tag_invalidated_during_the_load_outdates_what_is_stored(
    world: World, point: str, known: bool, change: Any
) -> None:
    if known:
        await make_known(world, "late")
    # Where the tag is unknown, the first load stores nothing and never gets to its fill.
    gate = hold(world, point if known or point != "about to fill" else "loaded")
    held = asyncio.create_task(_read(world, world.one))
    await gate.reached()
    world.table.free()
    await change(world)
    gate.open()
    assert await held in {"old", "new"}
    for cache in (world.one, world.two):
        assert await cache.get(world.cell) in {None, "new"}
        assert await _read(world, cache) == "new"


async def test_a_late_tag_being_changed_is_not_carried(world: World) -> None:
    await make_known(world, "late")
    loaded = world.table.hold()
    held = asyncio.create_task(_read(world, world.one))
    await loaded.reached()
    async with world.two.updating(tags=["late"]):
        loaded.open()
        assert await held == "old"
        world.table.rows[KEY] = "new"
    assert world.one.stats.fills == 0
    assert await _read(world, world.two) == "new"


async def test_the_guard_is_needed_a_late_tag_is_as_old_as_the_load(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def whatever(filler: Filler, filling: Any, context: LoadContext) -> Any:
        keys = [filling.recipe.space.generation(tag) for tag in context.late_tags]
        return {**filling.generations, **dict(zip(keys, await filler._store.read(keys), strict=True))}

    monkeypatch.setattr(Filler, "_late_generations", whatever)
    await make_known(world, "late")
    loaded = world.table.hold()
    held = asyncio.create_task(_read(world, world.one))
    await loaded.reached()
    await _invalidate(world)
    loaded.open()
    assert await held == "old"
    assert await world.two.get(world.cell) == "old"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("read", ["get_or_load", "decorated", "read-through many", "refresh"])
@pytest.mark.parametrize("point", ["at rest", *POINTS])
async def test_an_evicted_generation_revives_nothing(
    world: World, redis: Redis, point: str, read: str, when: str
) -> None:
    """The tag is invalidated and its generation evicted, in either order, while a reader is at a point."""

    async def change() -> None:
        if when == "before":
            await redis.delete(world.generation)
        await CHANGES["tag"](world, world.two, "new")
        if when == "after":
            await redis.delete(world.generation)

    if point == "at rest":
        assert await READS[read](world, world.one) == "old"
        await change()
    else:
        gate = hold(world, point)
        held = asyncio.create_task(READS[read](world, world.one))
        await gate.reached()
        world.table.free()
        await change()
        gate.open()
        assert await held in {"old", "new"}
    for cache in (world.one, world.two):
        assert await cache.get(world.cell) in {None, "new"}
        assert await READS[read](world, cache) == "new"
        assert await READS["cache-aside"](world, cache) == "new"


async def test_a_generation_evicted_inside_a_write_revives_nothing(world: World, redis: Redis) -> None:
    assert await READS["get_or_load"](world, world.one) == "old"
    end = gated(world.two).before(EndBump)
    writer = asyncio.create_task(CHANGES["updating tag"](world, world.two, "new"))
    await end.reached()
    world.table.rows[KEY] = "old"  # the change is not visible yet
    await redis.delete(world.generation)
    fill = gated(world.one).before(Fill, world.cell)
    held = asyncio.create_task(READS["get_or_load"](world, world.one))
    await fill.reached()
    world.table.rows[KEY] = "new"
    end.open()
    await writer
    fill.open()
    assert await held == "old"
    for cache in (world.one, world.two):
        assert await cache.get(world.cell) in {None, "new"}
        assert await READS["get_or_load"](world, cache) == "new"


async def test_the_namespace_forgotten_and_made_again_revives_nothing(world: World, redis: Redis) -> None:
    assert await READS["get_or_load"](world, world.one) == "old"
    world.table.rows[KEY] = "new"
    await redis.delete(*world.one.scope.space.own_generations())
    assert await world.two.get(world.cell) is None
    await world.two.set("other", 1)
    assert await world.one.get(world.cell) is None
    assert await READS["get_or_load"](world, world.one) == "new"


async def test_two_readers_who_make_the_same_missing_generation_agree(world: World) -> None:
    gates: list[Gate] = [gated(cache).before(Acquire, world.cell) for cache in (world.one, world.two)]
    both = [asyncio.create_task(READS["get_or_load"](world, cache)) for cache in (world.one, world.two)]
    for gate in gates:
        await gate.reached()
    for gate in gates:
        gate.open()
    assert await asyncio.gather(*both) == ["old", "old"]
    assert world.table.loads == 1
    assert [gated(cache).count(Ensure, world.generation) for cache in (world.one, world.two)] == [1, 1]
    assert [await cache.get(world.cell) for cache in (world.one, world.two)] == ["old", "old"]


async def test_a_refresh_of_an_entry_with_late_tags_is_stored(world: World) -> None:
    from asynccache import CacheAside

    async def load(_: str, ctx: LoadContext) -> Any:
        ctx.tags(["late"])
        return await world.table.load()

    await make_known(world, "late")
    users: CacheAside[str] = CacheAside(world.one, "user")
    assert await users.get(KEY, load) == "old"
    world.table.rows[KEY] = "new"
    assert await users.refresh(KEY, load) == "new"
    assert await world.two.get(world.cell) == "new"
    world.table.rows[KEY] = "newer"
    await world.two.invalidate_tags("late")
    assert await users.get(KEY, load) == "newer"


async def test_a_stale_entry_with_late_tags_keeps_them_when_it_is_refreshed(
    make_cache: MakeCache, world: World
) -> None:
    cache = await make_cache(ttl=0.001, policy=Policy(stale=60, jitter=0, early=0))
    await make_known(world, "late")
    assert await _read(world, cache) == "old"
    world.table.rows[KEY] = "new"
    await until(lambda: has_reason(cache, world.cell, Reason.STALE))
    assert await _read(world, cache) == "old"
    await until(lambda: cache.stats.fills == 2)
    assert await cache.get(world.cell) == "new"
    world.table.rows[KEY] = "newer"
    await world.two.invalidate_tags("late")
    assert await _read(world, cache) == "newer"


async def test_a_refresh_while_its_tag_is_being_changed_leaves_no_lease(world: World, redis: Redis) -> None:
    async with world.two.updating(tags=[TAG]):
        assert await READS["refresh"](world, world.one) == "old"
        await until(lambda: is_gone(redis, world.cell))
        world.table.rows[KEY] = "new"
    assert await READS["get_or_load"](world, world.two) == "new"
    assert world.two.stats.waits == 0
