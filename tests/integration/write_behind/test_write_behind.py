"""Write-behind as users see it: exact reads at every step of a flush, any order of operations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import Cache, ConfigurationError, WriteBehind
from asynccache.postgres import PostgresTable
from tests.integration.write_behind.scores import HeldTable, MakeScores, Score, fresh
from tests.support.caches import MakeCache
from tests.support.gates import Gate

Pool: TypeAlias = "asyncpg.Pool[Any]"

ROWS: dict[str, Score | None] = {"no row": None, "a row": Score("ada", 100, 100, Decimal("1.5"), 0.5)}

OPERATIONS: dict[str, Callable[[WriteBehind[Score]], Awaitable[Any]]] = {
    "put": lambda scores: scores.put("ada", Score("ada", 7, 7, Decimal("0.1"), 0.25)),
    "delete": lambda scores: scores.delete("ada"),
    "increment": lambda scores: scores.increment("ada", points=5, money=Decimal("-0.2")),
    "maximum": lambda scores: scores.maximum("ada", best=50, points=3),
    "minimum": lambda scores: scores.minimum("ada", best=20),
}


def in_sql(row: Score | None, operation: str) -> Score | None:
    """What the operation makes of a row that is changed at once."""
    if operation == "put":
        return Score("ada", 7, 7, Decimal("0.1"), 0.25)
    if operation == "delete":
        return None
    row = row or Score("ada")
    if operation == "increment":
        return Score("ada", row.points + 5, row.best, row.money - Decimal("0.2"), row.ratio)
    if operation == "maximum":
        return Score("ada", max(row.points, 3), max(row.best, 50), row.money, row.ratio)
    return Score("ada", row.points, min(row.best, 20), row.money, row.ratio)


async def stored(pool: Pool) -> Score | None:
    row = await pool.fetchrow("SELECT player, points, best, money, ratio FROM score WHERE player = 'ada'")
    return None if row is None else Score(**row)


async def through_flushes(
    scores: WriteBehind[Score],
    others: WriteBehind[Score],
    table: HeldTable,
    pool: Pool,
    row: Score | None,
    first: str,
    second: str,
    all_read: Callable[[Score | None], Awaitable[None]],
) -> None:
    """Two operations in one batch, and on both sides of a freeze: whoever reads, reads what SQL would have made."""
    # Both in one batch.
    after = in_sql(row, first)
    await OPERATIONS[first](scores)
    await all_read(after)
    after = in_sql(after, second)
    await OPERATIONS[second](others)
    await all_read(after)
    await scores.flush()
    await all_read(after)
    assert await stored(pool) == after

    # The second while the first is frozen, while the database has it, and after it.
    table.before, table.after = Gate(), Gate()
    after = in_sql(after, first)
    await OPERATIONS[first](scores)
    flushing = asyncio.create_task(others.flush())
    await table.before.reached()
    await all_read(after)
    after = in_sql(after, second)
    await OPERATIONS[second](scores)
    await all_read(after)
    table.before.open()
    await table.after.reached()
    await all_read(after)
    table.after.open()
    await flushing
    await all_read(after)
    await scores.flush()
    await all_read(after)
    assert await stored(pool) == after


@pytest.mark.one_loop
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("second", OPERATIONS)
async def test_two_operations_in_any_order_read_and_end_as_in_sql_across_every_step_of_a_flush(
    make_scores: MakeScores, table: HeldTable, pool: Pool, row: str, first: str, second: str
) -> None:
    scores, others = await make_scores(), await make_scores()
    before = ROWS[row]
    if before is not None:
        await scores.put("ada", before)
        await scores.flush()

    async def all_read(expected: Score | None) -> None:
        assert await scores.get("ada") == expected
        assert await fresh(others) == expected
        assert await fresh(scores) == expected

    await through_flushes(scores, others, table, pool, before, first, second, all_read)


async def test_concurrent_increments_of_many_processes_are_each_counted_once(
    make_scores: MakeScores, pool: Pool
) -> None:
    processes = [await make_scores(partitions=4) for _ in range(4)]
    flushing = True

    async def flush() -> None:
        while flushing:
            await asyncio.gather(*(scores.flush() for scores in processes[:2]))

    flusher = asyncio.create_task(flush())
    names = [f"player {number}" for number in range(10)]
    await asyncio.gather(
        *(scores.increment(name, points=1, ratio=0.5) for _ in range(25) for scores in processes for name in names)
    )
    found = await processes[3].get_many(names)
    assert {name: (score.points, score.ratio) for name, score in found.items()} == dict.fromkeys(names, (100, 50.0))
    flushing = False
    await flusher
    await processes[0].flush()
    assert {row["points"] for row in await pool.fetch("SELECT points FROM score")} == {100}


async def test_a_read_is_exact_although_a_whole_flush_ends_between_its_looks(
    make_scores: MakeScores, table: HeldTable
) -> None:
    scores, others = await make_scores(), await make_scores()
    await scores.increment("ada", points=1)
    asked = Gate()
    load = table.load_exact
    held = True

    async def load_late(keys: Any, ids: Any) -> Any:
        nonlocal held
        if held:
            held = False
            found = await load(keys, ids)  # before the flush
            await asked.stop()
            return found
        return await load(keys, ids)

    table.load_exact = load_late  # type: ignore[assignment, method-assign]
    reading = asyncio.create_task(scores.get("ada"))
    await asked.reached()
    await others.flush()
    asked.open()
    found = await reading
    assert found is not None
    assert found.points == 1


async def test_what_the_model_does_not_hold_starts_anew_after_a_delete(make_scores: MakeScores, pool: Pool) -> None:
    scores = await make_scores()
    await scores.put("ada", Score("ada", 1))
    await scores.flush()
    await pool.execute("UPDATE score SET note = 'old'")
    await scores.delete("ada")
    await scores.increment("ada", points=2)
    await scores.flush()
    assert await pool.fetchrow("SELECT points, note FROM score") == (2, "new")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "no column is named"),
        ({"nothing": 1}, "nothing"),
        ({"player": 1}, "str"),
        ({"points": "1"}, "str"),
        ({"points": 1.5}, "float"),
        ({"points": float("nan")}, "points"),
        ({"points": 10**30}, "points"),
        ({"money": Decimal("1e-12")}, "money"),
    ],
    ids=str,
)
async def test_an_increment_that_cannot_be_done_says_so_and_buffers_nothing(
    make_scores: MakeScores, columns: dict[str, Any], said: str
) -> None:
    scores = await make_scores()
    with pytest.raises(ConfigurationError, match=said):
        await scores.increment("ada", **columns)
    assert [status.pending for status in await scores.pending()] == [0]


async def test_sums_that_leave_the_range_are_refused_and_leave_the_sum_as_it_was(make_scores: MakeScores) -> None:
    scores = await make_scores()
    most = 2**63 - 1
    for _ in range(5):
        await scores.increment("ada", points=most)
    found = await scores.get("ada")
    assert found is not None
    assert found.points == 5 * most
    await scores.minimum("ada", points=9)
    await scores.flush()
    assert await scores.get("ada") == Score("ada", 9)


@dataclass
class View:
    """A row of `view`, whose key the database makes."""

    page: str
    id: int | None = None


async def test_appended_rows_all_arrive_in_the_order_in_which_they_were_appended(
    make_cache: MakeCache, pool: Pool
) -> None:
    await pool.execute("CREATE TABLE view (id bigserial PRIMARY KEY, page text)")
    table = PostgresTable(pool, "view", key="id", model=View)
    views = WriteBehind(await make_cache(background=False), "view", sink=table, ttl=60, max_batch=7)
    await views.append(*(View(f"page {number}") for number in range(20)))
    await asyncio.gather(*(views.append(View("home")) for _ in range(20)))
    await views.flush()
    pages = [row["page"] for row in await pool.fetch("SELECT page FROM view ORDER BY id")]
    assert sorted(pages) == sorted([*(f"page {number}" for number in range(20)), *["home"] * 20])


# -- what the database refuses


async def test_a_refused_row_harms_only_itself_and_can_be_tried_again(make_scores: MakeScores, pool: Pool) -> None:
    scores = await make_scores()
    await scores.put("b", Score("b", 1))
    await scores.flush()
    await scores.put_many({name: Score(name, 1) for name in "ac"})
    await scores.put("bad", Score("bad", -5000))
    await scores.increment("b", points=-7000)
    assert (await scores.get("bad")) == Score("bad", -5000)
    await scores.flush()
    assert await pool.fetchval("SELECT count(*) FROM score") == 3
    assert await scores.get("bad") is None
    assert await scores.get("b") == Score("b", 1)
    letters = await scores.dead_letters.list()
    scores._runtime.background = True
    await scores._buffering.look()
    health = scores._runtime.reports[0]()
    assert (health.name, health.ok, health.dead_letters, health.losses, health.problem) == ("score", True, 2, 0, None)
    assert await scores.dead_letters.count() == len(letters) == 2
    assert all("score_points_check" in letter.reason for letter in letters)
    again = await scores.dead_letters.retry(letters[0].id)
    assert (again.applied, again.failed) == (0, 1)
    await pool.execute("ALTER TABLE score DROP CONSTRAINT score_points_check")
    again = await scores.dead_letters.retry()
    assert (again.applied, again.failed) == (2, 0)
    assert await scores.get("b") == Score("b", -6999)
    assert await scores.get("bad") == Score("bad", -5000)
    assert await scores.dead_letters.count() == 0


# -- settings


async def test_processes_that_disagree_about_partitions_are_told_so(make_scores: MakeScores) -> None:
    await (await make_scores(partitions=4)).put("a", Score("a"))
    other = await make_scores(partitions=5)
    with pytest.raises(ConfigurationError, match=r"partitions=5.* 4"):
        await other.put("a", Score("a"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partitions": 0}, "partitions=0"),
        ({"on_full": "drop"}, "on_full"),
        ({"durability": "disk"}, "durability"),
        ({"unsafe": "no"}, "unsafe"),
        ({"max_batch": True}, "max_batch"),
        ({"full_timeout": -1}, "full_timeout"),
        ({"sink": 1}, "sink"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_work_is_refused_where_it_is_given(options: dict[str, Any], said: str) -> None:
    cache = Cache("redis://localhost", namespace="n")

    class Nothing:
        async def apply(self, batch: Any, /) -> Any: ...

    with pytest.raises(ConfigurationError, match=said):
        WriteBehind(cache, "score", **{"sink": Nothing(), "ttl": 1, **options})
