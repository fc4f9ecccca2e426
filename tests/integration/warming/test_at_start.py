"""Warming on real servers: from queries, and when a cache opens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import (
    Cache,
    CacheAside,
    ConfigurationError,
    DatabaseUnavailable,
    HotKeys,
    ReadThrough,
    SchemaMismatch,
)
from asynccache.postgres import PostgresTable
from asynccache.supervision import ServiceState
from tests.support.gates import Gate, until
from tests.support.warming import User, Users, counts, stop_at

Pool: TypeAlias = "asyncpg.Pool[Any]"


class TestQueries:
    async def test_the_keys_of_a_query_are_streamed_and_warmed_in_its_order(
        self, cache: Cache, pool: Pool, table: PostgresTable[User]
    ) -> None:
        users = ReadThrough(cache, "user", source=table)
        report = await users.warm_query("SELECT id FROM users WHERE id > $1 ORDER BY id DESC LIMIT $2", 10, 2500)
        assert counts(report) == (2500, 0, 0, 0)
        rest = await users.warm_query("SELECT id FROM users ORDER BY id DESC", batch=100, resume=2450)
        assert counts(rest) == (500, 50, 0, 0)
        assert await _idle(pool)

    async def test_a_stopped_and_a_cancelled_stream_give_their_connection_back(
        self, cache: Cache, pool: Pool, table: PostgresTable[User], caplog: pytest.LogCaptureFixture
    ) -> None:
        users = ReadThrough(cache, "user", source=table)
        work = users.warm_query("SELECT id FROM users", batch=10, progress=lambda p: stop_at(work, p, 100))
        assert 100 <= (await work).position < 3000
        assert await _idle(pool)
        seen = asyncio.Event()
        running = asyncio.create_task(
            users.warm_query("SELECT id FROM users, pg_sleep(0)", batch=10, progress=lambda _: seen.set()).run()
        )
        await seen.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert await _idle(pool)
        assert "transaction" not in caplog.text  # nor in the middle of its transaction

    async def test_several_columns_are_the_parts_of_a_key(self, cache: Cache, pool: Pool) -> None:
        await pool.execute("CREATE TABLE seats (hall text, no numeric(9), name text, PRIMARY KEY (hall, no))")
        await pool.execute("INSERT INTO seats SELECT 'h' || n % 3, n, 'x' FROM generate_series(1, 30) AS n")

        @dataclass
        class Seat:
            hall: str
            no: int
            name: str

        seats = ReadThrough(
            cache, "seat", source=PostgresTable(pool, "seats", key=("hall", "no"), model=Seat), type=Seat
        )
        assert counts(await seats.warm_query("SELECT hall, no FROM seats")) == (30, 0, 0, 0)
        assert await seats.get(("h1", 1)) == Seat("h1", 1, "x")
        assert cache.stats.hits == 1

    async def test_a_query_that_cannot_be_is_told_and_no_connection_is_lost(
        self, cache: Cache, pool: Pool, table: PostgresTable[User]
    ) -> None:
        users = ReadThrough(cache, "user", source=table)
        with pytest.raises(ConfigurationError, match=r"must return the key of users, \(id\), and nothing else"):
            await users.warm_query("SELECT id, name FROM users")
        with pytest.raises(SchemaMismatch, match="nothere"):
            await users.warm_query("SELECT nothere FROM users")
        with pytest.raises(DatabaseUnavailable, match="syntax error"):
            await users.warm_query("SELEKT 1")
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            await users.warm_query("INSERT INTO users VALUES (9999, 'x') RETURNING id")
        assert await _idle(pool)

    async def test_a_source_without_a_database_says_what_to_do(self, users: ReadThrough[User]) -> None:
        with pytest.raises(ConfigurationError, match=r"warm_query needs a source that can stream keys"):
            users.warm_query("SELECT 1")


async def _idle(pool: Pool) -> bool:
    """Whether no connection of the pool is in use."""
    await until(lambda: pool.get_idle_size() == pool.get_size(), "connections to come back")
    return True


class TestAtStart:
    async def test_before_ready_means_that_the_first_request_hits(
        self, redis_url: str, namespace: str, source: Users, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        users = ReadThrough(cache, "user", source=source)
        cache.warm_at_start(users, keys=range(200), before_ready=True)
        async with cache.lifespan():
            await users.get_many(range(200))
            assert cache.stats.hits == 200
            assert caplog.text == ""  # it is ready as soon as that is done
            await until(lambda: _state(cache) is ServiceState.DONE)
            assert cache.health().ok
        async with cache:  # it may be opened again, and looks again
            assert _state(cache) is not ServiceState.STOPPED

    async def test_in_the_background_it_does_not_hold_up_the_opening(
        self, redis_url: str, namespace: str, source: Users
    ) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60, background=False)
        users = ReadThrough(cache, "user", source=source)
        source.held = Gate()
        cache.warm_at_start(users, keys=lambda: iter(range(50)))
        async with cache:
            await source.held.reached(1)
            assert _state(cache) is ServiceState.RUNNING
            source.held.open()
            await until(lambda: _state(cache) is ServiceState.DONE)
            assert sorted(source.loaded) == list(range(50))

    async def test_a_source_that_hangs_holds_it_up_no_longer_than_agreed(
        self, redis_url: str, namespace: str, source: Users, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        users = ReadThrough(cache, "user", source=source)
        source.held = Gate()
        cache.warm_at_start(users, keys=[1], before_ready=True, timeout=0.05)
        async with cache:
            assert "warming:user: not done within 0.05 s; it goes on in the background" in caplog.text
            source.held.open()
            await until(lambda: _state(cache) is ServiceState.DONE)

    async def test_a_database_that_is_away_does_not_keep_the_cache_closed_and_it_goes_on_from_there(
        self, redis_url: str, namespace: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Half(Users):
            away = True

            async def load_many(self, keys: Sequence[int]) -> dict[int, User]:
                if self.away and max(keys) >= 50:
                    raise DatabaseUnavailable("the other half is away")
                return await super().load_many(keys)

        source = Half()
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        users = ReadThrough(cache, "user", source=source)
        cache.warm_at_start(users, keys=range(100), before_ready=True, batch=10, max_failures=1, concurrency=1)
        async with cache:
            assert "warming:user: failed; the cache opens without it" in caplog.text
            source.away = False
            await until(lambda: _state(cache) is ServiceState.DONE)
            assert len(await users.get_many(range(100))) == 100
            assert cache.stats.misses == 0
            report = cache._at_start[0].report
            assert report is not None
            assert (counts(report), report.position) == ((50, 0, 0, 0), 100)

    async def test_closing_in_the_middle_is_no_failure(
        self, redis_url: str, namespace: str, source: Users, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        source.held = Gate()
        cache.warm_at_start(ReadThrough(cache, "user", source=source), keys=[1])
        async with cache:
            await source.held.reached(1)
        assert "failed" not in caplog.text

    async def test_cancelling_the_opening_leaves_nothing_open(
        self, redis_url: str, namespace: str, source: Users
    ) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        source.held = Gate()
        cache.warm_at_start(ReadThrough(cache, "user", source=source), keys=[1], before_ready=True)
        opening = asyncio.create_task(cache.startup())
        await source.held.reached(1)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        assert cache.health().state == "closed"

    async def test_what_does_not_go_together_is_refused(self, cache: Cache, users: ReadThrough[User]) -> None:
        aside = CacheAside(cache, "aside", type=User)

        async def load(key: int) -> User:
            raise NotImplementedError

        for message, strategy, options in (
            ("one of keys=, query= and hot=", users, {}),
            ("one of keys=, query= and hot=", users, {"keys": [1], "hot": 5}),
            ("load= is for CacheAside", users, {"keys": [1], "load": load}),
            ("load= is for CacheAside", aside, {"keys": [1]}),
            ("query= needs a source", aside, {"query": "SELECT 1", "load": load}),
            ("can be read only once", users, {"keys": iter([1])}),
            ("warm_query needs a source", users, {"query": "SELECT 1"}),
            ("requests are not counted", users, {"hot": 5}),
            ("resume= and progress= are for", users, {"keys": [1], "resume": 5}),
            ("batch=0", users, {"keys": lambda: [1], "batch": 0}),
            ("must be a strategy of this cache", cache, {"keys": [1]}),
        ):
            with pytest.raises(ConfigurationError, match=message):
                cache.warm_at_start(strategy, **options)  # type: ignore[arg-type]  # that is the point
        assert cache.runtime.services == ()
        cache.warm_at_start(aside, keys=[1], load=_load_user)
        await until(lambda: _state(cache) is ServiceState.DONE)
        assert await aside.get(1, load=load) == User(1, "x")

    async def test_a_fresh_process_begins_with_what_was_hot(self, redis_url: str, namespace: str) -> None:
        source = Users()
        settings = HotKeys(half_life="1h")
        async with Cache(redis_url, namespace=namespace, ttl=60, hot_keys=settings) as old:
            users = ReadThrough(old, "user", source=source)
            for key in range(100):
                for _ in range(key % 10 + 1):
                    await users.get(key)
            await users.invalidate(*range(100))
        source.calls.clear()
        cache = Cache(redis_url, namespace=namespace, ttl=60, hot_keys=settings)
        users = ReadThrough(cache, "user", source=source)
        cache.warm_at_start(users, hot=10, before_ready=True)
        async with cache:
            assert sorted(source.loaded) == list(range(9, 100, 10))


async def _load_user(key: int) -> User:
    return User(key, "x")


def _state(cache: Cache) -> ServiceState:
    return next(one.state for one in cache.health().services if one.name.startswith("warming:"))
