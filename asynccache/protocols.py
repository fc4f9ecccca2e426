"""What a strategy needs from a database: the small protocols `Source` and `Sink`.

`asynccache.postgres.PostgresTable` is both. Anything with these methods will do; a plain
`async def load(key)` or `async def load_many(keys)` is a source, too.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable
from uuid import UUID

__all__ = [
    "Applied",
    "Batch",
    "Delete",
    "KeyPart",
    "KeyValue",
    "Loader",
    "ManyLoader",
    "Put",
    "Resource",
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
    """Insert the row of `key`, or replace it."""

    key: Any
    value: V_co


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the row of `key`, if there is one."""

    key: Any


Write: TypeAlias = Put[V] | Delete


@dataclass(frozen=True, slots=True)
class Batch(Generic[V]):
    """Writes that a sink applies together or not at all; each key occurs once.

    Attributes:
        writes: what to do, in no order.
        id: set for a write-behind batch. A sink that has applied this id before must do nothing, which it can only
            know if it records the id in the transaction that applies the writes.
    """

    writes: Sequence[Write[V]]
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Applied(Generic[V]):
    """What became of a batch.

    Attributes:
        again: the batch's id was known, so nothing was done now.
        stored: rows as the database holds them after a put (defaults and generated columns filled in), by key;
            a sink that cannot tell leaves it empty.
    """

    again: bool = False
    stored: Mapping[Any, V] = field(default_factory=dict)


@runtime_checkable
class Sink(Protocol[V]):
    """Where writes go."""

    async def apply(self, batch: Batch[V], /) -> Applied[V]:
        """Applies all writes of `batch` in one transaction.

        Raises:
            WriteRejected: the database refused a row; nothing was written.
            DatabaseUnavailable: the outcome is unknown; applying the same batch again is safe if it has an id.
        """
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
