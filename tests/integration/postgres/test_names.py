"""Names that need quotes work everywhere, and none of them is ever SQL."""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import pytest

from asynccache.errors import AsyncCacheError, InvalidKey, SchemaMismatch
from asynccache.postgres import PostgresTable
from asynccache.protocols import Batch, Delete, Put

Pool: TypeAlias = "asyncpg.Pool[Any]"

NAMES = ["order", "User", "with space", 'quo"te', "semi;colon", "dot.ted", "--", "/*", "$1", "%s", "{0}", "ümlaut", "d", "t", "n", "k1", "c1",
         "excluded", "'; DROP TABLE x; --", "x" * 63]  # fmt: skip


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_of_a_table_column_or_type_works(pool: Pool, schema: str, name: str) -> None:
    sql = quoted(name)
    await pool.execute(
        f"CREATE SCHEMA {quoted(schema + 's' + name[:20])};"
        f"CREATE TYPE {quoted(schema + 's' + name[:20])}.{sql} AS ENUM ('a', 'b');"
        f"CREATE TABLE {quoted(schema + 's' + name[:20])}.{quoted(name[:-1] + 'T')} ({sql} int, {quoted(name[:-1] + 'E')}"
        f" {quoted(schema + 's' + name[:20])}.{sql}, v text, PRIMARY KEY ({sql}, {quoted(name[:-1] + 'E')}))"
    )
    try:
        table = PostgresTable(
            pool,
            f"{quoted(schema + 's' + name[:20])}.{quoted(name[:-1] + 'T')}",
            key=(name, name[:-1] + "E"),
            model=dict,
            batch_table=f"{quoted(schema + 's' + name[:20])}.{quoted(name[:-1] + 'B')}",
        )
        await table.open()
        applied = await table.apply(Batch([Put((1, "a"), {"v": "x"}), Put((1, "b"), {"v": "y"})]))
        assert applied.stored == await table.load_many([(1, "a"), (1, "b"), (2, "a")])
        await table.apply(Batch([Put((1, "a"), {"v": "z"}), Delete((1, "b"))], id=uuid4()))
        found = await table.load_many([(1, "a"), (1, "b")])
        assert {key: row["v"] for key, row in found.items()} == {(1, "a"): "z"}
    finally:
        await pool.execute(f"DROP SCHEMA {quoted(schema + 's' + name[:20])} CASCADE")


EVIL = [
    'users"; DROP TABLE users; --',
    "users; DROP TABLE users",
    "users WHERE true --",
    "users) x",
    "pg_catalog.pg_class",
]


@pytest.mark.parametrize("evil", EVIL)
async def test_sql_in_a_name_is_only_a_name(pool: Pool, evil: str) -> None:
    await pool.execute("CREATE TABLE users (id int PRIMARY KEY, v text)")
    for table, key, columns in ((evil, "id", {}), ("users", evil, {}), ("users", "id", {"v": evil})):
        with pytest.raises(AsyncCacheError):
            await PostgresTable(pool, table, key=key, model=dict, columns=columns).open()
    users = PostgresTable(pool, "users", key="id", model=dict, batch_table=quoted(evil)[:63].rstrip('"') + '"')
    await users.apply(Batch([Put(1, {"v": evil})], id=uuid4()))
    assert (await users.load_many([1]))[1]["v"] == evil


async def test_sql_in_a_key_is_only_a_key(pool: Pool) -> None:
    await pool.execute("CREATE TABLE users (id text PRIMARY KEY, v text)")
    table = PostgresTable(pool, "users", key="id", model=dict)
    evil = "x'; DROP TABLE users; --"
    await table.apply(Batch([Put(evil, {"v": "1"})]))
    assert list(await table.load_many([evil, "x' OR true --", "%", "_"])) == [evil]
    with pytest.raises(InvalidKey):
        await table.load_many(["\0"])


async def test_case_counts_in_names(pool: Pool) -> None:
    await pool.execute('CREATE TABLE "Users" ("Id" int PRIMARY KEY)')
    await PostgresTable(pool, "Users", key="Id", model=dict).open()
    with pytest.raises(SchemaMismatch, match='did you mean "Users"'):
        await PostgresTable(pool, "users", key="Id", model=dict).open()
    with pytest.raises(SchemaMismatch, match='did you mean "Id"'):
        await PostgresTable(pool, "Users", key="id", model=dict).open()
