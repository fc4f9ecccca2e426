"""A slow load against everything that changes the row meanwhile: whoever reads later never gets the older value."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from asynccache.entry import Lease
from asynccache.steps import EndWrite, Fill, Invalidate
from tests.races.worlds import CHANGES, KEY, POINTS, READS, TAG, World, break_script, cell_at, hold, is_gone, race
from tests.support.gates import gated, until


@pytest.mark.one_loop
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", READS)
async def test_a_slow_reader_leaves_nothing_older_than_a_change(
    world: World, read: str, change: str, point: str
) -> None:
    result = await race(world, READS[read], point, CHANGES[change])
    assert result.held in {"old", world.row}
    assert not result.stale, result


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_remembered_not_found_does_not_outlive_the_creation(world: World, change: str, point: str) -> None:
    world.table.rows[KEY] = None
    result = await race(world, READS["cache-aside"], point, CHANGES[change])
    assert not result.stale, result
    if change != "write-through delete":
        assert result.later == ("new",) * 4


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("change", ["delete", "tag", "updating", "updating tag", "put"])
async def test_a_slow_reader_of_an_outdated_entry_leaves_nothing_older(world: World, change: str, point: str) -> None:
    world.table.rows[KEY] = "oldest"
    await READS["decorated"](world, world.one)
    await CHANGES["tag"](world, world.two, "old")
    result = await race(world, READS["decorated"], point, CHANGES[change])
    assert result.held in {"old", "new"}
    assert not result.stale, result


@pytest.mark.parametrize("change", ["updating", "updating tag", "put"])
@pytest.mark.parametrize("point", POINTS)
async def test_a_reader_who_begins_inside_a_write_leaves_nothing_older(world: World, change: str, point: str) -> None:
    # The writer has changed the row and is about to end, when the reader goes on.
    await READS["decorated"](world, world.one)
    await world.two.delete(world.cell)
    gate = hold(world, point)
    held = asyncio.create_task(READS["cache-aside"](world, world.one))
    await gate.reached()
    world.table.free()
    ending = gated(world.two)
    end = ending.before(EndWrite, world.cell) if change != "updating tag" else ending.before(_end_bump())
    writer = asyncio.create_task(CHANGES[change](world, world.two, "new"))
    await end.reached()
    inside = asyncio.create_task(READS["get_or_load"](world, world.two))
    gate.open()
    assert await held in {"old", "new"}
    end.open()
    await writer
    assert await inside == "new"
    for cache in (world.one, world.two):
        assert await cache.get(world.cell) in {None, "new"}
        assert await READS["cache-aside"](world, cache) == "new"


def _end_bump() -> type:
    from asynccache.steps import EndBump

    return EndBump


@pytest.mark.parametrize("gone", ["expired", "taken by another reader", "taken, and filled"])
async def test_a_reader_who_lost_its_lease_cannot_fill(world: World, redis: Redis, gone: str) -> None:
    gate = hold(world, "about to fill")
    held = asyncio.create_task(READS["get_or_load"](world, world.one))
    await gate.reached()
    assert isinstance(await cell_at(redis, world.cell), Lease)
    await redis.pexpire(world.cell, 1)
    await until(lambda: is_gone(redis, world.cell), "the lease to expire")
    world.table.rows[KEY] = "new"
    if gone == "expired":
        gate.open()
        assert await held == "old"
        assert await world.two.get(world.cell) is None
    elif gone == "taken, and filled":
        assert await READS["get_or_load"](world, world.two) == "new"
        gate.open()
        assert await held == "old"
    else:
        second = gated(world.two).before(Fill)
        other = asyncio.create_task(READS["get_or_load"](world, world.two))
        await second.reached()
        gate.open()
        assert await held == "old"
        assert isinstance(await cell_at(redis, world.cell), Lease)
        second.open()
        assert await other == "new"
    assert world.one.stats.fills_refused == 1
    for cache in (world.one, world.two):
        assert await READS["decorated"](world, cache) == "new"


async def test_one_call_for_many_keys_keeps_each_of_them_right(world: World) -> None:
    """A hit, a lease of another reader, a writer in flight, and a miss, in one call; then each changes under it."""
    from asynccache import CacheAside

    one: CacheAside[str] = CacheAside(world.one, "user", tags=[TAG])
    two: CacheAside[str] = CacheAside(world.two, "user", tags=[TAG])
    table = world.table
    table.rows.update(hit="hit", leased="old", writing="old", missing="old", absent=None)
    assert await two.get("hit", table.load) == "hit"
    slow = gated(world.two).before(Fill, two.key("leased"))
    leased = asyncio.create_task(two.get("leased", table.load))
    await slow.reached()
    async with two.updating("writing"):
        late = gated(world.one).before(Fill, one.key("missing"))
        many = asyncio.create_task(one.get_many(["hit", "leased", "writing", "missing", "absent"], table.load))
        await late.reached()
        await until(lambda: world.one.stats.waits == 1)
        table.rows["writing"] = "new"
    table.rows["missing"] = "new"
    await two.invalidate("missing")
    late.open()
    slow.open()
    found = await many
    assert found["hit"] == "hit"
    assert found["leased"] == await leased == "old"
    assert found["writing"] in {"old", "new"}
    assert found["missing"] == "old"
    assert "absent" not in found
    table.rows.update(hit="changed behind the cache")
    expected = {"hit": "hit", "leased": "old", "writing": "new", "missing": "new"}
    for users in (one, two):
        assert await users.get_many(["hit", "leased", "writing", "missing", "absent"], table.load) == expected


@pytest.mark.parametrize("change", ["delete", "updating", "put", "set"])
async def test_the_guard_is_needed_a_fill_wants_its_token(
    world: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    break_script(monkeypatch, Fill, "if not holds(ARGV[1]) then", "if false then")
    assert (await race(world, READS["get_or_load"], "about to fill", CHANGES[change], crowd=False)).stale


@pytest.mark.parametrize("change", ["tag", "namespace", "updating tag"])
async def test_the_guard_is_needed_an_entry_carries_the_generations_from_before_its_load(
    world: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    from asynccache.strategies.filling import Filler, Filling
    from asynccache.strategies.loading import LoadContext

    async def now(filler: Filler, filling: Filling[object], context: LoadContext) -> dict[str, bytes | None]:
        keys = list(filling.generations)
        return dict(zip(keys, await filler._store.read(keys), strict=True))

    monkeypatch.setattr(Filler, "_late_generations", now)
    assert (await race(world, READS["get_or_load"], "loaded", CHANGES[change], crowd=False)).stale


async def test_the_guard_is_needed_an_invalidation_leaves_a_writing_cell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await _invalidated_inside_a_write(world)
    await world.two.delete(world.cell)
    world.table.rows[KEY] = "old"
    break_script(monkeypatch, Invalidate, "if is_writing then", "if false then")
    break_script(monkeypatch, EndWrite, "if not is_writing then\n  become_empty()", "if not is_writing then")
    assert await _invalidated_inside_a_write(world)


async def _invalidated_inside_a_write(world: World) -> bool:
    """A reader loads between an invalidation and the change of a writer who began before both."""
    async with world.two.updating(world.cell):
        await world.two.delete(world.cell)
        assert await READS["get_or_load"](world, world.one) == "old"
        world.table.rows[KEY] = "new"
    return bool(await READS["get_or_load"](world, world.one) != "new")
