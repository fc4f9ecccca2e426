"""Protocols that leave one thing out of the real one. Each breaks a promise, and the model must say which."""

from __future__ import annotations

from dataclasses import dataclass

from asynccache.entry import Value, Writing, parse_cell
from asynccache.steps import (
    BeginWrite,
    Bump,
    EndBump,
    EndWrite,
    Fill,
    Invalidate,
    Outcome,
    Put,
    Reply,
    Step,
    Transition,
    transition,
)
from tests.model.states import Bounds, Rules

__all__ = ["COUNTER_EXAMPLES", "CounterExample"]


@dataclass(frozen=True)
class CounterExample:
    """A protocol and the smallest bounds in which it goes wrong."""

    name: str
    rules: Rules
    bounds: Bounds
    breaks: str


def fill_without_token(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    return transition(cell, expires_ms, Put(step.value) if isinstance(step, Fill) else step, now_ms)


def fill_over_any_value(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    """A refresh that compares nothing once it has its value."""
    if isinstance(step, Fill) and isinstance(parse_cell(cell), Value):
        return transition(cell, expires_ms, Put(step.value), now_ms)
    return transition(cell, expires_ms, step, now_ms)


def write_leaves_the_value(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    """Readers go on using the value until the write has ended, or its writer has crashed."""
    if isinstance(step, BeginWrite) and isinstance(parse_cell(cell), Value):
        return Transition(cell, expires_ms, Reply(Outcome.WRITING, now_ms))
    return transition(cell, expires_ms, step, now_ms)


def invalidation_empties_writing(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    if isinstance(step, Invalidate):
        return Transition(None, now_ms, Reply(Outcome.EMPTY, now_ms))
    return transition(cell, expires_ms, step, now_ms)


def overlapped_write_stores(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    writing = parse_cell(cell)
    if isinstance(step, EndWrite) and isinstance(writing, Writing):
        cell = Writing(False, writing.writers).pack()
    return transition(cell, expires_ms, step, now_ms)


def lost_marker_is_no_matter(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    """A writer whose marker is gone leaves what stands there."""
    if isinstance(step, EndWrite) and not isinstance(parse_cell(cell), Writing):
        return Transition(cell, expires_ms, Reply(Outcome.EMPTY, now_ms))
    return transition(cell, expires_ms, step, now_ms)


def stores_without_its_marker(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    """A writer whose marker is gone stores its value as if nothing had happened."""
    if isinstance(step, EndWrite) and step.value is not None and not isinstance(parse_cell(cell), Writing):
        return transition(cell, expires_ms, Put(step.value), now_ms)
    return transition(cell, expires_ms, step, now_ms)


def tag_writer_does_not_begin(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    """A write of a tag that takes nothing away before it changes the database, and bumps only if it was marked."""
    if isinstance(step, EndBump) and not isinstance(parse_cell(cell), Writing):
        return Transition(cell, expires_ms, Reply(Outcome.VALUE, now_ms, cell))
    return transition(cell, expires_ms, step, now_ms)


def bump_of_a_written_tag_ends_the_write(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    """Together with the writer's crash: its marker is all that tells of the statement on its way."""
    if isinstance(step, Bump):
        return transition(None, 0, step, now_ms)
    return transition(cell, expires_ms, step, now_ms)


ONE = Bounds(loads=1, writers=1, changers=0, crashes=0)
RACE = Bounds(loads=1, writers=2, changers=0, crashes=0)
AND_CHANGER = Bounds(loads=1, writers=1, changers=1, crashes=0)
CRASH = Bounds(loads=1, writers=1, changers=0, crashes=1)
TAG = Bounds(loads=1, writers=0, changers=0, tag_writers=0, tag_changers=1, crashes=0)
TAG_WRITE = Bounds(loads=1, writers=0, changers=0, tag_writers=1, tag_changers=0, crashes=0)
TAG_CRASH = Bounds(loads=1, writers=0, changers=0, tag_writers=1, tag_changers=1, crashes=1)

COUNTER_EXAMPLES = [
    CounterExample(
        "delete after write, fill what was loaded",
        Rules(step=fill_without_token, writes="invalidate after"),
        ONE,
        "stale rest",
    ),
    CounterExample("delete after write, with leases", Rules(writes="invalidate after"), CRASH, "stale rest"),
    CounterExample("set after write", Rules(writes="put after"), RACE, "stale rest"),
    CounterExample("a fill without its token", Rules(step=fill_without_token), ONE, "stale rest"),
    CounterExample("a fill over any value", Rules(step=fill_over_any_value), AND_CHANGER, "stale rest"),
    CounterExample("a write that leaves the value", Rules(step=write_leaves_the_value), CRASH, "stale rest"),
    CounterExample(
        "an invalidation that empties a writing cell",
        Rules(step=invalidation_empties_writing),
        Bounds(loads=1, writers=1, changers=1, crashes=1),
        "stale rest",
    ),
    CounterExample("a write that stores although overlapped", Rules(step=overlapped_write_stores), RACE, "stale rest"),
    CounterExample(
        "a writer that lost its marker leaves the cell", Rules(step=lost_marker_is_no_matter), ONE, "stale rest"
    ),
    CounterExample("a writer that lost its marker stores", Rules(step=stores_without_its_marker), RACE, "stale rest"),
    CounterExample("a missing generation is zero", Rules(missing_is_zero=True), TAG, "stale rest"),
    CounterExample("late tags, unchecked", Rules(late_tags_unchecked=True), TAG, "stale rest"),
    CounterExample(
        "a tag's writer that lost its marker bumps nothing",
        Rules(step=tag_writer_does_not_begin),
        TAG_WRITE,
        "stale rest",
    ),
    CounterExample(
        "a bump that ends a crashed writer's mark",
        Rules(step=bump_of_a_written_tag_ends_the_write),
        TAG_CRASH,
        "stale rest",
    ),
    CounterExample("a load shared by its token alone", Rules(share_by_token_alone=True), TAG, "stale share"),
]
