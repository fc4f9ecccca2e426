"""The plain cache as a user types it."""

import asyncio
import datetime as dt
import os
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheNotOpen, ConfigurationError, InvalidKey, MissingTTL, StoreUnavailable, ValueTooLarge
from tests.support.caches import MakeCache


@dataclass
class User:
    id: int
    name: str
    balance: Decimal = Decimal(0)


@pytest.mark.parametrize(
    "value",
    [
        0,
        False,
        "",
        "text",
        b"bytes",
        1.5,
        2**80,
        [1, "a", None],
        {"a": (1, 2), "b": {3, 4}},
        Decimal("1.10"),
        UUID(int=7),
        dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        User(1, "Ada", Decimal("9.99")),
        [User(1, "Ada")],
    ],
    ids=repr,
)
async def test_a_value_comes_back_as_the_type_it_went_in(cache: Cache, value: Any) -> None:
    await cache.set("key", value)
    found = await cache.get("key")
    assert found == value
    assert type(found) is type(value)


async def test_what_is_not_there_is_the_default_and_a_remembered_none_is_not(cache: Cache) -> None:
    assert await cache.get("nothing") is None
    assert await cache.get("nothing", 7) == 7


async def test_every_entry_in_redis_has_a_ttl(cache: Cache, redis: Redis, namespace: str) -> None:
    await cache.set("a", 1, ttl=100, tags=["t"])
    await cache.get_or_load("b", lambda: _value(2), ttl="2m")
    async with cache.updating("c", tags=["u"]):
        pass
    keys = [key async for key in redis.scan_iter(match=f"{namespace}*")]
    assert len(keys) >= 4
    for key in keys:
        assert await redis.pttl(key) > 0, key


async def test_many_values_are_one_call_each_way(cache: Cache) -> None:
    await cache.set_many({1: "one", "1": "text", (1, 2): "pair"})
    assert await cache.get_many([1, "1", (1, 2), 3]) == {1: "one", "1": "text", (1, 2): "pair"}


async def test_delete_and_updating_empty_entries(cache: Cache) -> None:
    await cache.set_many({"a": 1, "b": 2})
    await cache.delete("a")
    assert await cache.get("a") is None
    async with cache.updating("b"):
        assert await cache.get("b") is None
    assert await cache.get("b") is None


async def test_an_error_inside_updating_empties_the_entry_all_the_same(cache: Cache) -> None:
    await cache.set("a", 1)
    with pytest.raises(RuntimeError, match="half done"):
        async with cache.updating("a"):
            raise RuntimeError("half done")
    assert await cache.get("a") is None


async def test_a_tag_reaches_every_entry_that_carries_it(cache: Cache) -> None:
    await cache.set("list", [1], tags=["users"])
    await cache.set("count", 1, tags=["users", "stats"])
    await cache.set("other", 1, tags=["posts"])
    await cache.invalidate_tags("users")
    assert await cache.get_many(["list", "count", "other"]) == {"other": 1}


async def test_a_load_is_cached_and_its_failure_is_not(cache: Cache) -> None:
    calls = 0

    async def load() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("database down")
        return calls

    with pytest.raises(RuntimeError, match="database down"):
        await cache.get_or_load("key", load)
    assert await cache.get_or_load("key", load) == 2
    assert await cache.get_or_load("key", load) == 2
    assert cache.stats.load_failures == 1


async def test_not_found_is_remembered_only_if_asked(make_cache: MakeCache) -> None:
    from asynccache import Policy

    calls = 0

    async def load() -> int | None:
        nonlocal calls
        calls += 1
        return None

    forgetful = await make_cache()
    for _ in range(3):
        assert await forgetful.get_or_load("key", load) is None
    assert calls == 3
    mindful = await make_cache(policy=Policy(negative_ttl=60))
    for _ in range(3):
        assert await mindful.get_or_load("key", load) is None
    assert calls == 4


async def test_callers_cannot_change_each_others_value(cache: Cache) -> None:
    gate, loading = asyncio.Event(), asyncio.Event()

    async def load() -> dict[str, list[int]]:
        loading.set()
        await gate.wait()
        return {"list": []}

    calls = [asyncio.create_task(cache.get_or_load("key", load)) for _ in range(5)]
    await loading.wait()
    gate.set()
    for value in await asyncio.gather(*calls):
        value["list"].append(1)
    assert await cache.get("key") == {"list": []}
    assert [await call for call in calls] == [{"list": [1]}] * 5


async def test_a_loader_may_say_what_becomes_of_its_value(cache: Cache, redis: Redis) -> None:
    from asynccache import LoadContext

    async def skipping(ctx: LoadContext) -> int:
        ctx.skip()
        return 1

    async def short(ctx: LoadContext) -> int:
        ctx.ttl("5s")
        ctx.tags(["late"])
        return 2

    async def missing(ctx: LoadContext) -> Any:
        loads.append("missing")
        ctx.not_found("5s")

    loads: list[str] = []
    for _ in range(3):  # the cache itself remembers no "not found"
        assert await cache.get_or_load("missing", missing) is None
    assert loads == ["missing"]
    assert 0 < await redis.pttl(cache.scope.space.cell("", "missing")) <= 5000
    await cache.invalidate_tags("late")  # so that it is known
    assert await cache.get_or_load("skipped", skipping) == 1
    assert await cache.get("skipped") is None
    # Not stored while the tag might have changed in the very millisecond in which the load began.
    while await cache.get("short") is None:
        assert await cache.get_or_load("short", short) == 2
    assert await cache.get("short") == 2
    await cache.invalidate_tags("late")
    assert await cache.get("short") is None


async def test_a_ttl_is_mandatory(redis_url: str, namespace: str) -> None:
    async with Cache(redis_url, namespace=namespace) as cache:
        with pytest.raises(MissingTTL, match="set has no TTL"):
            await cache.set("a", 1)
        with pytest.raises(MissingTTL, match="get_or_load has no TTL"):
            await cache.get_or_load("a", lambda: _value(1))
        with pytest.raises(ConfigurationError, match="ttl"):
            await cache.set("a", 1, ttl=0)
        assert await cache.get("a") is None


async def test_bad_input_is_refused_and_nothing_is_stored(make_cache: MakeCache) -> None:
    cache = await make_cache(max_value_bytes=1000)
    with pytest.raises(ValueTooLarge, match="max_value_bytes"):
        await cache.set("a", "x" * 2000)
    with pytest.raises(InvalidKey, match="float"):
        await cache.get(1.5)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="sequence of strings"):
        await cache.set("a", 1, tags="users")
    with pytest.raises(ConfigurationError, match="load must be"):
        await cache.get_or_load("a", 7)  # type: ignore[arg-type]
    assert await cache.get("a") is None
    assert await cache.get_or_load("big", lambda: _value("x" * 2000)) == "x" * 2000
    assert cache.stats.too_large == 1


async def test_a_cache_that_is_not_open_says_so(redis_url: str, namespace: str) -> None:
    cache = Cache(redis_url, namespace=namespace, ttl=1)
    with pytest.raises(CacheNotOpen, match="not open yet"):
        await cache.get("a")
    async with cache:
        await cache.set("a", 1)
    with pytest.raises(CacheNotOpen, match="closed"):
        await cache.get("a")
    async with cache:
        assert await cache.get("a") == 1


async def test_an_unreachable_redis_is_found_at_start(namespace: str) -> None:
    cache = Cache("redis://127.0.0.1:1/0", namespace=namespace, ttl=1)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
        await cache.startup()
    assert not cache.health().ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redis": "http://x", "namespace": "n"}, "redis="),
        ({"redis": 7, "namespace": "n"}, "redis must be"),
        ({"redis": "redis://x", "namespace": "a:b"}, "namespace="),
        ({"redis": "redis://x", "namespace": "n", "ttl": "soon"}, "ttl='soon' is not a duration"),
        ({"redis": "redis://x", "namespace": "n", "on_outage": "panic"}, "on_outage="),
        ({"redis": "redis://x", "namespace": "n", "max_value_bytes": 0}, "max_value_bytes="),
    ],
)
def test_bad_options_are_refused_before_any_io(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Cache(**options)


async def test_a_clients_owner_keeps_it(redis: Redis, namespace: str) -> None:
    async with Cache(redis, namespace=namespace, ttl=10) as cache:
        await cache.set("a", 1)
    assert await redis.ping()


async def test_the_cache_runs_in_this_process_alone_for_tests() -> None:
    async with Cache("memory://", namespace="n", ttl=10) as cache:
        await cache.set("a", (1, 2), tags=["t"])
        assert await cache.get("a") == (1, 2)
        await cache.invalidate_tags("t")
        assert await cache.get("a") is None


async def test_bytes_of_anybody_else_are_a_counted_miss(cache: Cache, redis: Redis, namespace: str) -> None:
    await cache.set("a", {"x": 1})
    (key,) = [key async for key in redis.scan_iter(match=f"{namespace}::a")]
    whole = await redis.get(key)
    assert isinstance(whole, bytes)
    for damaged in (
        b"",
        b"x",
        b"V",
        whole[:40],
        whole[:-1],
        whole + b"?",
        b"V\x02" + whole[2:],
        whole[:60] + b"\xff" * 99,
    ):
        await redis.set(key, damaged, px=60_000)
        before = cache.stats
        assert await cache.get("a") is None, damaged
        assert cache.stats.misses == before.misses + 1
        assert await cache.get_or_load("a", lambda: _value({"x": 1})) == {"x": 1}
        assert await cache.get("a") == {"x": 1}
    await redis.delete(key)
    await redis.rpush(key, b"a list")
    assert await cache.get("a") is None
    assert await cache.get_or_load("a", lambda: _value({"x": 1})) == {"x": 1}
    assert await cache.get("a") == {"x": 1}


async def _value(value: Any) -> Any:
    return value


async def test_a_forked_child_is_told_to_open_a_cache_of_its_own(cache: Cache) -> None:
    await cache.set("k", 1)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:  # never returns into pytest
        try:
            cache.get("k").send(None)
        except CacheNotOpen as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert b"opened in a parent process" in pipe.read()
    assert await cache.get("k") == 1
