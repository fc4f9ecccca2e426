"""Keys come back as the values that strategies are asked with, whatever the writer's settings; names need no care."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from asynccache import Cache, CacheAside
from asynccache.postgres import PostgresChanges, TableChanges
from tests.integration.changes.conftest import Follow
from tests.support.caches import MakeCache
from tests.support.gates import until

pytestmark = pytest.mark.one_loop

MOMENT = dt.datetime(2024, 2, 29, 13, 37, 0, 123456, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))
KINDS: Sequence[tuple[str, Any]] = [
    ("smallint", -32768),
    ("int", 42),
    ("bigint", 2**63 - 1),
    ("numeric", 12345678901234567890),
    ("text", "a:b 'c' \\ \"d\" é 日本 \n"),
    ("text", ""),
    ("text", "42"),
    ("varchar(10)", "x"),
    ("char(5)", "ab"),
    ("uuid", uuid.UUID(int=7)),
    ("boolean", True),
    ("boolean", False),
    ("bytea", b"\x00\xff\\"),
    ("date", dt.date(2024, 2, 1)),
    ("time", dt.time(13, 37, 0, 5)),
    ("timestamp", dt.datetime(2024, 2, 1, 13, 37, 0, 1)),  # noqa: DTZ001 - the column has no zone
    ("timestamptz", MOMENT),
    ("mood", "so so"),
    ("small", 7),
    ("name", "n"),
]


async def follow_table(cache: Cache, pool: asyncpg.Pool[Any], schema: str, *tables: TableChanges) -> PostgresChanges:
    changes = PostgresChanges(pool, tables=tables, schema=schema, poll=0.05)
    await changes.install()
    cache.follow(changes)
    await until(lambda: cache.health().changes[0].position_age is not None, "the listener to work")
    return changes


@pytest.mark.parametrize(("kind", "value"), KINDS, ids=[f"{kind}-{at}" for at, (kind, _) in enumerate(KINDS)])
async def test_a_key_of_this_type_is_emptied(
    kind: str, value: Any, cache: Cache, pool: asyncpg.Pool[Any], schema: str
) -> None:
    await pool.execute("CREATE TYPE mood AS ENUM ('so so', 'ok'); CREATE DOMAIN small AS int CHECK (VALUE < 10)")
    await pool.execute(f"CREATE TABLE things (k {kind}, n int, PRIMARY KEY (k))")
    things = CacheAside(cache, "thing", ttl=60, type=int)
    changes = await follow_table(cache, pool, schema, TableChanges("things", key="k", entries=[things]))

    async def load(_: Any) -> int:
        return 1

    await things.get(value, load=load)
    async with pool.acquire() as connection:
        await connection.execute(
            "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kathmandu'; SET bytea_output = 'escape'"
        )
        await connection.execute("INSERT INTO things VALUES ($1, 1)", value)

    async def emptied() -> bool:
        return await cache.get(things.key(value), type=int) is None

    await until(emptied, f"{value!r} to be emptied")
    assert changes.stats.unmapped == changes.stats.whole_tables == 0


async def test_a_key_of_several_columns_is_a_tuple_in_the_order_given(
    cache: Cache, pool: asyncpg.Pool[Any], schema: str
) -> None:
    await pool.execute("CREATE TABLE orders (id uuid, tenant text, day date, n int, PRIMARY KEY (tenant, day, id))")
    orders = CacheAside(cache, "order", ttl=60, type=int)

    @cache.cached(key="total:{tenant}:{day}:{id_}")
    async def total(tenant: str, day: dt.date, id_: uuid.UUID) -> int:
        return await pool.fetchval("SELECT sum(n) FROM orders") or 0

    await follow_table(
        cache, pool, schema, TableChanges("orders", key=("tenant", "day", "id"), entries=[orders, total])
    )
    key = ("acme", dt.date(2024, 5, 6), uuid.UUID(int=9))

    async def load(_: Any) -> int:
        return 1

    await orders.get(key, load=load)
    assert await total(*key) == 0
    await pool.execute("INSERT INTO orders (tenant, day, id, n) VALUES ($1, $2, $3, 5)", *key)

    async def seen() -> bool:
        return await total(*key) == 5 and await cache.get(orders.key(key), type=int) is None

    await until(seen, "both to be emptied")


async def test_names_with_quotes_capitals_and_dollars_are_only_names(
    cache: Cache, pool: asyncpg.Pool[Any], schema: str
) -> None:
    table = '"My ""odd"".table $asynccache$ \\ s"'
    await pool.execute(f'CREATE TABLE {table} ("The ""Key""; \\ $1" int PRIMARY KEY, "select" text)')
    odd = CacheAside(cache, "odd", ttl=60, type=str)
    column = 'The "Key"; \\ $1'
    changes = await follow_table(
        cache,
        pool,
        schema,
        TableChanges(table, key=column, entries=[odd], columns=["select"], tags=lambda row: [f"s:{row['select']}"]),
    )

    async def load(_: Any) -> str:
        return "old"

    await odd.get(1, load=load)
    await cache.set("tagged", 1, tags=["s:x"])
    await pool.execute(f"INSERT INTO {table} VALUES (1, 'x')")

    async def seen() -> bool:
        return await cache.get(odd.key(1), type=str) is None and await cache.get("tagged") is None

    await until(seen, "both to be emptied")
    assert changes.stats.unmapped == changes.stats.whole_tables == 0
    await changes.uninstall()
    assert (
        await pool.fetchval("SELECT count(*) FROM pg_trigger WHERE tgrelid = $1::text::regclass", f"{schema}.{table}")
        == 0
    )


async def test_a_column_whose_type_is_changed_is_read_as_it_is_then(follow: Follow) -> None:
    world = await follow(table={"tags": ["users"], "columns": []})
    await world.pool.execute("INSERT INTO users VALUES (1, 'a'), (2, 'b')")
    await world.at_work()
    await world.caught_up()
    names = CacheAside(world.cache, "user", ttl=60, type=str)

    async def load(key: Any) -> str:
        return f"{key} was loaded"

    await names.get("x1", load=load)
    await world.pool.execute("ALTER TABLE users ALTER id TYPE text USING 'x' || id")
    await world.pool.execute("UPDATE users SET name = 'c' WHERE id = 'x1'")

    async def emptied() -> bool:
        return await world.cache.get(names.key("x1"), type=str) is None

    await until(emptied, "the entry of the new key")
    assert world.changes.stats.whole_tables  # what could not be read as an int


async def test_a_recorded_null_is_none(make_cache: MakeCache, pool: asyncpg.Pool[Any], schema: str) -> None:
    cache = await make_cache()
    await pool.execute("CREATE TABLE notes (id int PRIMARY KEY, author text, at timestamptz)")
    await follow_table(
        cache,
        pool,
        schema,
        TableChanges("notes", key="id", tags=["by:{author}", "at:{at}"], columns=["author", "at"]),
    )
    await cache.set("anonymous", 1, tags=["by:~none"])
    await cache.set("named None", 1, tags=["by:None"])
    await pool.execute("INSERT INTO notes VALUES (1)")

    async def seen() -> bool:
        return await cache.get("anonymous") is None

    await until(seen, "the tag of no author")
    assert await cache.get("named None") == 1
