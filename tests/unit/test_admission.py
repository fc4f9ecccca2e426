"""Admission policies by themselves: what they count, what they take, and what `&` and `|` make of them."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from asynccache import (
    Admission,
    AfterRequests,
    Always,
    Cache,
    CacheAside,
    ConfigurationError,
    CountsRequests,
    Occasion,
    Predicate,
)
from asynccache.clock import ManualClock

LOAD, REFRESH, PUT = Occasion.LOAD, Occasion.REFRESH, Occasion.PUT


def large(value: Any) -> bool:
    return int(value) > 10


async def later(value: Any) -> bool:
    return bool(value)


def promise(value: Any) -> Any:
    return later(value)


class Later:
    async def __call__(self, value: Any) -> bool:
        return bool(value)


def test_the_nth_request_within_the_window_is_the_first_to_be_stored() -> None:
    clock = ManualClock()
    policy = AfterRequests(3, within="1m", clock=clock)
    assert [policy.requested("k") for _ in range(4)] == [False, False, True, True]
    clock.advance(59)
    assert policy.requested("k")
    clock.advance(120)
    assert not policy.requested("k")


def test_a_key_is_not_stored_for_what_another_was_asked() -> None:
    policy = AfterRequests(2)
    assert policy.requested("a") is policy.requested("b") is False
    assert policy.requested("a") is policy.requested("b") is True


def test_looking_is_no_request() -> None:
    policy = AfterRequests(2)
    assert [policy.requested("k", peek=True) for _ in range(3)] == [False] * 3
    policy.requested("k")
    assert [policy.requested("k", peek=True) for _ in range(3)] == [True] * 3


def test_a_put_is_no_request_and_stored_if_its_key_is_asked_for() -> None:
    policy = AfterRequests(2)
    assert [policy.admits("k", 1, PUT) for _ in range(3)] == [False] * 3
    policy.requested("k")
    assert not policy.admits("k", 1, PUT)
    policy.requested("k")
    assert policy.admits("k", 1, PUT)


def test_a_refresh_is_stored_although_its_requests_are_forgotten() -> None:
    assert AfterRequests(2).admits("k", 1, REFRESH)


def test_always_is_always() -> None:
    assert all(Always().admits("k", None, occasion) for occasion in Occasion)


def test_a_predicate_is_not_asked_about_what_does_not_exist() -> None:
    policy = Predicate(large)
    assert [policy.admits("k", value, LOAD) for value in (10, 11, None)] == [False, True, True]


def test_both_must_admit_and_either_is_enough() -> None:
    both, either = AfterRequests(2) & Predicate(large), AfterRequests(2) | Predicate(large)
    assert isinstance(both, CountsRequests)
    assert isinstance(either, CountsRequests)
    # Only of `both` it is known before the load that nothing will be stored.
    assert [both.requested("k"), either.requested("k")] == [False, True]
    assert [either.admits("k", value, LOAD) for value in (10, 11)] == [False, True]
    assert [both.requested("k"), either.requested("k")] == [True, True]
    assert [both.admits("k", value, LOAD) for value in (10, 11)] == [False, True]
    assert [either.admits("k", value, LOAD) for value in (10, 11)] == [True, True]
    assert [both.admits("new", value, REFRESH) for value in (10, 11)] == [False, True]


def test_every_side_of_a_combination_counts_each_request() -> None:
    short, long = AfterRequests(2), AfterRequests(4)
    policy = (short | long) & Always()
    assert isinstance(policy, CountsRequests)
    assert [policy.requested("k") for _ in range(3)] == [False, True, True]
    assert long.requested("k", peek=True)
    both = AfterRequests(4) & AfterRequests(2)
    assert isinstance(both, CountsRequests)
    assert [both.requested("k") for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n": 1}, r"n=1 \(int\) must be an int from 2 to 255; Always\(\)"),
        ({"n": 256}, "n=256"),
        ({"n": True}, r"n=True \(bool\)"),
        ({"n": "2"}, r"n='2' \(str\)"),
        ({"n": 2, "within": 0}, "within"),
        ({"n": 2, "within": "soon"}, "within"),
        ({"n": 2, "capacity": 0}, "capacity=0"),
        ({"n": 2, "capacity": 10**9}, "capacity=1000000000"),
        ({"n": 2, "capacity": 1e5}, r"capacity=100000.0 \(float\)"),
    ],
)
def test_counts_that_cannot_work_are_refused_at_once(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        AfterRequests(**arguments)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (None, "must be callable, not NoneType"),
        (later, "not a coroutine function"),
        (Later(), "not a coroutine function"),
        (functools.partial(later), "not a coroutine function"),
        (lambda: True, "must take the value"),
        (lambda key, value: True, "must take the value"),
        (lambda value, *, strict: True, "must take the value"),
    ],
)
def test_functions_that_cannot_tell_are_refused_at_once(function: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Predicate(function)


@pytest.mark.parametrize("function", [bool, len, large, functools.partial(large), lambda value, strict=False: True])
def test_any_plain_function_of_the_value_tells(function: Any) -> None:
    Predicate(function)


def test_a_function_that_returns_an_awaitable_is_found_out_when_it_does() -> None:
    with pytest.raises(ConfigurationError, match="must return a bool, not an awaitable"):
        Predicate(promise).admits("k", 1, LOAD)


@pytest.mark.parametrize("wrong", [AfterRequests, 2, "always", lambda value: True])
def test_what_is_no_policy_is_refused_wherever_it_is_given(wrong: Any) -> None:
    cache = Cache("memory://", namespace="shop", ttl=5)

    async def function(key: int) -> int:
        return key

    match = "admit must be Always"
    with pytest.raises(ConfigurationError, match=match):
        Cache("memory://", namespace="shop", admit=wrong)
    with pytest.raises(ConfigurationError, match=match):
        cache.namespace("tenant", admit=wrong)
    with pytest.raises(ConfigurationError, match=match):
        cache.cached(admit=wrong)(function)
    with pytest.raises(ConfigurationError, match=match):
        CacheAside(cache, "user", admit=wrong)
    with pytest.raises(ConfigurationError, match="combines with another one"):
        Always() & wrong


def test_policies_say_what_they_are() -> None:
    policy = (AfterRequests(2) & Predicate(large)) | Always()
    assert repr(policy) == "((AfterRequests(2, within=600) & Predicate(large)) | Always())"
    assert isinstance(policy, Admission)
