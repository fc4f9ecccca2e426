"""Versioned keys, and entries of older models."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from asynccache import (
    Cache,
    CacheAside,
    ConfigurationError,
    LocalTier,
    ReadThrough,
    Reason,
    Upgrade,
    VersionCounter,
)
from tests.support.caches import MakeCache
from tests.support.gates import Table, until


@dataclass
class User:
    id: int
    updated_at: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


async def test_a_raised_version_does_not_see_older_entries_which_leave_by_their_ttl(
    cache: Cache, redis: Redis, namespace: str
) -> None:
    table = Table(k="old")
    one = ReadThrough(cache, "user", source=table.load, version=1, type=str)
    assert await one.get("k") == "old"
    table.rows["k"] = "new"
    two = ReadThrough(cache, "user", source=table.load, version=2, type=str)
    assert await two.get("k") == "new"
    assert await one.get("k") == "old"
    assert 0 < await redis.pttl(f"{namespace}:user@1:k") <= 60_000
    assert await redis.exists(f"{namespace}:user@2:k")


async def test_a_version_may_come_from_the_key(cache: Cache) -> None:
    table = Table()
    table.rows = {("k", 1): "one", ("k", 2): "two"}
    users = ReadThrough(cache, "user", source=table.load, version=lambda key: key[1], type=str)
    assert [await users.get(("k", 1)), await users.get(("k", 2))] == ["one", "two"]
    assert users.key(("k", 2)).endswith(":user@2:k:2")


async def test_a_version_may_be_awaited_and_every_way_to_the_entry_follows_it(cache: Cache) -> None:
    table, versions = Table(a="old", b="b"), {"a": 1, "b": 1}

    async def version(key: str) -> int:
        await asyncio.sleep(0)
        return versions[key]

    users = ReadThrough(cache, "user", source=table.load, version=version, type=str)
    assert await users.get_many(["a", "b"]) == {"a": "old", "b": "b"}
    table.rows["a"] = "new"
    assert await users.get("a") == "old"
    versions["a"] = 2
    assert await users.get("a") == "new"
    assert (await users.explain("a")).reason is Reason.FRESH
    assert (await users.key_now("a")).endswith(":user@2:a")
    with pytest.raises(ConfigurationError, match="key_now"):
        users.key("a")
    table.rows["a"] = "newer"
    await users.invalidate("a")
    assert await users.get("a") == "newer"
    assert await users.refresh("a") == "newer"

    aside: CacheAside[str] = CacheAside(cache, "user", version=version, type=str)
    async with aside.updating("a"):
        assert (await users.explain("a")).reason is Reason.WRITING
        table.rows["a"] = "newest"
    assert await users.get("a") == "newest"


async def test_a_bumped_counter_outdates_its_key_in_every_process_and_no_other(make_cache: MakeCache) -> None:
    table = Table(a="old", b="b")
    one, two = [
        ReadThrough(await make_cache(), "user", source=table.load, version=VersionCounter(), type=str) for _ in range(2)
    ]
    assert await one.get_many(["a", "b"]) == {"a": "old", "b": "b"}
    table.rows.update(a="new", b="not seen")
    await two.bump("a")
    assert await one.get_many(["a", "b"]) == {"a": "new", "b": "b"}
    assert await two.get("a") == "new"


async def test_a_load_that_began_before_a_bump_is_not_the_new_version(make_cache: MakeCache) -> None:
    table = Table(k="old")
    one, two = [
        ReadThrough(await make_cache(), "user", source=table.load, version=VersionCounter(), type=str) for _ in range(2)
    ]
    gate = table.hold()
    held = asyncio.create_task(one.get("k"))
    await gate.reached()
    table.rows["k"] = "new"
    await two.bump("k")
    table.free()
    gate.open()
    assert await held == "old"
    assert [await one.get("k"), await two.get("k")] == ["new", "new"]


async def test_an_evicted_counter_revives_no_older_version(cache: Cache, redis: Redis) -> None:
    table = Table(k="old")
    users = ReadThrough(cache, "user", source=table.load, version=VersionCounter(), type=str)
    assert await users.get("k") == "old"
    table.rows["k"] = "new"
    await users.bump("k")
    await redis.delete(cache.scope.space.counter("user", "k"))
    assert await users.get("k") == "new"


async def test_decorated_functions_have_versions_too(cache: Cache) -> None:
    calls: list[Any] = []
    tick = 1

    @cache.cached(key="user:{user.id}:{page}", version="{user.updated_at}")
    async def by_row(user: User, page: int = 1) -> int:
        calls.append(user)
        return len(calls)

    later = User(1, dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    assert [await by_row(User(1)), await by_row(User(1)), await by_row(later)] == [1, 1, 2]

    async def now(name: str, page: int) -> int:
        assert page == 1
        return tick

    @cache.cached(version=now)
    async def awaited(name: str, page: int = 1) -> int:
        calls.append(name)
        return len(calls)

    first = await awaited("a")
    assert await awaited("a") == first
    tick = 2
    assert await awaited("a") == first + 1
    await awaited.invalidate("a")
    assert await awaited("a") == first + 2
    with pytest.raises(ConfigurationError, match="key_now"):
        awaited.key("a")
    assert "@2:" in await awaited.key_now("a")

    @cache.cached(version=VersionCounter(), key="counted:{name}")
    async def counted(name: str) -> int:
        calls.append(name)
        return len(calls)

    first = await counted("a")
    assert await counted("a") == first
    await counted.bump("a")
    assert await counted("a") == first + 1

    @cache.cached(version=3, key="fixed:{name}")
    async def fixed(name: str) -> str:
        return name

    assert fixed.key("a") == cache.scope.space.cell("fixed@3", "a")


async def test_a_version_from_a_row_is_served_from_the_local_tier(make_cache: MakeCache) -> None:
    cache = await make_cache(local=LocalTier())
    await until(lambda: cache.runtime.reader.entries is not None and cache.runtime.reader.entries.on)

    @cache.cached(key="user:{user.id}", version="{user.updated_at}")
    async def double(user: User) -> int:
        return user.id * 2

    async def local() -> bool:
        assert await double(User(2)) == 4
        return cache.stats.local_hits > 0

    await until(local)


def test_a_version_that_cannot_work_is_refused_at_once() -> None:
    cache = Cache("redis://localhost", namespace="shop", ttl=5)

    load = Table().load
    with pytest.raises(ConfigurationError, match=r"version=1\.5"):
        ReadThrough(cache, "user", source=load, version=1.5)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="is the class"):
        ReadThrough(cache, "user", source=load, version=VersionCounter)  # type: ignore[arg-type]
    bads: list[tuple[Any, str]] = [
        (lambda name: 1, "async def"),
        ("{nobody}", "names no parameter"),
        ("v{name}", "no other text"),
        (1.5, "float"),
        (too_many, "one too many"),
        (too_few, "must take"),
    ]
    for bad, match in bads:
        with pytest.raises(ConfigurationError, match=match):
            cache.cached(version=bad)(load2)


async def load2(name: str) -> str:
    return name


async def too_many(name: str, result: str) -> int:
    return 1


async def too_few() -> int:
    return 1


async def test_a_strategy_without_a_counter_has_nothing_to_bump(cache: Cache) -> None:
    table = Table()
    with pytest.raises(ConfigurationError, match="no counter"):
        await ReadThrough(cache, "user", source=table.load).bump("k")


async def test_a_plain_function_that_returns_an_awaitable_version_is_refused(cache: Cache) -> None:
    async def version(key: str, more: int) -> int:
        return more

    users = ReadThrough(cache, "user", source=Table(k="v").load, version=lambda key: version(key, 1))
    with pytest.raises(ConfigurationError, match="async def"):
        await users.get("k")


# -- models that change


def _old_and_new() -> tuple[Any, Any]:
    class Person(msgspec.Struct):
        id: int
        name: str

    old = Person

    class Person(msgspec.Struct):  # type: ignore[no-redef]
        id: int
        first: str
        last: str

    for model in (old, Person):
        model.__qualname__ = "Person"
    return old, Person


def _upgrade(old: Any) -> Any:
    first, _, last = old.name.partition(" ")
    return _new_model(old.id, first, last)


_old_model, _new_model = _old_and_new()


async def test_a_deploy_reads_old_entries_through_the_declared_upgrade_or_as_misses(make_cache: MakeCache) -> None:
    before: CacheAside[Any] = CacheAside(await make_cache(), "person", type=_old_model)

    async def load(key: int) -> Any:
        return _old_model(key, "Ada Lovelace")

    async def load_new(key: int) -> Any:
        return _new_model(key, "Ada", "King")

    await before.get(1, load)
    upgraded: CacheAside[Any] = CacheAside(
        await make_cache(), "person", type=_new_model, upgrade=[Upgrade(_old_model, _upgrade)]
    )
    assert await upgraded.get(1, load_new) == _new_model(1, "Ada", "Lovelace")
    cache = await make_cache()
    plain: CacheAside[Any] = CacheAside(cache, "person", type=_new_model)
    assert await plain.get(1, load_new) == _new_model(1, "Ada", "King")
    assert cache.stats.unreadable == 1


async def test_an_upgraded_entry_is_kept_in_the_local_tier(make_cache: MakeCache) -> None:
    before: CacheAside[Any] = CacheAside(await make_cache(), "person", type=_old_model)

    async def load(key: int) -> Any:
        return _old_model(key, "Ada Lovelace")

    await before.get(1, load)
    cache = await make_cache(local=LocalTier())
    await until(lambda: cache.runtime.reader.entries is not None and cache.runtime.reader.entries.on)
    after: CacheAside[Any] = CacheAside(cache, "person", type=_new_model, upgrade=[Upgrade(_old_model, _upgrade)])

    async def local() -> bool:
        assert await after.get(1, load) == _new_model(1, "Ada", "Lovelace")
        return cache.stats.local_hits > 0

    await until(local)


async def test_an_upgrade_that_fails_is_a_counted_miss(make_cache: MakeCache) -> None:
    before: CacheAside[Any] = CacheAside(await make_cache(), "person", type=_old_model)

    async def load(key: int) -> Any:
        return _old_model(key, "Ada")

    async def load_new(key: int) -> Any:
        return _new_model(key, "Ada", "King")

    for convert in (lambda old: old.nothing, lambda old: "not a person"):
        await before.invalidate(1)
        await before.get(1, load)
        cache = await make_cache()
        after: CacheAside[Any] = CacheAside(cache, "person", type=_new_model, upgrade=[Upgrade(_old_model, convert)])
        assert await after.get(1, load_new) == _new_model(1, "Ada", "King")
        assert cache.stats.unreadable == 1


def test_an_upgrade_that_cannot_work_is_refused_at_once() -> None:
    cache = Cache("redis://localhost", namespace="shop", ttl=5)

    async def convert(old: Any) -> Any:
        return old

    for upgrade, match in (
        (Upgrade(_old_model, _upgrade), "must be a list"),
        ([_old_model], "must hold Upgrades"),
        ([Upgrade(_old_model, convert)], "plain function"),
        ([Upgrade(_new_model, _upgrade)], "has the shape"),
        ([Upgrade(dict, _upgrade)], "says what all its fields are"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            CacheAside(cache, "person", type=_new_model, upgrade=upgrade)  # type: ignore[arg-type]
