"""How a warming is told to go about it, and how it keeps its pace."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache import ConfigurationError
from asynccache.cli.warm import parse_key
from asynccache.strategies.warm_reports import Pace, Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency=0 must be an int from 1"),
        ({"concurrency": True}, "concurrency=True"),
        ({"batch": 10_001}, "batch=10001 must be an int from 1 to 10,000"),
        ({"max_failures": 0}, "max_failures=0"),
        ({"rate": 0}, "rate=0 must be keys a second"),
        ({"rate": "fast"}, "rate='fast'"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"rate": True}, "rate=True"),
        ({"progress": 5}, "progress must be a function of a WarmProgress, or True, not int"),
        ({"resume": -1}, "resume=-1 must be a position"),
        ({"resume": True}, "resume=True must be a position"),
        ({"resume": 1.5}, "resume=1.5 must be a position"),
        ({"resume": "no name"}, "resume='no name'"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings(**options)


def test_a_low_rate_makes_small_batches_and_no_bursts() -> None:
    assert Settings().batch_size == 500
    assert Settings(rate=20).batch_size == 20
    assert Settings(rate=0.5).batch_size == 1
    assert Settings(rate=1e6).batch_size == 500


@given(
    st.floats(0.1, 1000),
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 5)), min_size=1, max_size=40),
)
def test_no_more_passes_in_any_time_than_the_rate_allows_and_one_request(
    rate: float, requests: list[tuple[int, float]]
) -> None:
    pace, now = Pace(rate), 100.0
    passed: list[tuple[float, int]] = []
    for tokens, later in requests:
        now += later
        passed.append((now + pace.reserve(tokens, now), tokens))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            begin, end = passed[first][0], passed[last][0]
            assert sum(tokens for _, tokens in passed[first:last]) <= rate * (end - begin) + 1e-6


def test_who_comes_late_enough_does_not_wait() -> None:
    pace = Pace(10)
    assert pace.reserve(5, 0.0) == 0.0
    assert pace.reserve(5, 0.2) == pytest.approx(0.3)
    assert pace.reserve(5, 5.0) == 0.0
    assert Pace(None).reserve(10**9, 0.0) == 0.0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("42", 42),
        ("-7", -7),
        ('"42"', "42"),
        ("ada", "ada"),
        ("a b", "a b"),
        ('["acme", 7]', ("acme", 7)),
        ('["acme", [7, "x"]]', ("acme", (7, "x"))),
        ("1.5", "1.5"),
        ("true", "true"),
        ("{}", "{}"),
        ("[1", "[1"),
    ],
)
def test_a_line_of_a_file_is_the_key_that_it_looks_like(text: str, key: Any) -> None:
    found = parse_key(text)
    assert found == key
    assert type(found) is type(key)


def test_uuids_are_uuids_and_nothing_else() -> None:
    assert parse_key("00000000-0000-0000-0000-000000000001", uuids=True) == UUID(int=1)
    with pytest.raises(ConfigurationError, match="'42' is none"):
        parse_key("42", uuids=True)
