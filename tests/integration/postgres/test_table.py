"""A table as users use it: opened, read and written."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from asynccache.errors import ConfigurationError, WriteRejected
from asynccache.postgres import PostgresTable
from asynccache.protocols import Applied, Batch, Delete, Put, Resource, Sink, Source

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class User:
    id: int
    name: str
    email: str | None = None
    balance: Decimal = Decimal(0)
    active: bool = True
    created: dt.datetime | None = None


USERS = """CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, email varchar(100) UNIQUE,
    balance numeric(12, 2) NOT NULL DEFAULT 0, active boolean NOT NULL DEFAULT true,
    created timestamptz NOT NULL DEFAULT now(), note text DEFAULT 'untouched')"""


@pytest.fixture
async def users(pool: Pool) -> PostgresTable[User]:
    await pool.execute(USERS)
    table = PostgresTable(pool, "users", key="id", model=User)
    await table.open()
    return table


async def test_a_table_is_a_source_a_sink_and_a_resource(users: PostgresTable[User]) -> None:
    assert isinstance(users, Source)
    assert isinstance(users, Sink)
    assert isinstance(users, Resource)


async def test_rows_come_back_as_the_model_and_missing_ones_are_left_out(users: PostgresTable[User]) -> None:
    applied = await users.apply(Batch([Put(2, User(2, "Bob", balance=Decimal("1.005"))), Put(1, User(1, "Ada"))]))

    assert set(applied.stored) == {1, 2}
    assert applied.stored[2].balance == Decimal("1.01")
    assert applied.stored[1].created is not None
    assert await users.load_many([1, 2, 3]) == applied.stored


async def test_an_update_leaves_other_columns_alone(users: PostgresTable[User], pool: Pool) -> None:
    await users.apply(Batch([Put(1, User(1, "Ada"))]))
    await pool.execute("UPDATE users SET note = 'mine'")
    before = (await users.load_many([1]))[1]

    await users.apply(Batch([Put(1, User(1, "Countess"))]))

    row = await pool.fetchrow("SELECT * FROM users")
    assert row is not None
    assert (row["name"], row["note"], row["created"]) == ("Countess", "mine", before.created)


async def test_puts_and_deletes_go_together(users: PostgresTable[User]) -> None:
    await users.apply(Batch([Put(n, User(n, f"u{n}", email=f"{n}@x")) for n in range(10)]))

    await users.apply(Batch([Delete(3), Put(11, User(11, "new", email="3@x")), Delete(99)]))

    assert set(await users.load_many(range(20))) == {0, 1, 2, 4, 5, 6, 7, 8, 9, 11}


async def test_a_batch_with_an_id_is_applied_once(users: PostgresTable[User], pool: Pool) -> None:
    batch = Batch([Put(1, User(1, "Ada"))], id=uuid4())

    assert await users.apply(batch) == Applied()
    await pool.execute("UPDATE users SET name = 'changed since'")
    assert await users.apply(batch) == Applied(again=True)

    assert (await users.load_many([1]))[1].name == "changed since"


async def test_a_refused_row_writes_nothing_and_says_why(users: PostgresTable[User]) -> None:
    await users.apply(Batch([Put(1, User(1, "Ada", email="a@x"))]))

    with pytest.raises(WriteRejected, match=r"23505.*users_email_key"):
        await users.apply(Batch([Put(2, User(2, "B", email="b@x")), Put(3, User(3, "C", email="a@x"))]))

    assert set(await users.load_many([1, 2, 3])) == {1}


async def test_a_key_that_occurs_twice_is_refused(users: PostgresTable[User]) -> None:
    with pytest.raises(ConfigurationError, match="occurs twice"):
        await users.apply(Batch([Put(1, User(1, "Ada")), Delete(1)]))


async def test_a_value_under_another_key_is_refused(users: PostgresTable[User]) -> None:
    with pytest.raises(ConfigurationError, match=r"id is 2.*key says 1"):
        await users.apply(Batch([Put(1, User(2, "Ada"))]))


async def test_dicts_hold_all_columns_and_write_what_they_have(users: PostgresTable[User], pool: Pool) -> None:
    table = PostgresTable(pool, "users", key="id", model=dict)
    applied = await table.apply(Batch([Put(1, {"name": "Ada"}), Put(2, {"name": "Bob", "note": "hi"})]))
    assert applied.stored[1]["note"] == "untouched"
    assert applied.stored[2]["note"] == "hi"
    await table.apply(Batch([Put(1, {"id": 1, "name": "Ada L."})]))
    assert (await table.load_many([1]))[1]["name"] == "Ada L."


class Line(msgspec.Struct):
    sku: str
    count: int


class Order(msgspec.Struct):
    tenant: UUID
    number: int
    lines: list[Line]
    tags: list[str]


async def test_composite_keys_are_tuples(pool: Pool) -> None:
    await pool.execute(
        'CREATE TABLE "Or""der" (tenant uuid, number int, lines jsonb NOT NULL, "a b" text[], PRIMARY KEY (number, tenant))'
    )
    table = PostgresTable(pool, '"Or""der"', key=("tenant", "number"), model=Order, columns={"tags": "a b"})
    await table.open()
    tenant = uuid4()
    order = Order(tenant, 7, [Line("x", 2)], ["a", 'b"\\', "NULL", ""])

    applied = await table.apply(Batch([Put((tenant, 7), order)]))

    assert applied.stored == {(tenant, 7): order}
    assert await table.load_many([(tenant, 7), (tenant, 8)]) == {(tenant, 7): order}
    await table.apply(Batch([Delete((tenant, 7))]))
    assert await table.load_many([(tenant, 7)]) == {}
