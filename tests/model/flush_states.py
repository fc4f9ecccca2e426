"""What the flush model explores: states, how many processes there are, and the rules they keep to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from tests.model.flush_records import Operation, Record, Row

__all__ = ["Batch", "Bounds", "Flusher", "Reader", "Report", "Rules", "State", "Value", "Writer"]

Value: TypeAlias = "int | None"
"""What a reader is told: the row's number, or None for no row."""


class Batch(NamedTuple):
    """A batch: what it holds of the key, if anything, and its id. Ids that nobody knows any more are used again."""

    id: int
    record: Record | None


class Writer(NamedTuple):
    """A process that writes, one operation after another."""

    at: int = 0
    """Which operation of its list is next or under way; the number of its call, too."""
    phase: str = "ready"
    """ready, calling (a call to Redis is unanswered), through (its statement is on the way), through: done, through:
    held (a batch that holds the key must be flushed before)."""
    sends: int = 0
    copies: tuple[int, ...] = ()
    """Numbers of its calls that the network still holds."""
    seen: int = -1
    """What Redis knows of it: the number of the last call, and whether that was refused because all is full."""
    refused: bool = False


class Flusher(NamedTuple):
    """A flusher that has a batch in its hands: "frozen", "lettered" (only its dead letter is written), "applied" (rows
    without the id), or "committed"."""

    phase: str
    batch: Batch


class Reader(NamedTuple):
    """A reader under way."""

    phase: str
    """begun, found (it has looked into Redis), loaded (and into the database), answered (and is about to fill the cell
    with `row`); wrong: its answer was never true."""
    fills: bool
    """It has taken the cell's lease."""
    was: frozenset[Value]
    """What was true at some time since it began."""
    id: int = 0
    """Of the batch that it found, 0 for none; and whether a batch was acknowledged since."""
    acked: bool = False
    row: Row = None
    applied: bool = False
    """The database knew the batch's id when it gave the row."""
    saw: tuple[Record | None, Record | None] = (None, None)


class State(NamedTuple):
    # Postgres
    row: Row
    applied: frozenset[int]
    letters: frozenset[int]
    """Ids of the batches of which something was refused."""
    # Redis
    pending: Record | None
    batch: Batch | None
    cell: tuple[str, Value]
    """("", None), ("lease", None), ("writing", None), or ("value", what a reader is told)."""
    # Processes
    writers: tuple[Writer, ...]
    flushers: tuple[Flusher, ...]
    reader: Reader | None
    # Whatever else is on its way, and may arrive at any time or never
    transactions: tuple[Batch, ...]
    """Of flushers that crashed before they knew the outcome."""
    statements: tuple[tuple[int, int], ...]
    """Of writers that gave up writing through: writer, operation."""
    freezes: tuple[int, ...]
    # What there may still be of each
    crashes: int
    full: int
    others: int
    # What must be true
    histories: frozenset[tuple[Row, tuple[int, ...]]]
    """In which orders the operations may have taken effect so far: the row, and per writer a mask of the operations."""


@dataclass(frozen=True)
class Bounds:
    """How much there is to explore."""

    operations: tuple[tuple[Operation, ...], ...]
    """Per writer, one after another."""
    exists: bool = True
    """The row is there at the start."""
    flushers: int = 1
    """With a batch in their hands at a time; there is no bound on how many there are one after another."""
    crashes: int = 0
    """Of flushers."""
    sends: int = 1
    """Calls of one operation: more than one are repeated because their answer is late."""
    gives_up: bool = True
    """Writers may go on without an answer: the outcome is unknown then."""
    reader: bool = True
    """One reads at a time, any number one after another."""
    full: int = 0
    """How often the buffer may be full, so that a writer writes through."""
    others: int = 0
    """Batches that hold nothing of the key."""
    refuses: int | None = None
    """The database refuses a row whose number is larger: it becomes a dead letter."""
    expires: bool = False
    """What Redis knows of a writer's calls may expire."""
    prunes: bool = False
    """Ids of batches are pruned."""

    def __str__(self) -> str:
        parts = " | ".join(", ".join(map(str, operations)) for operations in self.operations)
        parts += f"; {self.flushers} flushers at a time, {self.crashes} crashes, {self.sends} sends"
        parts += f", {self.full} times full" * bool(self.full) + f", {self.others} other batches" * bool(self.others)
        parts += f", above {self.refuses} refused" * (self.refuses is not None)
        parts += ", calls expire" * self.expires + ", ids are pruned" * self.prunes
        return parts + ("" if self.exists else ", no row") + ("" if self.reader else ", no reader")


@dataclass(frozen=True)
class Rules:
    """What is explored: the protocol as it is, or one that leaves something out."""

    pops: bool = False
    """Freezing takes the writes out of Redis; only the flusher has them then."""
    ack_without_id: bool = False
    """An acknowledgement drops whatever batch there is."""
    id_apart: bool = False
    """The id of a batch is recorded in a transaction of its own, after the rows."""
    freeze_again_with_its_id: bool = False
    """A freeze whose answer is late is sent again under the same id."""
    seen: Literal["all", "done", "nothing"] = "all"
    """Which replies Redis remembers for a call that comes again: not those that refuse, or none."""
    reader_compares: Literal["batch and acks", "batch", "acks", "nothing"] = "batch and acks"
    forgets_deletes: bool = False
    """A put after a delete is like any other put."""
    adjustments_keep_cell: bool = False
    """An increment leaves the readable value as it was."""
    fills_without_lease: bool = False
    through_frozen: bool = False
    """Writes through although the frozen batch holds the key."""
    through_silently: bool = False
    """Writes through without a word to readers who are between Redis and the database."""
    through_without_flush: bool = False
    """Writes through and returns although a batch that was frozen meanwhile holds the key."""
    letters_apart: bool = False
    """Dead letters are written in a transaction of their own, before the rows."""
    refused_without_id: bool = False
    """A batch of which something was refused leaves no id."""
    seen_expires: Literal["unneeded", "any time"] = "unneeded"
    """What is known of a writer's calls expires when none of them is on its way nor will be sent again, or before."""
    prunes: Literal["unneeded", "not frozen", "any"] = "unneeded"
    """Which ids are pruned: of batches that nobody can apply again, of those that are not frozen in Redis now (and a
    worker may have been stopped with one in its hands, for longer than ids are kept), or any."""


@dataclass
class Report:
    """What was found."""

    bounds: Bounds
    states: int = 0
    moves: int = 0
    seconds: float = 0.0
    violations: dict[str, list[State]] = field(default_factory=dict)
    """By name, the states that lead to the first of each."""

    def __str__(self) -> str:
        found = ", ".join(sorted(self.violations)) or "holds"
        return f"{self.states:>9,} states {self.moves:>10,} moves {self.seconds:6.1f} s  {found}: {self.bounds}"
