"""Warming on real servers: what it loads, what it leaves alone, and from what streams of keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, TypeAlias

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import (
    AfterRequests,
    Cache,
    CacheAside,
    CacheNotOpen,
    ConfigurationError,
    Policy,
    Predicate,
    ReadThrough,
    Reason,
    VersionCounter,
    WriteBehind,
)
from asynccache.postgres import PostgresTable
from tests.support.caches import MakeCache
from tests.support.gates import Gate, until
from tests.support.warming import User, Users, counts

Pool: TypeAlias = "asyncpg.Pool[Any]"


class TestLoading:
    async def test_one_query_a_batch_and_then_reads_find_all(self, users: ReadThrough[User], source: Users) -> None:
        report = await users.warm(range(1000), batch=250, concurrency=1)
        assert [len(call) for call in source.calls] == [250] * 4
        assert counts(report) == (1000, 0, 0, 0)
        assert (report.position, report.total, report.stopped, report.complete) == (1000, 1000, None, True)
        assert len(await users.get_many(range(1000))) == 1000
        assert len(source.calls) == 4

    async def test_what_is_fresh_is_not_loaded_again(self, users: ReadThrough[User], source: Users) -> None:
        await users.get_many(range(0, 100, 2))
        source.calls.clear()
        report = await users.warm(range(100))
        assert sorted(source.loaded) == list(range(1, 100, 2))
        assert counts(report) == (50, 50, 0, 0)
        report = await users.warm(range(100))
        assert counts(report) == (0, 100, 0, 0)
        assert len(source.loaded) == 50

    async def test_looking_at_a_batch_is_one_call_to_redis(self, users: ReadThrough[User], redis: Redis) -> None:
        await users.warm(range(400))
        before = (await redis.info("commandstats"))["cmdstat_mget"]["calls"]
        await users.warm(range(400), batch=100, concurrency=2)
        assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] <= before + 4

    async def test_warming_is_no_read_and_does_not_change_the_hit_ratio(
        self, cache: Cache, users: ReadThrough[User]
    ) -> None:
        await users.warm(range(100))
        await users.warm(range(100))
        assert (cache.stats.reads, cache.stats.loads, cache.stats.fills) == (0, 100, 100)

    async def test_refresh_loads_what_is_fresh_too(self, users: ReadThrough[User], source: Users) -> None:
        await users.warm(range(20))
        report = await users.warm(range(20), refresh=True)
        assert counts(report) == (20, 0, 0, 0)
        assert sorted(source.loaded) == sorted([*range(20)] * 2)

    async def test_what_is_stale_is_loaded(self, make_cache: MakeCache, source: Users) -> None:
        cache = await make_cache(ttl=0.001, policy=Policy(stale=60, jitter=0, early=0))
        users = ReadThrough(cache, "user", source=source)
        await users.get_many(range(5))
        for key in range(5):  # they were not all stored at the same moment
            await until(partial(_is_stale, users, key))
        report = await users.warm(range(5))
        assert counts(report) == (5, 0, 0, 0)

    async def test_what_does_not_exist_is_counted_and_remembered_if_the_policy_says_so(
        self, make_cache: MakeCache
    ) -> None:
        cache, source = await make_cache(policy=Policy(negative_ttl=60)), Users(end=5)
        users = ReadThrough(cache, "user", source=source)
        assert counts(await users.warm(range(8))) == (5, 0, 3, 0)
        assert counts(await users.warm(range(8))) == (0, 8, 0, 0)

    async def test_how_often_a_key_was_requested_does_not_matter_what_its_value_is_does(
        self, make_cache: MakeCache, source: Users
    ) -> None:
        cache = await make_cache(admit=AfterRequests(2) & Predicate(lambda user: user.id != 3))
        users = ReadThrough(cache, "user", source=source)
        assert counts(await users.warm(range(5))) == (5, 0, 0, 0)
        assert counts(await users.warm(range(5))) == (1, 4, 0, 0)
        assert counts(await users.warm(range(5), refresh=True)) == (5, 0, 0, 0)

    async def test_keys_that_come_twice_are_loaded_once(self, users: ReadThrough[User], source: Users) -> None:
        report = await users.warm([1, 2, 1, 1], concurrency=1)
        assert source.loaded == [1, 2]
        assert (counts(report), report.position) == ((2, 2, 0, 0), 4)

    async def test_what_is_no_key_fails_alone(self, users: ReadThrough[User], caplog: pytest.LogCaptureFixture) -> None:
        report = await users.warm([1, 1.5, [2], 3])
        assert counts(report) == (2, 0, 0, 2)
        assert report.position == 4
        assert not report.complete
        assert "1.5" in caplog.text

    async def test_loads_of_a_plain_function_are_bounded_by_concurrency(self, cache: Cache) -> None:
        now = most = 0

        async def fetch(key: int) -> User:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return User(key, "x")

        aside = CacheAside(cache, "user", type=User)
        report = await aside.warm(range(200), load=fetch, concurrency=3)
        assert counts(report) == (200, 0, 0, 0)
        assert most == 3
        assert counts(await ReadThrough(cache, "other", source=fetch).warm(range(50), concurrency=2)) == (50, 0, 0, 0)
        assert most == 3

    async def test_a_version_that_is_awaited_and_one_that_is_counted(self, cache: Cache, source: Users) -> None:
        async def version(key: int) -> int:
            return key % 2

        for users in (
            ReadThrough(cache, "awaited", source=source, version=version),
            ReadThrough(cache, "counted", source=source, version=VersionCounter(), tags=["users"]),
            ReadThrough(cache, "late", source=source, tags=lambda key, user: [f"name:{user.name}"]),
        ):
            await users.warm(range(10))  # a late tag's first entry is not stored, nor a load of the same millisecond
            begun = cache.runtime.store.now_ms()
            await until(lambda: cache.runtime.store.now_ms() > begun)  # noqa: B023 - awaited here
            await users.warm(range(10))
            source.calls.clear()
            assert counts(await users.warm(range(10))) == (0, 10, 0, 0)
            assert source.calls == []

    async def test_write_behind_is_warmed_with_what_pends(self, cache: Cache, table: PostgresTable[User]) -> None:
        behind = WriteBehind(cache, "user", sink=table, ttl=60, flush_every=600, partitions=2)
        behind.pause()
        await behind.put(7, User(7, "pending"))
        report = await behind.warm(range(1, 11))
        assert counts(report) == (9, 1, 0, 0)
        assert await behind.get(7) == User(7, "pending")
        behind.resume()

    async def test_a_warming_awaited_twice_says_so(self, users: ReadThrough[User]) -> None:
        once = users.warm([1])
        await once
        with pytest.raises(ConfigurationError, match="has been run"):
            await once

    @pytest.mark.parametrize("keys", ["abc", b"abc", 5, None])
    async def test_what_is_no_stream_of_keys_is_refused_at_once(self, users: ReadThrough[User], keys: Any) -> None:
        with pytest.raises(ConfigurationError, match="keys must be an iterable"):
            users.warm(keys)

    async def test_a_closed_cache_says_so(self, redis_url: str, namespace: str, source: Users) -> None:
        users = ReadThrough(Cache(redis_url, namespace=namespace, ttl=60), "user", source=source)
        with pytest.raises(CacheNotOpen):
            await users.warm([1])


async def _is_stale(users: ReadThrough[User], key: int) -> bool:
    return (await users.explain(key)).reason is Reason.STALE


class TestStreams:
    async def test_an_endless_iterator_is_never_read_far_ahead(self, users: ReadThrough[User], source: Users) -> None:
        taken = 0

        async def endless() -> AsyncIterator[int]:
            nonlocal taken
            while True:
                yield taken
                taken += 1

        source.held = Gate()
        work = users.warm(endless(), batch=10, concurrency=2)
        running = asyncio.create_task(work.run())
        await source.held.reached(1)
        await until(lambda: taken >= 19)
        for _ in range(100):
            await asyncio.sleep(0)
        assert taken <= 20
        source.held.open()
        await until(lambda: work.progress.position >= 500)
        work.stop()
        report = await running
        assert report.position >= 500
        assert taken <= report.position + 10 * 5
        assert report.stopped == "it was told to stop"

    async def test_a_stream_that_fails_is_the_callers_error_and_what_came_before_is_warm(
        self, users: ReadThrough[User], source: Users
    ) -> None:
        async def failing() -> AsyncIterator[int]:
            for key in range(20):
                yield key
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await users.warm(failing(), batch=5)
        assert sorted(source.loaded) == list(range(20))

        def broken() -> Iterator[int]:
            yield 1
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await users.warm(broken())

    async def test_stop_ends_a_wait_for_a_key_that_never_comes(self, users: ReadThrough[User]) -> None:
        waiting = asyncio.Event()

        async def silent() -> AsyncIterator[int]:
            yield 1
            waiting.set()
            await asyncio.get_running_loop().create_future()

        work = users.warm(silent(), batch=1)
        running = asyncio.create_task(work.run())
        await waiting.wait()
        await until(lambda: work.progress.position == 1)
        work.stop("enough")
        report = await running
        assert (report.stopped, report.position, report.loaded) == ("enough", 1, 1)

    async def test_stop_before_the_begin_warms_nothing(self, users: ReadThrough[User], source: Users) -> None:
        work = users.warm(range(10))
        work.stop()
        assert (await work).position == 0
        assert source.calls == []
