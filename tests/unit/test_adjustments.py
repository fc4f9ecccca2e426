"""Adjustments: one that stands for many must do what the many do, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.adjustments import Adjustment, Number
from asynccache.errors import ConfigurationError

# Halves of small integers: sums of such floats are exact.
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63),
    "Decimal": st.decimals(-(10**20), 10**20, places=9),
    "float": st.integers(-(10**6), 10**6).map(lambda n: n / 2),
    "int and Decimal": st.integers(-20, 20) | st.decimals(-20, 20, places=1),
}


def steps(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Adjustment]]:
    one = (
        st.builds(Adjustment, numbers)
        | st.builds(Adjustment, floor=numbers)
        | st.builds(Adjustment, ceiling=numbers)
        | st.builds(Adjustment, numbers, st.none() | numbers, st.none() | numbers)
    )
    return st.lists(one, max_size=8)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_combined_change_does_what_its_parts_do_in_turn(kind: str, data: st.DataObject) -> None:
    start = data.draw(KINDS[kind])
    expected, combined = start, Adjustment()
    for step in data.draw(steps(KINDS[kind])):
        expected, combined = step(expected), combined.then(step)
    assert combined(start) == expected


@given(data=st.data())
def test_it_does_not_matter_which_neighbours_are_combined_first(data: st.DataObject) -> None:
    numbers = KINDS["int"]
    first, second, third = (Adjustment().then(*data.draw(steps(numbers).filter(bool))[:1]) for _ in range(3))
    assert first.then(second).then(third) == first.then(second.then(third))


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (Adjustment(), 5, 5),
        (Adjustment(-7), 5, -2),
        (Adjustment(floor=6), 5, 6),
        (Adjustment(floor=4), 5, 5),
        (Adjustment(ceiling=4), 5, 4),
        (Adjustment(10, ceiling=12), 5, 12),
        (Adjustment(0, floor=9, ceiling=7), 5, 7),
        (Adjustment(Decimal("0.1")), 0.2, Decimal("0.3")),
        (Adjustment(0.5), 1, 1.5),
    ],
)
def test_a_number_after_the_change(change: Adjustment, before: Number, after: Number) -> None:
    assert change(before) == after
    assert type(change(before)) is type(after)


def test_numbers_may_be_larger_than_a_float() -> None:
    assert Adjustment(10**400, floor=0)(1) == 10**400 + 1
    assert Adjustment(Decimal("1e400"))(0) == Decimal("1e400")


def test_decimals_are_exact_beyond_the_digits_of_the_usual_context() -> None:
    assert str(Adjustment(Decimal("0.000000001")).then(Adjustment(10**60)).add) == "1" + "0" * 60 + ".000000001"


@pytest.mark.parametrize("number", [float, Decimal])
def test_nan_is_larger_than_all_numbers_as_in_the_database(number: Callable[[str], Any]) -> None:
    assert math.isnan(Adjustment(1, floor=3)(number("nan")))
    assert Adjustment(1, ceiling=3)(number("nan")) == 3
    assert Adjustment(1, ceiling=3)(number("inf")) == 3


@pytest.mark.parametrize("wrong", ["1", None, True, math.nan, math.inf, Decimal("NaN"), Decimal("-Infinity")])
def test_what_is_no_finite_number_is_refused_where_it_is_given(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="add must be"):
        Adjustment(wrong)
    if wrong is not None:
        for bound in ("floor", "ceiling"):
            with pytest.raises(ConfigurationError, match=f"{bound} must be"):
                Adjustment(**{bound: wrong})
