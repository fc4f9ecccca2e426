"""Tags given to calls, functions and strategies: fixed, as templates, and as functions of arguments and result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, ConfigurationError, ReadThrough, Reason, WriteBehind, WriteThrough
from asynccache.entry import generation_micros, pack_generation
from asynccache.postgres import PostgresTable
from tests.support.gates import Table, gated, until


@dataclass
class User:
    id: int
    team: int


@pytest.fixture
async def table(pool: asyncpg.Pool[Any]) -> PostgresTable[User]:
    await pool.execute("CREATE TABLE users (id int PRIMARY KEY, team int NOT NULL)")
    await pool.execute("INSERT INTO users SELECT n, n % 2 FROM generate_series(1, 4) n")
    return PostgresTable(pool, "users", key="id", model=User)


async def _known(cache: Cache, *tags: str) -> None:
    """Gives tags generations that are older than any load that begins from now on, so that it can be stored at once."""
    await cache.invalidate_tags(*tags)
    store, begun = cache.runtime.store, cache.runtime.store.now_ms()
    await until(lambda: store.now_ms() > begun + 1, "the next millisecond")


async def test_one_tag_reaches_lists_and_aggregates_of_every_kind(cache: Cache, pool: asyncpg.Pool[Any]) -> None:
    await pool.execute("CREATE TABLE users (id int)")
    sizes = []

    @cache.cached(tags=["users"])
    async def list_users(page: int = 1) -> list[int]:
        return [row["id"] for row in await pool.fetch("SELECT id FROM users ORDER BY id")]

    @cache.cached(tags=["users"])
    async def count_users() -> int:
        return int(await pool.fetchval("SELECT count(*) FROM users"))

    for step in range(3):
        sizes.append((await list_users(), await list_users(page=2), await count_users()))
        if step:
            await cache.invalidate_tags("users")
        await pool.execute("INSERT INTO users VALUES ($1)", step)
    assert sizes == [([], [], 0), ([], [], 0), ([0, 1], [0, 1], 2)]


async def test_a_tag_outlives_the_entry_with_the_shortest_ttl(cache: Cache, redis: Redis) -> None:
    await cache.set("short", 1, ttl=0.05, tags=["t"])
    await cache.set("long", 1, tags=["t"])
    await until(lambda: _is_gone(redis, cache.scope.space.cell("", "short")), "the short one to expire")
    assert await cache.get("long") == 1
    await cache.invalidate_tags("t")
    assert await cache.get("long") is None


async def test_a_tag_is_invalidated_though_the_servers_clock_went_back(cache: Cache, redis: Redis) -> None:
    await cache.invalidate_tags("t")
    generation = cache.scope.space.generation("t")
    # As it stands there if it was begun before the clock was set back by a day.
    later = pack_generation((cache.runtime.store.now_ms() + 86_400_000) * 1000, b"salt")
    await redis.set(generation, later)
    await cache.set("k", 1, tags=["t"])
    assert await cache.get("k") == 1
    await cache.invalidate_tags("t")
    assert await cache.get("k") is None
    now = await redis.get(generation)
    assert isinstance(now, bytes)
    assert generation_micros(now) > generation_micros(later), "an older load would pass for a younger one"


async def _is_gone(redis: Redis, cell: str) -> bool:
    return not await redis.exists(cell)


async def test_templates_name_the_arguments_of_the_call(cache: Cache) -> None:
    table = Table()

    @cache.cached(tags=["orders", "user:{user_id}"])
    async def orders(user_id: int, page: int = 1) -> int:
        return int(await table.load((user_id, page)) or 0)

    assert [await orders(1), await orders(1, 2), await orders(2)] == [0, 0, 0]
    table.rows = {(1, 1): 1, (1, 2): 2, (2, 1): 3}
    await cache.invalidate_tags("user:1")
    assert [await orders(1), await orders(1, 2), await orders(2)] == [1, 2, 0]


async def test_a_functions_tags_may_come_from_its_result(cache: Cache) -> None:
    teams = {1: [7, 8], 2: [9]}
    loads: list[int] = []

    def members(user_id: int, page: int, order: str, result: list[int]) -> Sequence[str]:
        assert (user_id in teams, page, order) == (True, 1, "name")
        return [f"team:{team}" for team in result]

    @cache.cached(tags=members)
    async def teams_of(user_id: int, page: int = 1, *, order: str = "name") -> list[int]:
        loads.append(user_id)
        return teams[user_id]

    await _known(cache, "team:7", "team:8", "team:9")
    for _ in range(2):
        assert [await teams_of(1), await teams_of(2)] == [[7, 8], [9]]
    assert await teams_of(user_id=1, page=1) == [7, 8]
    assert loads == [1, 2]
    await cache.invalidate_tags("team:8")
    assert [await teams_of(1), await teams_of(2)] == [[7, 8], [9]]
    assert loads == [1, 2, 1]


async def test_a_functions_tags_may_be_computed_from_its_arguments(cache: Cache) -> None:
    table = Table(a=1)

    @cache.cached(tags=lambda name, suffix: [f"first:{name[0]}{suffix}"])
    async def get(name: str, suffix: str = "") -> int:
        return int(await table.load("a"))

    assert await get("abc") == 1
    table.rows["a"] = 2
    assert await get("abc") == 1
    await cache.invalidate_tags("first:a")
    assert await get("abc") == 2


@pytest.mark.parametrize("kind", [ReadThrough, WriteThrough])
async def test_a_strategys_tags_may_come_from_the_key_and_from_the_row(
    cache: Cache, pool: asyncpg.Pool[Any], table: PostgresTable[User], kind: Any
) -> None:
    by_key = kind(cache, "by-key", source=table, tags=["user:{key}"])
    by_row = kind(cache, "by-row", source=table, tags=lambda key, user: [f"team:{user.team}"])
    await _known(cache, "team:0", "team:1")
    for users in (by_key, by_row):
        assert (await users.get_many([1, 2]))[1] == User(1, 1)
        assert (await users.explain(1)).reason is Reason.FRESH
    await cache.invalidate_tags("user:1", "team:1")
    for users in (by_key, by_row):
        assert (await users.explain(1)).reason is Reason.OUTDATED
        assert (await users.explain(2)).reason is Reason.FRESH


async def test_a_put_caches_the_row_under_the_tags_that_it_has_now(cache: Cache, table: PostgresTable[User]) -> None:
    users = WriteThrough(cache, "user", source=table, tags=lambda key, user: [f"team:{user.team}"])
    await users.put(1, User(1, 5))
    assert (await users.explain(1)).reason is Reason.FRESH
    await cache.invalidate_tags("team:1")
    assert (await users.explain(1)).reason is Reason.FRESH
    await cache.invalidate_tags("team:5")
    assert (await users.explain(1)).reason is Reason.OUTDATED


async def test_a_put_whose_row_the_database_moves_to_other_tags_caches_nothing(
    cache: Cache, pool: asyncpg.Pool[Any], table: PostgresTable[User]
) -> None:
    await pool.execute(
        "CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.team := 9; RETURN NEW; END'"
    )
    await pool.execute("CREATE TRIGGER move BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION move()")
    users = WriteThrough(cache, "user", source=table, tags=lambda key, user: [f"team:{user.team}"])
    assert await users.put(1, User(1, 5)) == User(1, 9)
    assert (await users.explain(1)).reason is Reason.EMPTY


async def test_a_buffered_put_carries_the_tags_of_its_value(cache: Cache, table: PostgresTable[User]) -> None:
    users = WriteBehind(cache, "user", sink=table, tags=lambda key, user: [f"team:{user.team}"])
    await users.put(1, User(1, 5))
    assert (await users.explain(1)).reason is Reason.FRESH
    await cache.invalidate_tags("team:5")
    assert (await users.explain(1)).reason is Reason.OUTDATED
    assert await users.get(1) == User(1, 5)


async def test_tags_known_from_the_call_are_read_with_the_entry(cache: Cache) -> None:
    table = Table(k="v")
    users: CacheAside[str] = CacheAside(cache, "user", tags=["users", "user:{key}"])
    assert await users.get("k", table.load) == "v"
    store = gated(cache)
    assert await users.get("k", table.load) == "v"
    assert store.reads == 1


def test_tags_that_cannot_work_are_refused_at_once() -> None:
    cache = Cache("redis://localhost", namespace="shop", ttl=5)

    async def later(user_id: int) -> list[str]:
        return []

    async def function(user_id: int) -> int:
        return user_id

    wrong: list[tuple[Any, str]] = [
        ("users", "sequence of strings"),
        (["user:{nobody}"], "names no parameter"),
        ([1], "non-empty string"),
        (later, "plain function"),
        (lambda a, b, c: [], "must take"),
    ]
    for tags, match in wrong:
        with pytest.raises(ConfigurationError, match=match):
            cache.cached(tags=tags)(function)
        with pytest.raises(ConfigurationError, match=match):
            CacheAside(cache, "user", tags=tags)


async def test_what_a_function_returns_as_tags_is_checked_when_it_does(cache: Cache) -> None:
    users: CacheAside[str] = CacheAside(cache, "user", tags=lambda key: key)
    with pytest.raises(ConfigurationError, match="what '<lambda>' returns must be a sequence"):
        await users.get("k", Table(k="v").load)
