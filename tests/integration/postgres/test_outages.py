"""What a caller sees when PostgreSQL hangs, dies or is slow: a bounded wait, the true reason, and a pool that is whole."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from asynccache.clock import SYSTEM_CLOCK
from asynccache.errors import ConfigurationError, DatabaseUnavailable
from asynccache.postgres import Database, PostgresTable
from asynccache.postgres.database import transaction
from asynccache.protocols import Applied, Batch, Delete, Put
from tests.support.proxy import Mode, Proxy

Pool: TypeAlias = "asyncpg.Pool[Any]"

IDS = pytest.mark.parametrize("with_id", [False, True], ids=["plain", "with an id"])


@dataclass
class Score:
    points: int


@pytest.fixture
async def scores(pool: Pool) -> PostgresTable[Score]:
    await pool.execute("CREATE TABLE scores (id int PRIMARY KEY, points int NOT NULL)")
    table = PostgresTable(pool, "scores", key="id", model=Score)
    await table.open()
    await table.install()
    await table.apply(Batch([Put(1, Score(1))]))
    return table


def _batch(*, with_id: bool) -> Batch[Score]:
    identity: UUID | None = uuid4() if with_id else None
    return Batch([Put(1, Score(2)), Put(2, Score(2))], identity)


def _bounds_transactions(connection: Any) -> bool:
    return bool(connection.get_server_version() >= (17,))


async def _waiting_for_a_lock(connection: Any) -> int:
    while True:
        pid = await connection.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND $1 = ANY(pg_blocking_pids(pid))",
            connection.get_server_pid(),
        )
        if pid is not None:
            return int(pid)
        await asyncio.sleep(0.01)


@IDS
async def test_a_connection_that_is_killed_is_an_outage_with_its_reason(
    database_url: str, schema: str, scores: PostgresTable[Score], with_id: bool
) -> None:
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute(f"SELECT * FROM {schema}.scores FOR UPDATE")
            task = asyncio.create_task(scores.apply(_batch(with_id=with_id)))
            await other.execute("SELECT pg_terminate_backend($1)", await _waiting_for_a_lock(other))
            with pytest.raises(DatabaseUnavailable, match="terminating connection"):
                await task
    finally:
        await other.close()
    assert await scores.load_many([1, 2]) == {1: Score(1)}


@IDS
async def test_a_cancelled_caller_sees_its_cancellation_even_if_the_server_hangs(
    database_url: str, schema: str, scores: PostgresTable[Score], with_id: bool
) -> None:
    parts = urlsplit(database_url)
    async with Proxy.to(parts.hostname or "localhost", parts.port or 5432) as proxy:
        pool = asyncpg.create_pool(
            proxy.url(database_url), min_size=0, max_size=2, server_settings={"search_path": schema}
        )
        other = await asyncpg.connect(database_url)
        try:
            await pool
            table = PostgresTable(pool, "scores", key="id", model=Score)
            await table.open()
            async with other.transaction():
                await other.execute(f"SELECT * FROM {schema}.scores FOR UPDATE")
                task = asyncio.create_task(table.apply(_batch(with_id=with_id)))
                await _waiting_for_a_lock(other)
                await proxy.set(Mode.BLACKHOLE)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert task.cancelled()
            await proxy.set(Mode.PASS)
            # What became of the write is unknown, as for any cancelled one; the pool is whole.
            assert 1 in await table.load_many([1])
        finally:
            await other.close()
            pool.terminate()


async def test_a_server_that_hangs_holds_nobody_past_the_timeout(database_url: str, schema: str) -> None:
    parts = urlsplit(database_url)
    async with Proxy.to(parts.hostname or "localhost", parts.port or 5432) as proxy:
        await proxy.set(Mode.BLACKHOLE)
        database = Database(proxy.url(database_url), server_settings={"search_path": schema})
        table = PostgresTable(database, "scores", key="id", model=Score, timeout=0.5)
        await database.open()
        try:
            began = SYSTEM_CLOCK.monotonic()
            results = await asyncio.gather(*[table.load_many([key]) for key in range(8)], return_exceptions=True)
            assert [type(result) for result in results] == [DatabaseUnavailable] * 8
            # Not one after another: that would be 4 s.
            assert SYSTEM_CLOCK.monotonic() - began < 2.5
        finally:
            await database.aclose()


async def test_an_unreachable_server_is_named_without_the_password() -> None:
    table = PostgresTable("postgresql://ada:s3cret@127.0.0.1:1/shop", "scores", key="id", model=Score)
    with pytest.raises(DatabaseUnavailable, match=r"ada@127\.0\.0\.1:1/shop") as caught:
        await table.open()
    assert "s3cret" not in str(caught.value)


async def test_the_first_callers_share_one_look_at_the_catalog(
    database_url: str, schema: str, scores: PostgresTable[Score]
) -> None:
    queries: list[str] = []

    async def watch(connection: Any) -> None:
        connection.add_query_logger(lambda record: queries.append(record.query))

    async with asyncpg.create_pool(
        database_url, min_size=0, init=watch, server_settings={"search_path": schema}
    ) as pool:
        table = PostgresTable(pool, "scores", key="id", model=Score)
        await asyncio.gather(*[table.load_many([key]) for key in range(20)])
    assert sum("to_regclass" in query for query in queries) == 1


async def test_batches_that_put_and_delete_never_deadlock_each_other(scores: PostgresTable[Score], pool: Pool) -> None:
    async def deadlocks() -> int:
        await pool.execute("SELECT pg_stat_force_next_flush()")
        return int(await pool.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))

    async def work(step: int, offset: int) -> None:
        for turn in range(20):
            keys = list(range(40))[::step]
            await scores.apply(
                Batch([Put(key, Score(turn)) if (key + turn + offset) % 3 else Delete(key) for key in keys])
            )

    before = await deadlocks()
    began = SYSTEM_CLOCK.monotonic()
    await asyncio.gather(*[work(1 if number % 2 else -1, number) for number in range(6)])
    # Each deadlock costs `deadlock_timeout`, 1 s.
    assert SYSTEM_CLOCK.monotonic() - began < 10
    assert await deadlocks() == before


async def test_a_batch_is_known_again_through_a_pool_of_another_search_path(
    database_url: str, schema: str, scores: PostgresTable[Score]
) -> None:
    batch = Batch([Put(1, Score(5))], uuid4())
    assert not (await scores.apply(batch)).again
    async with asyncpg.create_pool(database_url, min_size=0) as elsewhere:
        table = PostgresTable(elsewhere, f"{schema}.scores", key="id", model=Score)
        assert await table.apply(batch) == Applied(again=True)


async def test_keys_of_a_mapping_in_json_come_back_as_the_model_says(pool: Pool) -> None:
    @dataclass
    class Prices:
        by_year: dict[int, str]

    await pool.execute("CREATE TABLE t (id int PRIMARY KEY, by_year jsonb NOT NULL)")
    table = PostgresTable(pool, "t", key="id", model=Prices)
    await table.apply(Batch([Put(1, Prices({2024: "9.50"}))]))
    assert await table.load_many([1]) == {1: Prices({2024: "9.50"})}


@pytest.mark.parametrize("dsn", ["postgresql://u:s3cret/x@h:5432/db", "postgresql://u:p@127.0.0.1:s3cret/db"])
def test_a_dsn_that_cannot_be_read_is_refused_without_showing_the_password(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Database(dsn)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn", ["postgresql://u@[::1]:5432,other/db", "postgresql://u@h,i:5433/db", "postgresql:///db"]
)
def test_dsns_of_several_hosts_are_fine(dsn: str) -> None:
    Database(dsn)


@pytest.mark.one_loop
@pytest.mark.parametrize("preparing", [False, True], ids=["between statements", "after preparing one"])
async def test_a_writer_that_stands_still_in_its_transaction_holds_others_up_for_seconds_only(
    pool: Pool, scores: PostgresTable[Score], preparing: bool
) -> None:
    async with pool.acquire() as stopped:
        if preparing and not _bounds_transactions(stopped):
            return

        async def stand_still() -> None:
            async with transaction(stopped, 2.0):
                await stopped.execute("UPDATE scores SET points = 9")
                if preparing:  # for the server this is no pause between statements
                    await stopped._get_statement("SELECT 'something new'", None)  # type: ignore[attr-defined]
                # As if this process stood still: it says nothing more until the other one is through.
                await scores.apply(Batch([Put(1, Score(2))]))

        # The server has ended the session; what asyncpg makes of that depends on when it hears of it.
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, asyncpg.InternalClientError)):
            await stand_still()
    assert await pool.fetchval("SELECT points FROM scores WHERE id = 1") == 2


@pytest.mark.parametrize(("set_before", "expected"), [("0", "4s"), ("1s", "1s"), ("2min", "4s")])
async def test_a_transaction_is_bounded_in_time_and_leaves_a_narrower_bound_of_the_role(
    pool: Pool, set_before: str, expected: str
) -> None:
    async with pool.acquire() as connection:
        if not _bounds_transactions(connection):
            async with transaction(connection, 3.0):
                return
        await connection.execute(f"SET transaction_timeout = '{set_before}'")
        async with transaction(connection, 3.0):
            assert await connection.fetchval("SHOW transaction_timeout") == expected
        assert await connection.fetchval("SHOW transaction_timeout") == set_before
