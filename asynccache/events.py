"""What a cache reports of itself: why reads miss, and counters."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

__all__ = ["ChangesHealth", "Counters", "MissReason", "Stats"]


class MissReason(enum.Enum):
    """Why a read did not find a value it could serve; a closed list."""

    EMPTY = "empty"
    """Nothing stands under the key: never loaded, expired, evicted or invalidated."""
    LEASED = "leased"
    """Empty, and one reader holds the right to fill it."""
    WRITING = "writing"
    """A writer is in flight: the database is read, and nothing is stored."""
    EXPIRED = "expired"
    """The value is past its TTL and its stale window."""
    OUTDATED = "outdated"
    """A tag or the namespace has been invalidated since the value was loaded."""
    UNREADABLE = "unreadable"
    """The bytes are not a value of this type: another version's, another model's, or damaged."""
    UNAVAILABLE = "unavailable"
    """Redis did not answer, or the circuit to it is open."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of one process since the cache was made.

    Attributes:
        hits: reads answered from the cache with a fresh value (or a remembered "not found").
        local_hits: those of the hits that needed no Redis.
        stale_hits: reads answered with a value past its TTL, within its stale window.
        misses: reads that were not answered from the cache, each counted once.
        joins: misses that shared a load that another caller had started.
        waits: misses that waited for another process to fill the key.
        loads: loads begun.
        load_failures: loads that raised.
        bypasses: loads whose result could not be stored: a writer was in flight, or Redis was not to be had.
        fills: values stored.
        fills_refused: values not stored because the key had been written or invalidated meanwhile.
        refreshes: loads begun while the old value was still being served.
        unreadable: cells that could not be decoded; each was a miss.
        too_large: loaded values that were served but not stored, being above `max_value_bytes`.
        unencodable: loaded values that were served but not stored, not being of the entry's type.
        refused: values that were served or written but not stored, because `admit` refused them.
        writes: writes ended.
        invalidations: keys and tags invalidated.
        store_failures: calls to Redis that failed or were not made because the circuit was open.
    """

    hits: int = 0
    local_hits: int = 0
    stale_hits: int = 0
    misses: int = 0
    joins: int = 0
    waits: int = 0
    loads: int = 0
    load_failures: int = 0
    bypasses: int = 0
    fills: int = 0
    fills_refused: int = 0
    refreshes: int = 0
    unreadable: int = 0
    too_large: int = 0
    unencodable: int = 0
    refused: int = 0
    writes: int = 0
    invalidations: int = 0
    store_failures: int = 0

    @property
    def reads(self) -> int:
        """All reads."""
        return self.hits + self.stale_hits + self.misses

    @property
    def hit_ratio(self) -> float:
        """Share of reads answered from the cache; 0 without reads."""
        return (self.hits + self.stale_hits) / self.reads if self.reads else 0.0


@dataclass(frozen=True, slots=True)
class ChangesHealth:
    """How one listener to a database's changes is, as this process knows it.

    Attributes:
        name: the listener's, after the namespace that follows, if that is a nested one.
        ok: whether nothing fails now.
        active: whether this process does the work; else another one does, or it has not begun.
        lag: seconds from when a change was recorded, inside of its transaction, until Redis had acknowledged its
            invalidation: the longest of the last round that had any. None before the first.
        position_age: seconds since everything committed until then had been handled; None if that is not known.
        handled: changes that this process has handled.
        problem: type and text of what fails now; None if nothing does.
    """

    name: str
    ok: bool
    active: bool
    lag: float | None
    position_age: float | None
    handled: int
    problem: str | None


class Counters:
    """The counters themselves, for the code that counts. A local hit counts as such alone, and as a hit in `Stats`."""

    __slots__ = tuple(field.name for field in fields(Stats))

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    hits: int
    local_hits: int
    stale_hits: int
    misses: int
    joins: int
    waits: int
    loads: int
    load_failures: int
    bypasses: int
    fills: int
    fills_refused: int
    refreshes: int
    unreadable: int
    too_large: int
    unencodable: int
    refused: int
    writes: int
    invalidations: int
    store_failures: int

    def snapshot(self) -> Stats:
        """The values now."""
        counted = {name: getattr(self, name) for name in self.__slots__}
        counted["hits"] += counted["local_hits"]
        return Stats(**counted)
