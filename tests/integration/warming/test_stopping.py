"""Warming on real servers: how it stops, where it goes on, and what it does about failures."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import (
    Cache,
    ConfigurationError,
    DatabaseUnavailable,
    MissingExtra,
    ReadThrough,
    WarmProgress,
)
from asynccache.stores.guarded import CircuitState
from asynccache.strategies import warming
from tests.support.awaits import nothing_is_left
from tests.support.caches import MakeCache
from tests.support.gates import Gate, until
from tests.support.proxy import Mode, Proxy
from tests.support.warming import User, Users, counts, stop_at

Pool: TypeAlias = "asyncpg.Pool[Any]"


class TestStoppingAndResuming:
    async def test_stop_and_resume_loads_nothing_twice(self, users: ReadThrough[User], source: Users) -> None:
        source.held = Gate()
        work = users.warm(range(1000), batch=50, concurrency=3)
        running = asyncio.create_task(work.run())
        # All three: one that has not begun to load when it is told to stop does not, be it the first of them.
        await until(lambda: len(source.loaded) == 150)
        work.stop()
        source.held.open()
        report = await running
        assert 0 < report.position < 1000
        assert report.loaded == report.position
        rest = await users.warm(range(1000), batch=50, concurrency=3, resume=report.position)
        assert rest.position == 1000
        assert rest.skipped == 0
        assert sorted(source.loaded) == list(range(1000))

    async def test_a_named_checkpoint_goes_on_in_another_process_and_begins_anew_after_the_end(
        self, make_cache: MakeCache, source: Users, redis: Redis, namespace: str
    ) -> None:
        one = ReadThrough(await make_cache(), "user", source=source)
        two = ReadThrough(await make_cache(), "user", source=source)
        work = one.warm(range(300), batch=10, concurrency=1, resume="nightly", progress=lambda p: stop_at(work, p, 100))
        report = await work
        assert report.position == 100
        taken: list[int] = []
        report = await two.warm(_noting(range(300), taken), batch=10, resume="nightly")
        assert (report.position, report.skipped, report.loaded) == (300, 0, 200)
        assert sorted(source.loaded) == list(range(300))
        again = await one.warm(range(300), resume="nightly")
        assert (again.position, again.skipped) == (300, 300)
        key = f"{namespace}#c:user:nightly"
        assert 0 < await redis.pttl(key) <= 7 * 86_400_000
        assert not any(key.startswith(prefix) for prefix in one._scope.space.tracked_prefixes())

    async def test_a_cancelled_warming_leaves_its_checkpoint_and_no_lease(
        self, cache: Cache, users: ReadThrough[User], source: Users, redis: Redis, namespace: str
    ) -> None:
        source.held = Gate()
        source.held.open()
        work = users.warm(range(100), batch=10, concurrency=1, resume="x", progress=lambda p: _hold_at(source, p, 50))
        running = asyncio.create_task(work.run())
        await until(lambda: source.held is not None and not source.held._opened.is_set() and source.held.arrived == 1)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await nothing_is_left(redis, cache, namespace)
        source.held = None
        rest = await users.warm(range(100), batch=10, resume="x")
        assert (rest.position, rest.loaded, rest.skipped) == (100, 50, 0)

    async def test_a_late_save_of_a_run_that_has_ended_brings_no_position_back(self, cache: Cache) -> None:
        from asynccache.strategies.checkpoints import Checkpoint

        one, two = Checkpoint(cache.scope, "user", "n"), Checkpoint(cache.scope, "user", "n")
        assert await one.begin() == 0
        begun = cache.runtime.store.now_ms()
        await until(lambda: cache.runtime.store.now_ms() > begun)
        await one.save(50)
        await one.save(40)  # of another batch
        assert await two.begin() == 50
        await one.save(100, done=True)
        await one.save(60)  # these were on their way when the run ended
        await one.save(100)
        assert await two.begin() == 0
        await two.save(10)
        await one.save(70)
        assert await one.begin() == 10

    async def test_a_checkpoint_needs_redis_and_a_name(self, source: Users) -> None:
        async with Cache("memory://", namespace="n", ttl=60) as cache:
            users = ReadThrough(cache, "user", source=source)
            assert (await users.warm(range(5))).loaded == 5
            with pytest.raises(ConfigurationError, match="resume='x' needs a cache in Redis"):
                users.warm(range(5), resume="x")

    async def test_progress_is_told_after_every_batch_and_its_error_is_the_callers(
        self, users: ReadThrough[User]
    ) -> None:
        told: list[WarmProgress] = []
        await users.warm(range(100), batch=20, concurrency=1, progress=told.append)
        assert [one.position for one in told] == [20, 40, 60, 80, 100, 100]
        assert {one.total for one in told} == {100}
        with pytest.raises(ZeroDivisionError):
            await users.warm(range(100), progress=lambda _: 1 / 0)

    async def test_a_bar_is_drawn_and_left(self, users: ReadThrough[User], capsys: pytest.CaptureFixture[str]) -> None:
        await users.warm(range(100), progress=True)
        shown = capsys.readouterr().err
        assert "warming user" in shown
        assert "100 loaded" in shown

    async def test_a_bar_without_its_extra_says_what_to_install(
        self, users: ReadThrough[User], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "rich.console", None)
        with pytest.raises(MissingExtra, match=r"pip install 'asynccache\[cli\]'"):
            users.warm([1], progress=True)

    async def test_stop_does_not_wait_for_the_rate(self, users: ReadThrough[User], source: Users) -> None:
        # Of several batches at a time any may be the first to ask for a token.
        work = users.warm(range(10), rate=0.001, concurrency=1)
        running = asyncio.create_task(work.run())
        await until(lambda: work.progress.position == 1)
        work.stop()
        assert (await running).position == 1
        assert source.loaded == [0]


def _hold_at(source: Users, progress: WarmProgress, position: int) -> None:
    if progress.position == position:
        source.held = Gate()


async def _noting(keys: range, taken: list[int]) -> AsyncIterator[int]:
    for key in keys:
        taken.append(key)
        yield key


class TestFailures:
    async def test_a_batch_that_fails_is_tried_again(self, users: ReadThrough[User], source: Users) -> None:
        source.fails = 2
        report = await users.warm(range(10))
        assert counts(report) == (10, 0, 0, 0)
        assert len(source.calls) == 3
        assert report.complete

    async def test_a_refresh_that_fails_is_tried_again_after_its_pause(
        self, users: ReadThrough[User], source: Users, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await users.warm(range(3))
        source.calls.clear()
        source.fails = 1
        monkeypatch.setattr(warming, "_RETRY_BASE", 0.2)  # nobody may try again for a second
        report = await users.warm(range(3), refresh=True)
        assert counts(report) == (3, 0, 0, 0)
        assert source.calls == [[0, 1, 2]] * 2

    async def test_a_refresh_that_goes_on_failing_is_no_success(self, users: ReadThrough[User], source: Users) -> None:
        await users.warm(range(3))
        source.fails = -1
        report = await users.warm(range(3), refresh=True)
        assert counts(report) == (0, 0, 0, 3)

    async def test_a_database_that_stays_away_ends_it_and_the_keys_are_not_passed_over(
        self, users: ReadThrough[User], source: Users, caplog: pytest.LogCaptureFixture
    ) -> None:
        await users.warm(range(20), batch=10)
        source.calls.clear()
        source.fails = -1
        report = await users.warm(range(1000), batch=10, concurrency=1, max_failures=2)
        assert report.stopped == "2 batches in a row could not be loaded; the log says why"
        assert (report.position, report.failed) == (20, 20)
        assert len(source.calls) == 2 * 5
        assert "the database is away" in caplog.text
        source.fails = 0
        rest = await users.warm(range(1000), resume=report.position)
        assert rest.loaded == 980

    async def test_one_bad_batch_is_counted_and_passed_over(self, users: ReadThrough[User], source: Users) -> None:
        load_many = source.load_many

        async def poisoned(keys: Sequence[int]) -> dict[int, User]:
            if 25 in keys:
                raise DatabaseUnavailable("25")
            return await load_many(keys)

        users._loading._many = poisoned
        report = await users.warm(range(100), batch=10, concurrency=1, max_failures=1_000)
        assert counts(report) == (90, 0, 0, 10)
        assert (report.position, report.stopped, report.complete) == (100, None, False)

    async def test_what_will_not_pass_is_raised(self, cache: Cache) -> None:
        async def load_many(keys: list[int]) -> Any:
            return list(keys)

        users = ReadThrough(cache, "user", source=load_many)
        with pytest.raises(ConfigurationError, match="must return a mapping"):
            await users.warm(range(5))

    @pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.BLACKHOLE])
    async def test_a_redis_that_is_lost_midway_ends_it_and_the_database_is_left_alone(
        self, redis_url: str, make_cache: MakeCache, source: Users, mode: Mode
    ) -> None:
        target = urlsplit(redis_url)
        async with Proxy.to(target.hostname or "127.0.0.1", target.port or 6379) as proxy:
            cache = await make_cache(url=proxy.url(redis_url), timeout=0.2)
            users = ReadThrough(cache, "user", source=source)
            source.held = Gate()
            running = asyncio.create_task(users.warm(range(100_000), batch=10, concurrency=2, resume="x").run())
            await source.held.reached(1)
            await proxy.set(mode, cut=mode is Mode.REFUSE)
            source.held.open()
            report = await running
            assert report.stopped is not None
            assert report.stopped.startswith("Redis does not answer, and nothing that is loaded could be stored")
            # What was under way, and what had looked before it was known.
            assert len(source.loaded) <= 10 * 6
            await proxy.set(Mode.PASS, cut=True)
            guard = cache.runtime.guard
            assert guard is not None
            await until(lambda: guard.state is CircuitState.CLOSED)
            assert counts(await users.warm(range(100), batch=10))[0] >= 100 - report.loaded

    async def test_a_checkpoint_that_cannot_be_read_begins_nothing(
        self, redis_url: str, make_cache: MakeCache, source: Users
    ) -> None:
        target = urlsplit(redis_url)
        async with Proxy.to(target.hostname or "127.0.0.1", target.port or 6379) as proxy:
            users = ReadThrough(await make_cache(url=proxy.url(redis_url), timeout=0.2), "user", source=source)
            await proxy.set(Mode.REFUSE, cut=True)
            report = await users.warm(range(100), resume="x")
            assert report.stopped is not None
            assert "the checkpoint could not be read" in report.stopped
            assert source.calls == []

    async def test_a_cache_that_closes_ends_it(self, redis_url: str, namespace: str, source: Users) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        await cache.startup()
        users = ReadThrough(cache, "user", source=source)
        source.held = Gate()
        running = asyncio.create_task(users.warm(range(100), batch=10).run())
        await source.held.reached(1)
        await cache.shutdown()
        report = await running
        assert (report.stopped, report.position) == ("the cache was closed", 0)
