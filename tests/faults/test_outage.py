"""A cache without its Redis: never worse than no cache, and nothing is to be restarted."""

import asyncio
import time
from typing import Any

import pytest

from asynccache import Cache, CacheAside, LocalTier, Policy, StoreUnavailable
from asynccache.embedded import Server
from asynccache.stores.guarded import CircuitState
from tests.support.fixtures import StartServer
from tests.support.proxy import Mode, Proxy

TIMEOUT = 0.3


class Row:
    """A row of a database; counts its loads, and how many ran at once."""

    def __init__(self, value: Any = "old") -> None:
        self.value = value
        self.loads = self.now = self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def load(self, _: Any = None) -> Any:
        self.loads += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go.wait()
            return self.value
        finally:
            self.now -= 1


async def until(state: Any, what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not state():
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"never came: {what}")


async def trouble(proxy: Proxy, how: str) -> None:
    proxy.delay = 0.0
    match how:
        case "refused":
            await proxy.set(Mode.REFUSE, cut=True)
        case "reset":
            await proxy.set(Mode.RESET, cut=True)
        case "slow":
            proxy.delay = 2.0
        case "half-open":
            await proxy.set(Mode.BLACKHOLE)
        case "none":
            await proxy.set(Mode.PASS, cut=True)


@pytest.mark.parametrize("how", ["refused", "reset", "slow", "half-open"])
async def test_reads_come_from_the_loader_in_time_and_hits_return_within_a_second(
    proxy: Proxy, redis_url: str, namespace: str, how: str
) -> None:
    row = Row()
    async with Cache(proxy.url(redis_url), namespace=namespace, ttl=60, timeout=TIMEOUT) as cache:
        users = CacheAside(cache, "user")
        assert await users.get(1, row.load) == "old"
        await trouble(proxy, how)
        row.value = "from the loader"
        for key in range(10):
            began = time.monotonic()
            value = await users.get(key + 100, row.load)
            # The bound that the README states, and as much again for a busy machine.
            assert time.monotonic() - began < 4 * TIMEOUT
            assert value == "from the loader"
        assert cache.health().circuit is not CircuitState.CLOSED
        assert not cache.health().ok
        await trouble(proxy, "none")
        recovered = time.monotonic()
        while (await users.explain(1)).reason.name != "FRESH":
            assert time.monotonic() - recovered < 1
            await asyncio.sleep(0.005)
        hits = cache.stats.hits
        assert await users.get(1, row.load) == "old"
        assert cache.stats.hits == hits + 1
        assert cache.health().ok


async def test_loads_are_shared_and_bounded_while_redis_is_away(proxy: Proxy, redis_url: str, namespace: str) -> None:
    row = Row()
    url = proxy.url(redis_url)
    async with Cache(url, namespace=namespace, ttl=60, timeout=TIMEOUT, max_concurrent_loads=5) as cache:
        users = CacheAside(cache, "user")
        await trouble(proxy, "refused")
        for key in range(3):
            await users.get(key, row.load)
        await until(lambda: cache.health().circuit is not CircuitState.CLOSED, "the circuit opens")
        row.loads = row.most = 0
        row.go.clear()
        same = [asyncio.create_task(users.get(1, row.load)) for _ in range(100)]
        await until(lambda: row.loads == 1, "one load")
        others = [asyncio.create_task(users.get(key, row.load)) for key in range(1000, 1050)]
        await until(lambda: row.now == 5, "as many loads as allowed")
        row.go.set()
        assert await asyncio.gather(*same, *others) == ["old"] * 150
        assert row.loads == 51
        assert row.most == 5


async def test_refuse_raises_before_the_database_is_touched(proxy: Proxy, redis_url: str, namespace: str) -> None:
    async with Cache(proxy.url(redis_url), namespace=namespace, ttl=60, timeout=TIMEOUT) as cache:
        await trouble(proxy, "refused")
        touched = False
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                async with cache.updating("k", tags=["t"]):
                    touched = True
            with pytest.raises(StoreUnavailable):
                await cache.delete("k")
            with pytest.raises(StoreUnavailable):
                await cache.invalidate_tags("t")
            with pytest.raises(StoreUnavailable):
                await cache.set("k", 1)
        assert not touched
        await trouble(proxy, "none")
        await until(lambda: cache.health().ok, "recovery")


@pytest.mark.parametrize("how", ["refused", "half-open"])
async def test_proceed_writes_and_invalidates_before_anything_is_served_again(
    proxy: Proxy, redis_url: str, namespace: str, how: str
) -> None:
    row = Row()
    url = proxy.url(redis_url)
    async with (
        Cache(redis_url, namespace=namespace, ttl=60) as direct,
        Cache(url, namespace=namespace, ttl=60, timeout=TIMEOUT, on_outage="proceed") as cache,
    ):
        await direct.set("k", "old")
        await direct.set("listed", "old", tags=["t"])
        assert await cache.get("k") == "old"
        await trouble(proxy, how)
        async with cache.updating("k", tags=["t"]):
            row.value = "new"
        assert cache.health().owed == 2
        assert await cache.get_or_load("k", row.load) == "new"
        await trouble(proxy, "none")
        while cache.health().circuit is not CircuitState.CLOSED:
            # Whenever it is asked on the way, it never shows what it could not invalidate.
            assert await cache.get("k") is None
            await asyncio.sleep(0.002)
        assert cache.health().owed == 0
        assert await cache.get_or_load("k", row.load) == "new"
        assert await cache.get_or_load("listed", row.load, tags=["t"]) == "new"
        assert await direct.get("k") == "new"


async def test_too_much_to_remember_outdates_everything(proxy: Proxy, redis_url: str, namespace: str) -> None:
    url = proxy.url(redis_url)
    async with (
        Cache(redis_url, namespace=namespace, ttl=60) as direct,
        Cache(url, namespace=namespace, ttl=60, timeout=TIMEOUT, on_outage="proceed") as cache,
    ):
        await direct.set("untouched", "old")
        guard = cache.runtime.guard
        assert guard is not None
        guard._max_journal = 10
        await trouble(proxy, "refused")
        for key in range(20):
            async with cache.updating(key):
                pass
        assert cache.health().owed == 1
        await trouble(proxy, "none")
        await until(lambda: cache.health().ok, "recovery")
        assert await direct.get("untouched") is None


@pytest.mark.one_loop
async def test_a_redis_that_is_killed_and_comes_back_needs_no_restart_of_ours(
    dedicated_redis: Server, namespace: str
) -> None:
    row = Row()
    async with Cache(dedicated_redis.url, namespace=namespace, ttl=60, timeout=TIMEOUT) as cache:
        users = CacheAside(cache, "user")
        assert await users.get(1, row.load) == "old"
        await dedicated_redis.kill()
        assert await users.get(1, row.load) == "old"
        assert await users.get(2, row.load) == "old"
        assert row.loads == 3
        await dedicated_redis.start()
        await until(lambda: cache.health().ok, "recovery")
        loads = row.loads
        for _ in range(3):
            assert await users.get(1, row.load) == "old"
        assert row.loads <= loads + 1


@pytest.mark.one_loop
async def test_a_redis_without_memory_is_no_reason_to_fail(start_redis: StartServer, namespace: str) -> None:
    server = await start_redis(maxmemory="3mb", settings={"maxmemory-policy": "noeviction"})
    row = Row("x" * 100_000)
    async with Cache(server.url, namespace=namespace, policy=Policy(ttl=60), timeout=TIMEOUT) as cache:
        for key in range(100):
            assert await cache.get_or_load(key, row.load) == row.value
        assert cache.stats.store_failures > 0
        hits = cache.stats.hits
        for _ in range(10):
            assert await cache.get_or_load(0, row.load) == row.value
        assert cache.stats.hits == hits + 10  # what it has is read as ever
        assert cache.health().ok
        big = dict.fromkeys(range(40), row.value)
        with pytest.raises(StoreUnavailable, match=r"OutOfMemory|circuit"):
            await cache.set_many(big)


@pytest.mark.one_loop
async def test_a_wrong_password_is_said_at_start(start_redis: StartServer, namespace: str) -> None:
    server = await start_redis(settings={"requirepass": "right"})
    url = (
        server.url.replace("redis://", "redis://:wrong@", 1)
        if "@" not in server.url
        else server.url.replace("right", "wrong")
    )
    with pytest.raises(StoreUnavailable, match=r"(?i)password|auth"):
        await Cache(url, namespace=namespace, ttl=1).startup()


@pytest.mark.one_loop
async def test_a_service_may_start_without_redis_and_uses_it_once_it_is_there(
    dedicated_redis: Server, namespace: str
) -> None:
    row = Row()
    await dedicated_redis.stop()
    with pytest.raises(StoreUnavailable):
        await Cache(dedicated_redis.url, namespace=namespace, ttl=60, timeout=TIMEOUT).startup()
    async with Cache(
        dedicated_redis.url, namespace=namespace, ttl=60, timeout=TIMEOUT, require_redis=False, local=LocalTier()
    ) as cache:
        assert not cache.health().ok
        for _ in range(3):
            assert await cache.get_or_load("k", row.load) == "old"
        assert row.loads == 3
        await dedicated_redis.start()
        await until(lambda: cache.health().ok, "recovery")
        for _ in range(3):
            assert await cache.get_or_load("k", row.load) == "old"
        assert row.loads == 4
