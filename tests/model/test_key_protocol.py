"""The key protocol keeps its promises in every interleaving; each rule that it has is needed.

`python tests/model/test_key_protocol.py --full` explores what is too large for the suite.
"""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.entry import generation_micros, is_generation
from asynccache.steps import Acquire, Bump, Ensure, Invalidate, Step, transition
from tests.model.cells import EMPTY, NOW, SOON, STEPS, View, abstract, concrete
from tests.model.counter_examples import COUNTER_EXAMPLES, CounterExample
from tests.model.key_model import explore
from tests.model.states import Bounds, Rules

LATE = Rules(late_tags=True)
ALL_LOADS = Rules(forget_lost_loads=False)

SUITE = [
    (Bounds(loads=3, writers=3, cache_aside=1, changers=2, crashes=1), Rules()),
    (Bounds(loads=2, writers=2, cache_aside=0, changers=1, crashes=1), ALL_LOADS),
    (Bounds(loads=2, writers=1, changers=0, tag_writers=1, tag_changers=1, crashes=1), Rules()),
    (Bounds(loads=2, writers=0, changers=1, tag_writers=1, tag_changers=1, crashes=1), Rules()),
    (Bounds(loads=2, writers=1, changers=1, tag_writers=1, tag_changers=1, crashes=1), LATE),
]
FULL = [
    *SUITE,
    (Bounds(loads=3, writers=3, cache_aside=1, changers=2, crashes=2), Rules()),
    (Bounds(loads=3, writers=2, cache_aside=1, changers=1, crashes=1), ALL_LOADS),
    (Bounds(loads=3, writers=3, cache_aside=1, changers=2, crashes=0), ALL_LOADS),
    (Bounds(loads=2, writers=1, changers=0, tag_writers=2, tag_changers=0, crashes=1), Rules()),
    (Bounds(loads=2, writers=1, changers=0, tag_writers=2, tag_changers=1, crashes=1), LATE),
    (Bounds(loads=3, writers=1, changers=1, tag_writers=1, tag_changers=1, crashes=1), Rules()),
]


@pytest.mark.parametrize(("bounds", "rules"), SUITE, ids=str)
def test_no_interleaving_serves_or_leaves_older_data(bounds: Bounds, rules: Rules) -> None:
    report = explore(bounds, rules, stop=True)
    assert not report.violations, report
    assert report.states > 1000, "too little was explored for this to mean anything"


@pytest.mark.parametrize("example", COUNTER_EXAMPLES, ids=lambda example: example.name)
def test_a_protocol_without_one_of_the_rules_is_caught(example: CounterExample) -> None:
    assert example.breaks in explore(example.bounds, example.rules).violations


@pytest.mark.parametrize("example", COUNTER_EXAMPLES, ids=lambda example: example.name)
def test_the_same_bounds_are_safe_with_the_rule(example: CounterExample) -> None:
    late = example.rules.late_tags_unchecked
    assert not explore(example.bounds, LATE if late else Rules()).violations


def views() -> list[View]:
    """Every cell that the model distinguishes, with up to two writers of each kind."""
    found = [EMPTY, View("G"), View("L", "me"), View("L", "other")]
    found += [View("V", holder, running) for holder in ("", "me", "other") for running in (False, True)]
    found += [
        View("W", overlapped=overlapped, mine=mine, others=others, late=late)
        for overlapped in (False, True)
        for mine in ("", "in time", "late")
        for others in range(3)
        for late in range(3)
    ]
    return found


@pytest.mark.parametrize("view", views(), ids=str)
def test_the_model_sees_in_bytes_what_it_put_there(view: View) -> None:
    assert abstract(concrete(view)) == view


def test_every_step_on_every_cell_leaves_one_that_the_model_can_see() -> None:
    for view in views():
        for step in STEPS.values():
            abstract(transition(concrete(view), SOON, step, NOW).cell)  # raises if not


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["bump", "ensure", "evict", "lease"])), max_size=30))
def test_a_generation_looks_older_than_a_lease_only_if_it_is(history: list[tuple[int, str]]) -> None:
    """What `late_tags` takes for granted: the clock tells whether a generation began before a lease was taken."""
    now, leased = 1_000_000, None
    cell: bytes | None = None
    began_after = False
    for at, (wait, what) in enumerate(history):
        now += wait
        salt = at.to_bytes(4, "big")
        if what == "lease":
            leased, began_after = transition(None, 0, Acquire(b"12345678", 10), now).reply.now_ms, False
            continue
        steps: dict[str, Step] = {"bump": Bump(salt), "ensure": Ensure(salt), "evict": Invalidate()}
        step = steps[what]
        after = transition(cell, now + 1, step, now).cell
        began_after = began_after or (after is not None and after != cell)
        cell = after
        if leased is not None and cell is not None and is_generation(cell) and began_after:
            assert generation_micros(cell) >= leased * 1000


def main(arguments: list[str]) -> int:
    """Explores, and prints what was found."""
    wrong = 0
    for bounds, rules in FULL if "--full" in arguments else SUITE:
        report = explore(bounds, rules)
        changed = [name for name, value in vars(rules).items() if value != getattr(Rules(), name)]
        print(report, *changed, flush=True)  # noqa: T201 - a report
        wrong += len(report.violations)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
