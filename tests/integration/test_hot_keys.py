"""Hot keys on a real Redis: counted in each process, merged once, and there for a fresh process."""

from __future__ import annotations

import gc
from typing import Any
from urllib.parse import urlsplit

import pytest

from asynccache import (
    Cache,
    CacheAside,
    ConfigurationError,
    LocalTier,
    ReadThrough,
    WriteBehind,
)
from asynccache.clock import ManualClock
from asynccache.hot_keys import lists
from asynccache.hot_keys.lists import HotKeyLists
from asynccache.keys import KeySpace
from tests.support.caches import MakeCache
from tests.support.gates import until
from tests.support.hot_keys import SETTINGS, Rows, ask, load, shared, weights
from tests.support.proxy import Mode, Proxy


class TestCounting:
    async def test_every_read_of_every_strategy_is_counted_local_hits_included(self, make_cache: MakeCache) -> None:
        cache = await make_cache(hot_keys=SETTINGS, local=LocalTier(max_entries=100))
        aside, through = CacheAside(cache, "aside"), ReadThrough(cache, "through", source=load)
        behind = WriteBehind(cache, "behind", sink=Rows(), ttl=60, partitions=1, unsafe="allow", type=str)
        await aside.get("a", load)
        await aside.get_many(["a", "b"], load)
        for _ in range(5):
            await through.get("a")
        await through.get_many(["a", "b", "b"])
        await until(lambda: _read(cache, through))
        assert cache.stats.local_hits > 0
        await behind.get("a")
        assert weights(await aside.hot()) == {"a": 2, "b": 1}
        assert weights(await behind.hot()) == {"a": 1}
        found = await through.hot(1)
        assert [one.key for one in found] == ["a"]
        assert found[0].weight >= 6

    async def test_what_is_warmed_or_refreshed_is_not_asked_for(self, make_cache: MakeCache) -> None:
        users = ReadThrough(await make_cache(hot_keys=SETTINGS), "user", source=load)
        await users.warm(["a", "b"])
        await users.refresh("a")
        assert await users.hot() == []

    async def test_strategies_of_one_name_share_a_list_and_namespaces_do_not(self, make_cache: MakeCache) -> None:
        cache = await make_cache(hot_keys=SETTINGS)
        one, two = ReadThrough(cache, "user", source=load), CacheAside(cache, "user")
        tenant = ReadThrough(cache.namespace("tenant"), "user", source=load)
        await ask(one, a=2)
        await ask(two, a=1)
        await ask(tenant, t=1)
        await shared(cache).share()
        assert weights(await one.hot()) == weights(await two.hot()) == {"a": 3}
        assert weights(await tenant.hot()) == {"t": 1}

    async def test_strategies_made_for_each_request_are_counted_together_and_leave_a_bounded_number_behind(
        self, make_cache: MakeCache
    ) -> None:
        cache = await make_cache(hot_keys=SETTINGS)
        for number in range(200):
            await CacheAside(cache.namespace(f"tenant-{number // 2}"), "user").get("a", load)
        gc.collect()
        assert cache.runtime.strategies == ()
        assert len(shared(cache)._lists) == lists._RECENT
        await shared(cache).share()
        assert weights(await CacheAside(cache.namespace("tenant-99"), "user").hot()) == {"a": 2}

    async def test_without_hot_keys_nothing_is_counted_and_asking_says_what_to_do(self, cache: Cache) -> None:
        users = ReadThrough(cache, "user", source=load)
        for call in (users.hot, users.warm_hot):
            with pytest.raises(ConfigurationError, match=r"pass Cache\(\.\.\., hot_keys=HotKeys\(\)\)"):
                await call()
        with pytest.raises(ConfigurationError, match="hot_keys must be HotKeys"):
            Cache("memory://", namespace="n", hot_keys=True)  # type: ignore[arg-type]  # that is the point
        assert not cache.runtime.services

    @pytest.mark.parametrize("top", [0, -1, True, "all"])
    async def test_how_many_is_checked(self, make_cache: MakeCache, top: Any) -> None:
        users = ReadThrough(await make_cache(hot_keys=SETTINGS), "user", source=load)
        with pytest.raises(ConfigurationError, match="top="):
            await users.hot(top)

    async def test_a_cache_in_memory_counts_for_itself(self) -> None:
        async with Cache("memory://", namespace="n", ttl=60, hot_keys=SETTINGS) as cache:
            users = ReadThrough(cache, "user", source=load)
            await ask(users, a=3, b=5)
            await shared(cache).share()
            assert weights(await users.hot(1)) == {"b": 5}
            await users.invalidate("a", "b")
            assert (await users.warm_hot()).loaded == 2


async def _read(cache: Cache, users: ReadThrough[Any]) -> bool:
    before = cache.stats.local_hits
    await users.get("a")
    return cache.stats.local_hits > before


class TestWarmingHotKeys:
    async def test_a_fresh_process_warms_what_was_hot_hottest_first(self, make_cache: MakeCache) -> None:
        old, rows = await make_cache(hot_keys=SETTINGS), Rows()
        await ask(ReadThrough(old, "user", source=load), **{f"k{n}": n for n in range(1, 11)})
        await shared(old).share()
        await old.clear()
        users = ReadThrough(await make_cache(hot_keys=SETTINGS), "user", source=rows)
        report = await users.warm_hot(top=4, batch=2, concurrency=1)
        assert (report.loaded, report.complete) == (4, True)
        assert sorted(rows.loaded[:2]) == ["k10", "k9"]
        assert sorted(rows.loaded[2:]) == ["k7", "k8"]

    async def test_cache_aside_warms_what_was_hot_with_the_loader_it_is_given(self, make_cache: MakeCache) -> None:
        users = CacheAside(await make_cache(hot_keys=SETTINGS), "user")
        await ask(users, a=3, b=1)
        await users.invalidate("a", "b")
        report = await users.warm_hot(load, top=1)
        assert report.loaded == 1
        assert await users.get("b", _other) == "other"
        assert await users.get("a", _other) == "'a'"

    async def test_a_process_without_redis_warms_nothing_and_asks_no_database(
        self, redis_url: str, make_cache: MakeCache
    ) -> None:
        target, rows = urlsplit(redis_url), Rows()
        async with Proxy.to(target.hostname or "127.0.0.1", target.port or 6379) as proxy:
            cache = await make_cache(url=proxy.url(redis_url), hot_keys=SETTINGS, timeout=0.2)
            users = ReadThrough(cache, "user", source=rows)
            await ask(users, a=1)
            loaded = list(rows.loaded)
            await proxy.set(Mode.REFUSE, cut=True)
            report = await users.warm_hot()
            assert report.stopped is not None
            assert rows.loaded == loaded


async def _other(_: Any) -> str:
    return "other"


def test_lists_of_names_that_could_be_confused_have_keys_of_their_own() -> None:
    spaces = [KeySpace(("a",)), KeySpace(("a", "b")), KeySpace(("a", "b", "c"))]
    keys = {space.hot(name, part) for space in spaces for name in ("b", "c", "b.c") for part in ("hot", "life")}
    assert len(keys) == 18
    clock = ManualClock()
    assert HotKeyLists(_Store(), SETTINGS, clock).name == "hot keys"


class _Store:
    def now_ms(self) -> int:
        return 0
