"""The hot keys of a cache's strategies: counted in each process, merged in Redis.

Per strategy, under one hash tag:

    hot     sorted set  encoded key -> log2(weight) + time / half-life
    life    string      the half-life of these scores
    seen    string      one for each process: the number of its last call

Invariant: what a process has seen of a key is in the list at most once. Each call has a number, and carries what was
seen since the call before; a call whose answer was lost is repeated as it is, and is known by its number. What a crash
leaves behind: `seen`, which expires; what the process saw since its last call is lost with it.

A Redis that was emptied does not know the processes: it answers RESTART, and each sends all that it has seen. The same
happens to a process that could not reach Redis for 16 half-lives, when what it counts twice weighs next to nothing.
Heat is an estimate: a key that is cut off the list's end comes back with what one process has seen of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from asynccache.clock import Clock
from asynccache.codecs import codec_for
from asynccache.errors import DecodeError, EncodeError, StoreUnavailable
from asynccache.hot_keys.settings import HotKey, HotKeys
from asynccache.hot_keys.sketch import Share, Sketch
from asynccache.keys import KeySpace
from asynccache.stores.guarded import GuardedStore
from asynccache.stores.scripts import Argument, load_script
from asynccache.supervision import logger
from asynccache.tokens import new_token

__all__ = ["HotKeyLists", "HotList"]

# Each call of it is a command of its own, since it is long.
_MERGE: Final = load_script("merge", "asynccache.hot_keys", prelude=None)._replace(many=None)
_TOP: Final = load_script("top", "asynccache.hot_keys", prelude=None)._replace(many=None)
_RESTART: Final = 1
_KEPT: Final = 4
"""How many times a process's capacity Redis keeps: what is hot only in the sum must not be cut off."""
_LIST_MS: Final = 7 * 86_400_000
"""How long the list outlives the last share: a service that was off for the weekend finds it again."""
_HALF_LIVES: Final = 16
_RECENT: Final = 64
"""Lists that are kept although their strategy is gone."""
_LONGEST_KEY: Final = 1000
"""Bytes of an encoded key that is still shared."""


class _TellsTime(Protocol):
    def now_ms(self) -> int: ...


class HotList:
    """The hot keys of one strategy.

    Args:
        store: the cache's store. Without Redis the list is this process's alone.
        space, name: name the keys in Redis.
        settings: how keys are counted.
        clock: reads time.
    """

    def __init__(self, store: _TellsTime, space: KeySpace, name: str, settings: HotKeys, clock: Clock) -> None:
        self._store = store
        self._shared = store if isinstance(store, GuardedStore) else None
        self._settings = settings
        self._sketch = Sketch(settings.capacity, settings.half_life_seconds, clock)
        self._name = name
        self._keys = [space.hot(name, part) for part in ("hot", "life", f"seen.{new_token().hex()}")]
        self._codec = codec_for(Any)
        self._calls = 0
        self._waiting: Sequence[Argument] | None = None  # a call whose answer has not come
        self._lock = asyncio.Lock()
        self.count: Callable[[Any], None] = self._sketch.count
        """Counts one request; raises `InvalidKey` for what cannot be a key."""

    async def share(self) -> None:
        """Adds what was counted since the last time to the list in Redis.

        Raises:
            StoreUnavailable: no answer; it is repeated by the next share, and not counted twice.
        """
        if self._shared is None:
            return
        async with self._lock:
            if self._waiting is None:
                shares = self._sketch.share()
                if not shares:
                    return
                self._waiting = self._call(shares, full=self._calls == 0)
            if await self._shared.run(_MERGE, self._keys, self._waiting) == _RESTART:
                # The sketch knows more by now; what the refused call carried is a part of that.
                self._waiting = self._call(self._sketch.share(), full=True)
                await self._shared.run(_MERGE, self._keys, self._waiting)
            self._waiting = None

    def _call(self, shares: Sequence[Share], *, full: bool) -> Sequence[Argument]:
        settings = self._settings
        half_life_ms = int(settings.half_life_seconds * 1000)
        forget_ms = int(max(_HALF_LIVES * settings.half_life_seconds, 10 * settings.share_seconds) * 1000)
        self._calls += 1
        arguments: list[Argument] = [
            self._calls,
            int(full),
            self._store.now_ms(),
            half_life_ms,
            _KEPT * settings.capacity,
            max(_LIST_MS, forget_ms),
            forget_ms,
        ]
        for key, since, total in shares:
            member = self._encoded(key)
            if member is not None:
                arguments += (member, repr(since), repr(total))
        return arguments

    def _encoded(self, key: Any) -> bytes | None:
        try:
            member = self._codec.pack(key).payload
        except EncodeError:  # a key that no other process could be told of
            return None
        return member if len(member) <= _LONGEST_KEY else None

    async def top(self, most: int) -> list[HotKey]:
        """The hottest keys of all processes, hottest first; those of this process where there is no list, or no Redis.

        Args:
            most: how many at most.
        """
        found: list[HotKey] = []
        if self._shared is not None:
            try:
                reply: Any = await self._shared.run(_TOP, self._keys[:2], (most,))
                found = self._read(reply)
            except StoreUnavailable as error:
                logger.warning("the hot keys of %s are those of this process alone: %s", self._name, error)
        half_life = self._settings.half_life_seconds
        return found or [HotKey.of(key, weight, half_life) for key, weight, _ in self._sketch.top(most)]

    def _read(self, reply: Sequence[Any]) -> list[HotKey]:
        now_ms, life, *rest = reply
        half_life_ms = float(life or self._settings.half_life_seconds * 1000)
        found = []
        for member, score in zip(rest[::2], rest[1::2], strict=True):
            try:
                key = self._codec.unpack(member, False)
            except DecodeError:  # of a class that this process does not know
                continue
            weight = 2.0 ** max(-1000.0, min(float(score) - now_ms / half_life_ms, 1000.0))
            found.append(HotKey.of(key, weight, half_life_ms / 1000))
        return found

    def __repr__(self) -> str:
        return f"HotList({self._name!r}, {self._sketch!r})"


class HotKeyLists:
    """The lists of a cache's strategies, and the service that shares them.

    Lists live as long as a strategy that counts in them, and the last ones for longer: strategies made for each request
    are counted together, and leave a bounded number behind.

    Args:
        store: the cache's store.
        settings: how keys are counted.
        clock: reads time.
    """

    name: Final = "hot keys"

    def __init__(self, store: _TellsTime, settings: HotKeys, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._lists: WeakValueDictionary[str, HotList] = WeakValueDictionary()
        self._recent: OrderedDict[str, HotList] = OrderedDict()

    def list_of(self, space: KeySpace, name: str) -> HotList:
        """The list of one strategy; strategies of the same name share one."""
        where = space.hot(name, "hot")
        found = self._lists.get(where)
        if found is None:
            found = self._lists[where] = HotList(self._store, space, name, self._settings, self._clock)
        self._recent[where] = found
        self._recent.move_to_end(where)
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return found

    async def share(self) -> None:
        """Shares all lists once.

        Raises:
            StoreUnavailable: no answer; the next share makes up for it.
        """
        for one in list(self._lists.values()):
            await one.share()

    async def run(self, alive: Callable[[], None]) -> None:
        """Shares again and again. A Redis that is away is not this service's failure, and nothing is lost meanwhile."""
        alive()
        while True:
            # Not all processes of a deploy in the same moment.
            await asyncio.sleep(self._settings.share_seconds * random.uniform(0.75, 1.25))  # noqa: S311 - spreads load
            try:
                await self.share()
            except StoreUnavailable as error:
                logger.debug("hot keys were not shared: %s", error)
            alive()

    async def aclose(self) -> None:
        """Shares a last time, as far as Redis answers."""
        try:
            await self.share()
        except StoreUnavailable as error:
            logger.debug("hot keys were not shared at the end: %s", error)

    def __repr__(self) -> str:
        return f"HotKeyLists({len(self._lists)} strategies, {self._settings!r})"
