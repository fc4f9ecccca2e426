"""The checker itself, on histories made by hand: one that cannot fail would prove nothing."""

from __future__ import annotations

import pytest

from tests.history.checking import History, Operation

STRICT, LOOSE = 0, 1


def read(start: float, end: float, version: int, row: int = LOOSE) -> Operation:
    return Operation("reader", "read", row, start, end, version)


def write(start: float, end: float, version: int, row: int = LOOSE) -> Operation:
    return Operation("writer", "write", row, start, end, version)


def violations(*operations: Operation) -> int:
    history = History(strict=[STRICT])
    for operation in operations:
        history.add(operation)
    return len(history.violations())


def test_a_read_after_an_acknowledged_write_may_not_be_older() -> None:
    assert violations(write(0, 1, 5), read(2, 3, 4)) == 1
    assert violations(write(0, 1, 5), read(2, 3, 5)) == 0
    assert violations(write(0, 1, 5), read(2, 3, 6)) == 0


def test_a_read_that_overlaps_the_write_may_be_older() -> None:
    assert violations(write(0, 2, 5), read(1, 3, 4)) == 0
    assert violations(write(0, 2, 5), read(2, 3, 4)) == 0


def test_the_newest_write_counts_and_not_the_last_one() -> None:
    assert violations(write(0, 1, 5), write(0, 2, 4), read(3, 4, 4)) == 1


@pytest.mark.parametrize(("row", "expected"), [(STRICT, 1), (LOOSE, 0)])
def test_what_was_read_is_proof_only_where_all_writes_pass_the_cache(row: int, expected: int) -> None:
    assert violations(read(0, 1, 5, row), read(2, 3, 4, row)) == expected


def test_rows_have_nothing_to_do_with_each_other() -> None:
    assert violations(write(0, 1, 5, STRICT), read(2, 3, 4, LOOSE)) == 0


def test_with_a_lag_only_the_own_writes_of_a_process_bind_its_reads_at_once() -> None:
    history = History(lag=1.0)
    for operation in (
        Operation("a", "write", LOOSE, 0, 1, 5),
        Operation("b", "read", LOOSE, 1.9, 1.95, 4),
        Operation("a", "read", LOOSE, 1.9, 1.95, 4),
        Operation("b", "read", LOOSE, 2.1, 2.2, 4),
    ):
        history.add(operation)
    assert [(found.read.process, found.read.start) for found in history.violations()] == [("a", 1.9), ("b", 2.1)]


def test_it_does_not_matter_in_which_order_operations_are_told() -> None:
    assert violations(read(2, 3, 4), write(0, 1, 5)) == 1
