"""An increment that the database refuses takes nothing with it: not the put that it was merged into, nor what comes later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import Cache, StoreUnavailable, WriteBehind
from asynccache.postgres import PostgresTable
from asynccache.protocols import Adjust, Adjustment, Put
from tests.integration.write_behind.scores import MakeScores, Score, fresh
from tests.support.caches import MakeCache

Pool: TypeAlias = "asyncpg.Pool[Any]"

MOST = 2**63 - 1  # in a bigint
Ask: TypeAlias = Callable[[WriteBehind[Score]], Awaitable[object]]


async def rows(pool: Pool) -> dict[str, tuple[int, str]]:
    return {row["player"]: (row["points"], row["note"]) for row in await pool.fetch("SELECT * FROM score")}


@pytest.mark.parametrize("amount", [MOST, -2000], ids=["beyond what can be sent", "against a constraint"])
async def test_a_good_put_is_written_although_an_increment_after_it_is_refused(
    make_scores: MakeScores, pool: Pool, amount: int
) -> None:
    scores = await make_scores()
    await scores.put("ada", Score("ada", 7))
    await scores.increment("ada", points=amount)
    await scores.put("bob", Score("bob", 1))
    await scores.flush()
    assert await rows(pool) == {"ada": (7, "new"), "bob": (1, "new")}
    assert await scores.get("ada") == Score("ada", 7)  # and readers know at once
    assert await fresh(scores) == Score("ada", 7)
    (letter,) = await scores.dead_letters.list()
    assert (letter.key, letter.operation) == ("'ada'", "adjust")
    found = await scores.dead_letters.show(letter.id)
    assert found is not None
    assert isinstance(found[1], Adjust)
    assert found[1].columns == {"points": Adjustment(amount)}


async def test_an_increment_that_is_mended_and_tried_again_is_added_to_what_the_row_holds_by_then(
    make_scores: MakeScores, pool: Pool
) -> None:
    scores = await make_scores()
    await scores.put("ada", Score("ada", 7))
    await scores.increment("ada", points=-2000)
    await scores.flush()
    await scores.increment("ada", points=5000)
    await scores.flush()
    assert (await scores.dead_letters.retry()).applied == 1
    assert (await rows(pool))["ada"] == (7 + 5000 - 2000, "new")
    assert await scores.get("ada") == Score("ada", 3007)


async def test_a_delete_is_done_although_an_increment_after_it_is_refused(make_scores: MakeScores, pool: Pool) -> None:
    await pool.execute("INSERT INTO score VALUES ('ada', 5, 0, 0, 0, 'old'), ('bob', 5, 0, 0, 0, 'old')")
    scores = await make_scores()
    for key in ("ada", "bob"):
        await scores.delete(key)
    await scores.put("bob", Score("bob", 1))
    for key in ("ada", "bob"):
        await scores.increment(key, points=-2000)
    await scores.flush()
    assert await rows(pool) == {"bob": (1, "new")}  # put anew: what it does not write starts from its default
    assert await scores.get("ada") is None
    assert {letter.operation for letter in await scores.dead_letters.list()} == {"adjust"}


async def test_a_put_that_is_bad_by_itself_takes_its_increments_with_it(make_scores: MakeScores, pool: Pool) -> None:
    scores = await make_scores()
    for key, points in (("ada", -5000), ("bob", MOST + 1)):  # refused by the database, and before
        await scores.put(key, Score(key, points))
        await scores.increment(key, points=-1)
    await scores.flush()
    assert await rows(pool) == {"bob": (MOST, "new")}  # of these two the sum is good: that is what was written
    (letter,) = await scores.dead_letters.list()
    assert (letter.key, letter.operation) == ("'ada'", "put")
    found = await scores.dead_letters.show(letter.id)
    assert found is not None
    assert found[1] == Put("ada", Score("ada", -5001))
    for points in (MOST + 1, -5000):
        await scores.put("eve", Score("eve", points))
        await scores.increment("eve", points=MOST)
        await scores.increment("eve", points=-MOST)
        await scores.increment("eve", points=-1 if points < 0 else 1)
        await scores.flush()
    assert [one.operation for one in await scores.dead_letters.list()] == ["put"] * 3
    assert "eve" not in await rows(pool)


async def test_a_row_that_waits_for_the_put_under_a_refused_increment_is_written(
    make_cache: MakeCache, pool: Pool
) -> None:
    await pool.execute(
        "CREATE TABLE item (id int PRIMARY KEY, n int CHECK (n < 10), parent int REFERENCES item (id), note text)"
    )
    cache: Cache = await make_cache(background=False)
    table: PostgresTable[dict[str, Any]] = PostgresTable(pool, "item", key="id", model=dict)
    items = WriteBehind(cache, "item", sink=table, defaults={"n": 0, "parent": None}, partitions=1)
    # In the order of keys the child comes first, and then finds no parent.
    await items.put(1, {"id": 1, "n": 1, "parent": 2})
    await items.put(2, {"id": 2, "n": 2, "parent": None})
    await items.increment(2, n=50)
    await items.flush()
    assert [tuple(row) for row in await pool.fetch("SELECT id, n, parent FROM item ORDER BY id")] == [
        (1, 1, 2),
        (2, 2, None),
    ]
    (letter,) = await items.dead_letters.list()
    assert (letter.key, letter.operation) == ("2", "adjust")


@pytest.mark.parametrize("lost", [False, True], ids=["after acknowledging", "before"])
async def test_a_refused_put_is_not_read_any_more_although_the_worker_that_flushed_it_has_ended(
    make_scores: MakeScores, pool: Pool, lost: bool
) -> None:
    scores, other = await make_scores(), await make_scores()
    await pool.execute("INSERT INTO score VALUES ('ada', 5, 0, 0, 0)")
    await scores.put("ada", Score("ada", -5000))
    assert await other.get("ada") == Score("ada", -5000)  # as documented

    async def ended(*_: object) -> None:
        raise StoreUnavailable("it has ended")

    flusher: Any = scores._flusher
    flusher.invalidate = ended
    if lost:
        flusher.buffer.ack = ended
    with pytest.raises(StoreUnavailable):
        await scores.flush()
    if lost:  # whoever comes next finds the batch applied, and does not know what of it was refused
        await other.flush()
    assert await other.get("ada") == Score("ada", 5)
