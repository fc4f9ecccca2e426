"""How large the next batch is: larger while its partition is behind and the database is quick."""

from __future__ import annotations

import pytest

from asynccache.write_behind.pacing import Pace


@pytest.fixture
def pace() -> Pace:
    return Pace(100)


def test_batches_double_up_to_five_times_the_usual_size_while_more_waits_than_they_take(pace: Pace) -> None:
    sizes = []
    for _ in range(5):
        sizes.append(pace.size(0))
        pace.applied(0, 0.01, left=10_000)
    assert sizes == [100, 200, 400, 500, 500]
    assert pace.size(1) == 100


def test_a_partition_that_has_caught_up_begins_with_the_usual_size_again(pace: Pace) -> None:
    for left in (10_000, 9_800, 100):
        pace.applied(0, 0.01, left=left)
    assert pace.size(0) == 100


def test_what_the_next_batch_takes_whole_does_not_make_it_larger(pace: Pace) -> None:
    pace.applied(0, 0.01, left=10_000)
    pace.applied(0, 0.01, left=150)
    assert pace.size(0) == 200


def test_slow_transactions_halve_batches_down_to_the_usual_size(pace: Pace) -> None:
    for _ in range(3):
        pace.applied(0, 0.01, left=10_000)
    sizes = []
    for _ in range(4):
        pace.applied(0, 2.0, left=10_000)
        sizes.append(pace.size(0))
    assert sizes == [250, 125, 100, 100]


def test_after_a_failure_the_next_batch_has_the_usual_size(pace: Pace) -> None:
    for _ in range(3):
        pace.applied(0, 0.01, left=10_000)
    pace.failed(0)
    assert pace.size(0) == 100
