"""One load for all callers of this process who ask for the same key while it is under way.

A load belongs to nobody's request: it runs in a task of its own, in a copy of the context of the caller who started it.
A cancelled caller leaves the others alone; when the last one leaves, the load is cancelled.

Who may join. A load that began before a call did may have read the database before a write that this caller knows to
have ended; to share its result would be a stale read although no cache is involved. So a caller joins a flight only if

    (a) the flight's load has not begun, or began after the call: it will see all that the caller could know of; or
    (b) what this caller read proves that nothing has been written since before the load: the cell still holds the
        flight's token, so that no write of that key has begun, and the generations are those that the flight began
        with, so that no write of what carries them has ended.

The interleaving that needs (a) and (b): a flight loads; another process writes, and ends its write (the token is gone);
a caller here starts, misses, finds the flight by its key alone, and would get the row from before the write. With the
token alone, the same happens to a write that invalidates a tag: it leaves the cell, and the token in it, as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from asynccache.errors import LoadCancelled, RecursiveLoad
from asynccache.supervision import TaskOwner, copy_error

__all__ = ["Flight", "SingleFlight"]

T = TypeVar("T")

_aboard: ContextVar[tuple[Flight[Any], ...]] = ContextVar("asynccache_flights", default=())
"""The flights that this code is a part of, the outermost first."""


class Flight(Generic[T]):
    """One load and those who wait for it."""

    __slots__ = ("_waiters", "begun", "flights", "key", "proof", "task")

    def __init__(self, flights: SingleFlight[T], key: Hashable) -> None:
        self.flights = flights
        self._waiters: set[asyncio.Future[T]] = set()
        self.key = key
        self.begun: int | None = None
        self.proof: Hashable = None
        self.task: asyncio.Task[T] | None = None

    def board(self) -> None:
        """To be called first of all in the flight's own task."""
        _aboard.set((*_aboard.get(), self))

    def begin(self) -> None:
        """To be called right before the database is asked."""
        self.begun = self.flights.tick()

    def older(self, since: int) -> bool:
        """Whether the load began before a call that started at `since`."""
        return self.begun is not None and self.begun <= since

    def joinable(self, since: int, proof: Hashable) -> bool:
        """Whether a call that started at `since` and read `proof` (None: nothing that proves anything) may share the
        result."""
        return not self.older(since) or (proof is not None and proof == self.proof)

    async def join(self) -> T:
        """Waits for the result.

        Raises:
            LoadCancelled: the load was cancelled, but not by its callers.
            Exception: whatever the load raised, as an exception of this caller's own.
        """
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters and self.task is not None and not self.task.done() and not self.flights.keep:
                self.flights.remove(self)  # nobody may join what is being cancelled
                self.task.cancel()

    def land(self, task: asyncio.Task[T]) -> None:
        """Hands the result to all who wait."""
        self.flights.remove(self)
        waiting = [waiter for waiter in self._waiters if not waiter.done()]
        if task.cancelled():
            for waiter in waiting:
                waiter.set_exception(LoadCancelled(f"the load of {_shown(self.key)!r} was cancelled"))
        elif (error := task.exception()) is not None:
            for at, waiter in enumerate(waiting):
                waiter.set_exception(copy_error(error) if at else error)
        else:
            for waiter in waiting:
                waiter.set_result(task.result())


class SingleFlight(Generic[T]):
    """The flights of one process.

    Args:
        owner: owns their tasks.
        keep: lets a load go on after its last caller has left, for those who come later.
    """

    def __init__(self, owner: TaskOwner, *, keep: bool = False) -> None:
        self.keep = keep
        self._owner = owner
        self._flights: dict[Hashable, list[Flight[T]]] = {}
        self._now = 0

    def moment(self) -> int:
        """Orders calls and loads: a load whose `begun` is above this began after the call that read it."""
        return self._now

    def tick(self) -> int:
        """The next moment."""
        self._now += 1
        return self._now

    def __len__(self) -> int:
        return sum(map(len, self._flights.values()))

    @property
    def crowded(self) -> bool:
        """Whether more than one key is being loaded."""
        return len(self._flights) > 1

    def check(self, key: Hashable) -> None:
        """Refuses to wait for a load from inside of it.

        Raises:
            RecursiveLoad: this code is part of a load of this key.
        """
        for flight in _aboard.get():
            if flight.key == key and flight.flights is self and flight.task is not None and not flight.task.done():
                raise RecursiveLoad(
                    f"the loader of {_shown(key)!r} asks the cache for the same key, and would wait for itself for"
                    " ever: call the function that loads it, not the cached one"
                )

    def find(self, key: Hashable, since: int, proof: Hashable) -> Flight[T] | None:
        """The youngest flight of this key that the call may join, if there is one."""
        for flight in reversed(self._flights.get(key, ())):
            if flight.joinable(since, proof):
                return flight
        return None

    def start(self, key: Hashable, load: Callable[[Flight[T]], Coroutine[Any, Any, T]]) -> Flight[T]:
        """Starts a flight; the caller is to `join` it at once."""
        flight = Flight(self, key)
        flight.task = self._owner.start(load(flight), handled=True)
        flight.task.add_done_callback(flight.land)
        self._flights.setdefault(key, []).append(flight)
        return flight

    def remove(self, flight: Flight[T]) -> None:
        """Lets nobody join this flight any more."""
        flights = self._flights.get(flight.key)
        if flights is not None and flight in flights:
            flights.remove(flight)
            if not flights:
                del self._flights[flight.key]


def _shown(key: Hashable) -> Hashable:
    """What users know of a flight's key: the entry's, without what tells flights of one entry apart."""
    return key[0] if isinstance(key, tuple) and key else key
