"""Hot keys on a real Redis: what several processes count is merged, each request once, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from redis.asyncio import Redis

from asynccache import (
    Cache,
    HotKey,
    HotKeys,
    ReadThrough,
    StoreUnavailable,
)
from asynccache.clock import SYSTEM_CLOCK
from asynccache.embedded import Server
from asynccache.hot_keys import lists
from asynccache.hot_keys.lists import HotList
from asynccache.protocols import KeyValue
from asynccache.stores.scripts import Argument, Script
from tests.support.caches import MakeCache
from tests.support.gates import until
from tests.support.hot_keys import SETTINGS, ask, load, shared, weights
from tests.support.proxy import Mode, Proxy


class TestMerging:
    async def test_three_processes_come_to_the_exact_counts_of_all(self, make_cache: MakeCache) -> None:
        caches = [await make_cache(hot_keys=HotKeys(capacity=1000, half_life="1d", share_every="1h")) for _ in "abc"]
        everyone = [ReadThrough(cache, "user", source=load) for cache in caches]
        generator, exact = random.Random(3), Counter[int]()
        for _ in range(3):
            for cache, users in zip(caches, everyone, strict=True):
                keys = generator.choices(range(200), [1 / (n + 1) for n in range(200)], k=400)
                exact.update(keys)
                counting = users._hot
                assert counting is not None
                for key in keys:
                    counting.count(key)
                await shared(cache).share()
        for users in everyone:
            assert weights(await users.hot(200)) == exact

    async def test_a_share_without_news_adds_nothing(self, make_cache: MakeCache) -> None:
        cache = await make_cache(hot_keys=SETTINGS)
        users = ReadThrough(cache, "user", source=load)
        await ask(users, a=4)
        for _ in range(5):
            await shared(cache).share()
        assert weights(await users.hot()) == {"a": 4}

    async def test_a_call_whose_answer_was_lost_is_repeated_and_counted_once(
        self, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = await make_cache(hot_keys=SETTINGS)
        users = ReadThrough(cache, "user", source=load)
        guard = cache.runtime.guard
        assert guard is not None
        real, sent, lose = guard.run, list[Sequence[Argument]](), 2

        async def run(script: Script, keys: Sequence[str], args: Sequence[Argument]) -> object:
            nonlocal lose
            answer = await real(script, keys, args)
            if script.name == "merge":
                sent.append(args)
                if lose:
                    lose -= 1
                    raise StoreUnavailable("the answer is lost")
            return answer

        monkeypatch.setattr(guard, "run", run)
        await ask(users, a=2)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await shared(cache).share()
            await ask(users, a=1)
        await shared(cache).share()
        assert sent[0] == sent[1] == sent[2]
        assert weights(await users.hot()) == {"a": 2}
        await shared(cache).share()
        assert weights(await users.hot()) == {"a": 4}
        # A copy that was on its way all that time.
        await real(lists._MERGE, users._hot._keys, sent[0])  # type: ignore[union-attr]  # it counts
        assert weights(await users.hot()) == {"a": 4}

    async def test_a_redis_that_was_away_gets_all_that_was_counted_meanwhile(
        self, redis_url: str, make_cache: MakeCache
    ) -> None:
        target = urlsplit(redis_url)
        async with Proxy.to(target.hostname or "127.0.0.1", target.port or 6379) as proxy:
            cache = await make_cache(url=proxy.url(redis_url), hot_keys=SETTINGS, timeout=0.3)
            users = ReadThrough(cache, "user", source=load)
            await ask(users, a=1)
            await shared(cache).share()
            await proxy.set(Mode.BLACKHOLE)
            await ask(users, a=1)
            with pytest.raises(StoreUnavailable):
                await shared(cache).share()
            await ask(users, a=1)
            assert weights(await users.hot()) == {"a": 3}  # its own
            await proxy.set(Mode.PASS, cut=True)
            other = ReadThrough(await make_cache(hot_keys=SETTINGS), "user", source=load)
            await until(lambda: _shared(cache))
            await shared(cache).share()
            assert weights(await other.hot()) == {"a": 3}

    async def test_a_redis_that_was_emptied_is_told_again_by_each_process(
        self, dedicated_redis: Server, namespace: str
    ) -> None:
        async with (
            Cache(dedicated_redis.url, namespace=namespace, ttl=60, hot_keys=SETTINGS) as one,
            Cache(dedicated_redis.url, namespace=namespace, ttl=60, hot_keys=SETTINGS) as two,
            Redis.from_url(dedicated_redis.url) as redis,
        ):
            here, there = ReadThrough(one, "user", source=load), ReadThrough(two, "user", source=load)
            await ask(here, a=3, b=1)
            await ask(there, a=2, c=7)
            await shared(one).share()
            await shared(two).share()
            await redis.flushall()
            await ask(here, a=1)
            await shared(one).share()
            await shared(two).share()
            assert weights(await here.hot()) == {"c": 7, "a": 6, "b": 1}
            await shared(one).share()
            assert weights(await there.hot()) == {"c": 7, "a": 6, "b": 1}

    async def test_what_was_hot_fades_and_the_list_is_bounded_and_leaves_redis(
        self, make_cache: MakeCache, redis: Redis, namespace: str
    ) -> None:
        cache = await make_cache(hot_keys=HotKeys(capacity=10, half_life="1s", share_every="1h"))
        users = ReadThrough(cache, "user", source=load)
        for process in range(12):
            counting = HotList(
                cache.runtime.store, cache.scope.space, "user", HotKeys(capacity=10, half_life="1s"), SYSTEM_CLOCK
            )
            for key in range(10):
                counting.count((process, key))
            await counting.share()
        assert await redis.zcard(f"{namespace}#h:{{user}}:hot") == 40
        first = await users.hot(1)
        # Its time on Redis' clock: half of it is left when the next half-life is over.
        await until(lambda: _faded(users, first[0]))
        for part in ("hot", "life"):
            assert 0 < await redis.pttl(f"{namespace}#h:{{user}}:{part}") <= 7 * 86_400_000
        async for key in redis.scan_iter(match=f"{namespace}#h:*"):
            assert await redis.pttl(key) > 0
            assert not any(key.decode().startswith(prefix) for prefix in cache.scope.space.tracked_prefixes())

    async def test_a_key_that_was_cut_off_comes_back_with_all_that_was_seen_of_it(self, make_cache: MakeCache) -> None:
        settings = HotKeys(capacity=10, half_life="1d", share_every="1h")
        cache = await make_cache(hot_keys=settings)
        space = cache.scope.space

        def process() -> HotList:
            return HotList(cache.runtime.store, space, "user", settings, cache.runtime.clock)

        newcomer = process()
        newcomer.count("new")
        for crowd in range(4):
            busy = process()
            for key in range(10):
                for _ in range(8):
                    busy.count((crowd, key))
            await busy.share()
        for _ in range(4):  # three at a time it would never get in
            for _ in range(3):
                newcomer.count("new")
            await newcomer.share()
        assert weights(await newcomer.top(1)) == {"new": 13}

    async def test_another_half_life_keeps_what_is_in_the_list(self, make_cache: MakeCache) -> None:
        before = await make_cache(hot_keys=HotKeys(half_life="10m"))
        after = await make_cache(hot_keys=HotKeys(half_life="7h"))
        old, new = ReadThrough(before, "user", source=load), ReadThrough(after, "user", source=load)
        await ask(old, a=8, b=2)
        await shared(before).share()
        await ask(new, b=3)
        await shared(after).share()
        assert weights(await new.hot()) == {"a": 8, "b": 5}
        await ask(old, c=1)
        await shared(before).share()
        assert weights(await old.hot()) == {"a": 8, "b": 5, "c": 1}
        assert (await new.hot(1))[0].rate == pytest.approx((await new.hot(1))[0].weight * 0.6931 / 600, rel=0.01)

    async def test_keys_of_every_type_come_back_as_they_were(self, make_cache: MakeCache) -> None:
        keys: list[KeyValue] = [
            1,
            "1",
            True,
            None,
            "",
            "a:b",
            b"\x00\xff",
            ("a", 1),
            ("1", (2, "3")),
            UUID(int=7),
            date(2024, 1, 1),
        ]
        cache = await make_cache(hot_keys=SETTINGS)
        users = ReadThrough(cache, "user", source=load)
        for times, key in enumerate(keys, 1):
            for _ in range(times):
                await users.get(key)
        await shared(cache).share()
        found = await (ReadThrough(await make_cache(hot_keys=SETTINGS), "user", source=load)).hot(50)
        assert [(one.key, type(one.key), round(one.weight)) for one in found] == [
            (key, type(key), times) for times, key in reversed(list(enumerate(keys, 1)))
        ]

    async def test_a_giant_key_is_no_burden_on_the_list(self, make_cache: MakeCache) -> None:
        cache = await make_cache(hot_keys=SETTINGS)
        users = ReadThrough(cache, "user", source=load)
        await users.get("x" * 5000)
        await ask(users, a=1)
        await shared(cache).share()
        assert weights(await users.hot()) == {"a": 1}

    async def test_the_service_shares_by_itself_and_once_more_at_the_end(
        self, redis_url: str, namespace: str, make_cache: MakeCache
    ) -> None:
        reader = ReadThrough(await make_cache(hot_keys=SETTINGS), "user", source=load)
        async with Cache(
            redis_url, namespace=namespace, ttl=60, hot_keys=HotKeys(share_every="100ms"), background=False
        ) as cache:
            users = ReadThrough(cache, "user", source=load)
            await ask(users, a=1)
            await until(reader.hot)
            await ask(users, a=1)
        assert weights(await reader.hot()) == {"a": 2}
        assert cache.health().services[0].name == "hot keys"

    async def test_closing_without_redis_is_no_error_and_does_not_hang(self, redis_url: str, namespace: str) -> None:
        target = urlsplit(redis_url)
        async with (
            Proxy.to(target.hostname or "127.0.0.1", target.port or 6379) as proxy,
            Cache(proxy.url(redis_url), namespace=namespace, ttl=60, hot_keys=SETTINGS, timeout=0.2) as cache,
        ):
            users = ReadThrough(cache, "user", source=load)
            await ask(users, a=1)
            await proxy.set(Mode.BLACKHOLE)

    async def test_cancelling_a_share_loses_nothing_and_counts_nothing_twice(self, make_cache: MakeCache) -> None:
        cache = await make_cache(hot_keys=SETTINGS)
        users = ReadThrough(cache, "user", source=load)
        for _ in range(20):
            await ask(users, a=1)
            sharing = asyncio.create_task(shared(cache).share())
            await asyncio.sleep(0)
            sharing.cancel()
            await asyncio.gather(sharing, return_exceptions=True)
        await shared(cache).share()  # what was cancelled
        await shared(cache).share()
        assert weights(await users.hot()) == {"a": 20}


async def _shared(cache: Cache) -> bool:
    try:
        await shared(cache).share()
    except StoreUnavailable:
        return False
    return True


async def _faded(users: ReadThrough[Any], first: HotKey) -> bool:
    return (await users.hot(1))[0].weight <= first.weight / 2
