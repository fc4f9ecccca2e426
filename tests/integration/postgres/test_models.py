"""Models of every kind: what goes in comes back as the type it was."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, NewType, NotRequired, TypeAlias, TypedDict
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pydantic
import pytest

from asynccache.errors import ConfigurationError, SchemaMismatch, WriteRejected
from asynccache.postgres import PostgresTable
from asynccache.protocols import Batch, Put

Pool: TypeAlias = "asyncpg.Pool[Any]"
UserId = NewType("UserId", int)

TABLE = """
CREATE TYPE size AS ENUM ('SMALL', 'LARGE');
CREATE TABLE things (id bigint PRIMARY KEY, name text NOT NULL, price numeric, size size, at timestamptz, token uuid,
    lines jsonb, tags text[], extra text)
"""
AT = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
TOKEN = uuid4()


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


@dataclass
class DataLine:
    sku: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class DataThing:
    id: UserId
    name: Annotated[str, "the name"]
    price: Decimal | None = None
    size: Size | None = None
    at: dt.datetime | None = None
    token: UUID | None = None
    lines: list[DataLine] = field(default_factory=list)
    tags: tuple[str, ...] = ()
    checked: bool = field(default=False, init=False)


class StructLine(msgspec.Struct, frozen=True):
    sku: str
    count: int = 1


class StructThing(msgspec.Struct, rename="camel", kw_only=True, tag=True):
    id: int
    name: str
    unit_price: Decimal | None = None
    size: Size | None = None
    at: dt.datetime | None = None
    token: UUID | None = None
    lines: list[StructLine] = []
    tags: set[str] = set()


class ModelLine(pydantic.BaseModel):
    sku: str = pydantic.Field(alias="SKU")
    count: int = 1


class ModelThing(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    id: int
    title: str = pydantic.Field(alias="theTitle", max_length=20)
    price: Decimal | None = None
    size: Size | None = None
    at: pydantic.AwareDatetime | None = None
    token: UUID | None = None
    lines: list[ModelLine] = []
    tags: list[str] = []

    @pydantic.computed_field
    def twice(self) -> int:
        return self.id * 2


@pydantic.dataclasses.dataclass
class PydanticThing:
    id: int
    name: str
    price: Decimal | None = None
    size: Size | None = None
    at: dt.datetime | None = None
    lines: list[ModelLine] = pydantic.Field(default_factory=list)


class DictThing(TypedDict):
    id: int
    name: str
    price: NotRequired[Decimal]
    size: NotRequired[Size | None]
    lines: NotRequired[list[DataLine]]


def put_values() -> dict[str, tuple[Any, dict[str, str], Any]]:
    given: dict[str, Any] = {"price": Decimal("1.50"), "size": Size.LARGE, "at": AT, "token": TOKEN}
    return {
        "dataclass": (
            DataThing, {}, DataThing(UserId(1), "n", **given, lines=[DataLine("a", 2)], tags=("x", "y")),
        ),
        "struct": (
            StructThing,
            {"unit_price": "price"},
            StructThing(id=1, name="n", unit_price=Decimal("1.50"), size=Size.SMALL, at=AT, token=TOKEN,
                        lines=[StructLine("a")], tags={"x"}),
        ),
        "pydantic": (
            ModelThing,
            {"title": "name"},
            ModelThing(id=1, theTitle="n", **given, lines=[ModelLine(SKU="a", count=3)], tags=["x"]),
        ),
        "pydantic dataclass": (
            PydanticThing, {}, PydanticThing(1, "n", Decimal("1.50"), Size.LARGE, AT, [ModelLine(SKU="a")]),
        ),
        "typed dict": (
            DictThing, {}, DictThing(id=1, name="n", price=Decimal(1), size=Size.LARGE, lines=[DataLine("a")]),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", put_values())
async def test_a_model_comes_back_as_the_type_it_went_in(pool: Pool, kind: str) -> None:
    await pool.execute(TABLE)
    model, columns, value = put_values()[kind]
    table = PostgresTable(pool, "things", key="id", model=model, columns=columns)
    await table.open()

    assert (await table.apply(Batch([Put(1, value)]))).stored == {1: value}

    found = (await table.load_many([1]))[1]
    assert found == value
    assert type(found) is type(value)
    assert table.model is model


async def test_pydantic_models_are_validated_when_they_are_read(pool: Pool) -> None:
    await pool.execute(TABLE)
    await pool.execute("INSERT INTO things (id, name, lines, tags) VALUES (1, 'a name far above twenty', '[]', '{}')")
    table = PostgresTable(pool, "things", key="id", model=ModelThing, columns={"title": "name"})
    with pytest.raises(SchemaMismatch, match=r"the row 1 of .*at most 20 characters"):
        await table.load_many([1])
    await pool.execute("""UPDATE things SET name = 'n', lines = '[{"sku": "no alias"}]'""")
    with pytest.raises(SchemaMismatch, match=r"the row 1 of .*SKU"):
        await table.load_many([1])


async def test_json_in_the_database_that_is_not_the_models_is_named(pool: Pool) -> None:
    await pool.execute(TABLE)
    await pool.execute("""INSERT INTO things (id, name, lines, tags) VALUES (1, 'n', '[{"sku": 5}]', '{}')""")
    table = PostgresTable(pool, "things", key="id", model=DataThing)
    with pytest.raises(SchemaMismatch, match=r"the row 1 of .*lines.*sku"):
        await table.load_many([1])


async def test_dicts_hold_plain_values_under_the_names_that_were_asked_for(pool: Pool) -> None:
    await pool.execute(TABLE)
    table = PostgresTable(pool, "things", key="id", model=dict, columns={"title": "name"})
    await table.open()
    row = {"id": 1, "title": "n", "lines": [{"a": 1}], "tags": ["x"], "size": "SMALL", "token": TOKEN}
    stored = (await table.apply(Batch([Put(1, row)]))).stored[1]
    assert stored == {**row, "price": None, "at": None, "extra": None}
    with pytest.raises(WriteRejected, match="no column for 'titel'; did you mean \"title\""):
        await table.apply(Batch([Put(2, {"titel": "x"})]))
    with pytest.raises(WriteRejected, match="no column for 5"):
        await table.apply(Batch([Put(2, {5: "x"})]))  # type: ignore[dict-item]  # that is the test


async def test_keys_missing_from_a_typed_dict_leave_their_columns_alone(pool: Pool) -> None:
    await pool.execute(TABLE)
    table = PostgresTable(pool, "things", key="id", model=DictThing)
    await table.apply(Batch([Put(1, DictThing(id=1, name="a", price=Decimal(5), size=None, lines=[]))]))
    stored = (await table.apply(Batch([Put(1, DictThing(id=1, name="b"))]))).stored[1]
    assert stored == {"id": 1, "name": "b", "price": Decimal(5), "size": None, "lines": []}


def test_a_model_whose_annotations_cannot_be_read_is_refused() -> None:
    @dataclass
    class Lost:
        id: int
        other: Nowhere  # type: ignore[name-defined]  # noqa: F821 - that is the test

    with pytest.raises(ConfigurationError, match="Nowhere"):
        PostgresTable(lambda: None, "things", key="id", model=Lost)


def test_reprs_say_what_a_table_is() -> None:
    table = PostgresTable(lambda: None, "app.things", key=("a", "b"), model=DataThing)
    assert repr(table) == "PostgresTable('app.things', key=('a', 'b'), model=DataThing, not open)"
