"""Cache-aside: the application loads, and the application writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from asynccache.policy import Duration
from asynccache.protocols import KeyValue
from asynccache.strategies.base import EntryOptions, Strategy, found_only, loader_for
from asynccache.strategies.loading import Load
from asynccache.strategies.scope import Host
from asynccache.strategies.warm_reports import WarmKeys, WarmOptions
from asynccache.strategies.warming import Warming
from asynccache.strategies.writing import Update

__all__ = ["CacheAside"]

V = TypeVar("V")


class CacheAside(Strategy[V]):
    """A cache beside the database: reads load what is missing, writes tell the cache what they change.

    Args:
        cache: the cache, or a namespace of it.
        name: names the entity in keys.
        type: what values are (dataclass, Struct, pydantic model, TypedDict, or any msgspec type); they come back as
            that. None takes any value and remembers its type.
        options: `ttl`, `policy`, `tags`, `version`, `upgrade`, `admit`, `max_value_bytes`; see
            `EntryOptions`.

    Raises:
        MissingTTL: there is no TTL here nor in the cache.
        ConfigurationError: another argument cannot work.
    """

    @overload
    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        type: type[V],
        **options: Unpack[EntryOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CacheAside[Any],
        cache: Host,
        name: str,
        *,
        type: Any = None,
        **options: Unpack[EntryOptions],
    ) -> None: ...
    def __init__(self, cache: Host, name: str, *, type: Any = None, **options: Unpack[EntryOptions]) -> None:
        super().__init__(cache, name, type=type, **options)

    async def get(
        self, key: KeyValue, load: Callable[..., Awaitable[V | None]], *, ttl: Duration | None = None
    ) -> V | None:
        """The value of one entity.

        Args:
            key: what addresses it.
            load: `async def load(key)`, called if it is not cached; with a parameter `ctx` it is told of its chances.
            ttl: how long the entry is fresh, if it is loaded now.

        Returns:
            The value; None if the loader says that it does not exist.

        Raises:
            InvalidKey: the value cannot be part of a key.
            LoadTimeout: loading took longer than the policy allows.
            Whatever `load` raises.
        """
        return await self._get(key, loader_for(load, key), ttl)

    async def get_many(self, keys: Iterable[Any], load: Callable[..., Awaitable[V | None]]) -> dict[Any, V]:
        """The values of many entities, by key; what does not exist is left out. Hits cost one call to Redis."""
        return found_only(await self._get_many(keys, lambda key: loader_for(load, key)))

    async def refresh(self, key: KeyValue, load: Callable[..., Awaitable[V | None]]) -> V | None:
        """Loads now, whatever is cached."""
        return await self._refresh(key, loader_for(load, key))

    def warm(
        self, keys: WarmKeys, load: Callable[..., Awaitable[V | None]], **options: Unpack[WarmOptions]
    ) -> Warming[V]:
        """Loads what is not fresh of these keys: `report = await users.warm(ids, load=fetch_user, rate=1000)`.

        It reads as everybody does, so it never replaces newer data, and never repeats a load that another process has
        begun. It stops, with a report, where Redis does not answer, or where loading fails again and again.

        Args:
            keys: an iterable of key values, or an async one; it may be endless, and is never read far ahead.
            load: `async def load(key)`; `concurrency` of them run at once.
            options: `concurrency`, `rate`, `batch`, `progress`, `resume`, `refresh`, `max_failures`; see `WarmOptions`.

        Returns:
            What is awaited for a `WarmReport`; its `stop()` ends it early.

        Raises:
            ConfigurationError: an argument cannot work.
            MissingExtra: `progress=True` without the extra `cli`.
        """
        return self._warming(keys, self._loader(load), options)

    def warm_hot(
        self, load: Callable[..., Awaitable[V | None]], top: int = 1000, **options: Unpack[WarmOptions]
    ) -> Warming[V]:
        """Warms the keys that were asked for most, hottest first (with `Cache(hot_keys=HotKeys())`): as all processes
        have counted them, or this one where Redis has nothing.

        Args:
            load: as for `warm`.
            top: how many at most.
            options: as for `warm`.

        Raises:
            ConfigurationError: the cache does not count requests, or another argument cannot work.
        """
        return self._warming(self._hot_keys(top), self._loader(load), options, owned=True)

    @staticmethod
    def _loader(load: Callable[..., Awaitable[V | None]]) -> Callable[[Any], Load[V]]:
        loader_for(load, None)  # checks it before anything is done
        return partial(loader_for, load)

    def updating(self, *keys: KeyValue, tags: Iterable[str] = ()) -> Update:
        """Wraps a write: `async with users.updating(42): await db.execute("UPDATE ...")`.

        While inside, other readers go to the database; after it, nobody reads anything older from the cache, whatever
        was being loaded meanwhile. If the body raises, the entries are emptied all the same. Inside of a transaction
        opened with `asynccache.postgres.transaction(...)` it ends after the COMMIT.

        Args:
            keys: the entities that the body changes.
            tags: tags to invalidate: lists and aggregates that the change may touch.

        Raises:
            StoreUnavailable: Redis cannot be told (with `on_outage="refuse"`); the body has not run.
        """
        self._runtime.check()
        return self._update(keys, tags, deferred=True)
