"""Counts of requests: never too low within a window, seldom too high, in memory that does not grow."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from asynccache.frequency import MOST, RequestCounts


@pytest.mark.parametrize("capacity", [1, 7, 100, 5000])
def test_no_count_is_too_low_however_many_keys_share_the_counters(capacity: int) -> None:
    counts, exact = RequestCounts(60.0, capacity), Counter[str]()
    dice = Random(capacity)
    for _ in range(capacity * 4):
        key = f"key {int(capacity * dice.random() ** 3)}"
        exact[key] += 1
        assert counts.add(key, 0.0) >= min(exact[key], MOST)
    assert all(counts.count(key, 59.9) >= min(exact[key], MOST) for key in exact)


@pytest.mark.parametrize("asked_at", [0.0, 4.0, 9.99])
def test_a_request_counts_for_a_window_and_for_two_at_most(asked_at: float) -> None:
    counts = RequestCounts(10.0, 100)
    counts.add("first", 0.0)
    counts.add("k", asked_at)
    assert counts.count("k", asked_at + 9.99) == 1
    assert counts.count("k", asked_at + 20.0) == 0


def test_a_request_is_forgotten_in_time_although_nobody_asked_meanwhile() -> None:
    counts = RequestCounts(10.0, 100)
    counts.add("k", 0.0)
    assert counts.count("other", 19.0) == 0
    assert counts.count("k", 19.9) == 1
    assert counts.count("k", 20.0) == 0


def test_few_of_many_keys_asked_for_once_pass_for_asked_for_twice() -> None:
    counts = RequestCounts(10.0, 2000)
    twice = 0
    for half in range(4):
        twice += sum(counts.add(f"{half}:{at}", half * 10.0) > 1 for at in range(2000))
    assert twice < 4 * 2000 * 0.01


def test_a_flood_of_keys_makes_windows_shorter_and_none_of_them_popular() -> None:
    counts = RequestCounts(3600.0, 500)
    before = counts.nbytes
    passed = sum(counts.add(f"scan {at}", 0.0) > 1 for at in range(50_000))
    assert passed < 50_000 * 0.01
    assert counts.nbytes == before
    assert [counts.add("popular", 0.0) for _ in range(2)][-1] >= 2


def test_a_counter_that_is_full_stays_so() -> None:
    counts = RequestCounts(10.0, 1)
    for _ in range(MOST + 50):
        found = counts.add("k", 0.0)
    assert found == MOST
