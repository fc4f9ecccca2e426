"""A model that does not fit its table is refused when it is opened, with every reason at once."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from asynccache.errors import ConfigurationError, SchemaMismatch
from asynccache.postgres import PostgresTable
from asynccache.protocols import Batch, Put

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class User:
    id: int
    name: str


async def opened(pool: Pool, table: str = "users", key: Any = "id", model: Any = User, **options: Any) -> Any:
    made: PostgresTable[Any] = PostgresTable(pool, table, key=key, model=model, **options)
    await made.open()
    return made


@pytest.fixture
async def users(pool: Pool) -> None:
    await pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL)")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("user", 'did you mean "users"'), ("Users", 'did you mean "users"'), ("nothing_like_it", 'no table "nothing')],
)
async def test_an_unknown_table_is_named_with_what_it_may_be(pool: Pool, users: None, name: str, hint: str) -> None:
    with pytest.raises(SchemaMismatch, match=hint):
        await opened(pool, name)


async def test_a_table_of_another_schema_is_suggested(pool: Pool, schema: str) -> None:
    await pool.execute(f"CREATE SCHEMA {schema}_b; CREATE TABLE {schema}_b.elsewhere_only (id int PRIMARY KEY)")
    try:
        with pytest.raises(SchemaMismatch, match=f'did you mean "{schema}_b"."elsewhere_only"'):
            await opened(pool, "elsewhere_only", model=dict)
        await opened(pool, f"{schema}_b.elsewhere_only", model=dict)
        with pytest.raises(SchemaMismatch, match="in the schema"):
            await opened(pool, f"{schema}_c.elsewhere_only", model=dict)
    finally:
        await pool.execute(f"DROP SCHEMA {schema}_b CASCADE")


async def test_every_reason_is_listed_at_once(pool: Pool) -> None:
    await pool.execute("CREATE TABLE users (id bigint, name int, email text NOT NULL, born date UNIQUE)")

    @dataclass
    class Model:
        id: int
        name: str
        emial: str
        born: dt.datetime

    with pytest.raises(SchemaMismatch) as caught:
        await opened(pool, key="id", model=Model, columns={"nmae": "name"})

    text = str(caught.value)
    for reason in (
        'there is no column "emial" for the field \'emial\'; did you mean "email"?',
        "columns= names the field 'nmae', which Model has not; did you mean \"name\"?",
        'the key ("id") has no primary key or unique constraint',
        'unique are ("born")',
        'the column "email" (text) is NOT NULL and has no default, and Model has no field for it',
        "Model.name is str, and users.name is integer: declare it as int",
        "Model.born is datetime, and users.born is date: declare it as date",
    ):
        assert reason in text
    assert text.count("\n- ") == 6 + 1


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX ON users (id)",
        "CREATE UNIQUE INDEX ON users (id) WHERE name <> ''",
        "CREATE UNIQUE INDEX ON users ((id + 1))",
        "CREATE UNIQUE INDEX ON users (id, name)",
        "CREATE UNIQUE INDEX ON users (name) INCLUDE (id)",
        "ALTER TABLE users ADD UNIQUE (id) DEFERRABLE",
    ],
)
async def test_a_key_that_on_conflict_cannot_use_is_refused(pool: Pool, index: str) -> None:
    await pool.execute("CREATE TABLE users (id bigint, name text)")
    await pool.execute(index)
    with pytest.raises(SchemaMismatch, match="ON CONFLICT needs"):
        await opened(pool)


@pytest.mark.parametrize(
    "index", ["CREATE UNIQUE INDEX ON users (id)", "CREATE UNIQUE INDEX ON users (id) INCLUDE (name)"]
)
async def test_a_unique_index_is_as_good_as_a_primary_key(pool: Pool, index: str) -> None:
    await pool.execute("CREATE TABLE users (id bigint, name text)")
    await pool.execute(index)
    table = await opened(pool)
    await table.apply(Batch([Put(1, User(1, "a"))]))
    await table.apply(Batch([Put(1, User(1, "b"))]))
    assert (await table.load_many([1])) == {1: User(1, "b")}


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("sql", "annotation"),
    [
        ("int", str), ("text", int), ("text", list[str]), ("int[]", list[str]), ("text[]", str), ("boolean", int),
        ("int", bool), ("int", float), ("float8", Decimal), ("int", Decimal), ("date", dt.datetime), ("timestamptz", dt.date),
        ("interval", float), ("uuid", str), ("text", UUID), ("bytea", str), ("text", bytes), ("text", User),
        ("text", dict[str, Any]), ("mood", Color), ("mood", int), ("int", Color), ("time", dt.timedelta), ("inet", int),
        ("text", int | None),
    ],
)  # fmt: skip
async def test_a_type_that_cannot_fit_is_refused(pool: Pool, sql: str, annotation: Any) -> None:
    await pool.execute(
        f"CREATE TYPE mood AS ENUM ('red', 'green'); CREATE TABLE users (id bigint PRIMARY KEY, v {sql})"
    )
    model: Any = dataclass(type("Model", (), {"__annotations__": {"id": int, "v": annotation}}))
    with pytest.raises(SchemaMismatch, match=r"Model\.v is .* users\.v is"):
        await opened(pool, model=model)


async def test_a_generated_key_is_refused(pool: Pool) -> None:
    await pool.execute("CREATE TABLE users (a int, id int GENERATED ALWAYS AS (a + 1) STORED UNIQUE)")
    with pytest.raises(SchemaMismatch, match='the key column "id" is generated'):
        await opened(pool, model=dict)


async def test_a_view_is_refused(pool: Pool, users: None) -> None:
    await pool.execute("CREATE VIEW view_of_users AS SELECT * FROM users")
    with pytest.raises(SchemaMismatch, match="is not a table"):
        await opened(pool, "view_of_users")


async def test_two_fields_cannot_share_a_column(pool: Pool, users: None) -> None:
    @dataclass
    class Model:
        id: int
        name: str
        alias: str

    with pytest.raises(SchemaMismatch, match="both name the column"):
        await opened(pool, model=Model, columns={"alias": "name"})


async def test_a_partitioned_table_is_a_table(pool: Pool) -> None:
    await pool.execute(
        "CREATE TABLE users (id bigint PRIMARY KEY, name text) PARTITION BY HASH (id);"
        "CREATE TABLE users_0 PARTITION OF users FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE users_1 PARTITION OF users FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
    )
    table = await opened(pool)
    applied = await table.apply(Batch([Put(n, User(n, "x")) for n in range(10)]))
    assert applied.stored == await table.load_many(range(10))
    assert len(applied.stored) == 10


async def test_a_table_changed_under_way_is_named_and_then_read_again(pool: Pool, users: None) -> None:
    table = await opened(pool)
    await table.apply(Batch([Put(1, User(1, "Ada"))]))
    await pool.execute("ALTER TABLE users RENAME COLUMN name TO full_name")

    with pytest.raises(SchemaMismatch):
        await table.load_many([1])
    with pytest.raises(SchemaMismatch, match='no column "name"'):
        await table.apply(Batch([Put(1, User(1, "Bob"))]))

    await pool.execute("ALTER TABLE users RENAME COLUMN full_name TO name")
    assert await table.load_many([1]) == {1: User(1, "Ada")}
    await pool.execute("ALTER TABLE users ALTER COLUMN name TYPE varchar(100), ADD COLUMN extra int")
    for _ in range(3):
        await table.apply(Batch([Put(1, User(1, "Bob"))]))
        assert await table.load_many([1]) == {1: User(1, "Bob")}
    await pool.execute("DROP TABLE users")
    with pytest.raises(SchemaMismatch):
        await table.load_many([1])


async def test_a_row_that_does_not_fit_the_model_is_named(pool: Pool) -> None:
    await pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    await pool.execute("INSERT INTO users VALUES (1, 'Ada'), (2, NULL)")
    table = await opened(pool)
    with pytest.raises(SchemaMismatch, match=r"the row 2 of .*users.* is no User: .*\$\.name"):
        await table.load_many([1, 2])
    assert set(await table.load_many([1])) == {1}


@pytest.mark.parametrize(
    "options",
    [
        {"table": ""}, {"table": "a.b.c"}, {"table": 'a"b'}, {"table": "a."}, {"table": "x" * 64}, {"table": None},
        {"table": "a\0b"}, {"key": ""}, {"key": ()}, {"key": ("a", "a")}, {"key": 5}, {"model": int}, {"model": User(1, "a")},
        {"model": None}, {"columns": {"a": 1}}, {"columns": ["a"]}, {"timeout": 0}, {"timeout": "soon"},
        {"batch_table": "a.b.c"}, {"database": "mysql://host"}, {"database": 5}, {"database": None},
    ],
)  # fmt: skip
def test_an_argument_that_cannot_work_is_refused_where_it_is_given(options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"database": lambda: None, "table": "users", "key": "id", "model": User, **options}
    with pytest.raises(ConfigurationError, match="dsn" if "mysql://host" in options.values() else next(iter(options))):
        PostgresTable(given.pop("database"), given.pop("table"), **given)
