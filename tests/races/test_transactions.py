"""Writes inside of a transaction: no reader puts back what stood there before the COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from asynccache import Cache, CacheAside, ConfigurationError, Reason
from asynccache.integrations.sqlalchemy import enlist
from asynccache.postgres import Database, transaction
from asynccache.steps import EndWrite
from asynccache.strategies import writing
from tests.support.awaits import AtAwait
from tests.support.caches import MakeCache
from tests.support.gates import gated, until

Pool: TypeAlias = "asyncpg.Pool[Any]"

UPDATE = "UPDATE users SET name = 'new' WHERE id = 1"


@dataclass
class Shop:
    """Two processes, and a row that one of them changes."""

    pool: Pool
    one: Cache
    two: Cache

    async def load(self) -> str | None:
        name: str | None = await self.pool.fetchval("SELECT name FROM users WHERE id = 1")
        return name

    async def read(self, cache: Cache) -> str | None:
        return await cache.get_or_load("user", self.load)

    async def reads(self) -> set[str | None]:
        """What both processes read: with a loader, and of the cache alone."""
        alone = {await cache.get("user", "nothing") for cache in (self.one, self.two)} - {"nothing"}
        return alone | {await self.read(self.one), await self.read(self.two)}

    async def reason(self) -> Reason:
        return (await self.two.explain("user")).reason


@pytest.fixture
async def shop(pool: Pool, make_cache: MakeCache) -> Shop:
    await pool.execute("CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)")
    await pool.execute("INSERT INTO users VALUES (1, 'old'), (2, 'other')")
    return Shop(pool, await make_cache(), await make_cache())


@pytest.fixture
async def engine(database_url: str, schema: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(
        database_url.replace("postgresql://", "postgresql+asyncpg://"),
        connect_args={"server_settings": {"search_path": schema}},
    )
    yield engine
    await engine.dispose()


# -- asyncpg


async def test_a_reader_between_the_block_and_the_commit_stores_nothing_old(shop: Shop) -> None:
    assert await shop.reads() == {"old"}
    async with transaction(shop.pool) as connection:
        async with shop.one.updating("user"):
            await connection.execute(UPDATE)
        assert await shop.read(shop.two) == "old"
        assert await shop.reason() is Reason.WRITING
    assert await shop.reads() == {"new"}


async def test_the_guard_is_needed_without_it_the_old_row_rests(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "current_transaction", lambda: None)
    async with transaction(shop.pool) as connection:
        async with shop.one.updating("user"):
            await connection.execute(UPDATE)
        assert await shop.read(shop.two) == "old"
    assert await shop.read(shop.one) == "old"


async def test_a_load_that_is_under_way_at_the_commit_stores_nothing_old(shop: Shop) -> None:
    loaded, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str | None:
        seen = await shop.load()
        loaded.set()
        await go_on.wait()
        return seen

    async with transaction(shop.pool) as connection, shop.one.updating("user"):
        await connection.execute(UPDATE)
        held = asyncio.create_task(shop.two.get_or_load("user", load))
        await loaded.wait()
    go_on.set()
    assert await held == "old"
    assert await shop.reads() == {"new"}


async def test_a_rollback_leaves_the_cache_with_what_the_database_has(shop: Shop) -> None:
    async def fail() -> None:
        async with transaction(shop.pool) as connection:
            async with shop.one.updating("user"):
                await connection.execute(UPDATE)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await shop.reads() == {"old"}
    assert await shop.reason() is Reason.FRESH


async def test_tags_and_strategies_end_with_the_transaction_too(shop: Shop) -> None:
    users: CacheAside[str] = CacheAside(shop.one, "u", type=str)

    async def count() -> int:
        return int(await shop.pool.fetchval("SELECT count(*) FROM users"))

    assert await shop.two.get_or_load("count", count, tags=["users"]) == 2
    async with transaction(shop.pool) as connection:
        async with users.updating(1, tags=["users"]):
            await connection.execute("DELETE FROM users WHERE id = 2")
        assert await shop.two.get_or_load("count", count, tags=["users"]) == 2
    assert await shop.two.get_or_load("count", count, tags=["users"]) == 1


async def test_a_savepoint_ends_nothing(shop: Shop) -> None:
    async with transaction(shop.pool) as outer:
        async with transaction(outer) as inner, shop.one.updating("user"):
            await inner.execute(UPDATE)
        assert await shop.reason() is Reason.WRITING
        with pytest.raises(asyncpg.UniqueViolationError):
            async with transaction(outer):
                await outer.execute("INSERT INTO users VALUES (1, 'twice')")
        assert await shop.reason() is Reason.WRITING
    assert await shop.reads() == {"new"}


async def test_two_transactions_at_once_end_their_own_writes(shop: Shop) -> None:
    async with transaction(shop.pool) as outer:
        async with shop.one.updating("user"):
            await outer.execute(UPDATE)
        async with transaction(shop.pool) as other, shop.one.updating("other"):
            await other.execute("UPDATE users SET name = 'x' WHERE id = 2")
        assert (await shop.two.explain("other")).reason is Reason.EMPTY
        assert await shop.reason() is Reason.WRITING
    assert await shop.reads() == {"new"}


async def test_a_transaction_opened_by_other_means_is_refused(shop: Shop) -> None:
    async with shop.pool.acquire() as connection, connection.transaction():
        with pytest.raises(ConfigurationError, match="in a transaction already"):
            async with transaction(connection):
                pass


async def test_a_database_and_a_bare_connection_will_do(shop: Shop, database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    async with transaction(database, isolation="serializable", readonly=True) as connection:
        assert await connection.fetchval("SHOW transaction_isolation") == "serializable"
    await database.aclose()
    async with shop.pool.acquire() as own:
        async with transaction(own), shop.one.updating("user"):
            await own.execute(UPDATE)
        assert not own.is_in_transaction()
        with pytest.raises(asyncpg.UniqueViolationError):
            async with transaction(own):
                await own.execute("INSERT INTO users VALUES (1, 'twice')")
        async with own.transaction():  # the connection is as it was
            await own.execute("UPDATE users SET name = 'x' WHERE id = 2")
        assert not own.is_in_transaction()
    assert await shop.reads() == {"new"}


LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


async def _change_and_lose_the_connection(shop: Shop, then: str = "") -> None:
    async with transaction(shop.pool) as connection:
        async with shop.one.updating("user"):
            await connection.execute(UPDATE)
        pid = connection.get_server_pid()
        await shop.pool.execute("SELECT pg_terminate_backend($1)", pid)
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1"
        await until(lambda: shop.pool.fetchval(gone, pid), "the backend to be gone")
        if then:
            await connection.execute(then)


async def test_a_commit_without_an_answer_leaves_the_key_uncached(shop: Shop) -> None:
    with pytest.raises(LOST):
        await _change_and_lose_the_connection(shop)
    assert await shop.reason() is Reason.WRITING
    assert await shop.read(shop.two) == "old"
    assert await shop.reason() is Reason.WRITING


async def test_a_connection_lost_before_the_commit_has_committed_nothing(shop: Shop) -> None:
    with pytest.raises(LOST):
        await _change_and_lose_the_connection(shop, "SELECT 1")
    assert await shop.reason() is Reason.EMPTY
    assert await shop.reads() == {"old"}


async def test_a_commit_that_the_database_refuses_empties_the_entry(shop: Shop) -> None:
    await shop.pool.execute("ALTER TABLE users ADD CONSTRAINT own UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with transaction(shop.pool) as connection, shop.one.updating("user"):
            await connection.execute("UPDATE users SET name = 'other' WHERE id = 1")
    assert await shop.reason() is Reason.EMPTY
    assert await shop.reads() == {"old"}


@pytest.mark.one_loop
async def test_cancelled_at_any_await_the_cache_never_says_other_than_the_database(shop: Shop) -> None:
    async def change() -> None:
        async with transaction(shop.pool) as connection:
            async with shop.one.updating("user"):
                await connection.execute("UPDATE users SET name = name || '+' WHERE id = 1")
            await shop.read(shop.two)

    for late in (False, True):
        at, reached = 0, True
        while reached:
            await shop.reads()
            awaiting = AtAwait(at, late=late)
            task = asyncio.create_task(awaiting.run(change()))
            await asyncio.wait([task])
            reached, at = awaiting.reached, at + 1
            assert await shop.reads() == {await shop.load()}
            # Nothing is left in flight: the next write begins and ends alone.
            assert await shop.reason() is Reason.FRESH
        assert at > 5


async def test_a_caller_who_is_cancelled_while_writes_end_ends_all_of_them(shop: Shop) -> None:
    gate = gated(shop.one).before(EndWrite)

    async def change() -> None:
        async with transaction(shop.pool) as connection:
            async with shop.one.updating("a"):
                await connection.execute(UPDATE)
            async with shop.one.updating("b"):
                pass

    task = asyncio.create_task(change())
    await gate.reached()
    task.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(await shop.two.explain(key)).reason for key in ("a", "b")] == [Reason.EMPTY] * 2


# -- SQLAlchemy


Change: TypeAlias = Callable[[AsyncSession], Awaitable[None]]


@asynccontextmanager
async def _changing(shop: Shop, session: AsyncSession) -> AsyncIterator[None]:
    await enlist(session, shop.one.updating("user"))
    await session.execute(text(UPDATE))
    assert await shop.read(shop.two) == "old"
    assert await shop.reason() is Reason.WRITING
    yield


async def test_a_sessions_writes_end_after_its_commit(shop: Shop, engine: AsyncEngine) -> None:
    assert await shop.reads() == {"old"}
    async with AsyncSession(engine) as session, session.begin(), _changing(shop, session):
        pass
    assert await shop.reads() == {"new"}
    assert await shop.reason() is Reason.FRESH


@pytest.mark.parametrize("how", ["rollback", "close", "error"])
async def test_a_session_that_does_not_commit_leaves_what_the_database_has(
    shop: Shop, engine: AsyncEngine, how: str
) -> None:
    session = AsyncSession(engine)
    async with _changing(shop, session):
        pass
    if how == "rollback":
        await session.rollback()
    elif how == "error":
        with pytest.raises(IntegrityError):
            await session.execute(text("INSERT INTO users VALUES (1, 'twice')"))
    await session.close()
    assert await shop.reason() is Reason.EMPTY
    assert await shop.reads() == {"old"}


async def test_a_sessions_savepoint_ends_nothing(shop: Shop, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        async with session.begin_nested(), _changing(shop, session):
            pass
        assert await shop.reason() is Reason.WRITING
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await session.execute(text("INSERT INTO users VALUES (1, 'twice')"))
        assert await shop.reason() is Reason.WRITING
    assert await shop.reads() == {"new"}


async def test_a_session_is_used_for_one_transaction_after_the_other(shop: Shop, engine: AsyncEngine) -> None:
    async with async_sessionmaker(engine)() as session:
        async with _changing(shop, session):
            await session.commit()
        assert await shop.reads() == {"new"}
        await enlist(session, shop.one.updating("user"))
        await session.execute(text("UPDATE users SET name = 'newer' WHERE id = 1"))
        await session.commit()
        assert await shop.reads() == {"newer"}


async def test_a_sessions_commit_without_an_answer_leaves_the_key_uncached(shop: Shop, engine: AsyncEngine) -> None:
    session = AsyncSession(engine)
    async with _changing(shop, session):
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        await shop.pool.execute("SELECT pg_terminate_backend($1)", pid)
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1"
        await until(lambda: shop.pool.fetchval(gone, pid), "the backend to be gone")
    with pytest.raises((DBAPIError, OSError)):
        await session.commit()
    await session.close()
    assert await shop.reason() is Reason.WRITING


async def test_a_commit_that_the_database_refuses_for_a_session_empties_the_entry(
    shop: Shop, engine: AsyncEngine
) -> None:
    await shop.pool.execute("ALTER TABLE users ADD CONSTRAINT own UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    session = AsyncSession(engine)
    await enlist(session, shop.one.updating("user"))
    await session.execute(text("UPDATE users SET name = 'other' WHERE id = 1"))
    with pytest.raises(IntegrityError):
        await session.commit()
    await session.close()
    assert await shop.reason() is Reason.EMPTY


async def test_what_is_not_a_session_or_a_write_is_refused_before_anything_is_marked(
    shop: Shop, engine: AsyncEngine
) -> None:
    with pytest.raises(ConfigurationError, match="must be an AsyncSession"):
        await enlist(engine, shop.one.updating("user"))  # type: ignore[arg-type]
    async with AsyncSession(engine) as session:
        with pytest.raises(ConfigurationError, match=r"what cache\.updating"):
            await enlist(session, shop.one.updating("user"), "user")  # type: ignore[arg-type]
    assert await shop.reason() is Reason.EMPTY
