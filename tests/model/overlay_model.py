"""An executable model of `durability="memory"`: writes that wait in a process, read by it on top of the cells.

One key. In the process that writes, what pends of it and the frozen batch; in Redis the cell; in Postgres the row and the
ids of applied batches. Around them

    operations  puts, deletes and adjustments, one after another; each is acknowledged at once
    a flusher   freezes, marks the cell, applies in one transaction, takes its mark away, acknowledges. It may be cancelled
                in its transaction, which ends then, or lose its answer, after which the transaction may yet commit; and
                at any step its process may end
    readers     of that process, as `overlay.py` says, and others, which know the cell and the database only; all
                fill the cell under a lease

and at any moment the cell may expire, and a mark that nobody takes away, once the transaction it was for has ended.

What is checked:

    wrong read   an answer to the process that writes was true at some moment since the call: each operation that was
                 acknowledged before it is in it, once
    stale read   an answer to another process was in the database at some moment since the call, if the last write
                 before it had ended
    stale rest   where nothing is under way, the cell holds the row, or nothing
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from tests.model.flush_records import KEPT, Operation, Record, Row, apply, merge, needs_database, perform

__all__ = ["OverlayBounds", "OverlayRules", "explore_overlay"]


@dataclass(frozen=True)
class OverlayBounds:
    """How much there is to explore."""

    operations: tuple[Operation, ...]
    readers: int = 1
    others: int = 1
    cancels: int = 0
    lost_answers: int = 0
    crashes: int = 0
    exists: bool = True

    def __str__(self) -> str:
        done = ", ".join(map(str, self.operations))
        return f"{done}; {self.readers}+{self.others} readers, {self.cancels}/{self.lost_answers}/{self.crashes}"


@dataclass(frozen=True)
class OverlayRules:
    """The protocol; other values are those of counter-examples.

    Attributes:
        marks: the cell is marked before the transaction.
        empties: the cell is emptied after it.
        ack_last: and before the batch is acknowledged.
        compares: what a reader looks at again after it has read below: whether a batch has the key, and acks.
        waits: nothing that waits is put into the cell.
    """

    marks: bool = True
    empties: bool = True
    ack_last: bool = True
    compares: tuple[str, ...] = ("frozen", "acks")
    waits: bool = True


class Seen(NamedTuple):
    """What a reader saw of the buffer."""

    pending: Record | None
    frozen: Record | None
    batch: int
    acks: int


class Reader(NamedTuple):
    """A read. `at`: idle, alone (what waits says all), look (at the cell), load and fill, bypass, check, exact and again
    (the two looks around a row that is read with the batch's id), gone with its process."""

    local: bool
    at: str = "idle"
    since: int = 0
    before: Seen = Seen(None, None, 0, 0)
    got: Row = None
    has: bool = False
    """The row that it got from the database had the batch."""


class State(NamedTuple):
    done: int
    pending: Record | None
    frozen: Record | None
    batch: int
    acks: int
    rows: tuple[Row, ...]
    applied: int
    ended: int
    """Rows whose write has ended."""
    cell: str
    """V, L, or nothing, as while it is marked."""
    value: Row
    lease: int
    marks: int
    """Those that nobody takes away."""
    marked: bool
    flusher: str
    limbo: bool
    """A transaction without an answer may yet commit."""
    cancels: int
    lost: int
    crashes: int
    readers: tuple[Reader, ...]


class Overlay:
    """What may happen next, and what is wrong."""

    def __init__(self, bounds: OverlayBounds, rules: OverlayRules) -> None:
        self._bounds = bounds
        self._rules = rules
        first: Row = (3, KEPT) if bounds.exists else None
        self._history = [reduce(perform, bounds.operations[:n], first) for n in range(len(bounds.operations) + 1)]

    def start(self) -> State:
        """The cell holds the row."""
        bounds, row = self._bounds, self._history[0]
        readers = (*[Reader(True)] * bounds.readers, *[Reader(False)] * bounds.others)
        limits = (bounds.cancels, bounds.lost_answers, bounds.crashes)
        return State(0, None, None, 0, 0, (row,), 0, 0, "V", row, 0, 0, False, "idle", False, *limits, readers)

    def wrong(self, s: State) -> Iterator[str]:
        """What is wrong with a state by itself."""
        idle = s.flusher in {"idle", "dead"} and not s.limbo
        if idle and s.cell == "V" and s.value != s.rows[-1]:
            yield "stale rest"

    def of(self, s: State) -> Iterator[tuple[State, str]]:
        """States that may follow, each with what was wrong on the way."""
        alive = s.flusher != "dead"
        if alive and s.done < len(self._bounds.operations):
            yield s._replace(done=s.done + 1, pending=merge(s.pending, self._bounds.operations[s.done])), ""
        if s.cell:  # expires, as a lease does
            yield s._replace(cell="", value=None), ""
        if s.marks and not s.limbo:
            yield s._replace(marks=s.marks - 1), ""
        if s.limbo:
            yield self._commit(s)._replace(limbo=False), ""
            yield s._replace(limbo=False), ""
        if alive and s.crashes:
            readers = tuple(reader._replace(at="gone") if reader.local else reader for reader in s.readers)
            dead = s._replace(flusher="dead", crashes=s.crashes - 1, pending=None, readers=readers)
            dead = dead._replace(marks=s.marks + s.marked, marked=False)
            yield dead, ""
            if s.flusher == "marked":
                yield dead._replace(limbo=True), ""
        if alive:
            yield from ((after, "") for after in self._flush(s))
        for number, reader in enumerate(s.readers):
            for after, answer in self._read(s, number, reader):
                yield after, "" if answer is None else self._judge(after, reader, answer[0])

    # -- the flusher

    def _flush(self, s: State) -> Iterator[State]:
        rules = self._rules
        match s.flusher:
            case "idle" if s.frozen is not None:
                yield s._replace(flusher="frozen")
            case "idle" if s.pending is not None:
                yield s._replace(flusher="frozen", frozen=s.pending, pending=None, batch=s.batch + 1)
            case "frozen":
                marked = s._replace(cell="", value=None, marked=True) if rules.marks else s
                yield marked._replace(flusher="marked")
            case "marked" if not s.limbo:  # else it waits for the other transaction with this id
                yield self._commit(s)._replace(flusher="committed")
                if s.cancels:
                    cancelled = s._replace(cancels=s.cancels - 1, flusher="cancelled")
                    yield cancelled
                    yield self._commit(cancelled)
                if s.lost:
                    left = s._replace(flusher="idle", lost=s.lost - 1, marks=s.marks + s.marked, marked=False)
                    yield left._replace(limbo=True)
            case "cancelled":
                yield self._end(s)._replace(flusher="idle")
            case "committed":
                yield (self._end(s) if rules.ack_last else self._ack(s))._replace(flusher="ended")
            case "ended":
                yield (self._ack(s) if rules.ack_last else self._end(s))._replace(flusher="idle")

    def _commit(self, s: State) -> State:
        if s.applied == s.batch:
            return s
        return s._replace(rows=(*s.rows, apply(s.rows[-1], s.frozen)), applied=s.batch)

    def _end(self, s: State) -> State:
        if not self._rules.empties:
            return s._replace(marked=False)
        return s._replace(marked=False, cell="", value=None, ended=len(s.rows) - 1)

    def _ack(self, s: State) -> State:
        return s._replace(frozen=None, acks=s.acks + 1)

    def _marked(self, s: State) -> bool:
        return s.marked or s.marks > 0

    # -- readers

    def _read(self, s: State, number: int, reader: Reader) -> Iterator[tuple[State, tuple[Row] | None]]:
        def to(at: str, state: State = s, **changes: object) -> tuple[State, None]:
            after = reader._replace(at=at, **changes)  # type: ignore[arg-type]
            return state._replace(readers=(*s.readers[:number], after, *s.readers[number + 1 :])), None

        def answer(row: Row) -> tuple[State, tuple[Row]]:
            return s._replace(readers=(*s.readers[:number], Reader(reader.local), *s.readers[number + 1 :])), (row,)

        now = Seen(s.pending, s.frozen, s.batch, s.acks)
        match reader.at:
            case "idle" if not reader.local:
                yield to("look", since=s.ended)
            case "idle":
                waits = s.pending is not None or s.frozen is not None
                if waits and not needs_database(s.pending, s.frozen):
                    yield to("alone", since=s.done, got=apply(apply(None, s.frozen), s.pending))
                elif s.frozen is not None:
                    yield to("exact", since=s.done, before=now)
                else:
                    yield to("look", since=s.done, before=now)
            case "alone":
                yield answer(reader.got)
            case "look" if self._marked(s) or s.cell == "L":
                yield to("bypass")
            case "look" if s.cell == "V":
                yield to("check", got=s.value)
            case "look":
                yield to("load", s._replace(cell="L", lease=number))
            case "bypass":
                yield to("check", got=s.rows[-1])
            case "load":
                yield to("fill", got=s.rows[-1])
            case "fill":
                filled = s
                if s.cell == "L" and s.lease == number:
                    value = reader.got
                    if reader.local and not self._rules.waits:
                        value = apply(apply(value, s.frozen), s.pending)
                    filled = s._replace(cell="V", value=value)
                yield to("check", filled)
            case "check" if not reader.local:
                yield answer(reader.got)
            case "check" if reader.before.pending is None and reader.before.frozen is None:
                yield answer(reader.got)
            case "check":
                frozen = "frozen" in self._rules.compares and now.frozen is not None
                acks = "acks" in self._rules.compares and now.acks != reader.before.acks
                if frozen or acks:
                    yield to("exact", before=now)
                else:
                    yield answer(apply(reader.got, s.pending))
            case "exact":
                yield to("again", got=s.rows[-1], has=s.applied >= reader.before.batch)
            case "again" if (now.batch, now.acks) != (reader.before.batch, reader.before.acks):
                yield to("exact", before=now)
            case "again":
                yield answer(apply(reader.got if reader.has else apply(reader.got, s.frozen), s.pending))

    def _judge(self, s: State, reader: Reader, row: Row) -> str:
        number = None if row is None else row[0]
        if reader.local:
            true = [known if known is None else known[0] for known in self._history[reader.since : s.done + 1]]
            return "" if number in true else "wrong read"
        true = [known if known is None else known[0] for known in s.rows[reader.since :]]
        return "" if number in true else "stale read"


def explore_overlay(bounds: OverlayBounds, rules: OverlayRules | None = None) -> tuple[int, set[str]]:
    """Visits every reachable state; returns how many there are, and what is wrong."""
    moves = Overlay(bounds, rules or OverlayRules())
    start = moves.start()
    known, todo, wrong = {start}, [start], set(moves.wrong(start))
    while todo:
        for after, problem in moves.of(todo.pop()):
            if problem:
                wrong.add(problem)
            if after not in known:
                known.add(after)
                todo.append(after)
                wrong.update(moves.wrong(after))
    return len(known), wrong
