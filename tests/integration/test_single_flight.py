"""One load for all who miss a key, in all processes, whatever becomes of the callers and of the load."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Cache, LoadCancelled, LoadTimeout, Policy
from asynccache.entry import Lease, Value, parse_cell
from asynccache.steps import Acquire, Extend, Fill, Release
from tests.support.caches import MakeCache
from tests.support.gates import Gate, Table, gated, until

CALLERS = 50


@pytest.fixture
def table() -> Table:
    return Table(k="value")


def _cell(cache: Cache) -> str:
    return cache.scope.space.cell("", "k")


async def _kind(redis: Redis, cache: Cache) -> type | None:
    raw = await redis.get(_cell(cache))
    assert raw is None or isinstance(raw, bytes)
    return None if raw is None else type(parse_cell(raw))


async def _is_empty(redis: Redis, cache: Cache) -> bool:
    return await _kind(redis, cache) is None


async def test_callers_of_several_processes_cause_one_load(make_cache: MakeCache, table: Table) -> None:
    caches = [await make_cache() for _ in range(4)]
    gate = table.hold()
    calls = [asyncio.create_task(cache.get_or_load("k", table.load)) for cache in caches for _ in range(CALLERS)]
    await gate.reached()
    await until(lambda: all(cache.stats.misses == CALLERS for cache in caches))
    gate.open()
    assert await asyncio.gather(*calls) == ["value"] * len(calls)
    assert table.loads == 1
    assert sum(cache.stats.fills for cache in caches) == 1


async def test_a_cancelled_caller_leaves_the_others_alone(make_cache: MakeCache, table: Table) -> None:
    one, two = await make_cache(), await make_cache()
    gate = table.hold()
    calls = [asyncio.create_task(one.get_or_load("k", table.load)) for _ in range(5)]
    await gate.reached()
    other = asyncio.create_task(two.get_or_load("k", table.load))
    await until(lambda: two.stats.waits == 1 and one.stats.misses == 5)
    for call in calls[:3]:  # the one who started the load among them
        call.cancel()
    ended = await asyncio.gather(*calls[:3], return_exceptions=True)
    assert [type(error) for error in ended] == [asyncio.CancelledError] * 3
    gate.open()
    assert await asyncio.gather(*calls[3:], other) == ["value"] * 3
    assert table.loads == 1


@pytest.mark.parametrize("at", ["lease", "load", "fill"])
async def test_when_the_last_caller_leaves_the_load_is_cancelled_and_its_lease_given_back(
    make_cache: MakeCache, redis: Redis, table: Table, at: str
) -> None:
    one, two = await make_cache(), await make_cache()
    store = gated(one)
    gate = store.after(Acquire) if at == "lease" else table.hold() if at == "load" else store.before(Fill)
    calls = [asyncio.create_task(one.get_or_load("k", table.load)) for _ in range(3)]
    await gate.reached()
    assert await _kind(redis, one) is Lease
    waiting = asyncio.create_task(two.get_or_load("k", table.load))
    await until(lambda: two.stats.waits == 1)
    table.free()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    # Long before the lease of ten seconds would have ended.
    async with asyncio.timeout(5):
        assert await waiting == "value"
    assert two.stats.fills == 1
    assert len(one.runtime.reader._flights) == 0


async def test_a_load_may_outlive_its_callers(make_cache: MakeCache, redis: Redis, table: Table) -> None:
    cache = await make_cache(keep_loads=True)
    gate = table.hold()
    call = asyncio.create_task(cache.get_or_load("k", table.load))
    await gate.reached()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    late = asyncio.create_task(cache.get_or_load("k", table.load))
    await until(lambda: cache.stats.joins == 1)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    gate.open()
    await until(lambda: cache.stats.fills == 1)
    assert await _kind(redis, cache) is Value
    assert await cache.get("k") == "value"
    assert table.loads == 1


async def test_nobody_joins_a_load_that_is_being_cancelled(make_cache: MakeCache, table: Table) -> None:
    cache = await make_cache()
    stubborn = Gate()

    async def load() -> Any:
        try:
            return await first.stop()
        finally:
            await stubborn.stop()

    first = Gate()
    call = asyncio.create_task(cache.get_or_load("k", load))
    await first.reached()
    call.cancel()
    await stubborn.reached()
    late = asyncio.create_task(cache.get_or_load("k", table.load))
    await until(lambda: cache.stats.waits == 1)
    assert cache.stats.joins == 0
    stubborn.open()
    await asyncio.gather(call, return_exceptions=True)
    assert await late == "value"


async def test_a_failure_reaches_each_caller_as_its_own_and_is_not_stored(make_cache: MakeCache, redis: Redis) -> None:
    cache = await make_cache()
    gate = Gate()
    loads = 0

    async def load() -> Any:
        nonlocal loads
        loads += 1
        await gate.stop()
        raise KeyError("no such table")

    calls = [asyncio.create_task(cache.get_or_load("k", load)) for _ in range(10)]
    await until(lambda: cache.stats.misses == 10)
    gate.open()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [repr(error) for error in errors] == ["KeyError('no such table')"] * 10
    assert len({id(error) for error in errors}) == 10
    assert loads == 1
    await until(lambda: _is_empty(redis, cache))
    with pytest.raises(KeyError):
        await cache.get_or_load("k", load)
    assert loads == 2


async def test_after_a_failure_the_callers_do_not_all_load_at_once(make_cache: MakeCache, table: Table) -> None:
    one, two, three = [await make_cache() for _ in range(3)]
    gate = Gate()
    failures = 0

    async def fail() -> Any:
        nonlocal failures
        failures += 1
        await gate.stop()
        raise KeyError

    failing = [asyncio.create_task(one.get_or_load("k", fail)) for _ in range(CALLERS)]
    await gate.reached()
    waiting = [
        asyncio.create_task(cache.get_or_load("k", table.load)) for cache in (two, three) for _ in range(CALLERS)
    ]
    await until(lambda: two.stats.waits == three.stats.waits == CALLERS and one.stats.misses == CALLERS)
    gate.open()
    assert await asyncio.gather(*waiting) == ["value"] * len(waiting)
    assert {type(error) for error in await asyncio.gather(*failing, return_exceptions=True)} == {KeyError}
    assert (failures, table.loads) == (1, 1)


user: ContextVar[str] = ContextVar("user", default="nobody")


async def test_a_load_runs_in_the_context_of_the_caller_who_started_it(make_cache: MakeCache) -> None:
    cache = await make_cache()
    gate = Gate()

    async def load() -> str:
        await gate.stop()
        seen = user.get()
        user.set("the load")
        return seen

    async def call(name: str) -> str:
        user.set(name)
        answer = await cache.get_or_load("k", load)
        assert user.get() == name
        return answer

    starter = asyncio.create_task(call("starter"))
    await gate.reached()
    joiner = asyncio.create_task(call("joiner"))
    await until(lambda: cache.stats.joins == 1)
    gate.open()
    assert [await starter, await joiner] == ["starter", "starter"]


async def test_a_load_longer_than_its_lease_keeps_it_and_is_stored(make_cache: MakeCache, table: Table) -> None:
    policy = Policy(lease=0.1, load_timeout=30)
    one, two = await make_cache(policy=policy), await make_cache(policy=policy)
    beats, gate = gated(one), table.hold()
    call = asyncio.create_task(one.get_or_load("k", table.load))
    await gate.reached()
    other = asyncio.create_task(two.get_or_load("k", table.load))
    # A beat comes every third of the lease.
    await until(lambda: beats.count(Extend) >= 6)
    gate.open()
    assert [await call, await other] == ["value", "value"]
    assert table.loads == 1
    assert one.stats.fills == 1
    # No beat outlives its load.
    await until(lambda: len(one.runtime.reader._owner) == 0)


async def test_a_load_that_has_lost_its_lease_asks_for_no_more_of_it(make_cache: MakeCache, table: Table) -> None:
    cache = await make_cache(policy=Policy(lease=0.1))
    beats, gate = gated(cache), table.hold()
    call = asyncio.create_task(cache.get_or_load("k", table.load))
    await gate.reached()
    await cache.delete("k")
    await until(lambda: beats.count(Extend) == 1)
    await until(lambda: len(cache.runtime.reader._owner) == 1)  # the load itself
    gate.open()
    assert await call == "value"
    assert cache.stats.fills_refused == 1


@pytest.mark.parametrize(
    "policy", [Policy(lease=0.05), Policy(lease=0.05, load_timeout=0.15)], ids=["leases", "timeout"]
)
async def test_who_has_waited_long_enough_loads_and_stores_nothing(
    make_cache: MakeCache, table: Table, policy: Policy
) -> None:
    one, two = await make_cache(policy=Policy(lease=0.05)), await make_cache(policy=policy)
    gate = table.hold()
    slow = asyncio.create_task(one.get_or_load("k", table.load))
    await gate.reached()
    table.free()
    waiting = [asyncio.create_task(two.get_or_load("k", table.load)) for _ in range(10)]
    assert await asyncio.gather(*waiting) == ["value"] * 10
    assert table.loads == 2
    assert (two.stats.waits, two.stats.bypasses, two.stats.fills) == (10, 1, 0)
    gate.open()
    assert await slow == "value"
    assert one.stats.fills == 1


async def test_a_crashed_holder_blocks_nobody_past_its_lease(make_cache: MakeCache, table: Table) -> None:
    cache = await make_cache(policy=Policy(lease=0.2))
    await cache.runtime.store.apply(_cell(cache), Acquire(b"a killer", 100))
    calls = [asyncio.create_task(cache.get_or_load("k", table.load)) for _ in range(10)]
    assert await asyncio.gather(*calls) == ["value"] * 10
    assert table.loads == 1
    assert cache.stats.bypasses == 0
    assert cache.stats.fills == 1


async def test_a_load_that_takes_too_long_is_a_load_timeout_for_each_caller(
    make_cache: MakeCache, redis: Redis, table: Table
) -> None:
    cache = await make_cache(policy=Policy(load_timeout=0.05))
    table.hold()
    calls = [asyncio.create_task(cache.get_or_load("k", table.load)) for _ in range(3)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [LoadTimeout] * 3
    assert len({id(error) for error in errors}) == 3
    assert "load_timeout=0.05" in str(errors[2])
    await until(lambda: _is_empty(redis, cache))
    table.free()
    assert await cache.get_or_load("k", table.load) == "value"


async def test_a_timeout_of_the_loaders_own_stays_what_it_is(make_cache: MakeCache) -> None:
    cache = await make_cache(policy=Policy(load_timeout=10))

    async def load() -> Any:
        raise TimeoutError("of the database")

    with pytest.raises(TimeoutError, match="of the database") as caught:
        await cache.get_or_load("k", load)
    assert type(caught.value) is TimeoutError


async def test_a_loader_that_cancels_itself_cancels_no_caller(make_cache: MakeCache, redis: Redis) -> None:
    cache = await make_cache()

    async def load() -> Any:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    errors = await asyncio.gather(*(cache.get_or_load("k", load) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [LoadCancelled] * 3
    assert str(errors[0]).endswith(":k' was cancelled")
    await until(lambda: _is_empty(redis, cache))


async def test_closing_ends_loads_answers_their_callers_and_gives_leases_back(
    make_cache: MakeCache, redis_url: str, namespace: str, redis: Redis, table: Table
) -> None:
    other = await make_cache()
    cache = Cache(redis_url, namespace=namespace, ttl=60)
    await cache.startup()
    gate, release = table.hold(), gated(cache).before(Release)
    calls = [asyncio.create_task(cache.get_or_load("k", table.load)) for _ in range(3)]
    await until(lambda: gate.arrived == 1 and cache.stats.misses == 3)
    table.free()
    closing = asyncio.create_task(cache.shutdown())
    await release.reached()
    assert await _kind(redis, other) is Lease
    release.open()
    await closing
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [LoadCancelled] * 3
    assert await _kind(redis, other) is None
    assert await other.get_or_load("k", table.load) == "value"


@pytest.mark.parametrize("at", ["reading", "asking for the lease", "about to fill"])
async def test_a_caller_whose_cache_is_closed_under_it_is_answered_and_opens_no_connection(
    redis_url: str, namespace: str, table: Table, at: str
) -> None:
    cache = Cache(redis_url, namespace=namespace, ttl=60, keep_loads=True)
    tasks = asyncio.all_tasks()
    await cache.startup()
    store = gated(cache)
    client = store.client
    if at == "reading":
        gate = store.reading = Gate()
    else:
        gate = store.before(Acquire if at == "asking for the lease" else Fill)
    calls = [asyncio.create_task(cache.get_or_load(key, table.load)) for key in "kkabcd"]
    await gate.reached()
    await cache.shutdown()
    gate.open()
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert answer in {"value", None} or isinstance(answer, LoadCancelled), answer
    await until(lambda: asyncio.all_tasks() <= tasks, "the tasks to end")
    connections = client.connection_pool
    assert not connections._in_use_connections
    assert not any(connection.is_connected for connection in connections._available_connections)
    async with cache:
        assert await cache.get_or_load("k", table.load) == "value"
