"""XFetch as in the paper: the probability of a refresh is exp(-remaining / (cost * beta))."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.stampede.early_refresh import should_refresh

EXPIRY = 1_000_000.0


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """The same draws in each run."""
    seeded = random.Random(20150831)
    monkeypatch.setattr(random, "random", seeded.random)
    return seeded


@pytest.mark.parametrize("remaining", [10.0, 100.0, 250.0, 500.0])
@pytest.mark.parametrize(("cost", "beta"), [(100.0, 1.0), (50.0, 2.0), (200.0, 0.5), (300.0, 1.0)])
def test_the_probability_is_that_of_the_paper(draws: random.Random, remaining: float, cost: float, beta: float) -> None:
    runs = 20_000
    refreshes = sum(should_refresh(EXPIRY - remaining, EXPIRY, cost, beta) for _ in range(runs))
    assert refreshes / runs == pytest.approx(math.exp(-remaining / (cost * beta)), abs=0.015)


def test_readers_of_a_busy_key_refresh_it_before_it_expires(draws: random.Random) -> None:
    # 100 reads a second, and a load of 100 ms: the last second before expiry is all it takes.
    assert any(should_refresh(EXPIRY - left, EXPIRY, 100, 1) for left in range(1000, 100, -10))


@given(
    remaining=st.floats(min_value=1e-3, max_value=1e9),
    cost=st.floats(min_value=0, max_value=1e7),
)
def test_beta_zero_never_refreshes_before_expiry(remaining: float, cost: float) -> None:
    assert not should_refresh(EXPIRY - remaining, EXPIRY, cost, 0) or EXPIRY - remaining == EXPIRY


@given(
    late=st.floats(min_value=0, max_value=1e9),
    cost=st.floats(min_value=0, max_value=1e7),
    beta=st.floats(min_value=0, max_value=1000),
)
def test_what_has_expired_is_always_refreshed(late: float, cost: float, beta: float) -> None:
    assert should_refresh(EXPIRY + late, EXPIRY, cost, beta)


@pytest.mark.parametrize("draw", [0.0, 1.0 - 2.0**-53])
def test_the_most_extreme_draws_are_numbers_too(monkeypatch: pytest.MonkeyPatch, draw: float) -> None:
    # random() returns 0 <= r < 1; the logarithm of 0 does not exist.
    monkeypatch.setattr(random, "random", lambda: draw)
    certain = draw > 0
    assert should_refresh(EXPIRY - 3600, EXPIRY, 100, 1) is certain
    assert not should_refresh(EXPIRY - 3700, EXPIRY, 100, 1)


def test_a_read_long_before_expiry_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> float:
        raise AssertionError("drawn")

    monkeypatch.setattr(random, "random", refuse)
    assert not should_refresh(EXPIRY - 100_000, EXPIRY, 10, 1)
