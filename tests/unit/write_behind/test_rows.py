"""Adjusted rows of every kind of model: the same columns change, the rest stays, the original too."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict

from asynccache.errors import ConfigurationError, DecodeError
from asynccache.protocols import Adjustment
from asynccache.write_behind.rows import Rows


@dataclass(frozen=True, slots=True)
class Frozen:
    id: int
    points: int = 10
    money: Decimal | None = Decimal("0.5")
    weight: Annotated[float, "kg"] = 1.5
    name: str = "x"


@dataclass
class Derived:
    id: int
    points: int = 10
    money: Decimal = Decimal("0.5")
    weight: float = 1.5
    name: str = field(default="x", init=False)


class Struct(msgspec.Struct, frozen=True):
    id: int
    points: int = 10
    money: Decimal = Decimal("0.5")
    weight: float = 1.5
    name: str = "x"


class Pydantic(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: int
    points: int = 10
    money: Decimal = Decimal("0.5")
    weight: float = 1.5
    name: str = "x"


class Typed(TypedDict):
    id: int
    points: int
    money: Decimal
    weight: float
    name: str


DEFAULTS = {"points": 10, "money": Decimal("0.5"), "weight": 1.5, "name": "x"}
MODELS = [(Frozen, None), (Derived, None), (Struct, None), (Pydantic, None), (Typed, DEFAULTS), (dict, DEFAULTS)]
CHANGES = {
    "points": Adjustment(-3),
    "money": Adjustment(Decimal("0.25"), None, Decimal("0.7")),
    "weight": Adjustment(0, 2.0, None),
}


@pytest.mark.parametrize(("model", "defaults"), MODELS)
def test_only_the_adjusted_columns_of_a_copy_change_and_keep_their_types(model: Any, defaults: Any) -> None:
    rows: Rows[Any] = Rows(model, defaults, key=("id",))
    row = rows.default(7)
    changed = rows.adjusted(row, 7, CHANGES)
    wanted = {"id": 7, "points": 7, "money": Decimal("0.7"), "weight": 2.0, "name": "x"}
    assert {name: rows.get(changed, name) for name in wanted} == wanted
    assert {name: type(rows.get(changed, name)) for name in wanted} == {n: type(v) for n, v in wanted.items()}
    assert type(changed) is type(row)
    assert {name: rows.get(row, name) for name in DEFAULTS} == DEFAULTS
    assert [rows.number(name, 7) for name in CHANGES] == [int, Decimal, float]
    assert rows.numbers(7, CHANGES) == {name: DEFAULTS[name] for name in CHANGES}


def test_null_counts_as_the_default() -> None:
    rows: Rows[Frozen] = Rows(Frozen, key=("id",))
    assert rows.adjusted(Frozen(1, money=None), 1, {"money": Adjustment(1)}).money == Decimal("1.5")


def test_a_sum_has_all_its_digits_whatever_precision_the_application_has_set() -> None:
    rows: Rows[Frozen] = Rows(Frozen, key=("id",))
    with localcontext() as context:
        context.prec = 5
        row = rows.adjusted(Frozen(1), 1, {"money": Adjustment(Decimal("999999999999.123456789"))})
    assert row.money == Decimal("999999999999.623456789")


@pytest.mark.parametrize(
    ("defaults", "wanted"),
    [({"points": 3}, Frozen(1, 3)), (lambda key: Frozen(key, 4), Frozen(1, 4)), (Frozen(0, 5), Frozen(0, 5))],
)
def test_defaults_may_be_fields_a_function_of_the_key_or_a_row(defaults: Any, wanted: Frozen) -> None:
    assert Rows(Frozen, defaults, key=("id",)).default(1) == wanted


def test_a_key_of_several_fields_fills_them_all() -> None:
    class Pair(NamedTuple):
        left: int
        right: str
        n: int = 0

    rows: Rows[Pair] = Rows(Pair, key=("left", "right"))
    assert rows.adjusted(rows.default((1, "b")), (1, "b"), {"n": Adjustment(2)}) == Pair(1, "b", 2)


@pytest.mark.parametrize(
    ("column", "said"),
    [("name", "'name' of Frozen holds str"), ("nothing", "'nothing' of Frozen"), ("flag", "'flag' of Frozen")],
)
def test_a_column_that_holds_no_number_is_named(column: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Rows(Frozen, key=("id",)).number(column, 1)


def test_a_row_that_cannot_be_made_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match=r"Frozen .*'id'.*defaults="):
        Rows(Frozen).default(1)


def test_a_column_that_the_model_no_longer_has_is_a_record_that_cannot_be_read() -> None:
    rows: Rows[Frozen] = Rows(Frozen, key=("id",))
    with pytest.raises(DecodeError, match="no longer fits"):
        rows.adjusted(Frozen(1), 1, {"gone": Adjustment(1)})


@dataclass
class Listed:
    id: int
    points: int = 0
    names: list[str] = field(default_factory=list)


@pytest.mark.parametrize("defaults", [{"names": []}, Listed(1)], ids=["a mapping", "a row"])
def test_rows_made_of_defaults_share_nothing(defaults: Any) -> None:
    rows: Rows[Listed] = Rows(Listed, defaults, key=("id",))
    rows.default(1).names.append("x")
    assert rows.default(1).names == []
