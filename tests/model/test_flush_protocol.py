"""The flush protocol keeps its promises in every interleaving; each rule that it has is needed.

`python -m tests.model.test_flush_protocol --full` explores what is too large for the suite.
"""

from __future__ import annotations

import sys
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.flush_counter_examples import FLUSH_COUNTER_EXAMPLES, FlushCounterExample
from tests.model.flush_model import explore
from tests.model.flush_records import (
    DEFAULT,
    KEPT,
    Operation,
    Record,
    Row,
    add,
    apply,
    delete,
    maximum,
    merge,
    minimum,
    perform,
    put,
)
from tests.model.flush_states import Bounds

SUITE = [
    Bounds(((add(1), add(2)),), flushers=2, crashes=1, sends=2),
    Bounds(((add(1),), (put(10),)), flushers=2, crashes=1),
    Bounds(((put(10), delete()),), sends=2),
    Bounds(((delete(), put(10)),), flushers=2),
    Bounds(((add(1),), (delete(),)), others=1, exists=False),
    Bounds(((add(1), put(10)), (delete(),)), flushers=2, crashes=1, sends=2, reader=False),
    Bounds(((maximum(5), add(1)), (minimum(3),)), flushers=2, crashes=1, sends=2, reader=False),
    Bounds(((add(1), add(2), add(4)),), flushers=3, crashes=2, gives_up=False, reader=False),
    Bounds(((add(1),), (put(10),)), full=1),
    Bounds(((add(1),), (add(2),)), full=1, gives_up=False),
    Bounds(((put(10),), (put(20),)), full=1, gives_up=False),
    Bounds(((put(5), add(9)), (add(1),)), flushers=2, crashes=1, refuses=9, reader=False),
    Bounds(((delete(), add(9), add(2)), (put(3),)), flushers=2, crashes=1, refuses=9, reader=False),
    Bounds(((add(1), put(10)), (add(2),)), sends=2, flushers=2, crashes=1, expires=True, reader=False),
    Bounds(((add(1), add(2)),), flushers=2, crashes=1, sends=2, expires=True, prunes=True),
    Bounds(((add(1),), (put(10),)), flushers=2, crashes=1, prunes=True),
]
FULL = [
    *SUITE,
    Bounds(((add(1),), (put(10),)), flushers=2, crashes=1, sends=2),
    Bounds(((delete(), put(10)),), flushers=2, crashes=1, sends=2, others=1),
    Bounds(((add(1),), (delete(),)), flushers=2, crashes=1, others=1),
    Bounds(((add(1), put(10)), (delete(), add(2))), flushers=2, crashes=1, sends=2, reader=False),
    Bounds(((add(1), delete()), (put(10),), (add(2),)), flushers=2, crashes=1, reader=False),
    Bounds(((add(1), add(2), add(4), add(8)),), flushers=3, crashes=2, sends=2, reader=False),
    Bounds(((add(1), put(10)), (delete(),)), full=2, sends=2, reader=False),
    Bounds(((add(1), put(10)), (delete(),)), full=1),
    Bounds(((put(10), add(1)), (put(20),)), full=1, gives_up=False),
    Bounds(((put(10), add(1)), (put(20),)), full=2, sends=2, reader=False),
    Bounds(((put(5), add(9)), (add(1), delete())), flushers=2, crashes=1, sends=2, refuses=9, reader=False),
    Bounds(((add(1), put(10)), (add(2),)), flushers=2, crashes=1, sends=2, expires=True, prunes=True, reader=False),
]


@pytest.mark.parametrize("bounds", SUITE, ids=str)
def test_no_interleaving_loses_or_doubles_a_write_or_shows_what_never_was(bounds: Bounds) -> None:
    report = explore(bounds, stop=True)
    assert not report.violations, report
    assert report.states > 1000, "too little was explored for this to mean anything"


@pytest.mark.parametrize("example", FLUSH_COUNTER_EXAMPLES, ids=lambda example: example.name)
def test_a_protocol_without_one_of_the_rules_is_caught(example: FlushCounterExample) -> None:
    assert example.breaks in explore(example.bounds, example.rules).violations


@pytest.mark.parametrize("example", FLUSH_COUNTER_EXAMPLES, ids=lambda example: example.name)
def test_the_same_bounds_are_safe_with_the_rule(example: FlushCounterExample) -> None:
    assert not explore(example.bounds).violations


def operations() -> st.SearchStrategy[Operation]:
    numbers = st.integers(-5, 5)
    return st.one_of(*(st.builds(make, numbers) for make in (put, add, maximum, minimum)), st.builds(delete))


@given(st.sampled_from([None, (3, KEPT), (DEFAULT, DEFAULT)]), st.lists(st.lists(operations(), max_size=5), max_size=4))
def test_merged_records_do_to_a_row_what_the_operations_do(row: Row, batches: list[list[Operation]]) -> None:
    expected = reduce(perform, (operation for batch in batches for operation in batch), row)
    nothing: Record | None = None
    assert reduce(apply, (reduce(merge, batch, nothing) for batch in batches), row) == expected


def main(arguments: list[str]) -> int:
    """Explores, and prints what was found."""
    wrong = 0
    for bounds in FULL if "--full" in arguments else SUITE:
        report = explore(bounds)
        print(report, flush=True)  # noqa: T201 - a report
        wrong += len(report.violations)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
