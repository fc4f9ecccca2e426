"""Batches: how many statements, exactly once, and no deadlocks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from asynccache.errors import ConfigurationError, SchemaMismatch, WriteRejected
from asynccache.postgres import PostgresTable
from asynccache.protocols import Applied, Batch, Delete, Put

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class Score:
    player: str
    points: int = 0


SCORES = "CREATE TABLE scores (player text PRIMARY KEY, points bigint NOT NULL)"


@pytest.fixture
async def scores(pool: Pool) -> PostgresTable[Score]:
    await pool.execute(SCORES)
    table = PostgresTable(pool, "scores", key="player", model=Score)
    await table.open()
    return table


@asynccontextmanager
async def counted(database_url: str, schema: str) -> AsyncIterator[tuple[Pool, list[str]]]:
    """A pool, and the statements that its connections run from here on."""
    queries: list[str] = []

    async def init(connection: Any) -> None:
        connection.add_query_logger(lambda record: queries.append(record.query))

    async with asyncpg.create_pool(
        database_url, min_size=0, init=init, server_settings={"search_path": schema}
    ) as opened:
        yield opened, queries


def own(queries: list[str]) -> list[str]:
    # asyncpg resets each connection that goes back to the pool.
    found = [query.split()[0] for query in queries if "pg_advisory_unlock_all" not in query]
    queries.clear()
    return found


async def test_a_batch_is_one_statement_however_many_rows_it_has(database_url: str, schema: str) -> None:
    async with counted(database_url, schema) as (pool, queries):
        await pool.execute(SCORES)
        table = PostgresTable(pool, "scores", key="player", model=Score)
        await table.open()
        keys = [f"p{n}" for n in range(5000)]
        puts = [Put(key, Score(key, n)) for n, key in enumerate(keys)]
        await table.apply(Batch(puts[:1]))
        await table.load_many(keys[:1])
        own(queries)  # asyncpg asks about types of arrays, once a connection

        applied = await table.apply(Batch(puts))
        assert own(queries) == ["INSERT"]
        assert await table.load_many([*keys, "nobody"]) == applied.stored
        assert own(queries) == ["SELECT"]
        await table.apply(Batch([Delete(key) for key in keys[:100]]))
        assert own(queries) == ["WITH"]
        await table.apply(Batch([*puts[200:300], *[Delete(key) for key in keys[100:200]]]))
        assert own(queries) == ["BEGIN", "SELECT", "SELECT", "WITH", "INSERT", "COMMIT"]
        await table.install()
        own(queries)
        await table.apply(Batch(puts[:1000], id=uuid4()))
        assert own(queries) == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
        # asyncpg does not show COPY.
        await table.apply(Batch(puts, id=uuid4()))
        assert own(queries) == ["BEGIN", "SELECT", "CREATE", "INSERT", "INSERT", "COMMIT"]
        await table.apply(Batch(puts, id=uuid4()))
        assert own(queries) == ["BEGIN", "SELECT", "INSERT", "INSERT", "COMMIT"]
        assert await table.load_many([]) == {}
        assert await table.apply(Batch([])) == Applied()
        assert own(queries) == []


async def test_fifty_thousand_keys_are_loaded_at_once(scores: PostgresTable[Score], pool: Pool) -> None:
    await pool.execute("INSERT INTO scores SELECT 'p' || n, n FROM generate_series(1, 50000) n")
    found = await scores.load_many([f"p{n}" for n in range(50_000)])
    assert len(found) == 49_999
    assert found["p77"] == Score("p77", 77)


async def test_a_batch_with_an_id_counts_once_however_many_apply_it_at_once(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    await pool.execute("CREATE TABLE applied (player text)")
    await pool.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO applied VALUES (NEW.player); RETURN NEW; END';"
        "CREATE TRIGGER note AFTER INSERT OR UPDATE ON scores FOR EACH ROW EXECUTE FUNCTION note()"
    )
    for _ in range(10):
        batch = Batch([Put("ada", Score("ada", 1)), Put("bob", Score("bob", 2))], id=uuid4())
        results = await asyncio.gather(*(scores.apply(batch) for _ in range(8)))
        assert sorted(result.again for result in results) == [False] + [True] * 7
    assert await pool.fetchval("SELECT count(*) FROM applied") == 20


async def test_the_table_of_batch_ids_is_made_by_whoever_comes_first(database_url: str, schema: str) -> None:
    async with asyncpg.create_pool(
        database_url, min_size=8, max_size=8, server_settings={"search_path": schema}
    ) as pool:
        await pool.execute(SCORES)
        tables = [PostgresTable(pool, "scores", key="player", model=Score) for _ in range(8)]
        await asyncio.gather(
            *(table.apply(Batch([Put(str(n), Score(str(n)))], id=uuid4())) for n, table in enumerate(tables)),
            *(table.install() for table in tables),
        )
        assert await pool.fetchval("SELECT count(*) FROM asynccache_batch WHERE applied_at <= now()") == 8


async def test_no_table_of_batch_ids_is_made_unless_it_is_needed(scores: PostgresTable[Score], pool: Pool) -> None:
    await scores.apply(Batch([Put("ada", Score("ada"))]))
    assert await pool.fetchval("SELECT to_regclass('asynccache_batch')") is None


async def test_another_table_under_the_name_of_the_batch_ids_is_refused(
    scores: PostgresTable[Score], pool: Pool
) -> None:
    await pool.execute("CREATE TABLE asynccache_batch (something int)")
    with pytest.raises(SchemaMismatch):
        await scores.apply(Batch([Put("ada", Score("ada"))], id=uuid4()))
    assert await scores.load_many(["ada"]) == {}


@pytest.mark.parametrize("ids", [False, True])
async def test_batches_in_opposite_order_do_not_deadlock(database_url: str, schema: str, ids: bool) -> None:
    raised: list[str] = []

    async def init(connection: Any) -> None:
        connection.add_query_logger(
            lambda record: raised.append(str(record.exception)) if record.exception is not None else None
        )

    async with asyncpg.create_pool(
        database_url, min_size=0, max_size=4, init=init, server_settings={"search_path": schema}
    ) as pool:
        await pool.execute(SCORES)
        table = PostgresTable(pool, "scores", key="player", model=Score)
        await table.open()
        await table.install()
        keys = [f"p{n:03}" for n in range(60)]
        dice = random.Random(7)

        async def write(reverse: bool) -> None:
            for _ in range(40):
                order = sorted(keys, reverse=reverse)
                writes = [Put(key, Score(key, dice.randrange(9))) for key in order]
                await table.apply(Batch(writes, id=uuid4() if ids else None))
                await table.apply(Batch([Delete(key) for key in order[:20]]))

        await asyncio.gather(write(False), write(True), write(False), write(True))
    assert [text for text in raised if "deadlock" in text] == []


@pytest.mark.one_loop
async def test_batches_that_put_and_delete_the_same_keys_all_get_through(database_url: str, schema: str) -> None:
    settings = {"search_path": schema, "deadlock_timeout": "20ms"}
    async with asyncpg.create_pool(database_url, min_size=0, max_size=4, server_settings=settings) as pool:
        await pool.execute(SCORES)
        table = PostgresTable(pool, "scores", key="player", model=Score)
        await table.open()
        keys = [f"p{n:03}" for n in range(30)]
        dice = random.Random(7)

        async def write(number: int) -> None:
            for _ in range(25):
                gone = set(dice.sample(keys, 10))
                await table.apply(Batch([Delete(k) if k in gone else Put(k, Score(k, number)) for k in keys]))

        await asyncio.gather(*(write(number) for number in range(4)))
        rows = await table.load_many(keys)
    # One batch as a whole was the last.
    assert len(rows) == 20
    assert len({row.points for row in rows.values()}) == 1


async def test_a_deadlock_with_somebody_else_is_tried_again(scores: PostgresTable[Score], pool: Pool) -> None:
    await scores.apply(Batch([Put("a", Score("a")), Put("b", Score("b"))]))
    async with pool.acquire() as other:
        for _ in range(3):
            # The deadlock is found by whoever waits the longest; this one never looks.
            await other.execute("BEGIN; SET LOCAL deadlock_timeout = '60s'")
            await other.execute("UPDATE scores SET points = points WHERE player = 'b'")
            ours = asyncio.ensure_future(scores.apply(Batch([Put("a", Score("a", 5)), Put("b", Score("b", 5))])))
            async with asyncio.timeout(20):
                while not await pool.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO%'"
                ):
                    await asyncio.sleep(0.01)
                await other.execute("UPDATE scores SET points = points WHERE player = 'a'")
                await other.execute("COMMIT")
                await ours
    assert (await scores.load_many(["b"]))["b"].points == 5


async def test_rows_that_leave_columns_to_the_database_go_in_order_and_together(database_url: str, schema: str) -> None:
    class Note(msgspec.Struct):
        id: int
        text: str | msgspec.UnsetType | None = msgspec.UNSET
        made: int | None = None

    async with counted(database_url, schema) as (pool, queries):
        await pool.execute(
            "CREATE TABLE notes (id int PRIMARY KEY, text text DEFAULT 'none', made int NOT NULL DEFAULT 7)"
        )
        table = PostgresTable(pool, "notes", key="id", model=Note)
        await table.open()
        own(queries)

        applied = await table.apply(
            Batch([Put(3, Note(3)), Put(1, Note(1, "x", 5)), Put(2, Note(2, None)), Put(4, Note(4))])
        )

        assert own(queries).count("INSERT") == 3
        assert applied.stored == {1: Note(1, "x", 5), 2: Note(2, None, 7), 3: Note(3, "none", 7), 4: Note(4, "none", 7)}
        await table.apply(Batch([Put(1, Note(1))]))
        assert await table.load_many([1]) == {1: Note(1, "x", 5)}


async def test_a_key_that_occurs_twice_in_other_clothes_is_refused(scores: PostgresTable[Score]) -> None:
    with pytest.raises(ConfigurationError, match="occurs twice"):
        await scores.apply(Batch([Put("a", Score("a")), Put("a", Score("a", 2))]))


async def test_what_is_not_a_put_or_delete_is_refused(scores: PostgresTable[Score]) -> None:
    with pytest.raises(ConfigurationError, match="Put and Delete"):
        await scores.apply(Batch(["a"]))  # type: ignore[list-item]  # that is the test
    with pytest.raises(WriteRejected, match="Score is expected, not dict"):
        await scores.apply(Batch([Put("a", {"points": 1})]))  # type: ignore[arg-type]  # the same


async def test_stored_rows_are_what_triggers_made_of_them(scores: PostgresTable[Score], pool: Pool) -> None:
    await pool.execute(
        "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.player = 'skip' THEN RETURN NULL; END IF;"
        " IF NEW.player = 'bad' THEN RAISE 'not %', NEW.player; END IF;"
        " IF NEW.player = 'moved' THEN NEW.player := 'elsewhere'; END IF;"
        " NEW.points := NEW.points * 2; RETURN NEW; END $$;"
        "CREATE TRIGGER change BEFORE INSERT OR UPDATE ON scores FOR EACH ROW EXECUTE FUNCTION change()"
    )
    names = ["a", "skip", "moved"]
    applied = await scores.apply(Batch([Put(name, Score(name, 5)) for name in names]))
    assert applied.stored == {"a": Score("a", 10)}
    with pytest.raises(WriteRejected, match="P0001"):
        await scores.apply(Batch([Put("bad", Score("bad", 5))]))


@dataclass
class Item:
    id: int
    name: str
    twice: int | None = None
    shout: str | None = None


@pytest.mark.parametrize("identity", ["ALWAYS", "BY DEFAULT"])
async def test_identity_and_generated_columns(pool: Pool, identity: str) -> None:
    virtual = "VIRTUAL" if int(await pool.fetchval("SHOW server_version_num")) >= 180000 else "STORED"
    await pool.execute(
        f"CREATE TABLE items (id int GENERATED {identity} AS IDENTITY PRIMARY KEY, name text,"
        f" twice int GENERATED ALWAYS AS (id * 2) STORED, shout text GENERATED ALWAYS AS (upper(name)) {virtual},"
        " serial int GENERATED ALWAYS AS IDENTITY)"
    )
    table = PostgresTable(pool, "items", key="id", model=Item)
    await table.open()
    for name in ("a", "b"):
        stored = (await table.apply(Batch([Put(7, Item(7, name, twice=-1))]))).stored
        assert stored == {7: Item(7, name, 14, name.upper())}
    whole = PostgresTable(pool, "items", key="id", model=dict)
    row = (await whole.load_many([7]))[7]
    assert (await whole.apply(Batch([Put(7, row)]))).stored == {7: row}


@dataclass
class OnlyKey:
    id: int


@pytest.mark.parametrize("identity", ["", "GENERATED ALWAYS AS IDENTITY"])
async def test_a_row_of_nothing_but_its_key_is_stored_and_returned(pool: Pool, identity: str) -> None:
    await pool.execute(f"CREATE TABLE seen (id int {identity} PRIMARY KEY, at int DEFAULT 5)")
    table = PostgresTable(pool, "seen", key="id", model=OnlyKey)
    for _ in range(2):
        assert (await table.apply(Batch([Put(1, OnlyKey(1)), Put(2, OnlyKey(2))]))).stored == {
            1: OnlyKey(1),
            2: OnlyKey(2),
        }
    await table.apply(Batch([Put(3, OnlyKey(3))], id=uuid4()))
    assert await table.load_many([1, 2, 3, 4]) == {n: OnlyKey(n) for n in (1, 2, 3)}


@dataclass
class Points:
    points: int


async def test_a_model_without_its_key_is_addressed_by_the_key_alone(pool: Pool) -> None:
    await pool.execute(SCORES)
    table = PostgresTable(pool, "scores", key="player", model=Points)
    assert (await table.apply(Batch([Put("ada", Points(3))]))).stored == {"ada": Points(3)}
    assert await table.load_many(["ada"]) == {"ada": Points(3)}
