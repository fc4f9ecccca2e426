"""What a strategy needs from a database: the small protocols `Source` and `Sink`, and the writes a sink takes.

`asynccache.postgres.PostgresTable` is both. Anything with these methods will do; a plain
`async def load(key)` or `async def load_many(keys)` is a source, too. Write-behind asks for more where a sink has it:
exact reads (`ExactSource`), dead letters (`KeepsDeadLetters`), and forgetting old batch ids (`Prunes`).
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, overload, runtime_checkable
from uuid import UUID

from asynccache.adjustments import Adjustment, Number
from asynccache.errors import ConfigurationError

__all__ = [
    "Adjust",
    "Adjustment",
    "Append",
    "Applied",
    "Batch",
    "DeadLetter",
    "DeadLetters",
    "Delete",
    "ExactSource",
    "Halves",
    "KeepsDeadLetters",
    "KeyPart",
    "KeyValue",
    "Loader",
    "ManyLoader",
    "Number",
    "Prunes",
    "Put",
    "Puts",
    "Rejected",
    "Resource",
    "Retried",
    "Sink",
    "Source",
    "Write",
]

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)
V_contra = TypeVar("V_contra", contravariant=True)

KeyPart: TypeAlias = "int | str | bytes | bool | UUID | dt.date | dt.time | enum.Enum | tuple[KeyPart, ...] | None"
"""What may be part of a key; a tuple may be nested."""

KeyValue: TypeAlias = KeyPart
"""What addresses one entity: a single part, or a tuple of them."""

Loader: TypeAlias = Callable[[Any], Awaitable[V | None]]
ManyLoader: TypeAlias = Callable[[list[Any]], Awaitable[Mapping[Any, V]]]


@runtime_checkable
class Source(Protocol[V_co]):
    """Where a missing value is loaded from."""

    async def load_many(self, keys: Sequence[Any], /) -> Mapping[Any, V_co]:
        """Loads what exists of `keys`.

        Args:
            keys: distinct key values, in no order.

        Returns:
            The values found, by key. A key that is left out does not exist.
        """
        ...


@dataclass(frozen=True, slots=True)
class Put(Generic[V_co]):
    """Insert the row of `key`, or replace it.

    Attributes:
        key: what addresses the row.
        value: the row.
        anew: the row was deleted before it was put: what `value` does not hold starts from its defaults again.
    """

    key: Any
    value: V_co
    anew: bool = False


class Puts(Sequence[Put[V]], Generic[V]):
    """Puts that are kept by column, none of them `anew`: a sequence of `Put` like any other, which a sink that writes
    columns need not take apart again.

    Args:
        keys: the key of each.
        values: the row of each, in the same order.
    """

    __slots__ = ("keys", "values")

    def __init__(self, keys: Sequence[Any], values: Sequence[V]) -> None:
        if len(keys) != len(values):
            raise ConfigurationError(f"Puts of {len(keys)} keys and {len(values)} values: each key needs one value")
        self.keys = keys
        self.values = values

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> Put[V]: ...

    @overload
    def __getitem__(self, at: slice) -> Puts[V]: ...

    def __getitem__(self, at: int | slice) -> Put[V] | Puts[V]:
        if isinstance(at, slice):
            return Puts(self.keys[at], self.values[at])
        return Put(self.keys[at], self.values[at])

    def __repr__(self) -> str:
        return f"Puts({len(self)})"


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the row of `key`, if there is one."""

    key: Any


@dataclass(frozen=True, slots=True)
class Adjust(Generic[V_co]):
    """Change numbers of the row of `key`, whatever they are when the batch is applied.

    Attributes:
        key: what addresses the row.
        columns: the changes, by field of the model.
        row: the whole row to insert if there is none yet: the declared defaults, with the changes already applied.
        defaults: what a NULL in the database counts as, by field; 0 for a field that is left out.
    """

    key: Any
    columns: Mapping[str, Adjustment]
    row: V_co
    defaults: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Append(Generic[V_co]):
    """Insert a row that nobody will replace; its key may be left to the database.

    Attributes:
        value: the row. Rows of one batch are inserted in the order of its writes.
    """

    value: V_co


Write: TypeAlias = Put[V] | Delete | Adjust[V] | Append[V]


@dataclass(frozen=True, slots=True)
class Halves(Generic[V_co]):
    """A write into which adjustments were merged, as what it was before them, and they.

    Attributes:
        base: the put or delete.
        rest: the adjustments after it.
        record: of `rest`.
    """

    base: Write[V_co]
    rest: Write[V_co]
    record: bytes


@dataclass(frozen=True, slots=True)
class Batch(Generic[V]):
    """Writes that a sink applies together; each key occurs once.

    Without an id all of them are applied, or none. With an id, writes that the database refuses for what they hold are
    kept as dead letters, in the same transaction, and all others are applied.

    Attributes:
        writes: what to do, in no order.
        id: set for a write-behind batch. A sink that has applied this id before must do nothing, which it can only
            know if it records the id in the transaction that applies the writes.
        origin: the name of the strategy, under which dead letters are found again.
        records: what is kept of each write in a dead letter, in the order of `writes`; without them, dead letters can
            be looked at but not retried.
        buffer: the buffer that it comes from, which forgets its own ids when they are old; see `Prunes`.
        halve: takes a record apart, if adjustments were merged into something else, so that only they are refused if
            it is they that cannot be written.
    """

    writes: Sequence[Write[V]]
    id: UUID | None = None
    origin: str = ""
    records: Sequence[bytes] = ()
    buffer: str = ""
    halve: Callable[[bytes], Halves[V] | None] | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A write that went to the dead letters.

    Attributes:
        at: its index in the batch's writes.
        reason: why.
        sqlstate: the database's code for that; None if it was found before it got there.
    """

    at: int
    reason: str
    sqlstate: str | None = None


@dataclass(frozen=True, slots=True)
class Applied(Generic[V]):
    """What became of a batch.

    Attributes:
        again: the batch's id was known, so nothing was done now.
        stored: rows as the database holds them after a put (defaults and generated columns filled in), by key;
            a sink that cannot tell leaves it empty.
        rejected: what went to the dead letters; all else was written. Only of a batch with an id.
    """

    again: bool = False
    stored: Mapping[Any, V] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()


@runtime_checkable
class Sink(Protocol[V]):
    """Where writes go."""

    async def apply(self, batch: Batch[V], /) -> Applied[V]:
        """Applies all writes of `batch` in one transaction.

        Raises:
            WriteRejected: the database refused a row, and the batch has no id; nothing was written.
            DatabaseUnavailable: the outcome is unknown; applying the same batch again is safe if it has an id.
        """
        ...


@runtime_checkable
class ExactSource(Protocol[V_co]):
    """A source that tells, along with rows, which batches these rows contain."""

    async def load_exact(
        self, keys: Sequence[Any], batch_ids: Sequence[UUID], /
    ) -> tuple[Mapping[Any, V_co], frozenset[UUID]]:
        """Loads rows and batch ids as they were at one moment.

        Args:
            keys: distinct key values.
            batch_ids: of batches that may or may not have been applied.

        Returns:
            The rows there were, by key, and which of the batches had been applied by then.
        """
        ...


@runtime_checkable
class Prunes(Protocol):
    """A sink that forgets batch ids which nobody will ask for again."""

    async def prune(self, older_than: float, buffer: str, /) -> int:
        """Forgets some of the batch ids applied more than `older_than` seconds ago.

        A batch whose id is forgotten before it is acknowledged would be applied twice: keep them for longer than any
        outage lasts.

        Args:
            older_than: seconds.
            buffer: only ids of batches that came from this one; others may need theirs for longer.

        Returns:
            How many were forgotten; bounded per call, 0 when none are left.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A write that the database refused for what it holds.

    Attributes:
        id: its number; later letters have larger ones.
        origin: the strategy it came from.
        table: where it was to be written, schema included.
        key: its key as `repr` shows it; None for an append.
        operation: `put`, `delete`, `adjust` or `append`.
        reason: why it was refused the last time.
        sqlstate: the database's code for that; None if it did not get there.
        failed_at: when it was refused the last time, in UTC.
        batch_id: the batch it belonged to.
        attempts: how often it was refused.
        record: the write itself as the strategy keeps it; None where it was not asked for, or never kept.
    """

    id: int
    origin: str
    table: str
    key: str | None
    operation: str
    reason: str
    sqlstate: str | None
    failed_at: dt.datetime
    batch_id: UUID | None
    attempts: int
    record: bytes | None = None


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of dead letters that were tried again.

    Attributes:
        applied: how many were written, and are dead letters no more.
        failed: how many were refused again; they stay, with the new reason.
        keys: of the writes applied (an append has none); what is cached of them is out of date.
    """

    applied: int = 0
    failed: int = 0
    keys: tuple[Any, ...] = ()


@runtime_checkable
class DeadLetters(Protocol):
    """The dead letters of one sink. Every method raises DatabaseUnavailable when the database is away."""

    async def list(self, origin: str | None = None, *, limit: int = 100, after: int = 0) -> tuple[DeadLetter, ...]:
        """Letters without their records, oldest first.

        Args:
            origin: of this strategy only.
            limit: how many at most.
            after: only letters with larger ids: the last id of the page before.
        """
        ...

    async def show(self, letter: int, /) -> DeadLetter | None:
        """One letter with its record; None if there is none of this id."""
        ...

    async def count(self, origin: str | None = None) -> int:
        """How many there are."""
        ...

    async def drop(self, ids: Sequence[int] | None, *, origin: str | None = None) -> int:
        """Deletes letters for good: these, or all if `ids` is None; returns how many."""
        ...

    async def retry(
        self, origin: str, ids: Sequence[int] | None = None, *, decode: Callable[[bytes], Write[Any]]
    ) -> Retried:
        """Tries letters again, oldest first, each in a transaction that also deletes the letter.

        A retried write is applied to the row as it is now: a put replaces what was written since.

        Args:
            origin: the strategy's name.
            ids: which; None for all there are now.
            decode: makes a write of a letter's record; may mend it.
        """
        ...


@runtime_checkable
class KeepsDeadLetters(Protocol):
    """A sink that keeps writes which the database refuses."""

    @property
    def dead_letters(self) -> DeadLetters:
        """Where they are."""
        ...


@runtime_checkable
class Resource(Protocol):
    """A source or sink with a life of its own: opened and closed with the cache that uses it."""

    async def open(self) -> None:
        """Connects and checks; called once by a cache, before the first use by any of its strategies."""
        ...

    async def aclose(self) -> None:
        """Gives back what `open` took; called as often as `open` was."""
        ...
