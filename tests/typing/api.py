"""What type checkers see of the public API. Checked by mypy and pyright, never run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type
from uuid import UUID

import asyncpg
from fastapi import FastAPI

from asynccache import (
    AfterRequests,
    Always,
    Cache,
    CacheAside,
    ChangesHealth,
    Explanation,
    HotKey,
    HotKeys,
    Namespace,
    Policy,
    Predicate,
    ReadThrough,
    Recorder,
    RecorderStats,
    Stats,
    Upgrade,
    VersionCounter,
    Warming,
    WarmReport,
    WriteBehind,
    WriteThrough,
)
from asynccache.admission import AdmissionPolicy
from asynccache.keys import CellKey
from asynccache.postgres import ChangesStats, PostgresChanges, PostgresTable, TableChanges, transaction


@dataclass
class User:
    id: int
    name: str


cache = Cache(
    "redis://localhost:6379/0",
    namespace="shop",
    ttl=300,
    policy=Policy(stale="1m", jitter=0.2),
    hot_keys=HotKeys(half_life="5m"),
)
app = FastAPI(lifespan=cache.lifespan)


@cache.cached(ttl="5m", key="user:{user_id}", tags=["users"])
async def get_user(user_id: int, *, fresh: bool = False) -> User:
    raise NotImplementedError


@cache.cached()
async def find_user(name: str) -> User | None:
    raise NotImplementedError


class Orders:
    tenant: str

    @cache.cached_method(key="orders:{self.tenant}:{order_id}")
    async def get(self, order_id: UUID) -> list[str]:
        raise NotImplementedError


async def load_user(key: int) -> User | None:
    raise NotImplementedError


async def load_number() -> int:
    raise NotImplementedError


async def decorated(orders: Orders) -> None:
    assert_type(await get_user(42), User)
    assert_type(await get_user(user_id=42, fresh=True), User)
    assert_type(get_user.key(42), CellKey)
    assert_type(await get_user.refresh(42), User)
    assert_type(await get_user.explain(42), Explanation)
    await get_user.invalidate(42)
    assert_type(await find_user("ada"), User | None)
    assert_type(await orders.get(UUID(int=1)), list[str])
    assert_type(orders.get.key(UUID(int=1)), CellKey)
    await get_user("42")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await get_user(42, page=43)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await orders.get("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def plain() -> None:
    assert_type(await cache.get_or_load("n", load_number, ttl=5, tags=("a",)), int)
    assert_type(await cache.get("user", type=User), User | None)
    assert_type(await cache.get("user", 7, type=User), User | int)
    assert_type(await cache.get("user"), Any)
    assert_type(await cache.get_many(["a", 1, ("b", 2)]), dict[Any, Any])
    await cache.set("a", 1, ttl="5m", tags=["x"])
    await cache.delete("a", "b", get_user.key(1))
    await cache.invalidate_tags("users", "user:42")
    async with cache.updating("a", ("b", 1), tags=["users"]):
        pass
    assert_type(cache.stats, Stats)


async def strategies(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    aside = CacheAside(cache, "user", ttl=300, type=User)
    assert_type(aside, CacheAside[User])
    assert_type(await aside.get(42, load=load_user), User | None)
    assert_type(await aside.get_many([1, 2], load=load_user), dict[Any, User])
    async with aside.updating(42, tags=["users"]):
        pass

    table = PostgresTable(pool, "users", key="id", model=User)
    assert_type(table, PostgresTable[User])
    read = ReadThrough(cache, "user", source=table, ttl=300)
    assert_type(read, ReadThrough[User])
    assert_type(await read.get(42), User | None)
    assert_type(await read.get_many([1]), dict[Any, User])
    assert_type(await read.refresh(42), User | None)

    by_function = ReadThrough(cache, "user", source=load_user, ttl=300)
    assert_type(await by_function.get(42), User | None)

    assert_type(await read.warm([1, 2], rate=100, resume="nightly", progress=True), WarmReport)
    assert_type(await read.warm_query("SELECT id FROM users LIMIT $1", 10), WarmReport)
    assert_type(await read.warm_hot(top=10, concurrency=2), WarmReport)
    assert_type(read.warm([1]), Warming[User])
    assert_type(await aside.warm([1], load=load_user), WarmReport)
    assert_type(await read.hot(top=5), list[HotKey])
    cache.warm_at_start(read, hot=100, before_ready=True, timeout="10s", rate=1000)
    cache.warm_at_start(aside, keys=lambda: iter([1]), load=load_user)
    read.warm([1], speed=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    write = WriteThrough(cache, "user", source=table, ttl=300)
    assert_type(write, WriteThrough[User])
    assert_type(await write.put(42, User(42, "Ada")), User)
    assert_type(await write.get(42), User | None)
    await write.put(42, "Ada")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await write.delete(42)

    behind = WriteBehind(cache, "user", sink=table, ttl=300, flush_every=1.0, max_batch=1000)
    assert_type(behind, WriteBehind[User])
    assert_type(await behind.get(("acme", 7)), User | None)
    await behind.put(42, User(42, "Ada"))
    await behind.delete(42)
    await behind.flush()


def teams(user_id: int, user: User) -> list[str]:
    return [f"team:{user.name}"]


@cache.cached(tags=teams, version="{user_id}", admit=AfterRequests(2), max_value_bytes=64_000)
async def tagged(user_id: int) -> User:
    raise NotImplementedError


def upgrade(old: str) -> User:
    return User(1, old)


async def invalidation(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    tenant = cache.namespace("tenant-7", ttl="1m")
    assert_type(tenant, Namespace)
    await tenant.namespace("inner").clear()
    assert_type(await tagged(1), User)
    counted = ReadThrough(tenant, "user", source=load_user, version=VersionCounter(), upgrade=[Upgrade(str, upgrade)])
    assert_type(counted, ReadThrough[User])
    await counted.bump(1, 2)
    await tagged.bump(1)
    assert_type(await tagged.key_now(1), CellKey)
    ReadThrough(cache, "user", source=load_user, unknown=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    async with transaction(pool) as connection, cache.updating("a"):
        await connection.execute("SELECT 1")


def team_tags(row: Mapping[str, Any]) -> list[str]:
    return [f"team:{row['team_id']}"]


async def database_changes(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    aside = CacheAside(cache, "user", type=User)
    by_id = TableChanges("users", key="id", entries=[aside, get_user, team_tags], tags=["users"], columns=["team_id"])
    by_parts = TableChanges("app.orders", key=("tenant", "id"), tags=team_tags, whole=["orders"])
    changes = PostgresChanges(pool, tables=[by_id, by_parts], name="one", poll="1s", retention="7d", notify=False)
    cache.follow(changes)
    cache.namespace("tenant-7").follow(changes)
    assert_type(changes.sql(), str)
    assert_type(changes.stats, ChangesStats)
    assert_type(cache.health().changes, tuple[ChangesHealth, ...])
    await changes.install()
    await changes.uninstall()
    cache.follow(by_id)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TableChanges("users", key="id", entries=[7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def is_member(user: User) -> bool:
    return bool(user.name)


async def selective() -> None:
    assert_type(AfterRequests(2, within="10m", capacity=1000) & Predicate(is_member), AdmissionPolicy)
    ReadThrough(cache, "user", source=load_user, admit=Always() | AfterRequests(3), max_value_bytes=64_000)
    cache.namespace("tenant-7", admit=Predicate(is_member))
    AfterRequests("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Predicate(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CacheAside(cache, "user", admit=AfterRequests)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


recorder = Recorder("trace.jsonl", sample=0.1, hash_keys=True)
recording = Cache("redis://localhost:6379/0", namespace="shop", record=recorder)
assert_type(recorder.stats, RecorderStats)
