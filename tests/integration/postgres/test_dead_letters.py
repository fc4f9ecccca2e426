"""Dead letters, exact reads and old batch ids: what write-behind asks of a table beside applying batches."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest

from asynccache.adjustments import Adjustment
from asynccache.errors import DatabaseUnavailable
from asynccache.postgres import PostgresTable
from asynccache.protocols import (
    Adjust,
    Append,
    Batch,
    DeadLetters,
    ExactSource,
    KeepsDeadLetters,
    Prunes,
    Put,
    Retried,
    Write,
)

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class Score:
    player: str
    points: int = 0


@pytest.fixture
async def scores(pool: Pool) -> PostgresTable[Score]:
    await pool.execute("CREATE TABLE scores (player text PRIMARY KEY, points int CHECK (points < 100))")
    table = PostgresTable(pool, "scores", key="player", model=Score)
    await table.open()
    return table


WRITES: list[Write[Score]] = [
    Put("a", Score("a", 100)),
    Put("b", Score("b", 150)),
    Put("good", Score("good", 1)),
    Adjust("good", {"points": Adjustment(120)}, Score("good", 120)),
    Append(Score("c", 200)),
]


def decode(record: bytes) -> Write[Score]:
    return WRITES[int(record)]


async def refuse(scores: PostgresTable[Score]) -> tuple[UUID, list[int]]:
    first, second = uuid4(), uuid4()
    await scores.apply(Batch(WRITES[:3], first, "scores", [b"0", b"1", b"2"]))
    await scores.apply(Batch(WRITES[3:], second, "scores", [b"3", b"4"]))
    return first, [letter.id for letter in await scores.dead_letters.list()]


async def test_a_table_has_all_that_write_behind_asks_for(scores: PostgresTable[Score]) -> None:
    assert isinstance(scores, ExactSource)
    assert isinstance(scores, KeepsDeadLetters)
    assert isinstance(scores, Prunes)
    assert isinstance(scores.dead_letters, DeadLetters)
    assert repr(scores.dead_letters) == "TableLetters('scores')"


async def test_without_a_single_dead_letter_there_is_nothing_and_no_table(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    letters = scores.dead_letters
    assert (await letters.list(), await letters.count(), await letters.drop(None), await letters.show(1)) == (
        (),
        0,
        0,
        None,
    )
    assert await letters.retry("scores", decode=decode) == Retried()
    assert await pool.fetchval("SELECT to_regclass('asynccache_dead_letter')") is None
    await scores.install()
    assert await pool.fetchval("SELECT to_regclass('asynccache_dead_letter')") is not None
    await scores.install()


async def test_letters_are_listed_by_page_and_shown_with_their_records(
    scores: PostgresTable[Score], schema: str
) -> None:
    first, ids = await refuse(scores)
    letters = await scores.dead_letters.list("scores")
    assert [(letter.operation, letter.key) for letter in letters] == [
        ("put", "'a'"), ("put", "'b'"), ("adjust", "'good'"), ("append", None),
    ]  # fmt: skip
    assert {letter.table for letter in letters} == {f'"{schema}"."scores"'}
    assert letters[0].batch_id == first
    assert letters[0].failed_at.utcoffset() is not None
    assert "violates check constraint" in letters[0].reason
    assert all(letter.record is None for letter in letters)
    assert [letter.id for letter in await scores.dead_letters.list(limit=2, after=ids[0])] == ids[1:3]
    assert await scores.dead_letters.list("others") == ()
    shown = await scores.dead_letters.show(ids[2])
    assert shown is not None
    assert shown.record == b"3"
    assert await scores.dead_letters.show(0) is None


async def test_letters_of_other_tables_and_strategies_are_left_alone(scores: PostgresTable[Score], pool: Pool) -> None:
    await refuse(scores)
    await pool.execute("CREATE TABLE others (player text PRIMARY KEY, points int CHECK (points < 100))")
    others = PostgresTable(pool, "others", key="player", model=Score)
    await others.apply(Batch(WRITES[:2], uuid4(), "scores", [b"0", b"1"]))
    await others.apply(Batch(WRITES[:1], uuid4(), "more", [b"0"]))
    assert (await scores.dead_letters.count(), await others.dead_letters.count("scores")) == (4, 2)
    assert await others.dead_letters.drop(None, origin="more") == 1
    assert await others.dead_letters.retry("more", decode=decode) == Retried()
    assert await others.dead_letters.drop(None) == 2
    assert await scores.dead_letters.count() == 4


async def test_what_was_mended_is_written_and_what_was_not_stays_with_the_new_reason(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    _, ids = await refuse(scores)
    assert await scores.dead_letters.retry("scores", decode=decode) == Retried(failed=4)
    await pool.execute(
        "ALTER TABLE scores DROP CONSTRAINT scores_points_check, ADD CONSTRAINT most CHECK (points < 160)"
    )

    assert await scores.dead_letters.retry("scores", decode=decode) == Retried(3, 1, ("a", "b", "good"))

    assert {key: row.points for key, row in (await scores.load_many(["a", "b", "good", "c"])).items()} == {
        "a": 100,
        "b": 150,
        "good": 121,
    }
    (left,) = await scores.dead_letters.list()
    assert (left.id, left.attempts) == (ids[3], 3)
    assert '"most"' in left.reason
    await pool.execute("ALTER TABLE scores DROP CONSTRAINT most")
    assert await scores.dead_letters.retry("scores", [ids[3], ids[0], 10**9], decode=decode) == Retried(1)
    assert await scores.dead_letters.count() == 0


async def test_one_letter_is_retried_mended_or_dropped(scores: PostgresTable[Score]) -> None:
    _, ids = await refuse(scores)

    def mended(record: bytes) -> Write[Score]:
        return Put("a", Score("a", 99))

    assert await scores.dead_letters.retry("scores", ids[:1], decode=mended) == Retried(1, 0, ("a",))
    assert await scores.load_many(["a"]) == {"a": Score("a", 99)}
    assert await scores.dead_letters.drop([ids[1], ids[0]]) == 1
    assert await scores.dead_letters.drop([]) == 0
    assert [letter.id for letter in await scores.dead_letters.list()] == ids[2:]
    assert await scores.dead_letters.drop(None) == 2


async def test_records_that_cannot_be_read_stay(scores: PostgresTable[Score]) -> None:
    await scores.apply(Batch(WRITES[:1], uuid4(), "scores"))
    await refuse(scores)

    def broken(record: bytes) -> Write[Score]:
        raise LookupError("an older version's \0\ud800")

    assert await scores.dead_letters.retry("scores", decode=broken) == Retried(failed=5)
    reasons = [letter.reason for letter in await scores.dead_letters.list()]
    assert "nothing was kept" in reasons[0]
    assert reasons[1:] == ["the record cannot be read: LookupError: an older version's \\x00\\ud800"] * 4


async def test_a_letter_that_somebody_is_retrying_is_left_to_them(scores: PostgresTable[Score], pool: Pool) -> None:
    _, ids = await refuse(scores)
    await pool.execute("ALTER TABLE scores DROP CONSTRAINT scores_points_check")
    async with pool.acquire() as other, asyncio.timeout(20):
        await other.execute("BEGIN; SELECT 1 FROM scores WHERE player = 'good' FOR UPDATE")
        first = asyncio.ensure_future(scores.dead_letters.retry("scores", [ids[2]], decode=decode))
        while not await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))", other.get_server_pid()
        ):
            await asyncio.sleep(0.01)
        assert await scores.dead_letters.retry("scores", [ids[2]], decode=decode) == Retried()
        await other.execute("ROLLBACK")
        assert await first == Retried(1, 0, ("good",))
    assert (await scores.load_many(["good"]))["good"].points == 121


async def test_a_letter_retried_by_many_at_once_is_applied_once(scores: PostgresTable[Score], pool: Pool) -> None:
    await refuse(scores)
    await pool.execute("ALTER TABLE scores DROP CONSTRAINT scores_points_check")
    results = await asyncio.gather(*(scores.dead_letters.retry("scores", decode=decode) for _ in range(5)))
    assert sum(result.applied for result in results) == 4
    assert (await scores.load_many(["good"]))["good"].points == 121


async def test_a_retry_that_meets_an_outage_keeps_the_letter_as_it_was(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    await refuse(scores)
    await pool.execute(
        "ALTER TABLE scores DROP CONSTRAINT scores_points_check;"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'shutting down' USING ERRCODE = '57P01'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON scores DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(DatabaseUnavailable, match="57P01"):
        await scores.dead_letters.retry("scores", decode=decode)
    assert [letter.attempts for letter in await scores.dead_letters.list()] == [1, 1, 1, 1]
    assert await scores.load_many(["a"]) == {}


async def test_rows_and_batch_ids_are_of_one_moment(scores: PostgresTable[Score]) -> None:
    """Each batch adds one: rows that contain a batch whose id is not reported, or the reverse, would show."""
    await scores.install()
    ids = [uuid4() for _ in range(60)]
    done = asyncio.Event()

    async def write() -> None:
        for batch_id in ids:
            await scores.apply(Batch([Adjust("a", {"points": Adjustment(1)}, Score("a", 1))], batch_id))
        done.set()

    async def read() -> int:
        reads = 0
        while not done.is_set():
            rows, applied = await scores.load_exact(["a", "b"], ids)
            assert len(applied) == (rows["a"].points if rows else 0)
            reads += 1
        return reads

    results = await asyncio.gather(write(), read(), read())
    assert results[1] > 5
    assert await scores.load_exact(["a"], [uuid4(), ids[7]]) == ({"a": Score("a", 60)}, frozenset({ids[7]}))
    assert await scores.load_exact(["nobody"], ids[:2]) == ({}, frozenset(ids[:2]))
    assert await scores.load_exact([], ids[:2]) == ({}, frozenset(ids[:2]))
    assert await scores.load_exact(["a"], []) == ({"a": Score("a", 60)}, frozenset())


async def test_without_a_table_of_batch_ids_none_was_applied(scores: PostgresTable[Score], pool: Pool) -> None:
    await scores.apply(Batch([Put("a", Score("a", 1))]))
    assert await scores.load_exact(["a", "b"], [uuid4()]) == ({"a": Score("a", 1)}, frozenset())
    assert await scores.prune(0) == 0


async def test_exact_reads_of_keys_of_several_columns(pool: Pool) -> None:
    await pool.execute("CREATE TABLE t (a int, b text, v jsonb, PRIMARY KEY (a, b))")
    table = PostgresTable(pool, "t", key=("a", "b"), model=dict)
    batch_id = uuid4()
    await table.apply(Batch([Put((1, "x"), {"v": [1]}), Put((2, "y"), {"v": None})], batch_id))
    rows, applied = await table.load_exact([(1, "x"), (2, "y"), (3, "z")], [batch_id])
    assert applied == {batch_id}
    assert rows == {(1, "x"): {"a": 1, "b": "x", "v": [1]}, (2, "y"): {"a": 2, "b": "y", "v": None}}


async def test_a_buffer_that_keeps_its_ids_for_an_hour_leaves_those_of_one_that_keeps_them_for_a_week(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    mine, theirs = uuid4(), uuid4()
    for batch_id, buffer in ((mine, "shop/score"), (theirs, "bank/score")):
        await scores.apply(Batch([Put("a", Score("a"))], batch_id, buffer=buffer))
    await pool.execute("UPDATE asynccache_batch SET applied_at = now() - interval '1 day'")
    assert await scores.prune("1h", "shop/score") == 1
    assert await scores.load_exact([], [mine, theirs]) == ({}, frozenset({theirs}))
    assert await scores.prune("7d", "bank/score") == 0
    assert await scores.prune("1h", "bank/score") == 1


async def test_a_table_of_batch_ids_of_an_earlier_version_is_completed_and_both_versions_go_on_with_it(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    await pool.execute(
        "CREATE TABLE asynccache_batch (id uuid PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now(),"
        " UNIQUE (applied_at, id))"
    )
    old_insert = "INSERT INTO asynccache_batch (id) VALUES ($1) ON CONFLICT (id) DO NOTHING RETURNING true"
    before, after, new = uuid4(), uuid4(), uuid4()
    assert await pool.fetchval(old_insert, before)
    assert (await scores.apply(Batch([Put("a", Score("a", 1))], before, buffer="shop/score"))).again
    assert not (await scores.apply(Batch([Put("a", Score("a", 2))], new, buffer="shop/score"))).again
    assert await pool.fetchval(old_insert, after)
    assert (await scores.apply(Batch([Put("a", Score("a", 3))], after, buffer="shop/score"))).again
    # Nobody knows for how long somebody needs ids that name no buffer: they are kept for long.
    await pool.execute("UPDATE asynccache_batch SET applied_at = now() - interval '8 days'")
    assert await scores.prune("7d", "shop/score") == 1
    await pool.execute("UPDATE asynccache_batch SET applied_at = now() - interval '31 days'")
    assert await scores.prune("7d", "shop/score") == 2


async def test_a_table_of_batch_ids_that_somebody_reads_for_long_is_not_waited_for_by_all(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    await pool.execute("CREATE TABLE asynccache_batch (id uuid PRIMARY KEY, applied_at timestamptz DEFAULT now())")
    batch = Batch([Put("a", Score("a"))], uuid4(), buffer="shop/score")
    async with pool.acquire() as reading, reading.transaction():
        await reading.execute("SELECT FROM asynccache_batch")
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            await scores.apply(batch)
        await pool.execute("INSERT INTO asynccache_batch (id) VALUES ($1)", uuid4())
    assert not (await scores.apply(batch)).again


async def test_old_batch_ids_are_pruned_some_at_a_time(scores: PostgresTable[Score], pool: Pool) -> None:
    await scores.install()
    await pool.execute(
        "INSERT INTO asynccache_batch (id, applied_at) SELECT gen_random_uuid(), now() - n * interval '1 minute'"
        " FROM generate_series(1, 25000) n"
    )
    recent = uuid4()
    await scores.apply(Batch([Put("a", Score("a"))], recent))
    assert [await scores.prune("1h") for _ in range(4)] == [10_000, 10_000, 4_941, 0]
    assert await scores.load_exact([], [recent]) == ({}, frozenset({recent}))
