"""Warming on real servers: what it loads and what it leaves alone, how it stops, and where it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import (
    AfterRequests,
    Cache,
    CacheAside,
    CacheNotOpen,
    ConfigurationError,
    DatabaseUnavailable,
    HotKeys,
    Policy,
    Predicate,
    ReadThrough,
    Reason,
    SchemaMismatch,
    VersionCounter,
    WarmProgress,
    WriteBehind,
)
from asynccache.postgres import PostgresTable
from asynccache.stores.guarded import CircuitState
from asynccache.strategies import warming
from asynccache.supervision import ServiceState
from tests.support.awaits import nothing_is_left
from tests.support.caches import MakeCache
from tests.support.gates import Gate, until
from tests.support.proxy import Mode, Proxy

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class User:
    id: int
    name: str


class Users:
    """A source that counts: keys below `end` exist.

    Attributes:
        calls: the keys of each query.
        fails: how many of the next queries fail; -1 for all.
        held: if set, holds queries before they return.
        during: called in each query.
    """

    model = User

    def __init__(self, end: int = 10_000) -> None:
        self.end = end
        self.calls: list[list[int]] = []
        self.fails = 0
        self.held: Gate | None = None

    @property
    def loaded(self) -> list[int]:
        return [key for call in self.calls for key in call]

    async def load_many(self, keys: Sequence[int]) -> dict[int, User]:
        self.calls.append(sorted(keys))
        if self.fails:
            self.fails -= 1
            raise DatabaseUnavailable("the database is away")
        if self.held is not None:
            await self.held.stop()
        return {key: User(key, f"user {key}") for key in keys if key < self.end}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_RETRY_BASE", 0.01)


@pytest.fixture
def source() -> Users:
    return Users()


@pytest.fixture
def users(cache: Cache, source: Users) -> ReadThrough[User]:
    return ReadThrough(cache, "user", source=source)


@pytest.fixture
async def table(pool: Pool) -> PostgresTable[User]:
    await pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL)")
    await pool.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 3000) AS n")
    return PostgresTable(pool, "users", key="id", model=User)


def counts(report: WarmProgress) -> tuple[int, int, int, int]:
    return report.loaded, report.skipped, report.missing, report.failed


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
        await until(lambda: _is_stale(users, 4))
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


class TestStoppingAndResuming:
    async def test_stop_and_resume_loads_nothing_twice(self, users: ReadThrough[User], source: Users) -> None:
        source.held = Gate()
        work = users.warm(range(1000), batch=50, concurrency=3)
        running = asyncio.create_task(work.run())
        await source.held.reached(1)
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
        work = one.warm(
            range(300), batch=10, concurrency=1, resume="nightly", progress=lambda p: _stop_at(work, p, 100)
        )
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
        await one.save(60)  # it was on its way when the run ended
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

    async def test_the_rate_is_kept(self, make_cache: MakeCache, users: ReadThrough[User], source: Users) -> None:
        await users.warm(range(5))
        loop = asyncio.get_running_loop()
        begin = loop.time()
        report = await users.warm(range(45), rate=200, batch=10, concurrency=4)
        assert report.loaded == 40
        assert loop.time() - begin >= 30 / 200  # the last ten of forty may not begin earlier

    async def test_stop_does_not_wait_for_the_rate(self, users: ReadThrough[User], source: Users) -> None:
        work = users.warm(range(10), rate=0.001)
        running = asyncio.create_task(work.run())
        await until(lambda: work.progress.position == 1)
        work.stop()
        assert (await running).position == 1
        assert source.loaded == [0]


def _stop_at(work: Any, progress: WarmProgress, position: int) -> None:
    if progress.position >= position:
        work.stop()


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
        self, cache: Cache, pool: Pool, table: PostgresTable[User]
    ) -> None:
        users = ReadThrough(cache, "user", source=table)
        work = users.warm_query("SELECT id FROM users", batch=10, progress=lambda p: _stop_at(work, p, 100))
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
        self, redis_url: str, namespace: str, source: Users
    ) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        users = ReadThrough(cache, "user", source=source)
        cache.warm_at_start(users, keys=range(200), before_ready=True)
        async with cache.lifespan():
            await users.get_many(range(200))
            assert cache.stats.hits == 200
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
        self, redis_url: str, namespace: str, source: Users, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        users = ReadThrough(cache, "user", source=source)
        source.fails = -1
        cache.warm_at_start(users, keys=range(100), before_ready=True, batch=10, max_failures=1, concurrency=1)
        async with cache:
            assert "warming:user: failed; the cache opens without it" in caplog.text
            source.fails = 0
            await until(lambda: _state(cache) is ServiceState.DONE)
            assert len(await users.get_many(range(100))) == 100
            assert cache.stats.misses == 0

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
