"""What an outage leaves in Redis: nobody waits for readers and writers long gone."""

import asyncio
import time
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, DatabaseUnavailable, Policy, Reason, StoreUnavailable
from asynccache.entry import Lease, NewValue, Writing, parse_cell
from asynccache.steps import Acquire, Outcome, Put, Refresh, Step
from asynccache.stores.guarded import CircuitState
from asynccache.stores.redis import RedisStore
from asynccache.stores.step_calls import call_of
from tests.support.caches import MakeCache
from tests.support.gates import Gate, Table, gated, until
from tests.support.proxy import Mode, Proxy

TIMEOUT = 0.3
LEASE = 10.0
PUT = Put(NewValue(b"given up", 60_000, 60_000, b"12345678"))
SOON = LEASE / 4
"""Seconds: far below the lease that a test would otherwise wait for, and enough for a busy machine."""


@pytest.fixture
async def near(make_cache: MakeCache) -> Cache:
    """Another process, whose way to Redis is as good as ever."""
    return await make_cache()


@pytest.fixture
async def far(make_cache: MakeCache, redis_url: str, proxy: Proxy) -> Cache:
    """A process whose way to Redis leads through the proxy."""
    return await make_cache(url=proxy.url(redis_url), timeout=TIMEOUT, policy=Policy(lease=LEASE, early=0))


async def recovered(cache: Cache) -> None:
    await until(lambda: cache.health().ok, "the circuit to close")


async def prompt(answer: Any) -> Any:
    """An answer that must not take as long as a lease."""
    began = time.monotonic()
    found = await answer
    assert time.monotonic() - began < SOON
    return found


async def arrives_late(sender: Cache, cache: Cache, kind: type[Step]) -> None:
    """What the sender has given up as unanswered is carried out after all."""
    (call,) = [(key, step) for key, step in gated(sender).steps if isinstance(step, kind)]
    assert (await cache.runtime.store.apply(*call)).outcome is Outcome.LEASED


async def interrupt(proxy: Proxy) -> None:
    await proxy.set(Mode.REFUSE, cut=True)


async def gives_its_lease_up(reader: Cache, proxy: Proxy, cell: str, table: Table) -> None:
    """A reader asks for the lease, and the way to Redis breaks."""
    gate = gated(reader).before(Acquire, cell)
    first = asyncio.create_task(reader.get_or_load("k", table.load))
    await gate.reached()
    await interrupt(proxy)
    gate.open()
    assert await first == "value"


# -- leases


async def test_nobody_waits_for_a_lease_that_arrived_after_its_reader_had_given_up(
    near: Cache, far: Cache, proxy: Proxy, redis: Redis
) -> None:
    table = Table(k="value")
    cell = near.scope.space.cell("", "k")
    await gives_its_lease_up(far, proxy, cell, table)
    await arrives_late(far, near, Acquire)
    await proxy.set(Mode.PASS)
    assert await prompt(near.get_or_load("k", table.load)) == "value"
    assert table.loads == 2
    await until(lambda: near.get("k"), "the value is cached")


@pytest.mark.parametrize("circuit", [CircuitState.CLOSED, CircuitState.OPEN], ids=["unanswered", "not sent"])
async def test_nobody_waits_for_a_reader_that_could_not_store_what_it_loaded(
    near: Cache, far: Cache, proxy: Proxy, circuit: CircuitState
) -> None:
    table = Table(k="value")
    loaded = table.hold()
    first = asyncio.create_task(far.get_or_load("k", table.load))
    await loaded.reached()
    await interrupt(proxy)
    if circuit is CircuitState.OPEN:
        with pytest.raises(StoreUnavailable):
            await far.delete("something else")
        assert far.health().circuit is not CircuitState.CLOSED
    loaded.open()
    assert await first == "value"
    await proxy.set(Mode.PASS)
    assert await prompt(near.get_or_load("k", table.load)) == "value"


async def test_a_lost_right_to_refresh_does_not_keep_others_from_refreshing(
    make_cache: MakeCache, redis_url: str, far: Cache, proxy: Proxy
) -> None:
    policy = Policy(ttl=0.01, stale=600, jitter=0, early=0, lease=LEASE)
    near = await make_cache(policy=policy)
    slow = CacheAside(far, "row", policy=policy)
    rows = CacheAside(near, "row", policy=policy)
    table = Table(k="old")
    await rows.get("k", table.load)
    for one in (rows, slow):  # each by its own notion of the server's clock
        await until(lambda one=one: _is(one, Reason.STALE), "the value to be stale")  # type: ignore[misc]
    gate = gated(far).before(Refresh)
    assert await slow.get("k", table.load) == "old"
    await gate.reached()
    await interrupt(proxy)
    gate.open()
    await until(lambda: far.stats.store_failures, "the call for the right to refresh is given up")
    await arrives_late(far, near, Refresh)
    await proxy.set(Mode.PASS)
    table.rows["k"] = "new"
    began = time.monotonic()
    await until(lambda: _gets(rows, table, "new"), "a refresh")
    assert time.monotonic() - began < SOON


async def test_a_late_lease_is_not_taken_from_a_reader_who_has_it_by_then(
    near: Cache, far: Cache, proxy: Proxy, redis: Redis
) -> None:
    table = Table(k="value")
    cell = near.scope.space.cell("", "k")
    await gives_its_lease_up(far, proxy, cell, table)
    loaded = table.hold()
    second = asyncio.create_task(near.get_or_load("k", table.load))
    await loaded.reached()
    lease = await raw(redis, cell)
    assert isinstance(parse_cell(lease), Lease)
    await proxy.set(Mode.PASS)
    guard = far.runtime.guard
    assert guard is not None
    await until(lambda: not guard._giving_back, "the lease to be given back")
    assert await redis.get(cell) == lease
    loaded.open()
    assert await second == "value"
    assert await near.get("k") == "value"


# -- marks of writers


async def test_two_writers_of_one_key_both_take_their_marks_away_after_an_outage(
    near: Cache, far: Cache, proxy: Proxy, redis: Redis
) -> None:
    table = Table(k="new")
    cell = near.scope.space.cell("", "k")
    tag = near.scope.space.generation("t")
    written = Gate()

    async def write() -> None:
        async with far.updating("k", tags=["t"]):
            await written.stop()

    writers = [asyncio.create_task(write()) for _ in range(3)]
    await written.reached(3)
    seen = parse_cell(await raw(redis, cell))
    assert isinstance(seen, Writing)
    assert len(seen.writers) == 3
    await interrupt(proxy)
    written.open()
    await asyncio.gather(*writers)
    await proxy.set(Mode.PASS)
    await recovered(far)
    for key in (cell, tag):
        assert not isinstance(parse_cell(await raw(redis, key)), Writing)
    for _ in range(2):
        assert await near.get_or_load("k", table.load, tags=["t"]) == "new"
    assert table.loads == 1


async def test_an_invalidation_does_not_make_the_end_of_a_write_be_forgotten(
    near: Cache, far: Cache, proxy: Proxy, redis: Redis
) -> None:
    cell = near.scope.space.cell("", "k")
    async with far.updating("k"):
        await interrupt(proxy)
    with pytest.raises(StoreUnavailable):
        await far.delete("k")
    assert far.health().owed == 1
    await proxy.set(Mode.PASS)
    await recovered(far)
    assert await redis.get(cell) is None


async def test_writes_during_an_outage_are_remembered_by_key_and_not_by_write(
    far: Cache, make_cache: MakeCache, redis_url: str, proxy: Proxy
) -> None:
    cache = await make_cache(url=proxy.url(redis_url), timeout=TIMEOUT, on_outage="proceed")
    await interrupt(proxy)
    for _ in range(200):
        async with cache.updating("k"):
            pass
    guard = cache.runtime.guard
    assert guard is not None
    assert cache.health().owed == 1
    assert sum(map(len, guard._journal.values())) < 10
    await proxy.set(Mode.PASS)
    await recovered(cache)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "by one write"])
async def test_thousands_of_keys_are_settled_in_calls_that_end_in_time(
    near: Cache, make_cache: MakeCache, redis_url: str, proxy: Proxy, together: bool
) -> None:
    cache = await make_cache(url=proxy.url(redis_url), timeout=TIMEOUT, on_outage="proceed")
    keys = range(3000)
    await near.set_many(dict.fromkeys(keys, "old"))
    await interrupt(proxy)
    for some in (keys,) if together else ((key,) for key in keys):
        async with cache.updating(*some):
            pass
    assert cache.health().owed == len(keys)
    await proxy.set(Mode.PASS)
    await recovered(cache)
    assert cache.health().owed == 0
    assert await near.get_many(keys) == {}


# -- states of a server or a cache


async def raw(redis: Redis, key: str) -> bytes | None:
    found = await redis.get(key)
    assert not isinstance(found, str)
    return found


async def _is(rows: CacheAside[Any], reason: Reason) -> bool:
    return (await rows.explain("k")).reason is reason


async def _gets(rows: CacheAside[Any], table: Table, value: str) -> bool:
    return bool(await rows.get("k", table.load) == value)


# -- writes


async def test_a_put_that_arrives_after_it_was_given_up_does_not_bring_the_value_back(
    near: Cache, far: Cache, proxy: Proxy, redis_url: str
) -> None:
    await proxy.set(Mode.BLACKHOLE)  # what is sent stays on its way
    with pytest.raises(StoreUnavailable):
        await far.set("k", "given up")
    await near.delete("k")
    # The command as the server gets it in the end: made before the delete, delivered after it.
    store = RedisStore(redis_url)
    await store.open()
    answer = await store.run(*call_of(near.scope.space.cell("", "k"), PUT, store.now_ms() - 1))
    assert answer[0] == Outcome.EMPTY.value
    await store.aclose()
    assert await near.get("k") is None


@pytest.mark.parametrize(
    ("error", "settled"),
    [
        (DatabaseUnavailable("the connection was lost at COMMIT"), False),
        (TimeoutError(), False),
        (ConnectionResetError(), False),
        (asyncpg.ConnectionDoesNotExistError(), False),
        (asyncpg.AdminShutdownError(), False),
        (asyncpg.UniqueViolationError(), True),
        (ValueError(), True),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_entry_is_not_cached_while_a_write_may_yet_commit(
    make_cache: MakeCache, error: Exception, settled: bool
) -> None:
    cache = await make_cache(write_timeout=1.0)
    users: CacheAside[str] = CacheAside(cache, "user")
    table = Table(k="old")
    await users.get("k", table.load)
    with pytest.raises(type(error)):
        async with users.updating("k", tags=["users"]):
            raise error
    assert await users.get("k", table.load) == "old"
    assert await _is(users, Reason.FRESH if settled else Reason.WRITING)
    table.rows["k"] = "committed late"
    if not settled:
        await until(lambda: _stores(users, table, "committed late"), "the marks to expire")


async def _stores(users: CacheAside[str], table: Table, value: str) -> bool:
    return await users.get("k", table.load) == value and await _is(users, Reason.FRESH)
