"""The sketch of hot keys: what it may be wrong by, what it forgets, and what it shares."""

from __future__ import annotations

import enum
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache import ConfigurationError, HotKeys, InvalidKey
from asynccache.clock import ManualClock
from asynccache.hot_keys.sketch import Counted, Sketch


def sketch(capacity: int = 10, half_life: float = 600.0) -> tuple[Sketch, ManualClock]:
    clock = ManualClock()
    return Sketch(capacity, half_life, clock), clock


def zipf(requests: int, keys: int, exponent: float = 1.0) -> list[int]:
    weights = [1 / (rank + 1) ** exponent for rank in range(keys)]
    return random.Random(7).choices(range(keys), weights, k=requests)


def test_the_hottest_of_a_zipf_stream_are_found_in_order_in_a_hundredth_of_the_memory() -> None:
    stream = zipf(200_000, 50_000)
    found, _ = sketch(500)
    for key in stream:
        found.count(key)
    exact = Counter(stream)
    assert len(found) == 500
    assert [key for key, *_ in found.top(20)] == [key for key, _ in exact.most_common(20)]
    for key, weight, error in found.top(100):
        assert weight - error <= exact[key] <= weight
        assert error <= len(stream) / 500


@given(st.lists(st.integers(0, 30), max_size=400), st.integers(1, 12))
def test_no_count_is_too_low_nor_too_high_by_more_than_its_share_and_no_hot_key_is_overlooked(
    stream: list[int], capacity: int
) -> None:
    found, _ = sketch(capacity)
    for key in stream:
        found.count(key)
    exact = Counter(stream)
    seen = {key: (weight, error) for key, weight, error in found.top(capacity)}
    assert len(found) <= capacity
    for key, (weight, error) in seen.items():
        assert weight - error <= exact[key] <= weight
        assert error <= len(stream) / capacity
    for key, count in exact.items():
        if count > len(stream) / capacity:
            assert key in seen


def test_a_request_counts_half_after_each_half_life() -> None:
    found, clock = sketch(half_life=100)
    for _ in range(64):
        found.count("old")
    clock.advance(300)
    for _ in range(9):
        found.count("new")
    weights = {key: weight for key, weight, _ in found.top(2)}
    assert weights["old"] == pytest.approx(8, rel=0.02)
    assert weights["new"] == pytest.approx(9, rel=0.02)
    assert [key for key, *_ in found.top(1)] == ["new"]


def test_years_without_a_request_are_no_overflow_and_what_was_hot_is_forgotten() -> None:
    found, clock = sketch(half_life=1)
    for round_ in range(200):
        found.count(("steady", round_ % 3))
        clock.advance(50)
    clock.advance(10 * 365 * 86_400)
    assert found.top(5) == []
    assert found.share() == []
    for _ in range(3):
        found.count("new")
    assert [(key, round(weight)) for key, weight, _ in found.top(5)] == [("new", 3)]
    for key in range(50):  # nor does it stand in the way of what comes
        found.count(key)
    assert len(found) == 10


def test_a_scaled_sketch_still_finds_its_least_key() -> None:
    found, clock = sketch(3, half_life=1)
    for key, count in (("a", 5), ("b", 9), ("c", 7)):
        for _ in range(count):
            found.count(key)
    clock.advance(64.5)  # beyond which all is scaled
    found.count("a")
    found.count("b")
    found.count("d")
    assert {key for key, *_ in found.top(3)} == {"a", "b", "d"}


def test_the_counter_that_is_taken_over_is_always_the_least_whatever_time_has_passed() -> None:
    generator = random.Random(11)
    found, clock = sketch(16, half_life=1)
    for _ in range(5000):
        clock.advance(generator.choice([0, 0, 0.01, 0.3, 20, 70]))
        weights = {key: weight for key, weight, _ in _all(found)}
        key = int(generator.paretovariate(0.6))
        found.count(key)
        if key not in weights and len(weights) == 16:
            error = next(error for name, _, error in _all(found) if name == key)
            assert error == min(weights.values())


def _all(found: Sketch) -> list[Counted]:
    found.top(1)  # as of now
    return [Counted(one.key, one.weight, one.error) for one in found._counters.values()]


class Colour(enum.IntEnum):
    RED = 1


def test_equal_values_of_different_types_are_different_keys() -> None:
    found, _ = sketch(100)
    keys = [1, True, "1", Colour.RED, (1,), (True,), ("1",), "1:2", (1, 2), b"1", None, ""]
    for times, key in enumerate(keys, 1):
        for _ in range(times):
            found.count(key)
    assert [(repr(key), round(weight)) for key, weight, _ in found.top(20)] == [
        (repr(key), times) for times, key in reversed(list(enumerate(keys, 1)))
    ]


def test_what_is_no_key_is_not_counted() -> None:
    found, _ = sketch()
    with pytest.raises(InvalidKey):
        found.count(1.5)
    assert len(found) == 0


def test_a_share_tells_what_is_new_and_what_a_key_took_over_is_nobodys() -> None:
    found, _ = sketch(2)
    for key in "aab":
        found.count(key)
    assert {share.key: share[1:] for share in found.share()} == {"a": (2, 2), "b": (1, 1)}
    found.count("a")
    found.count("c")  # takes over b's counter: it weighs 2, of which 1 was seen
    assert {key: (weight, error) for key, weight, error in found.top(2)} == {"a": (3, 0), "c": (2, 1)}
    assert {share.key: share[1:] for share in found.share()} == {"a": (1, 3), "c": (1, 1)}
    assert {share.key: share[1:] for share in found.share()} == {"a": (0, 3), "c": (0, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 9}, "capacity=9 must be an int from 10"),
        ({"capacity": True}, "capacity=True"),
        ({"capacity": "many"}, "capacity='many'"),
        ({"half_life": 0}, "half_life=0"),
        ({"half_life": "soon"}, "half_life='soon'"),
        ({"share_every": "1ms"}, "share_every='1ms'"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        HotKeys(**options)  # type: ignore[arg-type]  # that is the point


def test_settings_are_seconds_once_made() -> None:
    settings = HotKeys(half_life="1m", share_every="500ms")
    assert (settings.half_life_seconds, settings.share_seconds) == (60.0, 0.5)
