"""What must be true in the flush model: in which orders the operations may have taken effect.

An operation takes effect at one moment between its call and its return; one whose outcome is unknown at one moment after
its call, or never. A history is the row that results, and which operations have taken effect. From those that fit what
was seen so far

    an operation that returns       leaves the histories in which it has taken effect
    every state (strict)            leaves those whose row is database + unapplied batch + pending

and if none is left, a write was lost or applied twice. A statement that writes through runs beside what waits, so that it
counts as if it had been before that: then (not strict) the row must be that of one of the histories, without leaving
only those. When an operation returns, and no other is on its way that may yet write through, it leaves only those, too.

What the database refuses has been, until it is refused, and then is in the dead letters and in no row.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TypeAlias

from tests.model.flush_records import Operation, Row, apply, perform
from tests.model.flush_states import State, Value

__all__ = ["Histories", "told", "waiting"]

History: TypeAlias = "tuple[Row, tuple[int, ...]]"


class Histories:
    """Keeps a state's histories.

    Args:
        operations: per writer.
        strict: what an exact reader could see in a state is what it must see then.
    """

    def __init__(self, operations: tuple[tuple[Operation, ...], ...], *, strict: bool) -> None:
        self._operations = operations
        self._strict = strict
        self._settle = lru_cache(maxsize=None)(self._fitting)

    def returned(self, s: State, writer: int, operation: int) -> State:
        """`s`, in which a caller has been told that its operation is done."""
        done = frozenset(history for history in self._settled(s) if history[1][writer] >> operation & 1)
        if not self._strict and not s.statements and all(writer.phase == "ready" for writer in s.writers):
            row = waiting(s)
            done = frozenset(history for history in done if history[0] == row)
        return s._replace(histories=done)

    def refused(self, s: State) -> State:
        """`s`, in which part of a batch has just become a dead letter."""
        return s._replace(histories=frozenset((waiting(s), done) for _, done in s.histories))

    def settled(self, s: State) -> State:
        """`s` with the histories that fit it, and what its reader may have seen of them."""
        if not s.histories:
            return s
        histories = self._settled(s)
        reader = s.reader
        if reader is not None and not (now := told(histories)) <= reader.was:
            reader = reader._replace(was=reader.was | now)
        return s._replace(histories=histories, reader=reader)

    def _settled(self, s: State) -> frozenset[History]:
        called = tuple((2 << writer.at if writer.phase != "ready" else 1 << writer.at) - 1 for writer in s.writers)
        return self._settle(s.histories, called, waiting(s))

    def _fitting(self, histories: frozenset[History], called: tuple[int, ...], row: Row) -> frozenset[History]:
        found, todo = set(histories), list(histories)
        while todo:
            before, done = todo.pop()
            for writer, operations in enumerate(self._operations):
                for at, operation in enumerate(operations):
                    bit = 1 << at
                    if done[writer] & bit or not called[writer] & bit or (self._strict and done[writer] > bit):
                        continue
                    after = perform(before, operation), (*done[:writer], done[writer] | bit, *done[writer + 1 :])
                    if after not in found:
                        found.add(after)
                        todo.append(after)
        if self._strict:
            return frozenset(history for history in found if history[0] == row)
        return frozenset(found) if any(history[0] == row for history in found) else frozenset()


def waiting(s: State) -> Row:
    """Database + unapplied batch + pending."""
    row = s.row
    if s.batch is not None and s.batch.id not in s.applied:
        row = apply(row, s.batch.record)
    return apply(row, s.pending)


@cache
def told(histories: frozenset[History]) -> frozenset[Value]:
    """What a reader may be told."""
    return frozenset(None if row is None else row[0] for row, _ in histories)
