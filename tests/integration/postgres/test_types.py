"""Every type of PostgreSQL that a model can hold comes back as it went in."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynccache.errors import InvalidKey, SchemaMismatch, WriteRejected
from asynccache.postgres import PostgresTable
from asynccache.protocols import Batch, Delete, Put

Pool: TypeAlias = "asyncpg.Pool[Any]"


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Size(enum.Enum):
    S = 1
    L = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Address:
    street: str
    since: dt.date | None = None
    tags: list[str] = field(default_factory=list)


class Point(msgspec.Struct):
    x: float
    y: float


UTC = dt.UTC
ROUND_TRIPS: list[tuple[str, Any, Any]] = [
    ("smallint", int, -32768),
    ("integer", int, 2147483647),
    ("bigint", int, -(2**63)),
    ("text", str, "a\n\\'\"$1 ünï 🎉"),
    ("varchar(10)", str, ""),
    ("char(3)", str, "abc"),
    ("name", str, "n"),
    ("numeric", Decimal, Decimal("123456789012345678901234567890.123456789")),
    ("numeric(20, 0)", int, 2**64 - 1),
    ("numeric(10, 2)", float, 0.1),
    ("numeric", Decimal, Decimal("Infinity")),
    ("real", float, 1.5),
    ("double precision", float, 0.1),
    ("double precision", float, float("-inf")),
    ("timestamptz", dt.datetime, dt.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)),
    ("timestamptz", dt.datetime, dt.datetime(1, 1, 1, tzinfo=UTC)),
    ("timestamp", dt.datetime, dt.datetime(2024, 2, 29, 1, 2, 3)),  # noqa: DTZ001 - the column has no zone
    ("date", dt.date, dt.date(9999, 12, 31)),
    ("time", dt.time, dt.time(23, 59, 59, 1)),
    ("timetz", dt.time, dt.time(1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=-5)))),
    ("interval", dt.timedelta, dt.timedelta(days=-3, seconds=5, microseconds=7)),
    ("uuid", uuid.UUID, uuid.UUID(int=2**127)),
    ("boolean", bool, False),
    ("bytea", bytes, bytes(range(256))),
    ("json", dict[str, Any], {"b": [1, 2.5, None, "x"], "a": {}}),
    ("jsonb", dict[str, Any], {"a": {"deep": [True]}, "big": 2**70}),
    ("jsonb", list[int], [3, 1, 2]),
    ("jsonb", str, "text in JSON"),
    ("jsonb", int, 0),
    ("jsonb", Address, Address("Main St", dt.date(2020, 1, 1), ["a"])),
    ("jsonb", list[Point], [Point(1.0, 2.0)]),
    ("jsonb", dict[str, Point], {"a": Point(0.0, -1.0)}),
    ("jsonb[]", list[dict[str, int]], [{"a": 1}, {"b": 2}]),
    ("text[]", list[str], ["a", "", "NULL", 'q"\\{},', " sp ", "ü"]),
    ("text[]", list[str], []),
    ("text[]", list[str | None], [None, "x", None]),
    ("text[]", list[list[str]], [["a", "b"], ["c", "d"]]),
    ("text[]", tuple[str, ...], ("a", "b")),
    ("text[]", frozenset[str], frozenset({"a"})),
    ("integer[]", list[int], [1, -1, 2147483647]),
    ("bigint[]", set[int], {1, 2}),
    ("boolean[]", list[bool], [True, False]),
    ("double precision[]", list[float], [0.1, float("inf"), -1e300]),
    ("numeric[]", list[Decimal], [Decimal("1.10"), Decimal("1E+5")]),
    ("numeric[]", list[int], [2**64]),
    ("bytea[]", list[bytes], [b"\x00\\\xff", b""]),
    ("uuid[]", list[uuid.UUID], [uuid.UUID(int=1)]),
    ("date[]", list[dt.date], [dt.date(1, 1, 1)]),
    ("timestamptz[]", list[dt.datetime], [dt.datetime(2024, 1, 1, 1, 2, 3, 4, tzinfo=UTC)]),
    ("interval[]", list[dt.timedelta], [dt.timedelta(days=-3, seconds=5, microseconds=7)]),
    ("time[]", list[dt.time], [dt.time(1, 2, 3, 4)]),
    ("color", Color, Color.GREEN),
    ("color", str, "red"),
    ("color[]", list[Color], [Color.GREEN, Color.RED]),
    ("size", Size, Size.L),
    ("size[]", list[Size], [Size.L, Size.S]),
    ("text", Color, Color.RED),
    ("integer", Level, Level.HIGH),
    ("smallint", Size, Size.S),
    ("positive", int, 5),
    ("positive[]", list[int], [5, 6]),
    ("words", list[str], ["a", "b"]),
    ("label", Color, Color.RED),
    ("document", dict[str, int], {"a": 1}),
    ("inet", str, "10.0.0.0/8"),
    ("int4range", str, "[1,5)"),
    ("pair", str, '(1,"a b")'),
    ("tsvector", str, "'a' 'b'"),
]
TYPES = """
CREATE TYPE color AS ENUM ('red', 'green');
CREATE TYPE size AS ENUM ('S', 'L', 'unused');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN words AS text[];
CREATE DOMAIN label AS color;
CREATE DOMAIN document AS jsonb NOT NULL DEFAULT '{}';
"""


def names(value: Any) -> str:
    return str(value)[:24] if not isinstance(value, type) else value.__name__


@pytest.mark.parametrize(("sql", "annotation", "value"), ROUND_TRIPS, ids=names)
async def test_a_value_comes_back_as_it_went_in(pool: Pool, sql: str, annotation: Any, value: Any) -> None:
    await pool.execute(f"{TYPES} CREATE TABLE t (id int PRIMARY KEY, v {sql})")
    model: Any = make_dataclass("Model", [("id", int), ("v", annotation | None)])
    table = PostgresTable(pool, "t", key="id", model=model)
    await table.open()

    puts = [Put(1, model(1, value))] + ([Put(2, model(2, None))] if sql != "document" else [])
    stored = (await table.apply(Batch(puts))).stored

    assert stored[1].v == value
    assert type(stored[1].v) is type(value) or isinstance(stored[1].v, type(value))
    if sql != "document":
        assert stored[2].v is None
    assert await table.load_many([1, 2]) == stored


@pytest.mark.parametrize(
    "sql",
    ["jsonb", "color", "text[]", "int[]", "inet", "timestamptz", "numeric", "uuid", "pair", "color[]", "positive"],
)
async def test_a_dict_written_back_as_it_was_read_changes_nothing(pool: Pool, sql: str) -> None:
    await pool.execute(f"{TYPES} CREATE TABLE t (id int PRIMARY KEY, v {sql})")
    literal = {
        "jsonb": '{"a": [1]}', "color": "red", "text[]": '{a,"b c"}', "int[]": "{{1,2},{3,4}}", "inet": "::1",
        "timestamptz": "2020-01-01 00:00:00Z", "numeric": "1.50", "uuid": str(uuid.UUID(int=7)), "pair": "(1,x)",
        "color[]": "{red}", "positive": "3",
    }[sql]  # fmt: skip
    await pool.execute(f"INSERT INTO t VALUES (1, '{literal}')")
    before = await pool.fetchval("SELECT v::text FROM t")
    table = PostgresTable(pool, "t", key="id", model=dict)

    row = (await table.load_many([1]))[1]
    await table.apply(Batch([Delete(1)]))
    await table.apply(Batch([Put(1, row)]))

    assert await pool.fetchval("SELECT v::text FROM t") == before


@dataclass
class Everything:
    id: int
    text: str
    number: int
    amount: Decimal
    at: dt.datetime
    ratio: float
    words: list[str]
    document: dict[str, str | int | bool | None]


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
everything = st.builds(
    Everything,
    id=st.integers(-(2**63), 2**63 - 1),
    text=texts,
    number=st.integers(-(2**31), 2**31 - 1),
    amount=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
    at=st.datetimes(timezones=st.just(UTC)),
    ratio=st.floats(allow_nan=False),
    words=st.lists(texts, max_size=5),
    document=st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts, max_size=4),
)


@given(st.lists(everything, unique_by=lambda row: row.id, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_rows_come_back_as_they_went_in(pool: Pool, rows: list[Everything]) -> None:
    await pool.execute(
        "CREATE TABLE IF NOT EXISTS t (id bigint PRIMARY KEY, text text, number int, amount numeric, at timestamptz,"
        " ratio float8, words text[], document jsonb)"
    )
    table = PostgresTable(pool, "t", key="id", model=Everything)

    applied = await table.apply(Batch([Put(row.id, row) for row in rows]))

    expected = {row.id: row for row in rows}
    assert applied.stored == expected
    assert await table.load_many(list(expected)) == expected


REFUSED: list[tuple[str, Any, str]] = [
    ("smallint", 32768, "22|range"),
    ("integer", "5", "str"),
    ("integer", True, "bool"),
    ("integer", 1.5, "float"),
    ("bigint", 2**63, "range"),
    ("text", "a\0b", "22021|NUL|0x00"),
    ("text", "\ud800", "surrogate"),
    ("text", 5, "int"),
    ("varchar(3)", "abcd", "22001"),
    ("numeric(4, 2)", Decimal(100), "22003"),
    ("numeric", "1", "str"),
    ("real", 1e300, "22|too large|range"),
    ("timestamptz", dt.datetime(2020, 1, 1), "no time zone"),  # noqa: DTZ001 - that is what is refused
    ("timestamp", dt.datetime(2020, 1, 1, tzinfo=UTC), "has a time zone"),
    ("date", dt.datetime(2020, 1, 1, tzinfo=UTC), "date is expected"),
    ("uuid", "not a uuid", "UUID is expected"),
    ("boolean", 1, "bool is expected"),
    ("bytea", "text", "bytes is expected"),
    ("jsonb", {"a": float("nan")}, "JSON"),
    ("jsonb", {"a": object()}, "object"),
    ("jsonb", {"a": "\0"}, "22P05"),
    ("color", "blue", "22P02"),
    ("positive", -1, "23514"),
    ("text[]", "text", "list is expected"),
    ("int[]", [1, "x"], "int is expected"),
    ("int[]", [2**31], "22003"),
    ("int[]", [[1], [2, 3]], "22P02|2202E"),
    ("text[]", ["\0"], "22021|0x00"),
    ("inet", "nowhere", "22P02"),
]


@pytest.mark.parametrize(("sql", "value", "reason"), REFUSED, ids=names)
async def test_a_value_that_its_column_cannot_hold_is_refused_with_the_reason(
    pool: Pool, sql: str, value: Any, reason: str
) -> None:
    await pool.execute(f"{TYPES} CREATE TABLE t (id int PRIMARY KEY, v {sql})")
    table = PostgresTable(pool, "t", key="id", model=dict)

    with pytest.raises(WriteRejected, match=reason):
        await table.apply(Batch([Put(1, {"v": None}), Put(2, {"v": value})]))

    assert await pool.fetchval("SELECT count(*) FROM t") == 0


KEYS: list[tuple[str, Any, list[Any]]] = [
    ("smallint", 5, ["5", True, 1.0, 40_000, None, (5,), b"5"]),
    ("bigint", 2**63 - 1, [2**63, -(2**63) - 1]),
    ("numeric", 2**70, ["1", 1.5]),
    ("text", "ü", [5, None, b"x", "a\0b", "\ud800"]),
    ("varchar(20)", "x", [uuid.UUID(int=7)]),
    ("char(5)", "ab", ["ab "]),
    ("uuid", uuid.UUID(int=7), [str(uuid.UUID(int=7)), 5]),
    ("date", dt.date(2020, 1, 1), [dt.datetime(2020, 1, 1, tzinfo=UTC), "2020-01-01"]),
    ("timestamptz", dt.datetime(2020, 1, 1, tzinfo=UTC), [dt.date(2020, 1, 1), dt.datetime(2020, 1, 1)]),  # noqa: DTZ001 - the same
    ("timestamp", dt.datetime(2020, 1, 1), [dt.datetime(2020, 1, 1, tzinfo=UTC)]),  # noqa: DTZ001 - the same
    ("boolean", True, [1, "t"]),
    ("bytea", b"\0\xff", ["x"]),
    ("color", Color.RED, ["blue", 1]),
    ("color", "green", [Size.S]),
    ("size", Size.S, ["M", 1]),
    ("positive", 7, ["7"]),
    ("label", "red", ["blue"]),
    ("integer", Level.HIGH, [Color.RED]),
]


@pytest.mark.parametrize(("sql", "key", "strange"), KEYS, ids=names)
async def test_keys_of_every_type_find_their_row_and_strange_ones_are_named(
    pool: Pool, sql: str, key: Any, strange: list[Any]
) -> None:
    await pool.execute(f"{TYPES} CREATE TABLE t (k {sql} PRIMARY KEY, v int)")
    table = PostgresTable(pool, "t", key="k", model=dict[str, Any])
    await table.open()
    table.check_key(key)

    applied = await table.apply(Batch([Put(key, {"v": 1})]))

    assert list(applied.stored) == [key]
    assert (await table.load_many([key]))[key]["v"] == 1
    await table.apply(Batch([Put(key, {"v": 2})]))
    assert await pool.fetchval("SELECT v FROM t") == 2
    for other in strange:
        with pytest.raises(InvalidKey, match=r"^t"):
            table.check_key(other)
        with pytest.raises(InvalidKey):
            await table.load_many([key, other])
    await table.apply(Batch([Delete(key)]))
    assert await table.load_many([key]) == {}


async def test_two_keys_that_mean_one_row_both_find_it(pool: Pool) -> None:
    await pool.execute(f"{TYPES} CREATE TABLE t (k color PRIMARY KEY, v int); INSERT INTO t VALUES ('red', 1)")
    table = PostgresTable(pool, "t", key="k", model=dict)
    assert set(await table.load_many(["red", Color.RED, "green"])) == {"red", Color.RED}


@pytest.mark.parametrize("sql", ["double precision", "jsonb", "interval", "inet", "int[]", "time"])
async def test_a_type_whose_values_have_no_single_form_is_no_key(pool: Pool, sql: str) -> None:
    await pool.execute(f"CREATE TABLE t (k {sql} PRIMARY KEY, v int)")
    table = PostgresTable(pool, "t", key="k", model=dict)

    with pytest.raises(SchemaMismatch, match='the key column "k" is'):
        await table.open()


async def test_codecs_that_the_application_has_set_do_no_harm(database_url: str, schema: str) -> None:
    async def init(connection: Any) -> None:
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    model: Any = make_dataclass("Model", [("id", int), ("v", dict[str, Any])])
    async with asyncpg.create_pool(
        database_url, min_size=0, init=init, server_settings={"search_path": schema}
    ) as opened:
        await opened.execute("CREATE TABLE t (id int PRIMARY KEY, v jsonb)")
        table = PostgresTable(opened, "t", key="id", model=model)
        await table.apply(Batch([Put(1, model(1, {"a": 1}))]))
        assert (await table.load_many([1]))[1].v == {"a": 1}
        assert await opened.fetchval("SELECT v FROM t") == {"a": 1}
