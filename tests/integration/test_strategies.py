"""The four strategies end to end, on real Redis and Postgres."""

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import (
    BufferFull,
    Cache,
    CacheAside,
    ConfigurationError,
    DatabaseUnavailable,
    EncodeError,
    InvalidKey,
    MissingTTL,
    ReadThrough,
    SchemaMismatch,
    ValueTooLarge,
    WriteBehind,
    WriteRejected,
    WriteThrough,
)
from asynccache.postgres import PostgresTable
from tests.support.caches import MakeCache


@dataclass
class User:
    id: int
    name: str
    points: int = 0


Table: TypeAlias = PostgresTable[User]
Pool: TypeAlias = "asyncpg.Pool[Any]"


class Statements:
    """Counts the statements of a pool that are not its own housekeeping."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def watch(self, connection: Any) -> None:
        connection.add_query_logger(self.log)

    def log(self, record: Any) -> None:
        if "users" in record.query:
            self.sent.append(record.query)


@pytest.fixture
async def users_table(pool: Pool) -> PostgresTable[User]:
    await pool.execute(
        "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL CHECK (name <> ''), points int NOT NULL DEFAULT 0)"
    )
    await pool.execute("INSERT INTO users SELECT n, 'user ' || n, n FROM generate_series(1, 100) AS n")
    return PostgresTable(pool, "users", key="id", model=User)


async def test_cache_aside_loads_once_and_sees_its_own_writes(cache: Cache, pool: Pool, users_table: Table) -> None:
    users = CacheAside(cache, "user", ttl=300, type=User)
    loads = []

    async def fetch(key: int) -> User | None:
        loads.append(key)
        row = await pool.fetchrow("SELECT id, name, points FROM users WHERE id = $1", key)
        return User(**row) if row else None

    assert await users.get(42, load=fetch) == User(42, "user 42", 42)
    assert await users.get(42, load=fetch) == User(42, "user 42", 42)
    assert await users.get_many([41, 42, 4242], load=fetch) == {
        41: User(41, "user 41", 41),
        42: User(42, "user 42", 42),
    }
    assert loads == [42, 41, 4242]
    async with users.updating(42, 41):
        await pool.execute("UPDATE users SET name = 'Ada' WHERE id IN (41, 42)")
        assert (await users.get(42, load=fetch)) == User(42, "Ada", 42)
    assert (await users.get(42, load=fetch)) == User(42, "Ada", 42)
    assert (await users.refresh(42, load=fetch)) == User(42, "Ada", 42)
    await users.invalidate(42)
    assert (await users.get(42, load=fetch)) == User(42, "Ada", 42)


async def test_read_through_loads_many_misses_with_one_query(
    cache: Cache, database_url: str, schema: str, users_table: Table
) -> None:
    statements = Statements()
    async with asyncpg.create_pool(
        database_url, min_size=1, max_size=4, init=statements.watch, server_settings={"search_path": schema}
    ) as pool:
        users = ReadThrough(cache, "user", source=PostgresTable(pool, "users", key="id", model=User))
        assert await users.get(1) == User(1, "user 1", 1)
        statements.sent.clear()
        found = await users.get_many(range(1, 201))
        assert len(found) == 100
        assert found[100] == User(100, "user 100", 100)
        assert len(statements.sent) == 1
        statements.sent.clear()
        await asyncio.gather(*(users.get(key) for key in range(1, 101)))
        assert statements.sent == []
        await users.invalidate(*range(1, 101))
        await asyncio.gather(*(users.get(key) for key in range(1, 101)))
        assert len(statements.sent) <= 2


async def test_write_through_caches_what_the_database_holds(cache: Cache, pool: Pool) -> None:
    @dataclass
    class Order:
        item: str
        cents: int
        total: int | None = None
        note: str | None = None

    await pool.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, item text, cents int, note text,"
        " total int GENERATED ALWAYS AS (cents * 2) STORED)"
    )
    orders = WriteThrough(cache, "order", source=PostgresTable(pool, "orders", key="id", model=Order), ttl=60)
    assert await orders.put(1, Order("tea", 250)) == Order("tea", 250, 500)
    before = cache.stats
    assert await orders.get(1) == Order("tea", 250, 500)
    assert (cache.stats.hits, cache.stats.loads) == (before.hits + 1, before.loads)
    await orders.put_many({1: Order("tea", 300), 2: Order("milk", 100)})
    assert await orders.get_many([1, 2, 3]) == {1: Order("tea", 300, 600), 2: Order("milk", 100, 200)}
    await orders.delete(1)
    assert await orders.get(1) is None
    assert await pool.fetchval("SELECT count(*) FROM orders") == 1


async def test_a_refused_row_changes_neither_database_nor_cache(cache: Cache, pool: Pool, users_table: Table) -> None:
    users = WriteThrough(cache, "user", source=users_table)
    with pytest.raises(WriteRejected, match="23514"):
        await users.put_many({1: User(1, "Ada"), 2: User(2, "")})
    assert await users.get(1) == User(1, "user 1", 1)
    assert await users.get(2) == User(2, "user 2", 2)


async def test_what_cannot_be_cached_is_not_written_either(
    make_cache: MakeCache, pool: Pool, users_table: Table
) -> None:
    cache = await make_cache(max_value_bytes=500)
    users = WriteThrough(cache, "user", source=users_table)
    with pytest.raises(ValueTooLarge):
        await users.put(1, User(1, "x" * 1000))
    with pytest.raises(EncodeError):
        await users.put(1, {"id": 1, "name": "Ada"})  # type: ignore[arg-type]
    with pytest.raises(InvalidKey, match="bigint"):
        await users.put("1", User(1, "Ada"))
    assert await pool.fetchval("SELECT name FROM users WHERE id = 1") == "user 1"


async def test_write_behind_is_read_before_it_is_flushed_and_after(
    make_cache: MakeCache, pool: Pool, users_table: Table, redis: Redis
) -> None:
    here, there = await make_cache(background=False), await make_cache(background=False)
    users, elsewhere = (WriteBehind(cache, "user", sink=users_table, ttl=60) for cache in (here, there))
    await users.put(1, User(1, "Ada"))
    await users.put(500, User(500, "Grace"))
    await users.delete(2)
    for reader in (users, elsewhere):
        assert await reader.get(1) == User(1, "Ada")
        assert await reader.get(2) is None
        assert await reader.get_many([1, 2, 3, 500]) == {
            1: User(1, "Ada"),
            3: User(3, "user 3", 3),
            500: User(500, "Grace"),
        }
    assert await pool.fetchval("SELECT name FROM users WHERE id = 1") == "user 1"
    for key in (1, 2, 3, 500):
        await redis.delete(users.key(key))  # expired, or evicted
    assert await elsewhere.get_many([1, 2, 3, 500]) == {
        1: User(1, "Ada"),
        3: User(3, "user 3", 3),
        500: User(500, "Grace"),
    }
    assert sum(status.pending for status in await users.pending()) == 3
    await users.flush()
    rows = await pool.fetch("SELECT id, name FROM users WHERE id IN (1, 2, 500) ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, "Ada"), (500, "Grace")]
    assert sum(status.pending + status.in_batch for status in await users.pending()) == 0
    for key in (1, 2, 3, 500):
        await redis.delete(users.key(key))
    assert await elsewhere.get_many([1, 2, 500]) == {1: User(1, "Ada"), 500: User(500, "Grace")}


async def test_the_last_write_of_a_key_stands_whatever_came_before(
    make_cache: MakeCache, pool: Pool, users_table: Table
) -> None:
    users = WriteBehind(await make_cache(background=False), "user", sink=users_table)
    await users.put(1, User(1, "one"))
    await users.delete(1)
    await users.delete(2)
    await users.put(2, User(2, "two"))
    await users.flush()
    await users.put(3, User(3, "three"))
    await users.flush()
    await users.delete(3)
    await users.flush()
    rows = await pool.fetch("SELECT id, name FROM users WHERE id <= 3 ORDER BY id")
    assert [tuple(row) for row in rows] == [(2, "two")]


async def test_the_flusher_flushes_by_itself_and_closing_flushes_the_rest(
    redis_url: str, namespace: str, pool: Pool, users_table: Table
) -> None:
    async with Cache(redis_url, namespace=namespace, ttl=60) as cache:
        users = WriteBehind(cache, "user", sink=users_table, flush_every="20ms")
        await users.put(1, User(1, "Ada"))
        async with asyncio.timeout(10):
            while await pool.fetchval("SELECT name FROM users WHERE id = 1") != "Ada":
                await asyncio.sleep(0)
        assert cache.health().ok
        slow = WriteBehind(cache, "slow", sink=users_table, flush_every="1h")
        await slow.put(2, User(2, "Grace"))
    assert await pool.fetchval("SELECT name FROM users WHERE id = 2") == "Grace"


async def test_batches_are_bounded_and_a_batch_is_applied_once(
    make_cache: MakeCache, pool: Pool, users_table: Table
) -> None:
    cache = await make_cache(background=False)
    users = WriteBehind(cache, "user", sink=users_table, max_batch=10, partitions=1)
    await users.put_many({key: User(key, f"new {key}") for key in range(1, 36)})
    await users.flush()
    batches = users.flushed.batches
    assert 1 < batches <= 4  # of 10, the later ones of more
    assert await pool.fetchval("SELECT count(*) FROM users WHERE name LIKE 'new %'") == 35
    assert await pool.fetchval("SELECT count(*) FROM asynccache_batch") == batches


async def test_a_full_buffer_refuses_new_keys_and_loses_none(
    make_cache: MakeCache, pool: Pool, users_table: Table
) -> None:
    cache = await make_cache(background=False)
    users = WriteBehind(cache, "user", sink=users_table, max_pending=2, partitions=1, on_full="raise")
    await users.put(1, User(1, "a"))
    await users.put(2, User(2, "b"))
    with pytest.raises(BufferFull, match="max_pending"):
        await users.put(3, User(3, "c"))
    await users.put(1, User(1, "again"))
    await users.flush()
    await users.put(3, User(3, "c"))
    await users.flush()
    assert [row["name"] for row in await pool.fetch("SELECT name FROM users WHERE id <= 3 ORDER BY id")] == [
        "again",
        "b",
        "c",
    ]


async def test_plain_functions_are_sources(cache: Cache) -> None:
    asked: list[Any] = []

    async def load(key: int) -> User | None:
        asked.append(key)
        return User(key, f"user {key}") if key < 10 else None

    async def load_many(keys: list[int]) -> dict[int, User]:
        asked.append(sorted(keys))
        return {key: User(key, f"user {key}") for key in keys if key < 10}

    one = ReadThrough(cache, "one", source=load)
    assert await one.get_many([1, 2, 20]) == {1: User(1, "user 1"), 2: User(2, "user 2")}
    assert sorted(asked) == [1, 2, 20]
    asked.clear()
    many = ReadThrough(cache, "many", source=load_many)
    assert await many.get_many([1, 2, 20]) == {1: User(1, "user 1"), 2: User(2, "user 2")}
    assert asked == [[1, 2, 20]]
    report = await many.warm(range(8))
    assert (report.loaded, report.skipped) == (6, 2)


async def test_strategies_of_one_name_share_entries(cache: Cache, users_table: Table) -> None:
    through = WriteThrough(cache, "user", source=users_table)
    aside = CacheAside(cache, "user", type=User)

    async def never(key: int) -> User | None:
        raise AssertionError("loaded")

    await through.put(1, User(1, "Ada"))
    assert await aside.get(1, load=never) == User(1, "Ada")


async def test_tags_of_strategies_reach_their_entries(cache: Cache, users_table: Table) -> None:
    users = ReadThrough(cache, "user", source=users_table, tags=lambda key: ["users", f"shard:{key % 2}"])
    await users.get_many([1, 2])
    await cache.invalidate_tags("shard:1")
    before = cache.stats.loads
    await users.get_many([1, 2])
    assert cache.stats.loads == before + 1
    await cache.invalidate_tags("users")
    await users.get_many([1, 2])
    assert cache.stats.loads == before + 3


async def test_mistakes_are_found_when_building(redis_url: str, namespace: str, users_table: Table) -> None:
    cache = Cache(redis_url, namespace=namespace)
    with pytest.raises(MissingTTL, match="ReadThrough 'user' has no TTL"):
        ReadThrough(cache, "user", source=users_table)
    with pytest.raises(ConfigurationError, match="name="):
        ReadThrough(cache, "a:b", source=users_table, ttl=1)
    with pytest.raises(ConfigurationError, match="source must be"):
        ReadThrough(cache, "user", source=7, ttl=1)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="apply"):
        WriteThrough(cache, "user", source=len, ttl=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="cache must be a Cache"):
        CacheAside("redis://x", "user", type=User, ttl=1)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="sequence of strings"):
        ReadThrough(cache, "user", source=users_table, ttl=1, tags="users")
    with pytest.raises(ConfigurationError, match="max_batch"):
        WriteBehind(cache, "user", sink=users_table, ttl=1, max_batch=0)
    async with Cache("memory://", namespace="n", ttl=1) as memory:
        with pytest.raises(ConfigurationError, match="needs a cache in Redis"):
            WriteBehind(memory, "user", sink=users_table)


async def test_a_table_that_does_not_fit_is_found_at_start(redis_url: str, namespace: str, pool: Pool) -> None:
    await pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, title text)")
    cache = Cache(redis_url, namespace=namespace, ttl=1)
    ReadThrough(cache, "user", source=PostgresTable(pool, "users", key="id", model=User))
    with pytest.raises(SchemaMismatch, match="name"):
        await cache.startup()
    assert cache.health().state == "closed"


async def test_an_unreachable_postgres_is_found_at_start(redis_url: str, namespace: str) -> None:
    cache = Cache(redis_url, namespace=namespace, ttl=1)
    table = PostgresTable("postgresql://nobody:secret@127.0.0.1:1/none", "users", key="id", model=User)
    ReadThrough(cache, "user", source=table)
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1") as caught:
        await cache.startup()
    assert "secret" not in str(caught.value)


async def test_key_values_that_do_not_fit_are_refused(cache: Cache, users_table: Table) -> None:
    users = ReadThrough(cache, "user", source=users_table)
    await users.get(1)
    for key in ("1", 2**63, (1, 2), None):
        with pytest.raises(InvalidKey):
            await users.get(key)
