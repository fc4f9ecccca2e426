"""Puts that come by column become what the same puts one by one become, or fail as they do."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from pydantic import BaseModel

from asynccache.errors import AsyncCacheError, ConfigurationError
from asynccache.postgres.binding import bind
from asynccache.postgres.catalog import Column, Family, Table, Type
from asynccache.postgres.models import model_for
from asynccache.postgres.reading import Reader
from asynccache.postgres.rows import RowMaker
from asynccache.postgres.statements import Statements
from asynccache.postgres.writing import Prepared, Writer
from asynccache.protocols import Put, Puts

INT = Type('"pg_catalog"."int4"', "integer", Family.INTEGER, "int4")
TEXT = Type('"pg_catalog"."text"', "text", Family.TEXT, "text")
CHAR = Type('"pg_catalog"."bpchar"', "character", Family.TEXT, "bpchar")
TIME = Type('"pg_catalog"."timestamptz"', "timestamp with time zone", Family.TIMESTAMPTZ, "timestamptz")
KEY_UUID = Type('"pg_catalog"."uuid"', "uuid", Family.UUID, "uuid")
BOOL = Type('"pg_catalog"."bool"', "boolean", Family.BOOLEAN, "bool")


class Level(enum.IntEnum):
    ONE = 1


class Struct(msgspec.Struct):
    id: Any
    name: Any = "x"
    rank: Any = 1
    at: Any = None


class Child(Struct):
    pass


@dataclass
class Plain:
    id: Any
    name: Any = "x"
    rank: Any = 1
    at: Any = None


class Typed(TypedDict, total=False):
    id: Any
    name: Any
    rank: Any
    at: Any


class Pydantic(BaseModel):
    id: Any
    name: Any = "x"
    rank: Any = 1
    at: Any = None


@dataclass
class Keyless:
    name: Any


def writer(model: Any, key: Type = INT, keys: tuple[str, ...] = ("id",)) -> Writer[Any]:
    def column(name: str, type_: Type, *, default: bool = False) -> Column:
        return Column(name, type_, not_null=default, has_default=default, generated=False, identity="")

    columns = {
        "id": column("id", key),
        "name": column("name", TEXT),
        "rank": column("rank", INT, default=True),
        "at": column("at", TIME),
    }
    binding = bind(Table("public", "things", columns, (frozenset(keys),)), model_for(model), list(keys), {})
    return Writer(binding, Statements(binding), Reader(binding))


def made(prepared: Prepared[Any]) -> tuple[Any, ...]:
    runs = [
        (run.fields, run.keys, [[(type(item), item) for item in array] for array in run.arrays])
        for run in prepared.runs
    ]
    return runs, prepared.all_keys, prepared.callers(), prepared.statements, prepared.mixed


def outcome(by: Writer[Any], writes: Any) -> Any:
    try:
        prepared = by.prepare(writes)
    except (AsyncCacheError, TypeError, AttributeError) as error:
        return type(error), str(error)
    return made(prepared)


ids = st.one_of(st.integers(-3, 30), st.sampled_from([True, 2**31, "a", "b\0", "\ud800", Level.ONE, None, (1,)]))
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
usual: dict[str, list[Any]] = {"name": ["x", ""], "rank": [1, 2], "at": [NOW]}
odd: dict[str, list[Any]] = {
    "name": ["x", None, 5, UNSET, "\ud800"],
    "rank": [1, None, Level.ONE, True, 2.5, UNSET],
    "at": [NOW, None, NOW.replace(tzinfo=None), "now"],
}


@st.composite
def some_puts(draw: st.DrawFn) -> list[tuple[Any, Any, dict[str, Any]]]:
    """Keys, what the rows say their keys are, and their other fields: at most one thing of these is odd."""
    strange = draw(st.sampled_from(["nothing", "key", "held", "name", "rank", "at", "missing", "more"]))
    puts = []
    for key in draw(st.lists(ids if strange == "key" else st.integers(0, 5), min_size=1, max_size=5, unique=True)):
        fields = {
            name: draw(st.sampled_from(odd[name] if name == strange else values)) for name, values in usual.items()
        }
        if strange == "missing" and draw(st.booleans()):
            del fields[draw(st.sampled_from(sorted(fields)))]
        if strange == "more" and draw(st.booleans()):
            fields["nobody"] = 1
        held = draw(st.sampled_from([key, key == 1 or key, 99])) if strange == "held" else key
        puts.append((key, held, fields))
    return puts


@pytest.mark.parametrize("model", [Struct, Plain, Typed, Pydantic, dict])
@given(some_puts())
def test_columns_and_single_puts_become_the_same_statements_or_the_same_error(
    model: Any, rows: list[tuple[Any, Any, dict[str, Any]]]
) -> None:
    by = writer(model)
    if model in {Struct, Plain}:
        rows = [(key, held, {name: fields[name] for name in fields if name != "nobody"}) for key, held, fields in rows]
    puts = Puts([key for key, *_ in rows], [model(id=held, **fields) for _, held, fields in rows])
    assert outcome(by, puts) == outcome(by, list(puts))


@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        (TEXT, ["b", "a", "C", ""]),
        (TEXT, ["b", "ä"]),
        (TEXT, ["b", "\0"]),
        (TEXT, ["b", "b"]),
        (CHAR, ["b", "a "]),
        (KEY_UUID, [UUID(int=2), UUID(int=1)]),
        (BOOL, [True, False]),
        (INT, [3, 2**31]),
        (INT, [3, True]),
    ],
)
def test_keys_of_any_type_are_checked_and_ordered_as_they_are_one_by_one(type_: Type, keys: list[Any]) -> None:
    by = writer(Keyless, type_)
    puts = Puts(keys, [Keyless(f"of {key!r}") for key in keys])
    assert outcome(by, puts) == outcome(by, list(puts))


@pytest.mark.parametrize("keys", [[(2, "b"), (1, "z"), (1, "a")], [(1, "a"), (1,)], [(1, "a"), 2], [(1, "\0")]])
def test_keys_of_several_columns_are_too(keys: list[Any]) -> None:
    by = writer(Struct, keys=("id", "name"))
    puts = Puts(keys, [Struct(*(key if isinstance(key, tuple) else (key,))) for key in keys])
    assert outcome(by, puts) == outcome(by, list(puts))


def test_a_subclass_among_the_values_does_not_lose_its_turn_to_be_checked() -> None:
    by = writer(Struct)
    puts = Puts([1, 2], [Struct(1), Child(2)])
    assert outcome(by, puts) == outcome(by, list(puts))


@pytest.mark.parametrize("model", [Struct, Plain, Typed, Pydantic, dict])
def test_something_else_among_the_values_is_found(model: Any) -> None:
    by = writer(model)
    puts = Puts([1, 2], [model(id=1, name="x", rank=1, at=None), "something else"])
    assert outcome(by, puts) == outcome(by, list(puts))


def test_plain_puts_do_go_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all of the above compares a thing with itself."""
    monkeypatch.setattr(RowMaker, "runs", lambda *_: pytest.fail("one by one"))
    for model in (Struct, Plain, Typed, Pydantic):
        by = writer(model)
        at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        (run,) = by.prepare(Puts([2, 1], [model(id=n, name="x", rank=n, at=at) for n in (2, 1)])).runs
        assert (run.keys, run.arrays) == ([[1, 2]], [["x", "x"], [1, 2], [at, at]])


def test_puts_are_a_sequence_of_put() -> None:
    puts = Puts([1, 2, 3], ["a", "b", "c"])
    assert list(puts) == [Put(1, "a"), Put(2, "b"), Put(3, "c")]
    assert (len(puts), puts[-1], list(puts[1:])) == (3, Put(3, "c"), [Put(2, "b"), Put(3, "c")])
    with pytest.raises(IndexError):
        puts[3]
    with pytest.raises(ConfigurationError, match="2 keys and 1 values"):
        Puts([1, 2], ["a"])
