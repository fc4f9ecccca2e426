"""When an old value is served, who refreshes it, and how long an entry lives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, LoadTimeout, Policy, Reason
from asynccache.clock import SYSTEM_CLOCK
from asynccache.steps import Refresh
from tests.support.caches import MakeCache
from tests.support.gates import Table, gated, until

STALE = Policy(stale=600, jitter=0, early=0)


@pytest.fixture
def table() -> Table:
    return Table(k="old")


async def _reason(cache: Cache, *reasons: Reason) -> bool:
    return (await cache.explain("k")).reason in reasons


async def _idle(cache: Cache) -> None:
    await until(lambda: len(cache.runtime.reader._owner) == 0, "the refresh to end")


async def _stale(make_cache: MakeCache, table: Table, **policy: Any) -> Cache:
    """A cache whose entry has just become stale."""
    options = {"stale": 600, "jitter": 0, "early": 0, **policy}
    cache = await make_cache(ttl=0.001, policy=Policy(**options))
    assert await cache.get_or_load("k", table.load) == "old"
    await until(lambda: _reason(cache, Reason.STALE))
    table.rows["k"] = "new"
    return cache


async def test_a_stale_value_is_served_at_once_while_one_process_refreshes_it(
    make_cache: MakeCache, table: Table
) -> None:
    caches = [await _stale(make_cache, table)]
    caches += [await make_cache(ttl=60, policy=STALE) for _ in range(3)]
    stores = [gated(cache) for cache in caches]
    gate = table.hold()
    calls = [cache.get_or_load("k", table.load) for cache in caches for _ in range(25)]
    # The refresh is held: nobody waits for it.
    assert await asyncio.gather(*calls) == ["old"] * 100
    await gate.reached()
    assert await caches[1].get("k") == "old"
    await until(lambda: sum(len(cache.runtime.reader._owner) for cache in caches) == 1, "the others to give up")
    assert all(store.count(Refresh) <= 1 for store in stores)
    assert await asyncio.gather(*(cache.get_or_load("k", table.load) for cache in caches)) == ["old"] * 4
    gate.open()
    for cache in caches:
        await _idle(cache)
    assert table.loads == 2
    assert sum(cache.stats.refreshes for cache in caches) == 1
    assert sum(cache.stats.stale_hits for cache in caches) == 105
    assert [await cache.get("k") for cache in caches] == ["new"] * 4


async def test_a_bare_look_serves_a_stale_value_and_refreshes_nothing(make_cache: MakeCache, table: Table) -> None:
    cache = await _stale(make_cache, table)
    assert await cache.get("k") == "old"
    await _idle(cache)
    assert (cache.stats.stale_hits, table.loads) == (1, 1)


@pytest.mark.one_loop
async def test_a_failed_refresh_leaves_the_value_and_is_not_tried_again_at_once(
    make_cache: MakeCache, table: Table
) -> None:
    cache, other = await _stale(make_cache, table), await make_cache(ttl=60, policy=STALE)
    failures = 0

    async def fail() -> Any:
        nonlocal failures
        failures += 1
        raise ConnectionError

    assert await cache.get_or_load("k", fail) == "old"
    await _idle(cache)
    for one in (cache, other):
        for _ in range(20):
            assert await one.get_or_load("k", fail) == "old"
        await _idle(one)
    assert failures == 1
    assert await _reason(cache, Reason.STALE_REFRESHING)
    assert (cache.stats.load_failures, cache.stats.refreshes) == (1, 1)
    for one in (cache, other):  # each by its own notion of the server's clock
        await until(lambda one=one: _reason(one, Reason.STALE), "the retry pause to end")  # type: ignore[misc]
    assert await other.get_or_load("k", table.load) == "old"
    await _idle(other)
    assert await cache.get("k") == "new"


async def test_past_the_stale_window_the_caller_waits_for_the_load(make_cache: MakeCache, table: Table) -> None:
    cache = await _stale(make_cache, table, stale=0.5)
    await until(lambda: _reason(cache, Reason.EMPTY, Reason.EXPIRED))
    assert await cache.get("k") is None
    assert await cache.get_or_load("k", table.load) == "new"


async def test_past_the_stale_window_a_failure_is_the_callers(make_cache: MakeCache, table: Table) -> None:
    cache = await _stale(make_cache, table, stale=0.5)

    async def fail() -> Any:
        raise ConnectionError

    assert await cache.get_or_load("k", fail) == "old"
    await until(lambda: _reason(cache, Reason.EMPTY, Reason.EXPIRED))
    with pytest.raises(ConnectionError):
        await cache.get_or_load("k", fail)


async def test_without_a_stale_window_nothing_is_served_past_its_ttl(
    make_cache: MakeCache, redis: Redis, table: Table
) -> None:
    cache = await make_cache(ttl=0.05, policy=Policy(jitter=0, early=0))
    assert await cache.get_or_load("k", table.load) == "old"
    table.rows["k"] = "new"
    await until(lambda: _gone(redis, cache))
    assert await cache.get_or_load("k", table.load) == "new"
    assert cache.stats.stale_hits == 0


async def test_a_stale_value_that_was_invalidated_is_not_served(make_cache: MakeCache, table: Table) -> None:
    cache = await make_cache(ttl=0.001, policy=STALE)
    assert await cache.get_or_load("k", table.load, tags=["t"]) == "old"
    await until(lambda: _reason(cache, Reason.STALE))
    table.rows["k"] = "new"
    await cache.invalidate_tags("t")
    assert await cache.get_or_load("k", table.load, tags=["t"]) == "new"


async def test_a_remembered_not_found_is_never_stale(make_cache: MakeCache, redis: Redis, table: Table) -> None:
    cache = await make_cache(ttl=60, policy=Policy(stale=600, negative_ttl=0.05, early=0))
    del table.rows["k"]
    assert await cache.get_or_load("k", table.load) is None
    await until(lambda: _gone(redis, cache))
    table.rows["k"] = "new"
    assert await cache.get_or_load("k", table.load) == "new"


async def test_a_refresh_that_takes_too_long_leaves_the_stale_value(make_cache: MakeCache, table: Table) -> None:
    cache = await _stale(make_cache, table, load_timeout=0.05)
    gate = table.hold()
    assert await cache.get_or_load("k", table.load) == "old"
    await gate.reached()
    await _idle(cache)
    assert cache.stats.load_failures == 1
    assert await cache.get_or_load("k", table.load) == "old"
    await cache.delete("k")
    with pytest.raises(LoadTimeout):
        await cache.get_or_load("k", table.load)


async def test_a_process_that_crashed_while_refreshing_blocks_it_no_longer_than_its_lease(
    make_cache: MakeCache, table: Table
) -> None:
    cache = await _stale(make_cache, table)
    store, key = cache.runtime.store, cache.scope.space.cell("", "k")
    (raw,) = await store.read([key])
    assert raw is not None
    await store.apply(key, Refresh(b"a killer", 100, raw[24:32]))
    assert await cache.get_or_load("k", table.load) == "old"
    await _idle(cache)
    assert table.loads == 1
    await until(lambda: _reason(cache, Reason.STALE), "its lease to end")
    assert await cache.get_or_load("k", table.load) == "old"
    await _idle(cache)
    assert await cache.get("k") == "new"


class SlowLoads:
    """A clock that a load moves by an hour."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self._ahead

    def wall_ms(self) -> int:
        return SYSTEM_CLOCK.wall_ms()

    def load_takes_an_hour(self) -> None:
        self._ahead += 3600


@pytest.mark.parametrize("early", [0, 1000])
async def test_an_expensive_value_is_refreshed_before_it_expires_unless_that_is_off(
    make_cache: MakeCache, table: Table, early: int
) -> None:
    clock = SlowLoads()
    caches = [await make_cache(ttl=60, clock=clock, policy=Policy(early=early)) for _ in range(3)]

    async def expensive() -> Any:
        clock.load_takes_an_hour()
        return await table.load()

    assert await caches[0].get_or_load("k", expensive) == "old"
    table.rows["k"] = "new"
    gate = table.hold()
    # With 1000, all but one draw in 60,000 refresh: ln(rand()) * an hour * 1000 against a minute.
    assert (
        await asyncio.gather(*(cache.get_or_load("k", table.load) for cache in caches for _ in range(20)))
        == ["old"] * 60
    )
    if early:
        await gate.reached()
    gate.open()
    for cache in caches:
        await _idle(cache)
    assert table.loads == (2 if early else 1)
    assert sum(cache.stats.stale_hits for cache in caches) == 0
    assert await caches[1].get("k") == ("new" if early else "old")


async def test_refreshes_of_one_process_are_bounded_in_number(make_cache: MakeCache, table: Table) -> None:
    cache = await make_cache(ttl=0.001, policy=STALE, max_concurrent_loads=2)
    users: CacheAside[Any] = CacheAside(cache, "user")
    table.rows.update(dict.fromkeys("abcde", "old"))
    await users.get_many("abcde", table.load)
    await until(lambda: _all_stale(users, "abcde"))
    gate = table.hold()
    assert await users.get_many("abcde", table.load) == dict.fromkeys("abcde", "old")
    await gate.reached(2)
    assert len(cache.runtime.reader._refreshing) == 2
    gate.open()
    await _idle(cache)
    assert table.loads == 7


@pytest.mark.parametrize(("jitter", "stale"), [(0.0, 0.0), (0.5, 0.0), (0.5, 10.0)])
async def test_an_entry_lives_for_its_ttl_shortened_by_its_jitter(
    make_cache: MakeCache, redis: Redis, jitter: float, stale: float
) -> None:
    cache = await make_cache(ttl=100, policy=Policy(jitter=jitter, stale=stale))
    await cache.set_many(dict.fromkeys(range(200), "value"))
    lives = []
    for at in range(200):
        explained = await cache.explain(at)
        left = await redis.pttl(explained.key)
        assert explained.fresh_for is not None
        assert explained.served_for is not None
        assert explained.served_for - explained.fresh_for == pytest.approx(stale)
        assert left / 1000 == pytest.approx(explained.served_for, abs=5)
        lives.append(explained.fresh_for)
    assert 100 * (1 - jitter) - 5 < min(lives) <= max(lives) <= 100
    if jitter:
        # Of 200 draws from 50 to 100, some are in the lowest and the highest fifth.
        assert min(lives) < 60
        assert max(lives) > 90 - 5


async def _gone(redis: Redis, cache: Cache) -> bool:
    return not await redis.exists(cache.scope.space.cell("", "k"))


async def _all_stale(users: CacheAside[Any], keys: str) -> bool:
    return all([(await users.explain(key)).reason is Reason.STALE for key in keys])


async def test_who_asks_for_a_refresh_gets_the_new_value(make_cache: MakeCache, table: Table) -> None:
    cache = await _stale(make_cache, table)
    store = gated(cache)

    async def load(_: str) -> Any:
        return await table.load()

    users: CacheAside[Any] = CacheAside(cache, "user")
    assert await users.refresh("x", load) == "new"
    assert store.count(Refresh) == 0
    assert await users.refresh("x", load) == "new"
    assert store.count(Refresh) == 1


async def test_who_asks_for_a_refresh_right_after_one_has_failed_caches_the_new_value(
    make_cache: MakeCache, table: Table
) -> None:
    cache = await make_cache(ttl=0.001, policy=Policy(stale=600, jitter=0, early=0))
    users: CacheAside[Any] = CacheAside(cache, "user")

    async def fail(_: str) -> Any:
        raise ConnectionError

    assert await users.get("k", table.load) == "old"
    await until(lambda: _all_stale(users, "k"))
    assert await users.get("k", fail) == "old"
    await _idle(cache)
    assert (await users.explain("k")).reason is Reason.STALE_REFRESHING  # the pause before the next try
    table.rows["k"] = "new"
    assert await users.refresh("k", table.load) == "new"
    assert await users.get("k", fail) == "new"
