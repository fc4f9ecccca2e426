"""Warming against writes, invalidations and other loaders: it never replaces newer data, and never repeats a load."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asynccache import Cache, ReadThrough
from asynccache.steps import Fill, Refresh
from tests.races.worlds import CHANGES, KEY, POINTS, TAG, World, race
from tests.support.gates import gated


def warmed(world: World) -> ReadThrough[Any]:
    """The strategy of the first process; its source is the world's table."""
    return ReadThrough(world.one, "user", source=world.table.load, tags=[TAG])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("point", POINTS)
async def test_what_changes_during_a_warming_load_is_what_everybody_reads(
    world: World, change: str, point: str
) -> None:
    async def warm(world: World, cache: Cache) -> Any:
        await ReadThrough(cache, "user", source=world.table.load, tags=[TAG]).warm([KEY])
        return world.row

    result = await race(world, warm, point, CHANGES[change])
    assert not result.stale, result


@pytest.mark.parametrize("change", CHANGES)
async def test_what_changes_while_a_fresh_entry_is_warmed_anew_is_what_everybody_reads(
    world: World, change: str
) -> None:
    users = warmed(world)
    await users.get(KEY)
    gate = gated(world.one).after(Refresh)
    warming = asyncio.create_task(users.warm([KEY], refresh=True).run())
    await gate.reached()
    await CHANGES[change](world, world.two, "new")
    gate.open()
    await warming
    assert await users.get(KEY) == world.row


async def test_what_is_being_written_is_left_to_the_next_reader(world: World) -> None:
    users = warmed(world)
    before = world.table.loads
    async with world.two.updating(users.key(KEY)):
        report = await users.warm([KEY])
        assert (report.skipped, report.loaded) == (1, 0)
        assert world.table.loads == before
        world.table.rows[KEY] = "new"
    assert await users.get(KEY) == "new"


async def test_what_another_process_is_loading_is_not_loaded_again(world: World) -> None:
    here = warmed(world)
    there = ReadThrough(world.two, "user", source=world.table.load, tags=[TAG])
    gate = world.table.hold()
    loading = asyncio.create_task(there.get(KEY))
    await gate.reached()
    world.table.free()
    warming = asyncio.create_task(here.warm([KEY]).run())
    acquiring = gated(world.one)
    gate.open()
    report = await warming
    assert await loading == "old"
    assert (report.loaded, report.skipped) == (0, 1)
    assert world.table.loads == 1
    assert acquiring.count(Fill) == 0


async def test_two_warmings_at_once_load_each_key_once(world: World) -> None:
    keys = [f"k{n}" for n in range(100)]
    world.table.rows.update({key: key for key in keys})
    there = ReadThrough(world.two, "user", source=world.table.load, tags=[TAG])
    await asyncio.gather(warmed(world).warm(["other"]), there.warm(["other"]))
    before = world.table.loads
    one, two = await asyncio.gather(warmed(world).warm(keys, batch=10), there.warm(keys, batch=10))
    assert world.table.loads - before == 100
    assert one.loaded + two.loaded == 100
    assert one.skipped + two.skipped == 100


async def test_a_caller_does_not_wait_for_the_warmings_turn(world: World) -> None:
    # One load at a time: the second key waits, and without its lease.
    users = warmed(world)
    world.table.rows["second"] = "second"
    gate = world.table.hold()
    warming = asyncio.create_task(users.warm([KEY, "second"], concurrency=1).run())
    await gate.reached()
    world.table.free()
    assert await users.get("second") == "second"
    gate.open()
    report = await warming
    assert (report.loaded, report.skipped) == (1, 1)
