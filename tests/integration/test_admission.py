"""Selective caching: what `admit` and `max_value_bytes` refuse is served or written, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import (
    Admission,
    AfterRequests,
    Always,
    Cache,
    CacheAside,
    LoadContext,
    NextRead,
    Occasion,
    Policy,
    Predicate,
    ReadThrough,
    Reason,
    ValueTooLarge,
    VersionCounter,
    WriteBehind,
    WriteThrough,
)
from asynccache.clock import ManualClock
from asynccache.entry import Lease, Value
from asynccache.postgres import PostgresTable
from asynccache.steps import Acquire, Fill, Invalidate
from tests.races.worlds import Rows, cell_at, is_gone
from tests.support.caches import MakeCache
from tests.support.gates import Table, gated, until

Read = Callable[[], Coroutine[Any, Any, Any]]
POLICY = Policy(ttl=60, negative_ttl=60)


class Even:
    """A user's own policy, which happens to be false in a boolean context."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, Occasion]] = []

    def __len__(self) -> int:
        return 0

    def admits(self, cell: str, value: Any, occasion: Occasion, /) -> bool:
        self.asked.append((cell, value, occasion))
        return int(value) % 2 == 0


def _plain(cache: Cache, table: Table, admit: Admission) -> Read:
    part = cache.namespace("part", admit=admit, policy=POLICY)
    return lambda: part.get_or_load("k", table.load, tags=["user:k"])


def _function(cache: Cache, table: Table, admit: Admission) -> Read:
    @cache.cached(admit=admit, tags=["user:{key}"], version=VersionCounter(), policy=POLICY)
    async def read(key: str) -> Any:
        return await table.load(key)

    return lambda: read("k")


def _aside(cache: Cache, table: Table, admit: Admission) -> Read:
    rows: CacheAside[Any] = CacheAside(
        cache, "row", admit=admit, tags=["user:{key}"], version=VersionCounter(), policy=POLICY
    )
    return lambda: rows.get("k", table.load)


def _through(cache: Cache, table: Table, admit: Admission) -> Read:
    rows = ReadThrough[Any](cache, "row", source=table.load, admit=admit, tags=["user:{key}"], policy=POLICY)
    return lambda: rows.get("k")


def _many(cache: Cache, table: Table, admit: Admission) -> Read:
    rows = ReadThrough[Any](cache, "row", source=table.load, admit=admit, version=VersionCounter(), policy=POLICY)

    async def read() -> Any:
        return (await rows.get_many(["k"])).get("k")

    return read


READS = {"get_or_load": _plain, "function": _function, "aside": _aside, "through": _through, "many": _many}


async def _keys(redis: Redis, namespace: str) -> list[str]:
    return sorted([key.decode() async for key in redis.scan_iter(match=f"{namespace}*", count=1000)])


@pytest.mark.parametrize("row", ["value", None], ids=["found", "not found"])
@pytest.mark.parametrize("read", READS)
async def test_what_is_read_once_leaves_nothing_in_redis(
    cache: Cache, redis: Redis, namespace: str, read: str, row: Any
) -> None:
    table = Table(k=row)
    get = READS[read](cache, table, AfterRequests(2))
    store = gated(cache)
    assert await get() == row
    assert store.steps == []  # not even a lease, or a generation for a tag of its own
    assert await _keys(redis, namespace) == []
    assert (cache.stats.misses, cache.stats.loads, cache.stats.refused, cache.stats.fills) == (1, 1, 1, 0)
    assert await get() == row
    assert (table.loads, cache.stats.fills, cache.stats.refused) == (2, 1, 1)
    assert await get() == row
    assert (table.loads, cache.stats.hits) == (2, 1)


@pytest.mark.parametrize("read", READS)
async def test_what_a_predicate_refuses_is_served_and_its_lease_given_back(
    cache: Cache, redis: Redis, read: str
) -> None:
    table = Table(k=3)
    get = READS[read](cache, table, Predicate(lambda value: value % 2 == 0))
    store = gated(cache)
    assert [await get(), await get()] == [3, 3]
    cell = next(key for key, step in store.steps if isinstance(step, Acquire))
    assert await redis.get(cell) is None
    assert (table.loads, cache.stats.refused, cache.stats.fills, cache.stats.bypasses) == (2, 2, 0, 0)
    table.rows["k"] = 4
    assert [await get(), await get()] == [4, 4]
    assert (table.loads, cache.stats.fills) == (3, 1)


async def test_not_found_is_remembered_although_a_predicate_would_refuse_it(cache: Cache) -> None:
    table = Table()
    get = _aside(cache, table, Predicate(lambda value: False))
    assert [await get(), await get()] == [None, None]
    assert table.loads == 1


async def test_callers_that_come_together_are_one_request_and_get_copies_of_their_own(cache: Cache) -> None:
    table = Table(k=["row"])
    get = _aside(cache, table, AfterRequests(2))
    gate = table.hold()
    reading = [asyncio.create_task(get()) for _ in range(2)]
    await until(lambda: cache.stats.joins == 1)
    gate.open()
    first, second = await asyncio.gather(*reading)
    first.append("changed")
    assert second == ["row"]
    assert (table.loads, cache.stats.refused, cache.stats.fills) == (1, 1, 0)


async def test_a_caller_that_comes_during_a_refused_load_is_the_second_request(cache: Cache) -> None:
    table = Table(k="row")
    get = _aside(cache, table, AfterRequests(2))
    gate = table.hold()
    first = asyncio.create_task(get())
    await gate.reached()
    table.free()
    assert await get() == "row"
    assert cache.stats.fills == 1
    gate.open()
    assert await first == "row"
    assert (table.loads, cache.stats.fills) == (2, 1)


async def test_a_refused_load_is_not_shared_with_who_knows_of_a_newer_write(cache: Cache) -> None:
    table = Table(k="old")
    rows: CacheAside[str] = CacheAside(cache, "row", admit=AfterRequests(9))
    gate = table.hold()
    early = asyncio.create_task(rows.get("k", table.load))
    await gate.reached()
    table.free()
    async with rows.updating("k"):
        table.rows["k"] = "new"
    assert await rows.get("k", table.load) == "new"
    gate.open()
    assert await early == "old"
    assert await rows.get("k", table.load) == "new"


async def test_refused_loads_wait_neither_for_each_other_nor_for_another_process(make_cache: MakeCache) -> None:
    one, two = await make_cache(max_concurrent_loads=1), await make_cache()
    table = Table(a=1, b=2)
    rows: list[CacheAside[int]] = [CacheAside(cache, "row", admit=AfterRequests(2)) for cache in (one, two)]
    gate = table.hold()
    reading = [
        asyncio.create_task(rows[0].get("a", table.load)),
        asyncio.create_task(rows[0].get("b", table.load)),
        asyncio.create_task(rows[1].get("a", table.load)),
    ]
    await gate.reached(3)
    gate.open()
    assert await asyncio.gather(*reading) == [1, 2, 1]
    assert (one.stats.bypasses, two.stats.waits) == (0, 0)


async def test_every_process_counts_for_itself(make_cache: MakeCache) -> None:
    table = Table(k="row")
    caches = [await make_cache(), await make_cache()]
    gets = [_aside(cache, table, AfterRequests(2)) for cache in caches]
    for get in gets:
        await get()
    assert [cache.stats.fills for cache in caches] == [0, 0]
    await gets[0]()
    await gets[1]()
    assert [cache.stats.fills for cache in caches] == [1, 0]
    assert table.loads == 3


async def test_a_stored_value_is_refreshed_although_its_requests_are_forgotten(
    make_cache: MakeCache, redis: Redis
) -> None:
    cache, table, clock = await make_cache(), Table(k="old"), ManualClock()
    admit = AfterRequests(2, within="1m", clock=clock)
    policy = Policy(stale=600, jitter=0, early=0)
    rows: CacheAside[str] = CacheAside(cache, "row", type=str, admit=admit, policy=policy)
    brief: CacheAside[str] = CacheAside(cache, "row", type=str, admit=admit, policy=policy, ttl=0.001)
    await brief.get("k", table.load)
    await brief.get("k", table.load)
    await until(lambda: _is(rows, Reason.STALE))
    clock.advance(3600)
    table.rows["k"] = "new"
    store = gated(cache)
    assert await rows.get("k", table.load) == "old"
    await until(lambda: _is(rows, Reason.FRESH))
    assert await rows.get("k", table.load) == "new"
    assert store.count(Invalidate) == 0
    assert (cache.stats.refreshes, cache.stats.refused) == (1, 1)


async def test_a_refresh_that_a_predicate_refuses_takes_the_old_value_away(make_cache: MakeCache, redis: Redis) -> None:
    cache, table = await make_cache(), Table(k=2)
    even, policy = Predicate(lambda value: value % 2 == 0), Policy(stale=600, jitter=0, early=0)
    rows: CacheAside[int] = CacheAside(cache, "row", ttl=0.001, policy=policy, admit=even)
    await rows.get("k", table.load)
    await until(lambda: _is(rows, Reason.STALE))
    table.rows["k"] = 3
    assert await rows.get("k", table.load) == 2
    await until(lambda: is_gone(redis, rows.key("k")))
    assert await rows.get("k", table.load) == 3


async def test_a_refresh_that_is_asked_for_is_stored(cache: Cache) -> None:
    table = Table(k="row")
    rows: CacheAside[str] = CacheAside(cache, "row", admit=AfterRequests(2))
    await rows.refresh("k", table.load)
    assert await _is(rows, Reason.FRESH)


async def test_a_put_of_what_nobody_asks_for_is_written_and_not_stored(
    cache: Cache, redis: Redis, pool: asyncpg.Pool[Any]
) -> None:
    await pool.execute("CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)")
    table: PostgresTable[dict[str, Any]] = PostgresTable(pool, "users", key="id", model=dict)
    through = WriteThrough(cache, "through", source=table, admit=AfterRequests(2))
    behind = WriteBehind(cache, "behind", sink=table, admit=AfterRequests(2))
    for users in (through, behind):
        for _ in range(3):
            await users.put(1, {"id": 1, "name": "Ada"})
        assert await redis.get(users.key(1)) is None, users
        assert [await users.get(1) for _ in range(2)] == [{"id": 1, "name": "Ada"}] * 2
        await users.put(1, {"id": 1, "name": "Ada L."})
        assert isinstance(await cell_at(redis, users.key(1)), Value), users
        assert await users.get(1) == {"id": 1, "name": "Ada L."}
    assert cache.stats.refused == 3 + 1 + 3 + 1


async def test_what_is_set_is_stored_whatever_the_cache_admits(make_cache: MakeCache) -> None:
    cache = await make_cache(admit=Predicate(lambda value: False))
    await cache.set("k", 1)
    assert await cache.get("k") == 1


async def test_the_nearest_policy_decides_even_one_that_is_false(make_cache: MakeCache) -> None:
    table, even = Table(k=1), Even()
    cache = await make_cache(admit=AfterRequests(2))
    inner = cache.namespace("inner", admit=even)
    rows: list[CacheAside[int]] = [
        CacheAside(cache, "row"),
        CacheAside(cache, "always", admit=Always()),
        CacheAside(inner, "row"),
        CacheAside(inner.namespace("inmost"), "row"),
        CacheAside(inner, "always", admit=Always()),
        CacheAside(cache, "even", admit=even),
    ]
    for one in rows:
        await one.get("k", table.load)
    assert [(await one.explain("k")).reason is Reason.FRESH for one in rows] == [False, True, False, False, True, False]
    assert even.asked == [(rows[at].key("k"), 1, Occasion.LOAD) for at in (2, 3, 5)]


async def test_a_policy_that_fails_refuses_and_is_told_of_once(
    cache: Cache, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    table, users = Table(k=1), Rows(Table())

    class Broken(Even):
        def requested(self, cell: str, /, *, peek: bool = False) -> bool:
            raise ZeroDivisionError

    unable = Predicate(lambda value: value.no_such_attribute)
    rows: CacheAside[int] = CacheAside(cache, "row", admit=unable)
    through = WriteThrough[Any](cache, "user", source=users, admit=unable)
    broken: CacheAside[int] = CacheAside(cache, "broken", admit=Broken())
    with caplog.at_level(logging.WARNING, "asynccache"):
        for _ in range(2):
            assert await rows.get("k", table.load) == 1
            assert await through.put("k", 2) == 2
            assert await broken.get("k", table.load) == 1
    assert users.table.rows == {"k": 2}
    for one in (rows, through, broken):
        assert await redis.get(one.key("k")) is None
    assert cache.stats.refused == 6
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        "CacheAside 'row'",
        "WriteThrough 'user'",
        "CacheAside 'broken'",
    ]


async def test_nothing_is_asked_of_a_policy_when_nothing_could_be_stored(cache: Cache) -> None:
    table, even = Table(k=1), Even()
    rows: CacheAside[int] = CacheAside(cache, "row", admit=even)
    async with rows.updating("k"):
        assert await rows.get("k", table.load) == 1

    async def skip(key: str, ctx: LoadContext) -> int:
        ctx.skip()
        return 1

    assert await rows.get("k", skip) == 1
    assert await rows.get("nobody", table.load) is None  # nor is it remembered that it does not exist
    assert (even.asked, cache.stats.refused, cache.stats.bypasses) == ([], 0, 1)


async def test_a_load_that_was_wanted_may_still_lose_its_lease(cache: Cache, redis: Redis) -> None:
    table = Table(k="old")
    rows: CacheAside[str] = CacheAside(cache, "row", admit=AfterRequests(2))
    await rows.get("k", table.load)
    filling = gated(cache).before(Fill)
    reader = asyncio.create_task(rows.get("k", table.load))
    await filling.reached()
    assert isinstance(await cell_at(redis, rows.key("k")), Lease)
    table.rows["k"] = "new"
    await rows.invalidate("k")
    filling.open()
    assert await reader == "old"
    assert await rows.get("k", table.load) == "new"


async def test_explain_foretells_a_refusal_and_counts_nothing(cache: Cache) -> None:
    table = Table(k="row")
    rows: CacheAside[str] = CacheAside(cache, "row", admit=AfterRequests(3))
    said = []
    for _ in range(3):
        for _ in range(3):
            explained = await rows.explain("k")
        said.append((explained.next, explained.reason))
        await rows.get("k", table.load)
    assert said == [(NextRead.BYPASS, Reason.REFUSED)] * 2 + [(NextRead.LOAD, Reason.EMPTY)]
    assert cache.stats.refused == 2
    part = cache.namespace("part", admit=AfterRequests(2))
    always: CacheAside[str] = CacheAside(part, "row", admit=Always())
    # Of a strategy's key the namespace does not know the policy.
    assert [(await part.explain(key)).reason for key in ("k", always.key("k"))] == [Reason.REFUSED, Reason.EMPTY]


async def test_giants_are_served_and_not_stored(cache: Cache, redis: Redis) -> None:
    table = Table(k="x" * 2000)
    rows: CacheAside[str] = CacheAside(cache, "row", type=str, max_value_bytes=1000)
    through = WriteThrough[str](cache, "user", source=Rows(table), type=str, max_value_bytes=1000)

    @cache.cached(max_value_bytes=1000)
    async def read(key: str) -> str:
        return str(await table.load(key))

    assert [await rows.get("k", table.load), await read("k"), await through.get("k")] == ["x" * 2000] * 3
    assert cache.stats.too_large == 3
    for cell in (rows.key("k"), read.key("k"), through.key("k")):
        assert await redis.get(cell) is None
    with pytest.raises(ValueTooLarge):
        await through.put("k", "y" * 2000)
    assert table.rows["k"] == "x" * 2000
    await through.put("k", "y" * 900)
    assert [await rows.get("k", table.load), await read("k")] == ["y" * 900] * 2
    assert cache.stats.fills == 2


async def test_a_larger_limit_may_be_given_to_one_strategy(make_cache: MakeCache) -> None:
    cache, table = await make_cache(max_value_bytes=1000), Table(k="x" * 2000)
    small: CacheAside[str] = CacheAside(cache, "small", type=str)
    large: CacheAside[str] = CacheAside(cache, "large", type=str, max_value_bytes=4000)
    await small.get("k", table.load)
    await large.get("k", table.load)
    assert (cache.stats.too_large, cache.stats.fills) == (1, 1)


async def _is(rows: CacheAside[Any], reason: Reason) -> bool:
    return (await rows.explain("k")).reason is reason
