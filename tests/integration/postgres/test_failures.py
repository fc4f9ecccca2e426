"""A database that is gone, slow, hung or full: what callers see, and that the pool is as good as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from asynccache.clock import SYSTEM_CLOCK
from asynccache.errors import CacheNotOpen, ConfigurationError, DatabaseUnavailable, WriteRejected
from asynccache.postgres import Database, PostgresTable
from asynccache.protocols import Batch, Delete, Put, Write
from tests.support.proxy import Mode, Proxy

Pool: TypeAlias = "asyncpg.Pool[Any]"
Operation: TypeAlias = Callable[[PostgresTable["User"]], Awaitable[Any]]


@dataclass
class User:
    id: int
    name: str


OPERATIONS: dict[str, Operation] = {
    "load": lambda table: table.load_many([1, 2]),
    "put": lambda table: table.apply(Batch([Put(1, User(1, "new"))])),
    "delete": lambda table: table.apply(Batch([Delete(1)])),
    "mixed": lambda table: table.apply(Batch([Put(1, User(1, "new")), Delete(2)])),
    "batch": lambda table: table.apply(Batch([Put(1, User(1, "new"))], id=uuid4())),
}
every_operation = pytest.mark.parametrize("name", OPERATIONS)


async def make_users(pool: Pool) -> None:
    await pool.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'a'), (2, 'b')"
    )


@pytest.fixture
async def users(pool: Pool) -> PostgresTable[User]:
    await make_users(pool)
    table = PostgresTable(pool, "users", key="id", model=User, timeout=20)
    await table.open()
    await table.install()
    return table


@asynccontextmanager
async def locked(pool: Pool) -> AsyncIterator[Any]:
    """Nobody else gets a row of the table meanwhile."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        yield connection


async def waiting_backend(connection: Any, schema: str) -> int:
    """The process of the one session that waits for the lock."""
    async with asyncio.timeout(10):
        while True:
            pid = await connection.fetchval(
                "SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
                " WHERE NOT l.granted AND c.relnamespace = $1::text::regnamespace",
                schema,
            )
            if pid is not None:
                return int(pid)
            await asyncio.sleep(0.005)


async def assert_pool_is_good(pool: Pool) -> None:
    """Every connection can be had, is in no transaction, and holds no lock."""
    async with asyncio.timeout(10):
        connections = [await pool.acquire() for _ in range(pool.get_max_size())]
    try:
        for connection in connections:
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT 1") == 1
            assert (
                await connection.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
                )
                == 0
            )
    finally:
        for connection in connections:
            await pool.release(connection)


async def rows(pool: Pool) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await pool.fetch("SELECT id, name FROM users ORDER BY id")]


@every_operation
async def test_a_session_that_is_killed_is_unavailability_and_writes_nothing(
    users: PostgresTable[User], pool: Pool, schema: str, name: str
) -> None:
    async with locked(pool) as other:
        task = asyncio.ensure_future(OPERATIONS[name](users))
        pid = await waiting_backend(other, schema)
        await other.fetchval("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(DatabaseUnavailable, match=r"57P01|08003|closed"):
            await task
    assert await rows(pool) == [(1, "a"), (2, "b")]
    await assert_pool_is_good(pool)
    await OPERATIONS[name](users)


@every_operation
async def test_a_cancelled_call_writes_nothing_and_leaves_its_connection_clean(
    users: PostgresTable[User], pool: Pool, schema: str, name: str
) -> None:
    complaints: list[dict[str, Any]] = []
    # asyncpg complains there of a connection that came back with a transaction open.
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with locked(pool) as other:
        task = asyncio.ensure_future(OPERATIONS[name](users))
        await waiting_backend(other, schema)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await rows(pool) == [(1, "a"), (2, "b")]
    await assert_pool_is_good(pool)
    assert complaints == []
    await OPERATIONS[name](users)


@every_operation
@pytest.mark.one_loop
async def test_cancelling_at_any_turn_of_the_loop_leaves_the_pool_good(
    users: PostgresTable[User], pool: Pool, name: str
) -> None:
    for turns in range(60):
        task = asyncio.ensure_future(OPERATIONS[name](users))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            continue
        break
    await assert_pool_is_good(pool)
    await OPERATIONS[name](users)


@every_operation
async def test_a_statement_that_takes_too_long_is_given_up(pool: Pool, schema: str, name: str) -> None:
    await make_users(pool)
    table = PostgresTable(pool, "users", key="id", model=User, timeout=0.4)
    await table.open()
    await table.install()
    async with locked(pool):
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0\.4 s"):
            await OPERATIONS[name](table)
    assert await rows(pool) == [(1, "a"), (2, "b")]
    await assert_pool_is_good(pool)


@asynccontextmanager
async def proxied(database_url: str, schema: str, bound: float) -> AsyncIterator[tuple[Proxy, PostgresTable[User]]]:
    parts = urlsplit(database_url)
    assert parts.hostname is not None
    async with Proxy.to(parts.hostname, parts.port or 5432) as proxy:
        database = Database(proxy.url(database_url), max_size=2, server_settings={"search_path": schema})
        async with PostgresTable(database, "users", key="id", model=User, timeout=bound) as table:
            await table.install()
            yield proxy, table
            await proxy.set(Mode.PASS)


@every_operation
@pytest.mark.parametrize("mode", [Mode.STALL, Mode.BLACKHOLE])
@pytest.mark.one_loop
async def test_a_server_that_hangs_hangs_nobody_and_is_found_again(
    database_url: str, schema: str, pool: Pool, name: str, mode: Mode
) -> None:
    await make_users(pool)
    async with proxied(database_url, schema, 0.5) as (proxy, table):
        await proxy.set(mode)
        for _ in range(3):
            begin = SYSTEM_CLOCK.monotonic()
            with pytest.raises(DatabaseUnavailable):
                await OPERATIONS[name](table)
            # The bound, and that of cleaning up, twice: to roll back, and to give the connection back.
            assert SYSTEM_CLOCK.monotonic() - begin < 0.5 + 4.5
        await proxy.set(Mode.PASS, cut=True)
        async with asyncio.timeout(20):
            while True:
                try:
                    await OPERATIONS[name](table)
                    break
                except DatabaseUnavailable:
                    await asyncio.sleep(0.05)


@every_operation
async def test_a_connection_that_is_cut_is_unavailability(
    database_url: str, schema: str, pool: Pool, name: str
) -> None:
    await make_users(pool)
    async with proxied(database_url, schema, 10) as (proxy, table):
        await proxy.set(Mode.REFUSE, cut=True)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await OPERATIONS[name](table)
        await proxy.set(Mode.PASS)
        await OPERATIONS[name](table)


async def test_a_full_pool_is_unavailability_and_says_so(database_url: str, schema: str, pool: Pool) -> None:
    await make_users(pool)
    async with asyncpg.create_pool(
        database_url, min_size=0, max_size=1, server_settings={"search_path": schema}
    ) as small:
        table = PostgresTable(small, "users", key="id", model=User, timeout=0.3)
        await table.open()
        async with small.acquire():
            with pytest.raises(DatabaseUnavailable, match=r"no connection within 0\.3 s .*1 of 1"):
                await table.load_many([1])
        assert set(await table.load_many([1])) == {1}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:s3cret@127.0.0.1:1/db", "127.0.0.1:1"),
        ("postgresql://me:s3cret@no-such-host.invalid:5432/db", "no-such-host.invalid:5432"),
    ],
)
async def test_a_server_that_is_not_there_is_named_without_the_password(url: str, said: str) -> None:
    table = PostgresTable(url, "users", key="id", model=User, timeout=5)
    with pytest.raises(DatabaseUnavailable) as caught:
        await table.open()
    assert said in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {table!r} {Database(url)!r}"


async def test_a_wrong_password_or_database_is_unavailability(database_url: str) -> None:
    parts = urlsplit(database_url)
    for wrong in (
        parts._replace(path="/no_such_database").geturl(),
        parts._replace(netloc=f"nobody:s3cret@{parts.hostname}:{parts.port}").geturl(),
    ):
        with pytest.raises(DatabaseUnavailable, match=r"no_such_database|nobody") as caught:
            await PostgresTable(wrong, "users", key="id", model=User).open()
        assert "s3cret" not in str(caught.value)


async def test_a_role_that_may_not_write_is_told_so_and_retries_help(users: PostgresTable[User], pool: Pool) -> None:
    await pool.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE insufficient_privilege; END $$"
    )
    await pool.execute("CREATE TRIGGER no BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION no()")
    with pytest.raises(DatabaseUnavailable, match="42501"):
        await users.apply(Batch([Put(1, User(1, "new"))]))


async def test_one_pool_of_our_own_serves_several_tables_and_closes_with_the_last(
    database_url: str, schema: str, pool: Pool
) -> None:
    await make_users(pool)
    await pool.execute("CREATE TABLE more (id int PRIMARY KEY, name text)")
    database = Database(database_url, max_size=2, server_settings={"search_path": schema, "application_name": schema})
    first = PostgresTable(database, "users", key="id", model=User)
    second = PostgresTable(database, "more", key="id", model=User)
    with pytest.raises(CacheNotOpen, match="not open"):
        await first.load_many([1])

    await first.open()
    await first.open()
    await second.open()
    await first.aclose()
    await second.aclose()
    assert set(await first.load_many([1])) == {1}
    await first.aclose()

    with pytest.raises(CacheNotOpen):
        await first.load_many([1])
    async with asyncio.timeout(10):
        while await pool.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", schema):
            await asyncio.sleep(0.01)
    await first.aclose()  # once too often does no harm
    async with first:
        assert set(await first.load_many([1])) == {1}


async def test_a_failed_open_leaves_nothing_open(database_url: str, schema: str, pool: Pool) -> None:
    database = Database(database_url, server_settings={"search_path": schema})
    with pytest.raises(ConfigurationError):
        await PostgresTable(database, "nothing", key="id", model=User).open()
    assert "closed" in repr(database)


async def test_the_pool_of_an_application_may_come_later_and_is_never_closed(
    database_url: str, schema: str, pool: Pool
) -> None:
    await make_users(pool)
    state: dict[str, Any] = {}
    table = PostgresTable(lambda: state["pool"], "users", key="id", model=User)
    state["pool"] = pool
    async with table:
        assert set(await table.load_many([1])) == {1}
    assert await pool.fetchval("SELECT 1") == 1
    strange = PostgresTable(lambda: None, "users", key="id", model=User)
    with pytest.raises(ConfigurationError, match=r"must return an asyncpg\.Pool, not NoneType"):
        await strange.open()


async def test_a_pool_that_was_never_opened_or_is_closed_is_named(database_url: str) -> None:
    pool = asyncpg.create_pool(database_url, min_size=0)
    port = str(urlsplit(database_url).port)
    with pytest.raises(DatabaseUnavailable, match=f"{port}.*not initialized"):
        await PostgresTable(pool, "users", key="id", model=User).open()
    await pool
    await pool.close()
    with pytest.raises(DatabaseUnavailable, match=f"{port}.*clos"):
        await PostgresTable(pool, "users", key="id", model=User).open()


async def test_a_write_that_is_refused_leaves_the_connection_clean(users: PostgresTable[User], pool: Pool) -> None:
    writes: list[Write[User]] = [Put(1, User(1, "a\0b")), Delete(2)]
    for _ in range(3):
        with pytest.raises(WriteRejected):
            await users.apply(Batch(writes))
    await assert_pool_is_good(pool)
    assert await rows(pool) == [(1, "a"), (2, "b")]
    for _ in range(3):
        assert [refused.at for refused in (await users.apply(Batch(writes, id=uuid4()))).rejected] == [0]
    await assert_pool_is_good(pool)
    assert await rows(pool) == [(1, "a")]


async def test_prepared_statements_that_a_pooler_lost_are_told_with_what_helps(database_url: str, schema: str) -> None:
    # As in a pgbouncer before 1.21, which hands each transaction another session.
    options: dict[str, Any] = {"min_size": 1, "max_size": 1, "server_settings": {"search_path": schema}}
    async with asyncpg.create_pool(database_url, **options) as pool:
        await make_users(pool)
        table = PostgresTable(pool, "users", key="id", model=User)
        await table.open()
        await table.load_many([1, 2])
        await pool.execute("DEALLOCATE ALL")
        with pytest.raises(DatabaseUnavailable, match=r"26000.*pgbouncer.*statement_cache_size=0"):
            await table.load_many([1, 2])
