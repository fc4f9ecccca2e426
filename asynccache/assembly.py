"""Which store a cache has, made from what its user said."""

from __future__ import annotations

from typing import NamedTuple

from redis.asyncio import Redis

from asynccache.clock import Clock
from asynccache.errors import ConfigurationError
from asynccache.invalidation.tracking import Tracker
from asynccache.keys import KeySpace
from asynccache.stampede.lease import WaitingRoom
from asynccache.stores.base import Store
from asynccache.stores.guarded import GuardedStore
from asynccache.stores.local import LocalEntries, LocalTier
from asynccache.stores.memory import MemoryStore
from asynccache.stores.redis import RedisClient, RedisStore
from asynccache.stores.tiered import TieredStore

__all__ = ["Assembly", "Changes", "make_store"]


class Changes:
    """Tells the local tier of changes, and wakes callers who wait for them."""

    def __init__(self, entries: LocalEntries, room: WaitingRoom) -> None:
        self._entries = entries
        self._room = room

    def switch(self, on: bool) -> None:
        """Whether changes are seen from now on."""
        self._entries.switch(on)

    def changed(self, key: str) -> None:
        """A key has changed."""
        self._entries.changed(key)
        self._room.wake(key)

    def clear(self) -> None:
        """All keys may have changed."""
        self._entries.clear()


class Assembly(NamedTuple):
    """The store, the local tier in front of it, and the service that keeps that coherent."""

    store: Store
    entries: LocalEntries | None
    tracker: Tracker | None


def make_store(
    redis: str | RedisClient,
    space: KeySpace,
    room: WaitingRoom,
    *,
    local: LocalTier | None,
    required: bool,
    timeout: float,
    max_connections: int,
    clock: Clock,
) -> Assembly:
    """Makes the store; see `Cache` for the arguments.

    Raises:
        ConfigurationError: an argument cannot work.
        MissingExtra: `local` without the extra.
    """
    if local is not None and not isinstance(local, LocalTier):
        raise ConfigurationError(f"local must be a LocalTier, not {type(local).__name__} ({local!r})")
    if isinstance(redis, str) and redis.startswith("memory:"):
        if local is not None:
            raise ConfigurationError("local= is of no use to a cache that is in this process already")
        return Assembly(MemoryStore(clock=clock), None, None)
    inner = RedisStore(redis, timeout=timeout, max_connections=max_connections, clock=clock)
    everything = space.own_generations()
    if local is None:
        return Assembly(GuardedStore(inner, everything=everything[0], required=required), None, None)
    client = inner.client
    if not isinstance(client, Redis):
        raise ConfigurationError("local= needs a single Redis: changes of a cluster's nodes are not tracked yet")
    entries = LocalEntries(local, everything=everything, monotonic=clock.monotonic)
    store = TieredStore(inner, everything=everything[0], required=required, entries=entries)
    tracker = Tracker(client, space.tracked_prefixes(), Changes(entries, room), timeout=timeout)
    return Assembly(store, entries, tracker)
