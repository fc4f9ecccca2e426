"""Numbers on their way through Redis: none loses a digit, and what would is refused before it is sent."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.errors import ConfigurationError, DecodeError
from asynccache.protocols import Adjustment
from asynccache.write_behind.numbers import EXACT, FLOAT, amount, pack_column, parse_columns

EXACT_NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.decimals(
    min_value=-(10**18), max_value=10**18, places=9, allow_nan=False, allow_infinity=False
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def adjustments(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Adjustment]:
    return st.builds(Adjustment, numbers, st.none() | numbers, st.none() | numbers)


@given(adjustments(EXACT_NUMBERS), adjustments(FLOATS))
def test_every_number_that_is_accepted_comes_back_as_it_was(exact: Adjustment, inexact: Adjustment) -> None:
    raw = pack_column("points", EXACT, exact) + pack_column("Gewicht in Gramm: ä", FLOAT, inexact)
    assert parse_columns(raw) == {"points": (EXACT, exact), "Gewicht in Gramm: ä": (FLOAT, inexact)}


@pytest.mark.parametrize("edge", [10**24 - 1, -(10**24), Decimal("999999999999999999999999.999999999")])
def test_the_largest_numbers_are_accepted_and_one_step_more_is_not(edge: Any) -> None:
    amount("money", edge, Decimal)
    assert parse_columns(pack_column("money", EXACT, Adjustment(edge)))["money"][1].add == edge
    with pytest.raises(ConfigurationError, match=r"money=.*must be below 10\^24"):
        amount("money", 10**24, Decimal)
    with pytest.raises(ConfigurationError, match="at most 9 digits"):
        amount("money", Decimal("0.0000000001"), Decimal)


@pytest.mark.parametrize(
    ("type_", "value", "said"),
    [
        (int, 1.5, "holds ints"),
        (int, Decimal(1), "holds ints"),
        (int, True, "holds ints"),
        (int, "1", "holds ints"),
        (int, 10**30, "10^24"),
        (Decimal, 0.1, r"pass Decimal('0.1')"),
        (Decimal, Decimal("nan"), "10^24"),
        (Decimal, Decimal("inf"), "10^24"),
        (Decimal, Decimal("1e999999"), "10^24"),
        (float, float("nan"), "finite"),
        (float, 10**400, "finite"),
        (float, None, "holds floats"),
    ],
)
def test_an_amount_that_would_change_on_its_way_is_refused_with_the_fix(type_: type, value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        amount("points", value, type_)
    assert "points=" in str(raised.value)
    assert said in str(raised.value)


@given(st.binary(max_size=40))
def test_damaged_bytes_are_a_decode_error_and_nothing_else(raw: bytes) -> None:
    with contextlib.suppress(DecodeError):
        parse_columns(raw)


@pytest.mark.parametrize("cut", range(1, 30))
def test_bytes_that_were_cut_off_are_not_taken_for_a_smaller_number(cut: int) -> None:
    raw = pack_column("n", EXACT, Adjustment(7, None, 9))
    with pytest.raises(DecodeError):
        parse_columns(raw[:-cut])
