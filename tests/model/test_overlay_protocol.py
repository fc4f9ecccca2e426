"""Reads of writes that wait in a process are exact, and nobody else's are stale, in every interleaving."""

from __future__ import annotations

import pytest

from tests.model.flush_records import add, delete, put
from tests.model.overlay_model import OverlayBounds, OverlayRules, explore_overlay

BOUNDS = [
    OverlayBounds((add(1), add(2)), readers=2, others=0),
    OverlayBounds((add(1), add(2)), cancels=1),
    OverlayBounds((add(1), put(10)), lost_answers=1),
    OverlayBounds((put(10), delete()), crashes=1),
    OverlayBounds((delete(), add(1)), lost_answers=1, crashes=1, exists=False),
    OverlayBounds((add(1), add(2), add(4)), others=0, cancels=1, lost_answers=1),
    OverlayBounds((put(10), add(1)), readers=0, others=2, cancels=1, lost_answers=1, crashes=1),
]

COUNTER_EXAMPLES = {
    "cells are only emptied": (
        OverlayRules(marks=False),
        OverlayBounds((add(1),), crashes=1),
        "stale rest",
    ),
    "cells are left as they are": (
        OverlayRules(marks=False, empties=False),
        OverlayBounds((add(1),)),
        "stale rest",
    ),
    "cells are emptied after the batch is dropped": (
        OverlayRules(marks=False, ack_last=False),
        OverlayBounds((add(1),), others=0),
        "wrong read",
    ),
    "a reader that does not look whether a batch has the key": (
        OverlayRules(compares=("acks",)),
        OverlayBounds((add(1),), others=0),
        "wrong read",
    ),
    "a reader that does not compare acks": (
        OverlayRules(compares=("frozen",)),
        OverlayBounds((add(1), add(2)), others=0),
        "wrong read",
    ),
    "what waits is put into the cell": (
        OverlayRules(waits=False),
        OverlayBounds((add(1),), others=0),
        "wrong read",
    ),
}


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_no_interleaving_shows_a_write_twice_or_not_at_all_or_leaves_an_old_row(bounds: OverlayBounds) -> None:
    states, wrong = explore_overlay(bounds)
    assert not wrong
    assert states > 1000, "too little was explored for this to mean anything"


@pytest.mark.parametrize("name", COUNTER_EXAMPLES)
def test_a_protocol_without_one_of_the_rules_is_caught(name: str) -> None:
    rules, bounds, breaks = COUNTER_EXAMPLES[name]
    assert breaks in explore_overlay(bounds, rules)[1]
    assert not explore_overlay(bounds)[1]
