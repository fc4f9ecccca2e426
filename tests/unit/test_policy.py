"""Durations and policies: what is refused, what wins, and how long entries live."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.errors import ConfigurationError, MissingTTL
from asynccache.policy import MAX_SECONDS, Duration, Policy, effective_policy, seconds


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        ("250ms", 0.25),
        ("5s", 5.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        (" 2H ", 7200.0),
        ("1.5d", 129_600.0),
        ("1w", 604_800.0),
        ("0s", 0.0),
        (dt.timedelta(minutes=2), 120.0),
        (dt.timedelta(milliseconds=1), 0.001),
        (MAX_SECONDS, MAX_SECONDS),
    ],
)
def test_a_duration_is_seconds_a_timedelta_or_text(given_: Duration, expected: float) -> None:
    assert seconds(given_, "ttl") == pytest.approx(expected)


@pytest.mark.parametrize("wrong", ["", "5", "m", "5 m", "-5m", "5m!", "five minutes", "1e3s", "5y", "\u0665m", ".5s"])
def test_text_that_is_no_duration_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ttl=.*'5m'"):
        seconds(wrong, "ttl")


@pytest.mark.parametrize("wrong", [None, True, False, b"5m", [5], 5j, dt.time(5)])
def test_another_type_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"ttl must be .* not {type(wrong).__name__}"):
        seconds(wrong, "ttl")


@pytest.mark.parametrize("wrong", [-1, -0.001, math.nan, math.inf, -math.inf, dt.timedelta(seconds=-1)])
def test_a_negative_or_endless_duration_is_refused(wrong: Duration) -> None:
    with pytest.raises(ConfigurationError, match="ttl="):
        seconds(wrong, "ttl")


@pytest.mark.parametrize("wrong", [MAX_SECONDS + 1, "3651d", dt.timedelta(days=10_000), 10**400])
def test_more_than_ten_years_is_refused(wrong: Duration) -> None:
    with pytest.raises(ConfigurationError, match="ttl="):
        seconds(wrong, "ttl")


def test_zero_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ConfigurationError, match="ttl=0 must be above 0"):
        seconds(0, "ttl", zero=False)
    with pytest.raises(ConfigurationError, match="ttl='0s' must be at least"):
        seconds("0s", "ttl", least=0.1, zero=False)


def test_zero_may_be_allowed_below_the_least() -> None:
    assert seconds(0, "stale", least=1) == 0.0
    with pytest.raises(ConfigurationError, match="0 or at least 1 s"):
        seconds(0.5, "stale", least=1)


@given(st.one_of(st.floats(), st.integers(), st.text(max_size=8), st.timedeltas()))
def test_any_input_is_a_duration_in_range_or_refused(value: Any) -> None:
    try:
        result = seconds(value, "ttl")
    except ConfigurationError:
        return
    assert 0 <= result <= MAX_SECONDS


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("ttl", 0),
        ("ttl", "0s"),
        ("ttl", -1),
        ("ttl", 0.0001),
        ("ttl", "soon"),
        ("jitter", -0.1),
        ("jitter", 0.91),
        ("jitter", 1),
        ("jitter", True),
        ("jitter", "0.1"),
        ("jitter", math.nan),
        ("early", -1),
        ("early", 1001),
        ("early", None),
        ("stale", -1),
        ("stale", None),
        ("negative_ttl", -1),
        ("negative_ttl", None),
        ("load_timeout", 0),
        ("load_timeout", -1),
        ("lease", 0),
        ("lease", 0.01),
        ("lease", None),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=field):
        Policy(**{"ttl": 60, field: wrong})


def test_durations_are_seconds_once_made() -> None:
    policy = Policy(ttl="5m", stale="1m", negative_ttl="30s", load_timeout="2s", lease=dt.timedelta(seconds=20))
    assert (policy.ttl, policy.stale, policy.negative_ttl, policy.load_timeout, policy.lease) == (300, 60, 30, 2, 20)


def test_a_policy_cannot_be_changed_behind_its_users() -> None:
    with pytest.raises(AttributeError):
        Policy(ttl=60).ttl = 1  # type: ignore[misc]


@given(st.floats(0.001, 1e6), st.floats(0, 0.9), st.one_of(st.just(0.0), st.floats(0.001, 1e6)))
def test_jitter_only_shortens_and_by_no_more_than_its_share(ttl: float, jitter: float, stale: float) -> None:
    fresh, dead = Policy(ttl=ttl, jitter=jitter, stale=stale).life_ms()
    assert max(1, int(ttl * 1000 * (1 - jitter)) - 1) <= fresh <= max(1, ttl * 1000)
    assert dead - fresh == int(stale * 1000)


def test_entries_written_together_do_not_expire_together() -> None:
    lives = {Policy(ttl=3600, jitter=0.1).life_ms()[0] for _ in range(100)}
    assert len(lives) > 90
    assert {Policy(ttl=3600, jitter=0).life_ms() for _ in range(10)} == {(3_600_000, 3_600_000)}


def test_not_found_lives_for_its_own_time_and_is_never_stale() -> None:
    policy = Policy(ttl=60, jitter=0, stale=600, negative_ttl=5)
    assert policy.life_ms(found=False) == (5000, 5000)
    assert Policy(ttl=60).life_ms(found=False) == (0, 0)


def test_a_ttl_of_one_entry_overrides_the_policys() -> None:
    assert Policy(ttl=60, jitter=0, stale=1).life_ms(ttl=2) == (2000, 3000)


def test_nothing_lives_without_a_ttl() -> None:
    assert Policy().life_ms() == (0, 0)


@pytest.mark.parametrize(
    ("ttl", "layers", "expected"),
    [
        (1, (Policy(ttl=2), Policy(ttl=3)), 1.0),
        (None, (Policy(ttl=2), Policy(ttl=3)), 2.0),
        (None, (Policy(), Policy(ttl=3)), 3.0),
        (None, (None, Policy(ttl=3)), 3.0),
        (None, (None, None, Policy(ttl="3s")), 3.0),
        ("4s", (None,), 4.0),
    ],
)
def test_the_ttl_of_the_call_wins_then_the_strategys_then_the_caches(
    ttl: Duration | None, layers: tuple[Policy | None, ...], expected: float
) -> None:
    assert effective_policy("x", *layers, ttl=ttl).ttl == expected


def test_the_other_fields_come_from_the_most_specific_policy_as_a_whole() -> None:
    policy = effective_policy("x", Policy(jitter=0.5), Policy(ttl=3, jitter=0.2, stale=9))
    assert (policy.ttl, policy.jitter, policy.stale) == (3.0, 0.5, 0.0)


def test_no_ttl_anywhere_is_refused_with_the_fix() -> None:
    with pytest.raises(MissingTTL, match=r"CacheAside 'user' has no TTL: pass ttl= here"):
        effective_policy("CacheAside 'user'", Policy(stale=5), None)
