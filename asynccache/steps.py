"""The steps of the key protocol, each one atomic on one key.

A step is data; a store carries it out: `stores/redis.py` as a Lua script, `stores/memory.py` through `transition`.
`transition` is the reference: the exhaustive model explores it, and the contract suite holds every store to it.

Invariant: once a write or an invalidation has ended, no value loaded before it can enter the cell.
It holds because a fill needs the token that the cell still holds, and every write and invalidation takes the token
away: it replaces the lease, or the value that carries the refresh lease.

What a crash leaves behind
    after Acquire or Refresh   a lease that expires by itself; others wait for no longer than that
    after BeginWrite           a writing cell: reads bypass the cache until the writer's deadline
    after the database write   the same; the old value is not in the cell, so nobody can read it from there
    after EndWrite             nothing
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias, assert_never

import msgspec

from asynccache.entry import (
    NO_TOKEN,
    Lease,
    NewValue,
    Value,
    Writer,
    Writing,
    generation_micros,
    is_generation,
    pack_generation,
    parse_cell,
    with_refresh,
)

__all__ = [
    "Acquire",
    "BeginWrite",
    "Bump",
    "EndBump",
    "EndWrite",
    "Ensure",
    "Extend",
    "Fill",
    "Invalidate",
    "Outcome",
    "Put",
    "Refresh",
    "Release",
    "Reply",
    "Step",
    "Transition",
    "transition",
]

GENERATION_MS: Final = 30 * 86_400_000
"""How long a generation outlives its last use; one that is gone costs reloads, never a stale read."""


class Acquire(msgspec.Struct, frozen=True):
    """A reader asks for the right to fill an empty cell.

    A value whose id is `dead` (the reader found it outdated or unreadable) counts as empty.
    Replies: LEASED; or VALUE, HELD or WRITING with the cell that stands in the way.
    """

    token: bytes
    lease_ms: int
    dead: bytes = b""


class Fill(msgspec.Struct, frozen=True):
    """A reader stores what it loaded. Replies: STORED, or REFUSED if the cell no longer holds its token."""

    token: bytes
    value: NewValue


class Extend(msgspec.Struct, frozen=True):
    """A reader whose load takes long keeps its lease alive. Replies: LEASED, or REFUSED if it has lost it."""

    token: bytes
    lease_ms: int


class Release(msgspec.Struct, frozen=True):
    """A reader gives up: its lease ends now. After a failed refresh nobody tries again for `retry_ms`.

    Replies: EMPTY, VALUE (the refresh lease is gone, the value stays), or REFUSED if it was not its lease.
    """

    token: bytes
    retry_ms: int = 0


class Refresh(msgspec.Struct, frozen=True):
    """A reader asks for the right to replace the value `id` while others go on reading it.

    Replies: LEASED, or REFUSED if the value is another one by now, if somebody is at it, or, unless `at_once`, if the
    pause after a failed refresh is not over.
    """

    token: bytes
    lease_ms: int
    id: bytes
    at_once: bool = False


class BeginWrite(msgspec.Struct, frozen=True):
    """A writer is about to change the database; until `write_ms` from now it counts as in flight. Replies: WRITING."""

    token: bytes
    write_ms: int


class EndWrite(msgspec.Struct, frozen=True):
    """A writer has changed the database, or may have.

    `value` (write-through) is stored only if no other writer and no invalidation overlapped: of two writers the cell
    cannot know whose row the database kept. A writer whose writing cell is gone (it took too long, or the cell was
    evicted) empties whatever stands there. Replies: STORED, EMPTY, or WRITING while others are in flight.
    """

    token: bytes
    value: NewValue | None = None


class Invalidate(msgspec.Struct, frozen=True):
    """Empties the cell. A writing cell stays and counts as overlapped. Replies: EMPTY or WRITING.

    Emptying a writing cell looks harmless and leaves a stale rest: a reader takes a lease on the empty cell, loads
    before the writer commits, and the writer, whose cell is gone, has nothing that tells of the reader's fill.
    """


class Put(msgspec.Struct, frozen=True):
    """Stores a value that the caller vouches for. A writing cell stays, overlapped. Replies: STORED or WRITING.

    It names no token, so a store that may deliver it late must empty the cell instead: what was put or deleted
    meanwhile would be overwritten.
    """

    value: NewValue


class Ensure(msgspec.Struct, frozen=True):
    """Makes sure that a generation exists. Replies: VALUE with it, or WRITING."""

    salt: bytes


class Bump(msgspec.Struct, frozen=True):
    """Begins a new generation: whatever carries the old one is outdated. Replies: VALUE, or WRITING (overlapped)."""

    salt: bytes


class EndBump(msgspec.Struct, frozen=True):
    """A writer that began with BeginWrite on a generation has ended. Replies: VALUE, or WRITING if others have not."""

    token: bytes
    salt: bytes


Step: TypeAlias = (
    Acquire | Fill | Extend | Release | Refresh | BeginWrite | EndWrite | Invalidate | Put | Ensure | Bump | EndBump
)


class Outcome(enum.Enum):
    """What a step came to; the numbers are those the Lua scripts reply with."""

    EMPTY = 0
    LEASED = 1
    VALUE = 2
    HELD = 3
    WRITING = 4
    STORED = 5
    REFUSED = 6


class Reply(msgspec.Struct, frozen=True):
    """What a step came to, when, and the cell that decided it (VALUE and HELD only)."""

    outcome: Outcome
    now_ms: int
    cell: bytes | None = None


class Transition(msgspec.Struct, frozen=True):
    """What a step makes of a cell: its new content (None: empty), when that expires, and the reply."""

    cell: bytes | None
    expires_ms: int
    reply: Reply


def transition(cell: bytes | None, expires_ms: int, step: Step, now_ms: int) -> Transition:
    """Carries out one step.

    Args:
        cell: what stands under the key; None if nothing (or if it has expired).
        expires_ms: when that expires, in milliseconds of the same clock as `now_ms`.
        step: what to do.
        now_ms: the server's clock.
    """
    seen = parse_cell(cell, tags=False)

    def keep(outcome: Outcome, show: bytes | None = None) -> Transition:
        return Transition(cell, expires_ms, Reply(outcome, now_ms, show))

    def become(new: bytes | None, life_ms: int, outcome: Outcome, show: bytes | None = None) -> Transition:
        return Transition(new, now_ms + life_ms, Reply(outcome, now_ms, show))

    def store(value: NewValue) -> Transition:
        return become(value.pack(now_ms), value.dead_ms, Outcome.STORED)

    def overlap(writing: Writing) -> Transition:
        return Transition(Writing(True, writing.writers).pack(), expires_ms, Reply(Outcome.WRITING, now_ms))

    match step:
        case Acquire(token, lease_ms, dead):
            if isinstance(seen, Value) and seen.id != dead:
                return keep(Outcome.VALUE, cell)
            if isinstance(seen, Lease) and seen.token != token:
                return keep(Outcome.HELD, cell)
            if isinstance(seen, Writing):
                return keep(Outcome.WRITING)
            return become(b"L" + token, lease_ms, Outcome.LEASED)
        case Fill(token, value):
            return store(value) if _holds(seen, token) else keep(Outcome.REFUSED)
        case Extend(token, lease_ms):
            if not _holds(seen, token) or cell is None:
                return keep(Outcome.REFUSED)
            if isinstance(seen, Lease):
                return become(cell, lease_ms, Outcome.LEASED)
            return Transition(with_refresh(cell, token, now_ms + lease_ms), expires_ms, Reply(Outcome.LEASED, now_ms))
        case Release(token, retry_ms):
            if not _holds(seen, token) or cell is None:
                return keep(Outcome.REFUSED)
            if isinstance(seen, Lease):
                return become(None, 0, Outcome.EMPTY)
            return Transition(with_refresh(cell, NO_TOKEN, now_ms + retry_ms), expires_ms, Reply(Outcome.VALUE, now_ms))
        case Refresh(token, lease_ms, id_, at_once):
            if cell is None or not isinstance(seen, Value) or seen.id != id_:
                return keep(Outcome.REFUSED)
            free = {token, NO_TOKEN} if at_once else {token}
            if seen.refresh_until > now_ms and seen.refresh_token not in free:
                return keep(Outcome.REFUSED)
            return Transition(with_refresh(cell, token, now_ms + lease_ms), expires_ms, Reply(Outcome.LEASED, now_ms))
        case BeginWrite(token, write_ms):
            others: tuple[Writer, ...] = ()
            if isinstance(seen, Writing):
                others = tuple(w for w in seen.writers if w.token != token and w.deadline > now_ms)
            overlapped = isinstance(seen, Writing) and (seen.overlapped or any(w.token != token for w in seen.writers))
            writers = (*others, Writer(token, now_ms + write_ms))
            return become(Writing(overlapped, writers).pack(), _longest(writers) - now_ms, Outcome.WRITING)
        case EndWrite(token, new):
            if not isinstance(seen, Writing):
                return become(None, 0, Outcome.EMPTY)
            rest, mine = _without(seen, token, now_ms)
            if rest:
                return become(Writing(True, rest).pack(), _longest(rest) - now_ms, Outcome.WRITING)
            if new is not None and mine and not seen.overlapped:
                return store(new)
            return become(None, 0, Outcome.EMPTY)
        case Invalidate():
            return overlap(seen) if isinstance(seen, Writing) else become(None, 0, Outcome.EMPTY)
        case Put(value):
            return overlap(seen) if isinstance(seen, Writing) else store(value)
        case Ensure(salt):
            if isinstance(seen, Writing):
                return keep(Outcome.WRITING)
            generation = cell if cell is not None and is_generation(cell) else _next(None, now_ms, salt)
            return become(generation, GENERATION_MS, Outcome.VALUE, generation)
        case Bump(salt):
            if isinstance(seen, Writing):
                return overlap(seen)
            generation = _next(cell, now_ms, salt)
            return become(generation, GENERATION_MS, Outcome.VALUE, generation)
        case EndBump(token, salt):
            if isinstance(seen, Writing):
                rest, _ = _without(seen, token, now_ms)
                if rest:
                    return become(Writing(True, rest).pack(), _longest(rest) - now_ms, Outcome.WRITING)
            generation = _next(cell, now_ms, salt)
            return become(generation, GENERATION_MS, Outcome.VALUE, generation)
        case _:
            assert_never(step)


def _holds(seen: object, token: bytes) -> bool:
    return (isinstance(seen, Lease) and seen.token == token) or (
        isinstance(seen, Value) and seen.refresh_token == token
    )


def _without(writing: Writing, token: bytes, now_ms: int) -> tuple[tuple[Writer, ...], bool]:
    rest = tuple(w for w in writing.writers if w.token != token and w.deadline > now_ms)
    return rest, any(w.token == token for w in writing.writers)


def _longest(writers: tuple[Writer, ...]) -> int:
    return max(w.deadline for w in writers)


def _next(old: bytes | None, now_ms: int, salt: bytes) -> bytes:
    micros = now_ms * 1000
    if old is not None and is_generation(old):
        micros = max(micros, generation_micros(old) + 1)
    return pack_generation(micros, salt)
