"""Long runs of a batch with an id go by COPY, with the same results in every respect as by arrays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from asynccache.errors import DatabaseUnavailable
from asynccache.postgres import PostgresTable, staging
from asynccache.protocols import Append, Applied, Batch, Delete, Put, Rejected, Write
from tests.integration.postgres.conftest import Copies
from tests.integration.postgres.test_poison import POISON, TABLES, Item, with_good
from tests.integration.postgres.test_types import KEYS, ROUND_TRIPS, TYPES, names

pytestmark = pytest.mark.one_loop

Pool: TypeAlias = "asyncpg.Pool[Any]"


@pytest.fixture
async def one(database_url: str, schema: str) -> AsyncIterator[Pool]:
    """A pool of one connection, so that each batch meets what the one before has left."""
    async with asyncpg.create_pool(
        database_url, min_size=1, max_size=1, server_settings={"search_path": schema}
    ) as opened:
        yield opened


async def installed(pool: Pool, name: str, model: Any, key: Any = "id") -> PostgresTable[Any]:
    """A table that knows its batch ids: making theirs would undo the first transaction, COPY and all."""
    table: PostgresTable[Any] = PostgresTable(pool, name, key=key, model=model)
    await table.install()
    return table


async def by_arrays(table: PostgresTable[Any], writes: list[Write[Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as context:
        context.setattr(staging, "COPIED_FROM", len(writes) + 1)
        return await table.apply(Batch(writes, uuid4(), "things"))


@dataclass
class Score:
    id: int
    points: int | None = 0
    note: str | None = None


SCORES = "CREATE TABLE scores (id int PRIMARY KEY, points int, note text)"


@pytest.fixture
async def scores(one: Pool) -> PostgresTable[Score]:
    await one.execute(SCORES)
    return await installed(one, "scores", Score)


def some(count: int = 5, points: int = 0) -> list[Write[Score]]:
    return [Put(n, Score(n, points, f"note {n}")) for n in range(count)]


@pytest.mark.parametrize(("sql", "annotation", "value"), ROUND_TRIPS, ids=names)
async def test_values_of_every_type_are_stored_as_arrays_store_them(
    pool: Pool, copies: Copies, monkeypatch: pytest.MonkeyPatch, sql: str, annotation: Any, value: Any
) -> None:
    await pool.execute(
        f"{TYPES} CREATE TABLE copied (id int PRIMARY KEY, v {sql}); CREATE TABLE sent (id int PRIMARY KEY, v {sql})"
    )
    model: Any = make_dataclass("Model", [("id", int), ("v", annotation | None)])
    nothing = None if sql != "document" else value
    puts: list[Write[Any]] = [Put(1, model(1, value)), Put(2, model(2, nothing)), Put(3, model(3, value))]
    copied, sent = [await installed(pool, name, model) for name in ("copied", "sent")]

    assert await copied.apply(Batch(puts, uuid4())) == await by_arrays(sent, puts, monkeypatch) == Applied()

    assert copies.rows == [3]
    assert await copied.load_many([1, 2, 3]) == {1: model(1, value), 2: model(2, nothing), 3: model(3, value)}
    texts = "SELECT id, v::text FROM {} ORDER BY id"
    assert await pool.fetch(texts.format("copied")) == await pool.fetch(texts.format("sent"))


@pytest.mark.parametrize(("sql", "key", "strange"), KEYS, ids=names)
async def test_keys_of_every_type_find_the_row_that_is_there(
    pool: Pool, copies: Copies, sql: str, key: Any, strange: list[Any]
) -> None:
    await pool.execute(f"{TYPES} CREATE TABLE t (a int, k {sql}, v int, PRIMARY KEY (k, a))")
    table = await installed(pool, "t", dict[str, Any], ("k", "a"))
    for v in (1, 2):
        await table.apply(Batch([Put((key, a), {"v": v}) for a in (1, 2)], uuid4()))
    assert copies.rows == [2, 2]
    assert await pool.fetch("SELECT a, v FROM t ORDER BY a") == [(1, 2), (2, 2)]


async def test_rows_that_are_there_are_updated_in_the_columns_that_are_written(
    scores: PostgresTable[Score], one: Pool, copies: Copies
) -> None:
    await one.execute("INSERT INTO scores VALUES (1, 7, 'old'), (2, 7, 'old'), (9, 7, 'old')")
    points = await installed(one, "scores", dict)
    await points.apply(Batch([Put(n, {"points": n if n != 2 else None}) for n in (1, 2, 3)], uuid4()))
    assert copies.rows == [3]
    assert await scores.load_many([1, 2, 3, 9]) == {
        1: Score(1, 1, "old"), 2: Score(2, None, "old"), 3: Score(3, 3, None), 9: Score(9, 7, "old")
    }  # fmt: skip


@pytest.mark.parametrize("identity", ["ALWAYS", "BY DEFAULT"])
async def test_identity_generated_and_missing_columns(pool: Pool, copies: Copies, identity: str) -> None:
    await pool.execute(
        f"CREATE TABLE items (id int GENERATED {identity} AS IDENTITY PRIMARY KEY, name text,"
        " twice int GENERATED ALWAYS AS (id * 2) STORED, serial int GENERATED ALWAYS AS IDENTITY, n int DEFAULT 5)"
    )
    table = await installed(pool, "items", dict)
    await table.apply(Batch([Put(n, {"name": "x", "twice": -1, "serial": -1}) for n in (7, 8)], uuid4()))
    only_keys = await installed(pool, "items", make_dataclass("OnlyKey", [("id", int)]))
    await only_keys.apply(Batch([Put(n, only_keys.model(n)) for n in (8, 9)], uuid4()))
    assert copies.rows == [2, 2]
    assert await pool.fetch("SELECT id, name, twice, n FROM items ORDER BY id") == [
        (7, "x", 14, 5), (8, "x", 16, 5), (9, None, 18, 5)
    ]  # fmt: skip


async def test_appended_rows_are_copied(one: Pool, copies: Copies) -> None:
    await one.execute("CREATE TABLE log (id bigserial PRIMARY KEY, text text)")

    class Line(msgspec.Struct):
        id: int | None
        text: str

    table = await installed(one, "log", Line)
    writes: list[Write[Line]] = [Append(Line(None, "a")), Append(Line(None, "b")), Append(Line(90, "c"))]
    await table.apply(Batch(writes, uuid4()))
    assert copies.rows == [2]
    assert await one.fetch("SELECT * FROM log ORDER BY id") == [(1, "a"), (2, "b"), (90, "c")]


async def test_what_is_short_and_what_has_no_id_is_not_copied(scores: PostgresTable[Score], copies: Copies) -> None:
    await scores.apply(Batch(some(1), uuid4()))
    assert len((await scores.apply(Batch(some(5)))).stored) == 5
    assert copies.begun == 0
    await scores.apply(Batch([Delete(0), *some(5)[1:]], uuid4()))
    assert copies.rows == [4]


async def test_runs_of_several_shapes_in_one_batch(one: Pool, copies: Copies) -> None:
    """The first two have the same types, so the second must not find the rows of the first."""
    await one.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b int, c text)")
    table = await installed(one, "t", dict)
    for round_ in range(2):
        writes = [Put(n, {"ab"[n // 3]: n + round_} if n < 6 else {"a": n, "c": "x"}) for n in range(9)]
        await table.apply(Batch(writes, uuid4()))
        assert await one.fetch("SELECT id, a, b, c FROM t ORDER BY id") == [
            (n, n + round_ if n < 3 else None, None if n < 3 else n + round_, None) for n in range(6)
        ] + [(n, n, None, "x") for n in range(6, 9)]
    assert copies.rows == [3] * 6
    assert (
        await one.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'")
        == 3
    )


async def test_rows_are_reached_in_the_order_of_their_keys(one: Pool, copies: Copies) -> None:
    """The copied rows do not lie in it, where a page that was left had room for a short one."""
    await one.execute("CREATE TABLE t (id int PRIMARY KEY, text text, place bigserial)")
    table = await installed(one, "t", make_dataclass("Row", [("id", int), ("text", str)]))
    dice = random.Random(1)
    for _ in range(3):
        await one.execute("TRUNCATE t")
        rows = {n: table.model(n, "x" * dice.choice([10, 300, 900, 1500])) for n in range(2000)}
        await table.apply(Batch([Put(n, row) for n, row in rows.items()], uuid4()))
        placed = [row[0] for row in await one.fetch("SELECT id FROM t ORDER BY place")]
        assert placed == sorted(rows)
    assert copies.rows == [2000] * 3


async def test_batches_over_the_same_keys_do_not_deadlock(database_url: str, schema: str, copies: Copies) -> None:
    raised: list[str] = []

    async def init(connection: Any) -> None:
        connection.add_query_logger(
            lambda record: raised.append(str(record.exception)) if record.exception is not None else None
        )

    settings = {"search_path": schema, "deadlock_timeout": "20ms"}
    async with asyncpg.create_pool(database_url, min_size=0, max_size=4, init=init, server_settings=settings) as pool:
        await pool.execute(SCORES)
        table = await installed(pool, "scores", Score)

        async def write(number: int) -> None:
            dice = random.Random(number)
            for _ in range(12):
                # Pages are left with room for another row, which comes much later. Were all batches to begin with the
                # same row, none could overtake another.
                keys = dice.sample(range(600), 300)
                writes = [Put(n, Score(n, number, "x" * dice.choice([1500, 2500, 5000, 7000]))) for n in keys]
                await table.apply(Batch(writes, uuid4()))

        await asyncio.gather(*(write(number) for number in range(4)))
    assert copies.rows == [300] * 48
    assert [text for text in raised if "deadlock" in text] == []


@pytest.mark.parametrize("what", POISON)
async def test_a_bad_row_is_refused_for_the_same_reason_and_the_others_are_written(
    one: Pool, copies: Copies, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await one.execute(TABLES)
    items = await installed(one, "items", Item)
    batch = with_good([POISON[what][0]], 100)
    expected = await by_arrays(items, list(batch.writes), monkeypatch)
    rows = await one.fetch("SELECT * FROM items ORDER BY id")
    await one.execute("DELETE FROM items WHERE id >= 0")
    assert copies.begun == 0

    applied = await items.apply(batch)

    assert [type(refused) for refused in applied.rejected] == [Rejected]
    assert applied == expected
    assert await one.fetch("SELECT * FROM items ORDER BY id") == rows
    assert copies.begun <= 1
    letters = await items.dead_letters.list()
    assert len(letters) == 2
    assert len({(letter.reason, letter.sqlstate, letter.operation, letter.key) for letter in letters}) == 1

    # What went wrong has left nothing on the connection, and COPY is not given up for a row's fault.
    begun = copies.begun
    await items.apply(Batch([Put(n, Item(n)) for n in range(5)], uuid4()))
    assert (copies.begun, copies.rows[-1]) == (begun + 1, 5)


async def test_a_table_whose_creation_was_rolled_back_is_made_again(
    scores: PostgresTable[Score], one: Pool, copies: Copies
) -> None:
    staged = "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relname LIKE 'asynccache%'"
    await one.execute("ALTER TABLE scores ADD CHECK (points < 5)")
    refused: list[Write[Score]] = [*some(4), Put(4, Score(4, 5))]
    assert len((await scores.apply(Batch(refused, uuid4()))).rejected) == 1
    assert await one.fetchval(staged) == 0
    assert await scores.apply(Batch(some(5, points=1), uuid4())) == Applied()
    assert await one.fetchval(staged) == 1
    # Of a rollback that leaves the table, nothing is found by the next batch.
    assert len((await scores.apply(Batch(refused, uuid4()))).rejected) == 1
    assert await scores.apply(Batch(some(3, points=2), uuid4())) == Applied()
    assert copies.rows == [5, 5, 5, 3]
    found = await scores.load_many(range(6))
    assert [found[n].points for n in sorted(found)] == [2, 2, 2, 0, 1]


@pytest.mark.parametrize(("statement", "cached"), [("DISCARD TEMP", 100), ("DROP", 100), ("DISCARD ALL", 0)])
async def test_a_table_that_the_session_lost_is_made_again(
    database_url: str, schema: str, copies: Copies, statement: str, cached: int
) -> None:
    """As behind a pgbouncer, which gives each transaction a session that others have used."""
    settings = {"search_path": schema}
    async with asyncpg.create_pool(
        database_url, min_size=1, max_size=1, statement_cache_size=cached, server_settings=settings
    ) as pool:
        await pool.execute(SCORES)
        table = await installed(pool, f"{schema}.scores", Score)
        for points in range(3):
            await table.apply(Batch(some(5, points), uuid4()))
            name = await pool.fetchval(
                "SELECT relname FROM pg_class WHERE relname LIKE 'asynccache_staged%'"
                " AND relnamespace = pg_my_temp_schema()"
            )
            await pool.execute(f"DROP TABLE pg_temp.{name}" if statement == "DROP" else statement)
        assert copies.rows == [5] * 3
        assert await table.load_many([0, 4]) == {n: Score(n, 2, f"note {n}") for n in (0, 4)}


async def test_without_the_right_to_make_temporary_tables_rows_go_as_arrays(
    database_url: str, schema: str, copies: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"db_{schema}"
    admin = await asyncpg.connect(database_url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        await admin.execute(f"REVOKE TEMP ON DATABASE {name} FROM PUBLIC; CREATE ROLE role_{schema}")
        url = urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
        owner = await asyncpg.connect(url)
        await owner.execute(f"CREATE SCHEMA app AUTHORIZATION role_{schema}")
        await owner.close()
        settings = {"search_path": "app", "role": f"role_{schema}"}
        async with asyncpg.create_pool(url, min_size=1, max_size=1, server_settings=settings) as pool:
            await pool.execute(SCORES)
            table = await installed(pool, "scores", Score)
            for points in range(3):
                assert await table.apply(Batch(some(5, points), uuid4())) == Applied()
            assert (await table.load_many([4]))[4].points == 2
        assert copies.begun == 0
        denied = f'permission denied to create temporary tables in database "{name}"'
        assert [record.getMessage() for record in caplog.records if "cannot be copied" in record.getMessage()] == [
            f'rows of "app"."scores" are sent as arrays, since they cannot be copied: {denied}'
        ]
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE IF EXISTS role_{schema}")
        await admin.close()


async def test_a_codec_that_copy_does_not_know_sends_rows_as_arrays(
    database_url: str, schema: str, copies: Copies
) -> None:
    async def init(connection: Any) -> None:
        await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=Decimal)

    model: Any = make_dataclass("Price", [("id", int), ("amount", Decimal)])
    async with asyncpg.create_pool(
        database_url, min_size=1, max_size=1, init=init, server_settings={"search_path": schema}
    ) as pool:
        await pool.execute("CREATE TABLE prices (id int PRIMARY KEY, amount numeric)")
        table = await installed(pool, "prices", model)
        for cents in range(3):
            writes = [Put(n, model(n, Decimal(f"{n}.0{cents}"))) for n in range(5)]
            assert await table.apply(Batch(writes, uuid4())) == Applied()
        assert await table.load_many([4]) == {4: model(4, Decimal("4.02"))}
    assert (copies.begun, copies.rows) == (1, [])


@asynccontextmanager
async def stopped(table: PostgresTable[Score], batch: Batch[Score], copies: Copies) -> AsyncIterator[Any]:
    """A batch that is being applied, and stands still in the middle of its COPY."""
    gate = copies.gate = asyncio.Event()
    task = asyncio.ensure_future(table.apply(batch))
    async with asyncio.timeout(20):
        await copies.waiting.wait()
        copies.gate = None
        yield task
        gate.set()
        await asyncio.wait([task])


async def test_who_stands_still_while_copying_holds_up_nobody(pool: Pool, copies: Copies) -> None:
    """The server looks at no time limit then."""
    await pool.execute(SCORES)
    table = await installed(pool, "scores", Score)
    batch = Batch(some(5), uuid4())
    async with stopped(table, batch, copies) as task:
        assert await table.apply(batch) == Applied()
        assert await table.apply(Batch(some(5, points=1), uuid4())) == Applied()
    assert task.result() == Applied(again=True)
    assert (await table.load_many([4]))[4].points == 1


@pytest.mark.parametrize("how", ["cancelled", "killed"])
async def test_a_copy_that_is_cut_short_leaves_nothing_half_done(pool: Pool, copies: Copies, how: str) -> None:
    await pool.execute(SCORES)
    table = await installed(pool, "scores", Score)
    batch = Batch(some(5), uuid4())
    async with stopped(table, batch, copies) as task:
        if how == "cancelled":
            task.cancel()
        else:
            await pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY \"pg_temp\"%'"
                " AND datname = current_database()"
            )
    with pytest.raises(asyncio.CancelledError if how == "cancelled" else DatabaseUnavailable):
        await task
    assert await pool.fetchval("SELECT count(*) FROM asynccache_batch") == 0
    assert await table.apply(batch) == Applied()
    assert len(await table.load_many(range(9))) == 5
