"""The listener is cut off while thousands of rows change: none is missed, whatever it was that failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from asynccache import Cache
from asynccache.embedded import Server
from asynccache.postgres import Database
from tests.support.changes import CREATE, World, world
from tests.support.gates import until
from tests.support.proxy import Mode, Proxy

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(180)]

ROWS = 10_000
APPLICATION = "asynccache changes:default"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages are waited out by backoff, and 10,000 users are read anew each time."""
    monkeypatch.setattr("tests.support.gates.PATIENCE", 60.0)


@asynccontextmanager
async def following(
    redis_url: str, namespace: str, pool: asyncpg.Pool[Any], schema: str, **options: Any
) -> AsyncIterator[World]:
    """A process that follows, with 10,000 users cached."""
    await pool.execute(CREATE)
    await pool.execute("INSERT INTO users SELECT i, 'n' || i FROM generate_series(1, $1::int) i", ROWS)
    cache = Cache(redis_url, namespace=namespace, ttl=600)
    found = world(cache, pool, schema, **options)
    await world(Cache("memory://", namespace="installer", ttl=1), pool, schema).changes.install()
    async with cache:
        await found.at_work()
        await everything_is(found, "n")
        yield found


async def everything_is(process: World, prefix: str) -> None:
    """Waits until every user is read as the database has it, and leaves all of them cached."""

    async def right() -> bool:
        some = await process.users.get_many((1, 100, 101, ROWS))
        if any(user.name != f"{prefix}{key}" for key, user in some.items()):
            return False
        users = await process.users.get_many(range(1, ROWS + 1))
        return all(user.name == f"{prefix}{key}" for key, user in users.items()) and len(users) == ROWS

    await until(right, f"all users to be {prefix!r}; {process.cache.health()}")


async def change_all(pool: asyncpg.Pool[Any], prefix: str) -> None:
    """10,000 changes: in one statement, and a few by hand."""
    await pool.execute("UPDATE users SET name = $1 || id WHERE id > 100", prefix)
    for key in range(1, 101):
        await pool.execute("UPDATE users SET name = $1 || id WHERE id = $2", prefix, key)


@asynccontextmanager
async def proxied(url: str, schema: str) -> AsyncIterator[tuple[Proxy, Database]]:
    """A proxy in front of PostgreSQL, and a database through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    async with Proxy.to(parts.hostname, parts.port or 5432) as proxy:
        yield proxy, Database(proxy.url(url), server_settings={"search_path": schema}, timeout=2)


async def test_the_server_ends_the_listeners_session(
    redis_url: str, namespace: str, pool: asyncpg.Pool[Any], schema: str
) -> None:
    async with following(redis_url, namespace, pool, schema) as process:
        for prefix in ("a", "b"):
            ended = await pool.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"
                " AND datname = current_database()",
                APPLICATION,
            )
            assert ended
            await change_all(pool, prefix)
            await everything_is(process, prefix)
            await process.at_work()


async def test_the_network_cuts_refuses_and_is_silent(
    redis_url: str, namespace: str, pool: asyncpg.Pool[Any], schema: str, database_url: str
) -> None:
    async with (
        proxied(database_url, schema) as (proxy, database),
        following(redis_url, namespace, pool, schema, database=database, timeout=2) as process,
    ):
        proxy.cut()
        await change_all(pool, "cut")
        await everything_is(process, "cut")

        await proxy.set(Mode.REFUSE, cut=True)
        await change_all(pool, "refused")
        await until(lambda: not process.cache.health().ok, "the outage to be told")
        await proxy.set(Mode.PASS)
        await everything_is(process, "refused")

        await process.at_work()
        await proxy.set(Mode.BLACKHOLE)  # half-open: nobody says that the connection is gone
        await change_all(pool, "lost")
        await until(lambda: not process.cache.health().ok, "the silence to be noticed")
        await proxy.set(Mode.PASS, cut=True)
        await everything_is(process, "lost")
        await until(lambda: process.cache.health().ok, "it to be well")


async def test_postgres_is_killed_and_started_again(redis_url: str, namespace: str, dedicated_postgres: Server) -> None:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(dedicated_postgres.url, min_size=0, timeout=10))
        process = await stack.enter_async_context(following(redis_url, namespace, pool, "public"))
        await dedicated_postgres.kill()
        await until(lambda: not process.cache.health().ok, "the outage to be told")
        await dedicated_postgres.start()
        await pool.expire_connections()
        await change_all(pool, "again")
        await everything_is(process, "again")
        await process.at_work()
        assert process.changes.stats.cleared == 1  # it is the same server: nothing was cleared but at first


async def test_redis_is_away_while_changes_come(
    namespace: str, dedicated_redis: Server, pool: asyncpg.Pool[Any], schema: str
) -> None:
    async with following(dedicated_redis.url, namespace, pool, schema) as process:
        await dedicated_redis.kill()
        await change_all(pool, "late")
        await until(lambda: not process.cache.health().changes[0].ok, "the outage to be told")
        where = await pool.fetchval("SELECT position::text FROM asynccache_listener WHERE cleared")
        await dedicated_redis.start()
        await everything_is(process, "late")

        async def moved() -> bool:
            return bool(await pool.fetchval("SELECT position::text <> $1 FROM asynccache_listener", where))

        await until(moved, "the position to move")
        await until(lambda: process.cache.health().ok, "it to be well")


async def test_another_process_than_the_one_that_changes_nothing_reads_what_was_kept(
    namespace: str, dedicated_redis: Server, pool: asyncpg.Pool[Any], schema: str
) -> None:
    """The listener fails to tell Redis and its process dies, journal and all: the position must not have moved."""
    async with following(dedicated_redis.url, namespace, pool, schema, name="first") as process:
        await dedicated_redis.kill()
        await change_all(pool, "late")
        await until(lambda: not process.cache.health().changes[0].ok, "the outage to be told")
        await asyncio.gather(process.cache.shutdown(), return_exceptions=True)
        await dedicated_redis.start()
        again = Cache(dedicated_redis.url, namespace=namespace, ttl=600)
        other = world(again, pool, schema, name="first")
        async with again:
            await everything_is(other, "late")
            assert other.changes.stats.cleared == 0
        await process.cache.startup()


async def test_with_proceed_a_failed_invalidation_does_not_move_the_position(
    namespace: str, dedicated_redis: Server, pool: asyncpg.Pool[Any], schema: str
) -> None:
    await pool.execute(CREATE)
    await pool.execute("INSERT INTO users VALUES (1, 'old')")
    cache = Cache(dedicated_redis.url, namespace=namespace, ttl=600, on_outage="proceed")
    process = world(cache, pool, schema)
    await process.changes.install()
    async with cache:
        await process.at_work()
        await dedicated_redis.kill()
        await pool.execute("UPDATE users SET name = 'new'")
        await until(lambda: not cache.health().changes[0].ok, "the outage to be told")
        seen = await pool.fetchval(
            "SELECT count(*) FROM asynccache_change c JOIN asynccache_listener l"
            " ON pg_visible_in_snapshot(c.xid, l.position)"
        )
        assert seen == 0
        await dedicated_redis.start()
        await process.sees(u1="new")
