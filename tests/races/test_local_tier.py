"""The local tier: nothing that was changed anywhere is served from this process's memory."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, ConfigurationError, LocalTier, Policy
from asynccache.embedded import Server
from asynccache.stores.local import LocalEntries, is_immutable
from asynccache.supervision import ServiceState
from tests.support.caches import MakeCache
from tests.support.proxy import Mode, Proxy

Read = Callable[[], Awaitable[Any]]


def entries_of(cache: Cache) -> LocalEntries:
    entries = cache.runtime.reader.entries
    assert entries is not None
    return entries


async def until(state: Callable[[], Any], what: str = "a state") -> None:
    try:
        async with asyncio.timeout(20):
            while not state():
                await asyncio.sleep(0.001)
    except TimeoutError:
        pytest.fail(f"never came: {what}")


async def near(cache: Cache, key: str, read: Read) -> Any:
    """Reads until the value is in the local tier."""
    async with asyncio.timeout(20):
        while entries_of(cache).get(key) is None:
            value = await read()
            await asyncio.sleep(0)
    return value


@pytest.fixture
async def tiered(make_cache: MakeCache) -> Cache:
    cache = await make_cache(local=LocalTier(), policy=Policy(early=0))
    await until(lambda: entries_of(cache).on, "tracking")
    return cache


class Row:
    """A row of a database, and how often it was read."""

    def __init__(self, value: Any = 1) -> None:
        self.value = value
        self.loads = 0

    async def load(self, _: Any = None) -> Any:
        self.loads += 1
        return self.value


async def test_a_hit_in_memory_asks_redis_nothing(tiered: Cache, redis: Redis) -> None:
    row = Row()
    users = CacheAside(tiered, "user")
    await near(tiered, users.key(1), lambda: users.get(1, row.load))
    before = (await redis.info("commandstats")).get("cmdstat_mget", {}).get("calls", 0)
    hits = tiered.stats.local_hits
    for _ in range(100):
        assert await users.get(1, row.load) == 1
    assert (await redis.info("commandstats")).get("cmdstat_mget", {}).get("calls", 0) == before
    assert tiered.stats.local_hits == hits + 100
    assert row.loads == 1


async def test_a_hit_in_memory_makes_no_task_and_no_timer(tiered: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row()

    @tiered.cached(key="row:{key}", type=int)
    async def read(key: int) -> int:
        return int(await row.load())

    await near(tiered, read.key(1), lambda: read(1))
    coroutine = read(1)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == 1


async def test_an_own_write_is_read_at_once_ten_thousand_times(tiered: Cache) -> None:
    row = Row(0)
    users = CacheAside(tiered, "user")
    for value in range(1, 3001):
        async with users.updating(1):
            row.value = value
        assert await users.get(1, row.load) == value
        assert await users.get(1, row.load) == value
    for value in range(7000):
        await tiered.set("k", value)
        assert await tiered.get("k") == value


@pytest.mark.parametrize("how", ["updating", "delete", "set", "tags", "foreign client", "expiry"])
async def test_a_change_by_anybody_reaches_this_process(
    tiered: Cache, make_cache: MakeCache, redis: Redis, how: str
) -> None:
    other = await make_cache()
    row = Row("old")

    async def read() -> Any:
        return await tiered.get_or_load("k", row.load, tags=["t"])

    key = tiered.scope.space.cell("", "k")
    assert await near(tiered, key, read) == "old"
    row.value = "new"
    match how:
        case "updating":
            async with other.updating("k"):
                pass
        case "delete":
            await other.delete("k")
        case "set":
            await other.set("k", "new", tags=["t"])
        case "tags":
            await other.invalidate_tags("t")
        case "foreign client":
            await redis.delete(key)
        case "expiry":
            await redis.pexpire(key, 0)  # at once: a key that nobody asks for may be expired long before it is removed
    async with asyncio.timeout(10):
        while await read() != "new":
            await asyncio.sleep(0)
    assert row.loads >= (1 if how == "set" else 2)


async def test_a_change_between_reply_and_keeping_is_not_lost(tiered: Cache, make_cache: MakeCache) -> None:
    other = await make_cache()
    await other.set("k", "old")
    store, entries = tiered.runtime.store, entries_of(tiered)
    replied, go = asyncio.Event(), asyncio.Event()
    read = store.read

    async def held(keys: Any) -> Any:
        found = await read(keys)
        replied.set()
        await go.wait()
        return found

    store.read = held  # type: ignore[method-assign]
    reading = asyncio.create_task(tiered.get("k"))
    await replied.wait()
    store.read = read  # type: ignore[method-assign]
    key = tiered.scope.space.cell("", "k")
    await other.set("k", "new")
    await until(lambda: key not in entries._tickets, "the push")
    go.set()
    assert await reading == "old"  # it began before the write ended
    assert entries.get(key) is None
    assert await tiered.get("k") == "new"


async def test_a_tag_that_changes_during_the_read_is_not_lost(tiered: Cache, make_cache: MakeCache) -> None:
    other = await make_cache()
    await other.set("k", "old", tags=["t"])
    entries = entries_of(tiered)
    space = tiered.scope.space
    ticket = entries.expect(space.cell("", "k"), (*space.own_generations(), space.generation("t")))
    assert ticket is not None
    await other.invalidate_tags("t")
    await until(lambda: ticket.marks[0].dead, "the push")
    entries.keep(ticket, "old", b"", False, b"", 60)
    assert entries.get(space.cell("", "k")) is None


async def test_values_cannot_be_changed_for_other_callers(tiered: Cache) -> None:
    @dataclass
    class User:
        tags: list[str]

    row = Row(User(["a"]))
    users = CacheAside(tiered, "user", type=User)
    await near(tiered, users.key(1), lambda: users.get(1, row.load))
    for _ in range(3):
        user = await users.get(1, row.load)
        assert user == User(["a"])
        assert user is not None
        user.tags.append("b")


async def test_immutable_values_are_handed_out_as_they_are(tiered: Cache) -> None:
    class Point(msgspec.Struct, frozen=True):
        x: int
        tags: tuple[str, ...]

    row = Row(Point(1, ("a",)))
    points = CacheAside(tiered, "point", type=Point)
    await near(tiered, points.key(1), lambda: points.get(1, row.load))
    assert await points.get(1, row.load) is await points.get(1, row.load)
    assert not is_immutable([1])
    assert not is_immutable((1, [2]))
    assert is_immutable((1, "a", frozenset({2})))


async def test_an_entry_lives_no_longer_than_its_ttl_and_the_cap(make_cache: MakeCache) -> None:
    cache = await make_cache(local=LocalTier(ttl_cap=0.05), policy=Policy(early=0, jitter=0))
    await until(lambda: entries_of(cache).on)
    row = Row()

    async def read() -> Any:
        return await cache.get_or_load("k", row.load)

    key = cache.scope.space.cell("", "k")
    await near(cache, key, read)
    await until(lambda: entries_of(cache).get(key) is None, "the cap")
    assert row.loads == 1
    await read()
    assert row.loads == 1  # Redis still has it


async def test_other_types_and_tags_do_not_get_each_others_entries(tiered: Cache) -> None:
    row = Row(1)
    await near(tiered, tiered.scope.space.cell("", "k"), lambda: tiered.get_or_load("k", row.load))
    assert await tiered.get_or_load("k", row.load, tags=["t"]) == 1
    await tiered.invalidate_tags("t")
    row.value = 2
    assert await tiered.get_or_load("k", row.load, tags=["t"]) == 2


async def test_the_tier_is_bounded(make_cache: MakeCache) -> None:
    cache = await make_cache(local=LocalTier(max_entries=50, max_bytes=4000))
    await until(lambda: entries_of(cache).on)
    for at in range(300):
        await cache.set(at, "x" * 200)
        await cache.get(at)
        await cache.get(at)
    assert len(entries_of(cache)) <= 20


@pytest.mark.one_loop
async def test_a_half_open_link_turns_the_tier_off_and_it_comes_back(dedicated_redis: Server, namespace: str) -> None:
    target = urlsplit(dedicated_redis.url)
    assert target.hostname is not None
    assert target.port is not None
    async with Proxy.to(target.hostname, target.port) as proxy:
        url = proxy.url(dedicated_redis.url)
        async with Cache(url, namespace=namespace, ttl=60, local=LocalTier()) as cache:
            entries = entries_of(cache)
            await until(lambda: entries.on, "tracking")
            key = cache.scope.space.cell("", "k")
            await cache.set("k", "old")
            await near(cache, key, lambda: cache.get("k"))
            await proxy.set(Mode.BLACKHOLE)
            await until(lambda: not entries.on, "silence noticed")
            assert entries.get(key) is None
            await proxy.set(Mode.PASS, cut=True)
            await until(lambda: entries.on, "back")
            await until(lambda: cache.health().ok, "healthy")
            await near(cache, key, lambda: cache.get("k"))


async def test_an_event_loop_that_is_held_up_is_no_dead_link(tiered: Cache) -> None:
    """A handler that computes for longer than the link may be silent must not empty the tier."""
    entries = entries_of(tiered)
    await until(lambda: entries.on, "tracking")
    for _ in range(4):
        time.sleep(0.6)  # noqa: ASYNC251 - holds the loop up: once to ask, and once while the answer arrives
        for _ in range(5):
            await asyncio.sleep(0)
        assert entries.on
    (tracking,) = tiered.health().services
    assert tracking.restarts == 0


@pytest.mark.one_loop
async def test_a_redis_that_restarts_turns_the_tier_off_and_it_comes_back(
    dedicated_redis: Server, namespace: str
) -> None:
    async with Cache(dedicated_redis.url, namespace=namespace, ttl=60, local=LocalTier()) as cache:
        entries = entries_of(cache)
        await until(lambda: entries.on, "tracking")
        await cache.set("k", "old")
        await near(cache, cache.scope.space.cell("", "k"), lambda: cache.get("k"))
        await dedicated_redis.kill()
        await until(lambda: not entries.on, "the end of the link")
        assert len(entries) == 0
        await dedicated_redis.start()
        await until(lambda: entries.on and cache.health().ok, "back")
        (tracking,) = cache.health().services
        assert tracking.state is ServiceState.RUNNING
        assert tracking.restarts >= 1


@pytest.mark.one_loop
async def test_flushall_empties_the_tier(dedicated_redis: Server, namespace: str) -> None:
    async with Cache(dedicated_redis.url, namespace=namespace, ttl=60, local=LocalTier()) as cache:
        entries = entries_of(cache)
        await until(lambda: entries.on, "tracking")
        await cache.set("k", "old")
        key = cache.scope.space.cell("", "k")
        await near(cache, key, lambda: cache.get("k"))
        async with Redis.from_url(dedicated_redis.url) as client:
            await client.flushall()
        await until(lambda: entries.get(key) is None, "the push")
        assert await cache.get("k") is None


async def test_waiters_are_woken_by_the_push(tiered: Cache, make_cache: MakeCache) -> None:
    other = await make_cache()
    loading, go = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        loading.set()
        await go.wait()
        return "loaded elsewhere"

    async def never() -> str:
        raise AssertionError("loaded twice")

    holder = asyncio.create_task(other.get_or_load("k", slow))
    await loading.wait()
    waiter = asyncio.create_task(tiered.get_or_load("k", never))
    await until(lambda: tiered.stats.waits == 1, "waiting")
    go.set()
    assert await waiter == await holder == "loaded elsewhere"


def test_bad_options_are_refused(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="max_entries=0"):
        LocalTier(max_entries=0)
    with pytest.raises(ConfigurationError, match="ttl_cap"):
        LocalTier(ttl_cap="soon")
    with pytest.raises(ConfigurationError, match="local must be a LocalTier"):
        Cache(redis_url, namespace="n", local=1000)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="in this process already"):
        Cache("memory://", namespace="n", local=LocalTier())
