"""Flush protocols that leave one thing out of the real one. Each breaks a promise, and the model must say which."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.flush_records import add, delete, put
from tests.model.flush_states import Bounds, Rules

__all__ = ["FLUSH_COUNTER_EXAMPLES", "FlushCounterExample"]


@dataclass(frozen=True)
class FlushCounterExample:
    """A protocol and small bounds in which it goes wrong."""

    name: str
    rules: Rules
    bounds: Bounds
    breaks: str


ONE_ADD = ((add(1),),)
TWO_ADDS = ((add(1), add(2)),)
WRITES = Bounds(ONE_ADD, reader=False)
READS = Bounds(ONE_ADD)
REPEATS = Bounds(ONE_ADD, sends=2, reader=False)
FULL = Bounds(((put(10),), (put(20),)), full=1, reader=False, gives_up=False)

FLUSH_COUNTER_EXAMPLES = [
    FlushCounterExample("pop before write", Rules(pops=True), WRITES, "lost or doubled"),
    FlushCounterExample(
        "ack without id",
        Rules(ack_without_id=True),
        Bounds(TWO_ADDS, flushers=2, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample("the id in a transaction of its own", Rules(id_apart=True), WRITES, "lost or doubled"),
    FlushCounterExample(
        "a freeze sent again under its id",
        Rules(freeze_again_with_its_id=True),
        Bounds(TWO_ADDS, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample("an increment sent again, unseen", Rules(seen="nothing"), REPEATS, "lost or doubled"),
    FlushCounterExample(
        "refusals are not remembered",
        Rules(seen="done"),
        Bounds(ONE_ADD, sends=2, full=1, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample("a reader that compares batches only", Rules(reader_compares="batch"), READS, "wrong read"),
    FlushCounterExample("a reader that compares acks only", Rules(reader_compares="acks"), READS, "wrong read"),
    FlushCounterExample("a reader that does not look again", Rules(reader_compares="nothing"), READS, "wrong read"),
    FlushCounterExample(
        "a put that forgets the delete before it",
        Rules(forgets_deletes=True),
        Bounds(((delete(), put(10)),), reader=False),
        "lost or doubled",
    ),
    FlushCounterExample("an increment that leaves the cell", Rules(adjustments_keep_cell=True), READS, "stale read"),
    FlushCounterExample("a reader that fills without its lease", Rules(fills_without_lease=True), READS, "stale read"),
    FlushCounterExample("written through over a frozen write", Rules(through_frozen=True), FULL, "lost or doubled"),
    FlushCounterExample(
        "written through and returned before a batch with the key is flushed",
        Rules(through_without_flush=True),
        Bounds(((put(10),), (put(20),)), full=1, gives_up=False),
        "wrong read",
    ),
    FlushCounterExample(
        "dead letters in a transaction of their own",
        Rules(letters_apart=True),
        Bounds(((put(50),),), refuses=9, crashes=1, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample(
        "no id for a batch of which something was refused",
        Rules(refused_without_id=True),
        Bounds(((put(50),),), refuses=9, crashes=1, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample(
        "calls that are forgotten while a copy is on its way",
        Rules(seen_expires="any time"),
        Bounds(ONE_ADD, sends=2, expires=True, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample(
        "the id of a frozen batch is pruned",
        Rules(prunes="any"),
        Bounds(ONE_ADD, crashes=1, prunes=True, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample(
        "a worker is stopped in the middle of a batch for longer than ids are kept",
        Rules(prunes="not frozen"),
        Bounds(ONE_ADD, flushers=2, prunes=True, reader=False),
        "lost or doubled",
    ),
    FlushCounterExample(
        "written through without a word to readers",
        Rules(through_silently=True),
        Bounds(((add(1),), (add(2),)), full=1, gives_up=False),
        "wrong read",
    ),
]
