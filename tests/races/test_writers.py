"""Writers against each other, against invalidations, and against their own crash."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import Applied, Batch, Cache, DatabaseUnavailable, Delete, Put, WriteThrough
from asynccache.entry import Writing
from asynccache.keys import CellKey
from asynccache.steps import BeginWrite, EndWrite
from tests.races.worlds import CHANGES, KEY, READS, TAG, Rows, World, break_script, cell_at, hold, is_gone
from tests.support.caches import MakeCache
from tests.support.gates import Gate, gated, until


class PostgresRows:
    """A table of texts by name, as a Source and a Sink; a gate before each write of the table."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool
        self.before = Gate()

    async def load_many(self, keys: Sequence[Any], /) -> Mapping[Any, str]:
        rows = await self._pool.fetch("SELECT name, value FROM item WHERE name = ANY($1)", list(keys))
        return {row["name"]: row["value"] for row in rows}

    async def apply(self, batch: Batch[str], /) -> Applied[str]:
        await self.before.stop()
        async with self._pool.acquire() as connection, connection.transaction():
            for write in batch.writes:
                if isinstance(write, Delete):
                    await connection.execute("DELETE FROM item WHERE name = $1", write.key)
                elif isinstance(write, Put):
                    await connection.execute(
                        "INSERT INTO item VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
                        write.key,
                        write.value,
                    )
        return Applied(stored={write.key: write.value for write in batch.writes if isinstance(write, Put)})


class HeldWriter:
    """One writer that goes on by one step at a time: begin, change the database, end."""

    def __init__(self, cache: Cache, cell: CellKey, changing: Gate, write: Coroutine[Any, Any, Any]) -> None:
        store = gated(cache)
        self._gates = [store.before(BeginWrite, cell), changing, store.before(EndWrite, cell)]
        self._task = asyncio.create_task(write)
        self._at = 0

    async def step(self) -> None:
        await self._gates[self._at].reached()
        self._gates[self._at].open()
        self._at += 1
        if self._at < len(self._gates):
            await self._gates[self._at].reached()
        else:
            await self._task


ORDERS = sorted(set(itertools.permutations("111222")))


@pytest.mark.one_loop
@pytest.mark.parametrize("order", ORDERS, ids="".join)
@pytest.mark.parametrize("second", ["put", "delete", "updating"])
async def test_overlapping_writers_never_leave_the_older_value(
    make_cache: MakeCache, pool: asyncpg.Pool[Any], second: str, order: tuple[str, ...]
) -> None:
    """Every order of begin, change and end of two writers; a third process reads after each step, and always gets what
    the database holds."""
    await pool.execute("CREATE TABLE item (name text PRIMARY KEY, value text)")
    one, two, third = [await make_cache() for _ in range(3)]
    tables = [PostgresRows(pool) for _ in range(3)]
    items = [WriteThrough(cache, "item", source=table) for cache, table in zip((one, two, third), tables, strict=True)]
    cell = items[0].key(KEY)

    async def update() -> None:
        async with two.updating(cell):
            await tables[1].apply(Batch([Put(KEY, "two")]))

    async def delete() -> None:
        await items[1].delete(KEY)

    async def put(at: int, value: str) -> None:
        assert await items[at].put(KEY, value) == value

    writes = {"put": lambda: put(1, "two"), "delete": delete, "updating": update}
    writers = {
        "1": HeldWriter(one, cell, tables[0].before, put(0, "one")),
        "2": HeldWriter(two, cell, tables[1].before, writes[second]()),
    }
    for number in order:
        await writers[number].step()
        row = (await tables[2].load_many([KEY])).get(KEY)
        assert await items[2].get(KEY) == row
    for item in items:
        assert await item.get(KEY) == row


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("order", ["111222", "112122", "112212", "121212", "121221", "122112", "122121"])
async def test_an_invalidation_among_writers_leaves_nothing_older(world: World, order: str, at: int) -> None:
    tables = [Rows(world.table), Rows(world.table)]
    writers = {}
    for number, cache, table in zip("12", (world.one, world.two), tables, strict=True):
        table.before = Gate()
        users = WriteThrough(cache, "user", source=table, tags=[TAG])
        writers[number] = HeldWriter(cache, world.cell, table.before, users.put(KEY, number))
    for step, number in enumerate(order):
        if step == at:
            await world.one.delete(world.cell)
            assert await READS["cache-aside"](world, world.two) == world.row
        await writers[number].step()
        for cache in (world.one, world.two):
            assert await READS["cache-aside"](world, cache) == world.row
    for cache in (world.one, world.two):
        assert await cache.get(world.cell) in {None, world.row}


async def _two_puts_that_end_in_the_other_order(world: World) -> Any:
    tables = [Rows(world.table), Rows(world.table)]
    writers = {}
    for number, cache, table in zip("12", (world.one, world.two), tables, strict=True):
        table.before = Gate()
        writers[number] = HeldWriter(
            cache, world.cell, table.before, WriteThrough(cache, "user", source=table, tags=[TAG]).put(KEY, number)
        )
    for number in "121221":
        await writers[number].step()
    assert world.row == "2"
    return await READS["cache-aside"](world, world.one)


async def test_the_guard_is_needed_overlapped_writers_store_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _two_puts_that_end_in_the_other_order(world) == "2"
    await world.one.delete(world.cell)
    break_script(monkeypatch, EndWrite, "if ARGV[2] and mine and string.sub(raw, 2, 2) == '0' then", "if ARGV[2] then")
    assert await _two_puts_that_end_in_the_other_order(world) == "1"


@pytest.mark.parametrize("tags", [False, True], ids=["key", "tag"])
@pytest.mark.parametrize("changed", [False, True], ids=["before the change", "after the change"])
async def test_a_writer_who_crashes_leaves_nothing_stale(
    make_cache: MakeCache, world: World, redis: Redis, changed: bool, tags: bool
) -> None:
    """Begun and never ended. Until the mark expires, reads bypass the cache; after that, they are cached again."""
    crashing = await make_cache(write_timeout=0.1)
    assert await READS["decorated"](world, world.one) == "old"
    name = world.generation if tags else world.cell
    update = crashing.updating(tags=[TAG]) if tags else crashing.updating(world.cell)
    await update.__aenter__()
    assert isinstance(await cell_at(redis, name), Writing)
    if changed:
        world.table.rows[KEY] = "new"
    for cache in (world.one, world.two):
        assert await READS["decorated"](world, cache) == world.row
    await until(lambda: is_gone(redis, name), "the mark to expire")
    loads = world.table.loads
    for cache in (world.one, world.two):
        assert await READS["decorated"](world, cache) == world.row
    assert world.table.loads == loads + 1


@pytest.mark.parametrize("ending", ["ends late", "never ends"])
@pytest.mark.parametrize("read_at", ["marked", "mark gone", "changed"])
async def test_a_write_longer_than_its_mark_leaves_nothing_older_once_it_ends(
    make_cache: MakeCache, world: World, redis: Redis, read_at: str, ending: str
) -> None:
    slow = await make_cache(write_timeout=0.1)
    held: asyncio.Task[Any] | None = None
    gate: Gate | None = None

    async def read() -> None:
        nonlocal held, gate
        # One reader stores what it can, another is held on its way.
        gate = hold(world, "loaded")
        held = asyncio.create_task(READS["cache-aside"](world, world.one))
        await gate.reached()
        world.table.free()

    update = slow.updating(world.cell)
    await update.__aenter__()
    if read_at == "marked":
        await read()
    await until(lambda: is_gone(redis, world.cell), "the mark to expire")
    if read_at == "mark gone":
        await read()
    world.table.rows[KEY] = "new"
    if read_at == "changed":
        await read()
    if ending == "ends late":
        await update.__aexit__(None, None, None)
    assert held is not None
    assert gate is not None
    gate.open()
    await held
    if ending == "ends late":
        for cache in (world.one, world.two):
            assert await READS["cache-aside"](world, cache) == "new"
    else:
        # A write that never says that it has ended promises nothing more than the TTL.
        await world.one.delete(world.cell)


async def test_the_guard_is_needed_a_late_writer_empties_what_it_finds(
    make_cache: MakeCache, world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_script(monkeypatch, EndWrite, "if not is_writing then\n  become_empty()", "if not is_writing then")
    slow = await make_cache(write_timeout=0.05)
    async with slow.updating(world.cell):
        await until(lambda: is_gone(redis, world.cell), "the mark to expire")
        assert await READS["cache-aside"](world, world.one) == "old"
        world.table.rows[KEY] = "new"
    assert await READS["cache-aside"](world, world.two) == "old"


async def test_a_second_writer_takes_over_from_one_who_crashed(
    make_cache: MakeCache, world: World, redis: Redis
) -> None:
    crashing = await make_cache(write_timeout=0.1)
    await crashing.updating(world.cell).__aenter__()
    gate = gated(world.two).before(EndWrite, world.cell)
    writer = asyncio.create_task(CHANGES["put"](world, world.two, "new"))
    await gate.reached()
    await until(lambda: _deadline_passed(redis, world.cell, crashing), "the first mark's deadline")
    gate.open()
    await writer
    # The first may yet change the row: nothing of the second may stay.
    assert await world.one.get(world.cell) is None
    assert await READS["decorated"](world, world.one) == "new"


async def test_a_put_that_takes_too_long_is_given_up_and_leaves_nothing(make_cache: MakeCache, world: World) -> None:
    impatient = await make_cache(write_timeout=0.1)
    rows = Rows(world.table)
    rows.written = Gate()
    with pytest.raises(DatabaseUnavailable, match="write_timeout"):
        await WriteThrough(impatient, "user", source=rows).put(KEY, "new")
    assert await world.one.get(world.cell) is None
    for cache in (world.one, world.two):
        assert await READS["cache-aside"](world, cache) == "new"


@pytest.mark.parametrize("at", ["begun", "changed"])
async def test_a_value_set_during_a_write_does_not_stay(world: World, at: str) -> None:
    # Whether it is older than what the writer leaves cannot be known.
    async with world.two.updating(world.cell):
        if at == "changed":
            world.table.rows[KEY] = "new"
        await world.one.set(world.cell, "set", tags=[TAG])
        assert await READS["cache-aside"](world, world.one) == world.row
        world.table.rows[KEY] = "new"
    for cache in (world.one, world.two):
        assert await cache.get(world.cell) in {None, "new"}


async def test_many_keys_are_written_or_emptied_each_by_itself(world: World) -> None:
    users = WriteThrough(world.one, "user", source=Rows(world.table))
    other = WriteThrough(world.two, "user", source=Rows(world.table))
    gate = gated(world.one).before(EndWrite)
    writer = asyncio.create_task(users.put_many({"a": 1, "b": 1}))
    await gate.reached()
    await other.invalidate("a")
    gate.open()
    await writer
    assert await world.two.get_many([users.key("a"), users.key("b")]) == {users.key("b"): 1}


async def _deadline_passed(redis: Redis, key: str, cache: Cache) -> bool:
    cell = await cell_at(redis, key)
    assert isinstance(cell, Writing)
    return min(writer.deadline for writer in cell.writers) < cache.runtime.store.now_ms()
