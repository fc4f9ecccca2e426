"""Who may share a load of this process: never a caller who knows of a write that the load may have missed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asynccache import LoadContext
from asynccache.stampede.single_flight import Flight
from asynccache.steps import Fill
from tests.races.worlds import CHANGES, READS, TAG, World, make_known
from tests.support.gates import gated, until

VOIDING = ["delete", "set", "updating", "updating, failed", "put"]
OUTDATING = ["tag", "namespace", "updating tag"]


async def _caller_after_a_change(world: World, change: str) -> tuple[Any, Any]:
    """The interleaving of single_flight.py: what the early caller gets, and the one who came after the change."""
    loaded = world.table.hold()
    early = asyncio.create_task(READS["get_or_load"](world, world.one))
    await loaded.reached()
    world.table.free()
    await CHANGES[change](world, world.two, "new")
    reads = world.one.stats.reads
    late = asyncio.create_task(READS["get_or_load"](world, world.one))
    await until(lambda: world.one.stats.reads > reads)
    loaded.open()
    return await early, await late


@pytest.mark.parametrize("change", VOIDING + OUTDATING)
async def test_a_caller_after_a_change_does_not_join_the_load_from_before_it(world: World, change: str) -> None:
    assert await _caller_after_a_change(world, change) == ("old", "new")


@pytest.mark.parametrize("change", ["delete", "updating", "tag"])
async def test_the_guard_is_needed_not_everybody_may_join(
    world: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(Flight, "joinable", lambda *_: True)
    assert await _caller_after_a_change(world, change) == ("old", "old")


@pytest.mark.parametrize("change", OUTDATING)
async def test_the_guard_is_needed_the_token_alone_does_not_prove_that_no_tag_was_invalidated(
    world: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("asynccache.strategies.reading.proof", lambda token, _: token)
    assert await _caller_after_a_change(world, change) == ("old", "old")


async def test_without_a_change_callers_share_the_load_that_began_before_them(world: World) -> None:
    loaded = world.table.hold()
    early = asyncio.create_task(READS["get_or_load"](world, world.one))
    await loaded.reached()
    late = [asyncio.create_task(READS[read](world, world.one)) for read in READS if read != "refresh"]
    # "other" is the second key of both calls for many: loaded by one, joined by the other.
    await until(lambda: world.one.stats.joins == len(late) + 1)
    loaded.open()
    assert await asyncio.gather(early, *late) == ["old"] * (1 + len(late))
    assert world.one.stats.loads == 2


async def test_callers_during_a_write_share_only_loads_that_begin_after_them(world: World) -> None:
    async with world.two.updating(world.cell):
        first_gate = world.table.hold()
        first = asyncio.create_task(READS["get_or_load"](world, world.one))
        await first_gate.reached()
        world.table.free()
        world.table.rows["k"] = "new"
        # This one may know of the change: only the load of the first is under way, and it began before.
        assert await READS["get_or_load"](world, world.one) == "new"
        first_gate.open()
        assert await first == "old"
    assert world.one.stats.bypasses == 2
    assert world.one.stats.fills == 0
    assert await world.one.get(world.cell) is None


async def _after_a_late_tag(world: World, hold_at: str) -> tuple[Any, Any]:
    """A load adds a tag that is invalidated while it runs; what the early caller gets, and one who came after."""

    async def load(ctx: LoadContext) -> Any:
        value = await world.table.load()
        ctx.tags(["late"])
        return value

    await make_known(world, "late")
    gate = world.table.hold() if hold_at == "loaded" else gated(world.one).before(Fill, world.cell)
    early = asyncio.create_task(world.one.get_or_load(world.cell, load))
    await gate.reached()
    world.table.free()
    world.table.rows["k"] = "new"
    await world.two.invalidate_tags("late")
    late = asyncio.create_task(world.one.get_or_load(world.cell, load))
    await until(lambda: world.one.stats.joins == 1)
    gate.open()
    return await early, await late


@pytest.mark.parametrize("hold_at", ["loaded", "about to fill"])
async def test_a_caller_who_shares_an_older_load_is_not_served_what_a_late_tag_outdated(
    world: World, hold_at: str
) -> None:
    assert await _after_a_late_tag(world, hold_at) == ("old", "new")
    for cache in (world.one, world.two):
        assert await READS["cache-aside"](world, cache) == "new"


async def test_a_caller_who_wants_other_tags_does_not_share_an_older_load(world: World) -> None:
    # The generation of its tag may have moved since that load began, and nothing that it read tells.
    loaded = world.table.hold()
    early = asyncio.create_task(world.one.get_or_load(world.cell, world.table.load, tags=["a"]))
    await loaded.reached()
    world.table.free()
    world.table.rows["k"] = "new"
    await world.two.invalidate_tags(TAG)
    late = asyncio.create_task(world.one.get_or_load(world.cell, world.table.load, tags=[TAG]))
    await until(lambda: world.one.stats.waits == 1)
    loaded.open()
    assert (await early, await late) == ("old", "new")
