"""What may happen next in the flush model: the moves of its processes, and what arrives late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from tests.model.flush_histories import Histories, told
from tests.model.flush_records import DEFAULT, KEPT, Record, apply, merge, needs_database, perform, write
from tests.model.flush_states import Batch, Bounds, Flusher, Reader, Rules, State, Value, Writer

__all__ = ["FlushMoves"]

Cell: TypeAlias = "tuple[str, Value]"

EMPTY: Cell = ("", None)
LEASE: Cell = ("lease", None)
WRITING: Cell = ("writing", None)


class FlushMoves:
    """What may happen next."""

    def __init__(self, bounds: Bounds, rules: Rules) -> None:
        self._bounds = bounds
        self._rules = rules
        self._histories = Histories(bounds.operations, strict=not bounds.full)

    def start(self) -> State:
        """Nothing waits and nothing is cached."""
        bounds = self._bounds
        row = (DEFAULT, KEPT) if bounds.exists else None
        writers = (Writer(),) * len(bounds.operations)
        histories = frozenset({(row, (0,) * len(writers))})
        budgets = bounds.crashes, bounds.full, bounds.others
        return State(
            row, frozenset(), frozenset(), None, None, EMPTY, writers, (), None, (), (), (), *budgets, histories
        )

    # -- what must hold

    def wrong(self, s: State) -> Iterator[str]:
        """Which promises this state breaks."""
        if not s.histories:
            yield "lost or doubled"
        elif s.cell[0] == "value" and s.cell[1] not in told(s.histories):
            yield "stale read"
        if s.reader is not None and s.reader.phase == "wrong":
            yield "wrong read"

    # -- what may happen

    def of(self, s: State) -> Iterator[State]:
        """The states that may follow; none after one that breaks a promise."""
        if not s.histories or (s.reader is not None and s.reader.phase == "wrong"):
            return
        for after in self._moves(s):
            yield self._histories.settled(self._tidy(after))

    def _tidy(self, s: State) -> State:
        """Without what changes nothing any more: the verdict is the same, the states are fewer."""
        if s.applied and not s.applied <= (used := _in_use(s)):
            s = s._replace(applied=s.applied & used)
        if s.reader is not None and s.reader.fills and s.cell != LEASE and not self._rules.fills_without_lease:
            s = s._replace(reader=s.reader._replace(fills=False))
        if self._rules.seen_expires == "any time":
            return s
        if self._rules.seen == "all" and any(w.copies and min(w.copies) <= w.seen for w in s.writers):
            s = s._replace(writers=tuple(map(_without_late_copies, s.writers)))
        return s

    def _moves(self, s: State) -> Iterator[State]:
        for at in range(len(s.writers)):
            yield from self._write(s, at)
        yield from self._freeze(s)
        for at, flusher in enumerate(s.flushers):
            if at == 0 or flusher != s.flushers[at - 1]:
                yield from self._flush(s, at, flusher)
        yield from self._late(s)
        yield from self._forget(s)
        if self._bounds.reader:
            yield from self._read(s)
            if s.cell != EMPTY and (s.cell != WRITING or not any(w.phase == "through" for w in s.writers)):
                yield s._replace(cell=EMPTY)  # expired, or evicted

    # -- writers

    def _write(self, s: State, at: int) -> Iterator[State]:
        writer = s.writers[at]

        def becomes(s: State, **changes: Any) -> State:
            return s._replace(writers=(*s.writers[:at], s.writers[at]._replace(**changes), *s.writers[at + 1 :]))

        gives_up: dict[str, Any] = {"at": writer.at + 1, "phase": "ready", "sends": 0}
        if writer.phase == "ready" and writer.at < len(self._bounds.operations[at]):
            yield becomes(s, phase="calling", sends=1, copies=(*writer.copies, writer.at))
        if writer.phase == "calling":
            if writer.sends < self._bounds.sends:
                yield becomes(s, sends=writer.sends + 1, copies=(*writer.copies, writer.at))
            if self._bounds.gives_up:
                yield becomes(s, **gives_up)
        elif writer.phase == "through":
            operation = self._bounds.operations[at][writer.at]
            yield becomes(s._replace(row=perform(s.row, operation)), phase="through: done")
            if self._bounds.gives_up:
                statements = tuple(sorted((*s.statements, (at, writer.at))))
                yield becomes(s._replace(statements=statements), **gives_up)
        elif writer.phase.startswith("through: "):
            held = s.batch is not None and s.batch.record is not None and not self._rules.through_without_flush
            if not held or writer.phase == "through: done":
                told_ = s
                if s.reader is not None and not self._rules.through_silently and writer.phase == "through: done":
                    told_ = s._replace(reader=s.reader._replace(acked=True))
                if held:
                    yield becomes(told_, phase="through: held")
                else:
                    ended = becomes(told_._replace(cell=EMPTY), **gives_up)
                    yield self._histories.returned(ended, at, writer.at)
            if self._bounds.gives_up:
                yield becomes(s, **gives_up)
        for call in sorted(set(writer.copies)):
            left = list(writer.copies)
            left.remove(call)
            for after, answer in self._called(becomes(s, copies=tuple(left)), at, call):
                yield after  # the answer is lost
                if writer.phase == "calling" and call == writer.at and answer == "done":
                    yield self._histories.returned(becomes(after, **gives_up), at, call)
                elif writer.phase == "calling" and call == writer.at and answer == "full":
                    yield becomes(after._replace(cell=WRITING), phase="through")

    def _called(self, s: State, at: int, call: int) -> Iterator[tuple[State, str]]:
        """A call arrives at Redis."""
        writer = s.writers[at]

        def known(s: State, refused: bool) -> State:
            writers = list(s.writers)
            writers[at] = writer._replace(seen=call, refused=refused)
            return s._replace(writers=tuple(writers))

        if self._rules.seen == "nothing" or call > writer.seen or (self._rules.seen == "done" and writer.refused):
            operation = self._bounds.operations[at][call]
            pending = merge(s.pending, operation)
            if pending.base == "R" and self._rules.forgets_deletes:
                pending = pending._replace(base="P")
            cell: Cell = ("value", operation.value) if operation.kind == "put" else EMPTY
            if operation.kind == "adjust" and self._rules.adjustments_keep_cell:
                cell = s.cell
            yield known(s._replace(pending=pending, cell=cell if self._bounds.reader else EMPTY), False), "done"
            frozen = s.batch is not None and s.batch.record is not None and not self._rules.through_frozen
            if s.full and s.pending is None and not frozen:
                yield known(s._replace(full=s.full - 1), True), "full"
        elif call == writer.seen:
            yield s, "full" if writer.refused else "done"
        else:
            yield s, "too late"

    # -- flushers

    def _freeze(self, s: State) -> Iterator[State]:
        """One more flusher freezes, or takes what is frozen."""
        if len(s.flushers) == self._bounds.flushers:
            return
        if s.batch is not None:
            yield _with(s, Flusher("frozen", s.batch))
            return
        number = next(number for number in range(1, 99) if number not in _in_use(s))
        if s.pending is not None:
            batch = Batch(number, s.pending)
            frozen = s._replace(pending=None, batch=None if self._rules.pops else batch)
            yield _with(frozen, Flusher("frozen", batch))
            if self._rules.freeze_again_with_its_id and not s.freezes:
                yield _with(frozen._replace(freezes=(number,)), Flusher("frozen", batch))
        if s.others:
            batch = Batch(number, None)
            yield _with(s._replace(batch=batch, others=s.others - 1), Flusher("frozen", batch))

    def _flush(self, s: State, at: int, flusher: Flusher) -> Iterator[State]:
        rest = s._replace(flushers=s.flushers[:at] + s.flushers[at + 1 :])
        batch = flusher.batch
        unknown = batch.id not in s.applied
        if flusher.phase == "frozen" and self._rules.letters_apart and unknown and self._refuses(s, batch):
            yield _with(_lettered(rest, batch), Flusher("lettered", batch))
        elif flusher.phase == "lettered":
            yield _with(self._transaction(rest, batch, letter=False), Flusher("committed", batch))
        elif flusher.phase == "frozen" and self._rules.id_apart and unknown:
            yield _with(rest._replace(row=apply(s.row, batch.record)), Flusher("applied", batch))
        elif flusher.phase == "frozen":
            yield _with(self._transaction(rest, batch), Flusher("committed", batch))
        elif flusher.phase == "applied":
            yield _with(rest._replace(applied=s.applied | {batch.id}), Flusher("committed", batch))
        elif s.batch is not None and (s.batch.id == batch.id or self._rules.ack_without_id):
            reader = None if s.reader is None else s.reader._replace(acked=True)
            yield rest._replace(batch=None, reader=reader)
        else:
            yield rest
        if s.crashes:
            crashed = rest._replace(crashes=s.crashes - 1)
            yield crashed
            if flusher.phase == "frozen":
                yield crashed._replace(transactions=tuple(sorted((*s.transactions, batch), key=repr)))

    def _transaction(self, s: State, batch: Batch, *, letter: bool = True) -> State:
        """The id, the rows and the dead letter in one transaction; nothing if the id is known."""
        if batch.id in s.applied:
            return s
        row, refused = write(s.row, batch.record, self._bounds.refuses)
        nameless = refused and self._rules.refused_without_id
        s = s._replace(row=row, applied=s.applied if nameless else s.applied | {batch.id})
        if not refused:
            return s
        return self._histories.refused(_lettered(s, batch) if letter else s)

    def _refuses(self, s: State, batch: Batch) -> bool:
        return write(s.row, batch.record, self._bounds.refuses)[1]

    def _late(self, s: State) -> Iterator[State]:
        for at, batch in enumerate(s.transactions):
            yield self._transaction(s._replace(transactions=s.transactions[:at] + s.transactions[at + 1 :]), batch)
        for at, (writer, call) in enumerate(s.statements):
            row = perform(s.row, self._bounds.operations[writer][call])
            yield s._replace(row=row, statements=s.statements[:at] + s.statements[at + 1 :])
        if s.freezes and s.batch is None and s.pending is not None:
            yield s._replace(pending=None, batch=Batch(s.freezes[0], s.pending), freezes=())

    def _forget(self, s: State) -> Iterator[State]:
        """What is known of calls expires, and ids of batches are pruned."""
        for at, writer in enumerate(s.writers if self._bounds.expires else ()):
            needed = writer.copies or writer.phase == "calling"
            if writer.seen >= 0 and (not needed or self._rules.seen_expires == "any time"):
                unseen = writer._replace(seen=-1, refused=False)
                yield s._replace(writers=(*s.writers[:at], unseen, *s.writers[at + 1 :]))
        if self._bounds.prunes and s.applied:
            rule = self._rules.prunes
            frozen = set() if s.batch is None or rule == "any" else {s.batch.id}
            held = _in_hands(s) if rule == "unneeded" else set()
            for number in s.applied - frozen - held:
                yield s._replace(applied=s.applied - {number})

    # -- readers

    def _read(self, s: State) -> Iterator[State]:
        reader = s.reader
        if reader is None:
            was = told(s.histories)
            yield s._replace(reader=Reader("begun", False, was))
            if s.cell == EMPTY:
                yield s._replace(reader=Reader("begun", True, was), cell=LEASE)
        elif reader.phase == "begun":
            yield self._looked(s, reader)
        elif reader.phase == "found":
            known = reader.id in s.applied
            yield s._replace(reader=reader._replace(phase="loaded", row=s.row, applied=known))
        elif reader.phase == "answered":
            yield self._filled(s, reader)
        else:
            compares = self._rules.reader_compares
            other = s.batch.id if s.batch else 0
            changed = (reader.acked and compares in {"batch and acks", "acks"}) or (
                other != reader.id and compares in {"batch and acks", "batch"}
            )
            if changed:
                yield self._looked(s, reader)
                return
            if compares == "nothing":  # and so it does not look again, either
                pending, batch = reader.saw
            else:
                pending, batch = s.pending, s.batch.record if s.batch else None
            yield self._answered(s, reader, reader.row, pending, None if reader.applied else batch)

    def _looked(self, s: State, reader: Reader) -> State:
        """The reader has looked into Redis; it needs the database, or not."""
        batch = s.batch.record if s.batch else None
        if not needs_database(s.pending, batch):
            return self._answered(s, reader, None, s.pending, batch)
        number = s.batch.id if s.batch else 0
        saw = (s.pending, batch) if self._rules.reader_compares == "nothing" else (None, None)
        found = Reader("found", reader.fills, reader.was, number, saw=saw)
        return s._replace(reader=found)

    def _answered(
        self, s: State, reader: Reader, row: tuple[int, int] | None, pending: Record | None, batch: Record | None
    ) -> State:
        answer = apply(apply(row, batch), pending)
        number = None if answer is None else answer[0]
        if number not in reader.was:
            return s._replace(reader=reader._replace(phase="wrong"))
        if not reader.fills:
            return s._replace(reader=None)
        return s._replace(reader=Reader("answered", True, reader.was, row=answer))

    def _filled(self, s: State, reader: Reader) -> State:
        fills = reader.fills and (s.cell == LEASE or (self._rules.fills_without_lease and s.cell != WRITING))
        number = None if reader.row is None else reader.row[0]
        return s._replace(reader=None, cell=("value", number) if fills else s.cell)


def _lettered(s: State, batch: Batch) -> State:
    """The dead letter of a batch is written."""
    if batch.id in s.letters:
        return s._replace(histories=frozenset())  # for the second time
    return s._replace(letters=s.letters | {batch.id})


def _with(s: State, flusher: Flusher) -> State:
    return s._replace(flushers=tuple(sorted((*s.flushers, flusher), key=repr)))


def _in_hands(s: State) -> set[int]:
    """The ids of batches that somebody may yet apply, beside the one that is frozen."""
    return {flusher.batch.id for flusher in s.flushers} | {batch.id for batch in s.transactions} | {*s.freezes}


def _in_use(s: State) -> set[int]:
    """The ids that somebody knows."""
    used = _in_hands(s) | s.letters
    if s.batch is not None:
        used.add(s.batch.id)
    if s.reader is not None:
        used.add(s.reader.id)
    return used


def _without_late_copies(writer: Writer) -> Writer:
    """Without the calls that change nothing and that nobody listens to."""
    first = writer.seen if writer.seen == writer.at and writer.phase == "calling" else writer.seen + 1
    return writer._replace(copies=tuple(call for call in writer.copies if call >= first))
