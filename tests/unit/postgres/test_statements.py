"""What is decided without a database: runs of rows, their order, and the SQL that carries them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, assert_type
from uuid import UUID

import msgspec
import pytest

from asynccache.errors import ConfigurationError, InvalidKey, SchemaMismatch
from asynccache.postgres import Database, PostgresTable
from asynccache.postgres.binding import Binding, bind
from asynccache.postgres.catalog import Column, Family, Table, Type
from asynccache.postgres.models import model_for
from asynccache.postgres.reading import Reader
from asynccache.postgres.statements import Statements
from asynccache.postgres.writing import Writer
from asynccache.protocols import Batch, Delete, Put

BIGINT = Type('"pg_catalog"."int8"', "bigint", Family.INTEGER, "int8")
TEXT = Type('"pg_catalog"."text"', "text", Family.TEXT, "text")


def column(name: str, type_: Type, *, default: bool = False) -> Column:
    return Column(name, type_, not_null=True, has_default=default, generated=False, identity="")


USERS = Table(
    "public",
    "users",
    {"id": column("id", BIGINT), "name": column("name", TEXT), "rank": column("rank", BIGINT, default=True)},
    (frozenset({"id"}),),
)


class User(msgspec.Struct):
    id: int
    name: str
    rank: int | None = None


@dataclass
class Plain:
    name: str


def bound(model: Any = User) -> tuple[Binding[Any], Statements, Writer[Any]]:
    binding = bind(USERS, model_for(model), ["id"], {})
    statements = Statements(binding)
    return binding, statements, Writer(binding, statements, Reader(binding))


def test_rows_are_sent_in_the_order_of_their_keys_whatever_the_order_they_came_in() -> None:
    _, _, writer = bound()
    prepared = writer.prepare(
        [Put(3, User(3, "c", 3)), Delete(9), Put(1, User(1, "a", 1)), Delete(2), Put(2**40, User(2**40, "d", 4))]
    )
    assert prepared.deletes == [(2,), (9,)]
    assert prepared.all_keys == [(1,), (2,), (3,), (9,), (2**40,)]
    (run,) = prepared.runs
    assert run.keys == [[1, 3, 2**40]]
    assert run.arrays == [["a", "c", "d"], [1, 3, 4]]


def test_a_column_that_is_left_to_the_database_is_left_out_of_its_rows_statement_only() -> None:
    _, statements, writer = bound()
    prepared = writer.prepare([Put(n, User(n, "x", None if n in {2, 3} else n)) for n in range(5)])
    assert [run.keys[0] for run in prepared.runs] == [[0, 1], [2, 3], [4]]
    texts = [statements.upsert(run.fields, returning=False) for run in prepared.runs]
    assert ["rank" in text for text in texts] == [True, False, True]
    assert texts[0] is statements.upsert(prepared.runs[2].fields, returning=False)


def test_a_statement_holds_no_value_and_every_name_in_quotes() -> None:
    _, statements, writer = bound()
    fields = writer.prepare([Put(1, User(1, "x", 1))]).runs[0].fields
    assert statements.upsert(fields, returning=True) == (
        'INSERT INTO "public"."users" AS t ("id", "name", "rank") SELECT d.c1, d.c2, d.c3'
        ' FROM unnest($1::"pg_catalog"."int8"[], $2::"pg_catalog"."text"[], $3::"pg_catalog"."int8"[]) AS d(c1, c2, c3)'
        ' ON CONFLICT ("id") DO UPDATE SET "name" = EXCLUDED."name", "rank" = EXCLUDED."rank"'
        ' RETURNING t."id", t."name", t."rank", t."id"'
    )


def test_rows_that_were_staged_are_taken_in_their_order_and_without_parameters() -> None:
    _, statements, writer = bound()
    fields = writer.prepare([Put(1, User(1, "x", 1))]).runs[0].fields
    assert statements.upsert(fields, returning=False, staged='"pg_temp"."s"') == (
        'INSERT INTO "public"."users" AS t ("id", "name", "rank") SELECT d.c1, d.c2, d.c3'
        ' FROM "pg_temp"."s" AS d ORDER BY d.n'
        ' ON CONFLICT ("id") DO UPDATE SET "name" = EXCLUDED."name", "rank" = EXCLUDED."rank"'
    )
    assert statements.append(fields, staged='"pg_temp"."s"') == (
        'INSERT INTO "public"."users" AS t ("name", "rank") SELECT d.c1, d.c2 FROM "pg_temp"."s" AS d ORDER BY d.n'
    )


@pytest.mark.parametrize("shapes", [300])
def test_statements_of_dicts_with_every_shape_do_not_pile_up(shapes: int) -> None:
    columns = {f"c{n}": column(f"c{n}", BIGINT, default=True) for n in range(shapes)}
    table = Table("public", "wide", {"id": column("id", BIGINT), **columns}, (frozenset({"id"}),))
    binding: Binding[Any] = bind(table, model_for(dict), ["id"], {})
    statements = Statements(binding)
    writer: Writer[Any] = Writer(binding, statements, Reader(binding))
    for n in range(shapes):
        statements.upsert(writer.prepare([Put(1, {f"c{n}": 1})]).runs[0].fields, returning=True)
    assert len(statements._made) <= 256


def test_before_it_is_opened_a_table_checks_the_shape_of_keys_only() -> None:
    one = PostgresTable(lambda: None, "users", key="id", model=User)
    one.check_key("anything")
    with pytest.raises(InvalidKey, match="not a single value"):
        one.check_key((1, 2))
    two = PostgresTable(lambda: None, "users", key=("a", "b"), model=User)
    two.check_key((1, 2))
    for key in (1, (1,), (1, 2, 3), "ab", [1, 2]):
        with pytest.raises(InvalidKey, match="tuple of 2"):
            two.check_key(key)


def test_building_needs_no_event_loop_and_does_no_io() -> None:
    table = PostgresTable("postgresql://me:s3cret@127.0.0.1:1/db", "users", key="id", model=User)
    assert "s3cret" not in repr(table)
    assert repr(Database("postgresql://me:s3cret@h:1/db")) == "Database('postgresql://me@h:1/db', closed)"


@pytest.mark.parametrize("sizes", [{"max_size": 0}, {"min_size": -1}, {"min_size": 3, "max_size": 2}])
def test_sizes_of_a_pool_that_cannot_work_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="min_size"):
        Database("postgresql://h/db", **sizes)


def test_a_key_whose_collation_makes_different_texts_equal_is_refused() -> None:
    name = dataclasses.replace(column("name", TEXT), deterministic=False)
    table = Table("public", "names", {"name": name}, (frozenset({"name"}),))
    with pytest.raises(SchemaMismatch, match="not deterministic"):
        bind(table, model_for(Plain), ["name"], {})


async def test_types_of_tables_are_inferred_from_the_model() -> None:
    table = PostgresTable(lambda: None, "users", key="id", model=User)
    plain = PostgresTable(lambda: None, "users", key="id", model=Plain)
    dicts = PostgresTable(lambda: None, "users", key="id", model=dict)
    assert_type(table, PostgresTable[User])
    assert_type(plain, PostgresTable[Plain])
    assert_type(dicts, PostgresTable[dict[str, Any]])
    assert_type(await table.load_many([]), dict[Any, User])
    assert_type((await table.apply(Batch([]))).stored.get(1), User | None)
    assert_type(table.model, type[User])


def test_a_key_is_checked_against_its_column() -> None:
    binding, _, _ = bound()
    assert binding.key.parts(42) == (42,)
    with pytest.raises(InvalidKey, match=r"users\.id is bigint; got str '42'"):
        binding.key.parts("42")
    with pytest.raises(InvalidKey, match=r"users\.id is bigint; got UUID"):
        binding.key.parts(UUID(int=1))
    with pytest.raises(
        InvalidKey, match=r"users\.id is bigint; got int 9223372036854775808, which is out of its range"
    ):
        binding.key.parts(2**63)
