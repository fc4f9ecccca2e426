"""The local tier: what this process has read, at memory speed, for as long as it is known to be current.

Invariant: an entry is here only while this process is told of every change of its cell and of the generations it
carries. Who keeps it:

    expect   before a cell is read from Redis a placeholder is put here
    push     a change of the cell, ours or anybody's, removes the entry and the placeholder; of a generation, marks all
             that carry it as dead
    keep     what was read is kept only if the placeholder is still there, and no mark has died

The interleaving that needs the placeholder: this process reads a cell; another writes it, and the push arrives here
before the read's reply has been looked at; without the placeholder the old value would be kept after its own push.

While the connection that brings the pushes is not known to be alive the tier is off, and empty. A write of this process
removes the entry both before it is sent and after its reply, so that nobody here reads anything older afterwards,
however late the push is.
"""

from __future__ import annotations

import datetime as dt
import enum
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from weakref import WeakSet, WeakValueDictionary

from asynccache.errors import ConfigurationError
from asynccache.policy import Duration, seconds
from asynccache.stores.admitting_map import AdmittingMap

__all__ = ["Kept", "LocalEntries", "LocalTier", "Ticket", "is_alive", "is_immutable"]

_IMMUTABLE: Final = (
    type(None), bool, int, float, str, bytes, Decimal, UUID, dt.date, dt.time, dt.timedelta, dt.timezone
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LocalTier:
    """How much of the cache a process keeps in its own memory. Needs a single Redis, not a cluster.

    Attributes:
        max_entries: most entries; W-TinyLFU decides which stay (`asynccache/stores/admitting_map.py`). Once the tier is
            full, what has not been asked for before, of late, is not kept.
        max_bytes: most bytes of keys and payloads together; None bounds the entries alone.
        ttl_cap: the longest an entry stays, whatever its TTL: a bound on everything that could go wrong.
    """

    max_entries: int = 10_000
    max_bytes: int | None = None
    ttl_cap: Duration = 60.0

    def __post_init__(self) -> None:
        for what, count in (("max_entries", self.max_entries), ("max_bytes", self.max_bytes)):
            if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
                raise ConfigurationError(f"LocalTier: {what}={count!r} must be a positive int")
        object.__setattr__(self, "ttl_cap", seconds(self.ttl_cap, "ttl_cap", least=0.001, zero=False))


class _Mark:
    """A generation as this process knows it; dead once it has been changed."""

    __slots__ = ("__weakref__", "dead")

    def __init__(self) -> None:
        self.dead = False


class Kept:
    """One entry.

    Attributes:
        value: the value, if nobody can change it; else it is decoded anew for each caller.
        payload: the encoded value; None if `value` is the value.
        compressed: whether the payload is.
        fingerprint: shape of the type that it was read as.
        generations: keys of the generations that its reader asked for.
        deadline: when it has to be asked for again, in seconds of the monotonic clock.
        marks: the generations that it carries, but for those that everything carries.
        size: bytes of key and payload.
    """

    __slots__ = ("compressed", "deadline", "fingerprint", "generations", "marks", "payload", "size", "value")

    def __init__(
        self,
        value: Any,
        payload: bytes | None,
        compressed: bool,
        fingerprint: bytes,
        deadline: float,
        ticket: Ticket,
        size: int,
    ) -> None:
        self.value = value
        self.payload = payload
        self.compressed = compressed
        self.fingerprint = fingerprint
        self.generations = ticket.generations
        self.deadline = deadline
        self.marks = ticket.marks
        self.size = size


def is_alive(kept: Kept) -> bool:
    """Whether no generation that an entry carries has changed."""
    for mark in kept.marks:  # noqa: SIM110 - a generator for each hit costs more than this
        if mark.dead:
            return False
    return True


def _size(kept: Kept) -> int:
    return kept.size


class Ticket:
    """A placeholder: one read under way, which may be kept if nothing changes meanwhile."""

    __slots__ = ("generations", "key", "marks")

    def __init__(self, key: str, generations: tuple[str, ...], marks: tuple[_Mark, ...]) -> None:
        self.key = key
        self.generations = generations
        self.marks = marks


class LocalEntries:
    """The entries of one process.

    Args:
        tier: how many.
        everything: generations that every entry carries; a change of one empties the tier.
        monotonic: reads time, in seconds.

    Attributes:
        on: whether changes are seen.
        peek: what stands under a key, whether it may be served or not.
    """

    peek: Callable[[str], Kept | None]

    def __init__(self, tier: LocalTier, *, everything: Iterable[str], monotonic: Callable[[], float]) -> None:
        self._tier = tier
        self._cap = float(tier.ttl_cap)  # type: ignore[arg-type]  # normalised when made
        self._everything = frozenset(everything)
        self.monotonic = monotonic
        self._renew()
        self._tickets: dict[str, Ticket] = {}
        _at_fork(self)
        self._marks: WeakValueDictionary[str, _Mark] = WeakValueDictionary()
        self.on = False

    def get(self, key: str) -> Kept | None:
        """The entry of a key, if it may be served."""
        kept = self.peek(key)
        if kept is None:
            return None
        if kept.deadline <= self.monotonic() or not is_alive(kept):
            self._map.remove(key)
            return None
        return kept

    def expect(self, key: str, generations: tuple[str, ...]) -> Ticket | None:
        """Puts a placeholder for a read that is about to be sent; None while the tier is off."""
        if not self.on:
            return None
        marks = tuple([self._mark(name) for name in generations if name not in self._everything])
        ticket = self._tickets[key] = Ticket(key, generations, marks)
        return ticket

    def keep(
        self,
        ticket: Ticket,
        value: Any,
        payload: bytes,
        compressed: bool,
        fingerprint: bytes,
        life: float,
    ) -> None:
        """Keeps what the read has found, for at most `life` seconds, if nothing has changed since `expect`."""
        if self._tickets.get(ticket.key) is not ticket or not self.on or life <= 0:
            return
        if any(mark.dead for mark in ticket.marks):
            return
        fixed = is_immutable(value)
        size = len(ticket.key) + len(payload)
        self._map.set(
            ticket.key,
            Kept(
                value if fixed else None,
                None if fixed else payload,
                compressed,
                fingerprint,
                self.monotonic() + min(life, self._cap),
                ticket,
                size,
            ),
        )

    def forget(self, ticket: Ticket) -> None:
        """Takes a placeholder away."""
        if self._tickets.get(ticket.key) is ticket:
            del self._tickets[ticket.key]

    def changed(self, key: str) -> None:
        """A cell or a generation has changed, or may have."""
        self._tickets.pop(key, None)
        self._map.remove(key)
        if key in self._everything:
            self.clear()
        elif (mark := self._marks.pop(key, None)) is not None:
            mark.dead = True

    def clear(self) -> None:
        """Forgets everything, reads under way included."""
        self._tickets.clear()
        # A new map: moka clears by comparing times of insertion, and "at once" must not depend on a clock.
        self._renew()
        for mark in list(self._marks.values()):
            mark.dead = True
        self._marks.clear()

    def switch(self, on: bool) -> None:
        """Turns the tier on or off; either way it is empty."""
        self.on = False
        self.clear()
        self.on = on

    def __len__(self) -> int:
        return len(self._map)

    def _renew(self) -> None:
        tier = self._tier
        self._map = AdmittingMap(tier.max_entries, tier.max_bytes, _size)
        self.peek = self._map.get

    def _mark(self, name: str) -> _Mark:
        mark = self._marks.get(name)
        if mark is None:
            mark = self._marks[name] = _Mark()
        return mark

    def __repr__(self) -> str:
        return f"LocalEntries({'on' if self.on else 'off'}, entries={len(self)})"


_forked: Final[WeakSet[LocalEntries]] = WeakSet()


def _at_fork(entries: LocalEntries) -> None:
    """Turns the tier off in a forked child: its changes are pushed to the parent."""
    if not _forked:
        os.register_at_fork(after_in_child=_off_in_child)
    _forked.add(entries)


def _off_in_child() -> None:
    for entries in list(_forked):
        entries.switch(False)


def is_immutable(value: Any) -> bool:
    """Whether nobody can change a value, so that all callers may have the same one."""
    if isinstance(value, _IMMUTABLE):
        return True
    if isinstance(value, tuple | frozenset):
        return all(is_immutable(item) for item in value)
    if isinstance(value, enum.Enum):
        return True
    kind = type(value)
    frozen = getattr(getattr(kind, "__struct_config__", None), "frozen", False)
    return bool(frozen) and all(is_immutable(getattr(value, name)) for name in kind.__struct_fields__)
