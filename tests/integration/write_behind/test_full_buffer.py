"""Write-behind without room: wait, fail, or write past the buffer, and never beneath what waits in it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import BufferFull
from asynccache.postgres import PostgresTable
from tests.integration.write_behind.scores import HeldTable, MakeScores, Score, fresh
from tests.support.gates import Gate, until

Pool: TypeAlias = "asyncpg.Pool[Any]"


async def test_a_write_that_finds_the_buffer_full_waits_for_room(make_scores: MakeScores, pool: Pool) -> None:
    scores = await make_scores(max_pending=2)
    for name in "ab":
        await scores.increment(name, points=1)
    waiting = [asyncio.create_task(scores.increment(name, points=1)) for name in "cd"]
    await scores.increment("a", points=1)  # which pends already
    assert not any(task.done() for task in waiting)
    await scores.flush()
    await asyncio.gather(*waiting)
    await scores.flush()
    assert {row["player"]: row["points"] for row in await pool.fetch("SELECT * FROM score")} == {
        "a": 2, "b": 1, "c": 1, "d": 1,
    }  # fmt: skip


async def test_who_waits_for_room_waits_no_longer_than_the_bound(make_scores: MakeScores) -> None:
    scores = await make_scores(max_pending=1, full_timeout=0.1)
    await scores.put("a", Score("a"))
    with pytest.raises(BufferFull, match=r"for 0\.1 s.*'b'"):
        await scores.put("b", Score("b"))
    assert await scores.get("b") is None


@pytest.mark.parametrize("durability", ["redis", "memory"])
async def test_a_number_that_leaves_the_range_after_a_wait_for_room_is_refused_and_not_acknowledged(
    make_scores: MakeScores, durability: str
) -> None:
    scores = await make_scores(max_pending=1, durability=durability, flush_every=3600)
    scores.pause()
    await scores.put("a", Score("a"))
    most, find_room, waiting = Decimal(9) * 10**23, scores._overflow._find_room, 0

    async def wait_for_room(*arguments: Any) -> Any:
        nonlocal waiting
        waiting += 1
        return await find_room(*arguments)

    scores._overflow._find_room = wait_for_room  # type: ignore[assignment, method-assign]
    adding = [asyncio.create_task(scores.increment("b", money=most)) for _ in range(2)]
    await until(lambda: waiting == 2)
    await scores.flush()
    results = await asyncio.gather(*adding, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Receipt", "WriteRejected"]
    found = await scores.get("b")
    assert found is not None
    assert found.money == most


async def test_who_finds_the_buffer_full_writes_to_the_database_but_never_beneath_a_batch(
    make_scores: MakeScores, table: HeldTable, pool: Pool
) -> None:
    scores = await make_scores(max_pending=1, on_full="write_through")
    await scores.put("a", Score("a", 1))
    receipt = await scores.put("b", Score("b", 1))
    assert receipt.written_through == 1
    assert await scores.get("b") == Score("b", 1)
    assert await pool.fetchval("SELECT points FROM score WHERE player = 'b'") == 1
    table.before = Gate()
    flushing = asyncio.create_task(scores.flush())  # of a
    await table.before.reached()
    await scores.put("c", Score("c", 1))  # which fills it up
    late = asyncio.create_task(scores.put("a", Score("a", 2)))  # the batch holds a, and is not in the database yet
    held, table.before = table.before, None
    written = asyncio.create_task(scores.put("d", Score("d", 1)))
    await written
    assert not late.done()
    held.open()
    await flushing
    await late
    await scores.flush()
    assert {row["player"]: row["points"] for row in await pool.fetch("SELECT * FROM score")} == {
        "a": 2, "b": 1, "c": 1, "d": 1,
    }  # fmt: skip


async def test_a_read_that_began_before_a_write_past_the_buffer_does_not_answer_without_it_afterwards(
    make_scores: MakeScores, table: HeldTable, pool: Pool
) -> None:
    full = await make_scores(max_pending=1, on_full="write_through")
    reader = await make_scores()
    other = await make_scores(sink=PostgresTable(pool, "score", key="player", model=Score))
    await full.put("a", Score("a", 1))
    table.before = Gate()
    past = asyncio.create_task(full.put("b", Score("b", 10)))  # which finds no room, and nothing that waits for b
    await table.before.reached()
    await other.flush()
    await other.increment("b", points=1)
    load, loaded = table.load_exact, Gate()

    async def load_late(keys: Any, ids: Any) -> Any:
        found = await load(keys, ids)
        await loaded.stop()
        return found

    table.load_exact = load_late  # type: ignore[assignment, method-assign]
    reading = asyncio.create_task(reader.get("b"))  # has seen the increment, and no row
    await loaded.reached()
    table.before.open()
    await past
    await other.increment("b", points=1)
    loaded.open()
    assert await reading == Score("b", 12)


async def test_a_write_past_the_buffer_is_not_hidden_by_a_batch_that_it_overtook(
    make_scores: MakeScores, table: HeldTable, pool: Pool
) -> None:
    full = await make_scores(max_pending=1, on_full="write_through")
    beside = HeldTable(pool, "score", key="player", model=Score)
    other = await make_scores(sink=beside)
    await full.put("a", Score("a", 1))
    table.before = Gate()
    past = asyncio.create_task(full.put("b", Score("b", 10)))
    await table.before.reached()
    await other.flush()
    await other.put("b", Score("b", 5))
    beside.after = Gate()
    flushing = asyncio.create_task(other.flush())
    await beside.after.reached()  # the database has 5, and the batch is not acknowledged
    table.before.open()
    await past
    assert await fresh(other, "b") == Score("b", 10)
    beside.after.open()
    await flushing
    assert await fresh(other, "b") == Score("b", 10)
