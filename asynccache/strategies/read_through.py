"""Read-through: the cache loads from its source by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, Unpack, overload

from asynccache.policy import Duration
from asynccache.protocols import KeyValue, Loader, ManyLoader, Source
from asynccache.strategies.base import EntryOptions, found_only
from asynccache.strategies.scope import Host
from asynccache.strategies.sourced import Sourced
from asynccache.strategies.sources import AnySource, Loading, model_of

__all__ = ["ReadThrough"]

V = TypeVar("V")


class ReadThrough(Sourced[V]):
    """A cache in front of a source: ask it for a key, and it loads what it does not have.

    Args:
        cache: the cache, or a namespace of it.
        name: names the entity in keys.
        source: a `PostgresTable`, anything with `load_many(keys)`, an `async def load(key)`, or an
            `async def load_many(keys)`. Concurrent misses of a source with `load_many` share one call.
        type: what values are; taken from the source's model or return annotation if it has one.
        max_batch: most keys in one `load_many`.
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
        source: Source[V],
        type: Any = None,
        max_batch: int = 1000,
        **options: Unpack[EntryOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        source: ManyLoader[V],
        type: Any = None,
        max_batch: int = 1000,
        **options: Unpack[EntryOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        source: Loader[V],
        type: Any = None,
        max_batch: int = 1000,
        **options: Unpack[EntryOptions],
    ) -> None: ...
    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        source: AnySource[V],
        type: Any = None,
        max_batch: int = 1000,
        **options: Unpack[EntryOptions],
    ) -> None:
        super().__init__(cache, name, type=model_of(source) if type is None else type, parts=(source,), **options)
        self._loading = Loading(source, max_batch=max_batch)
        self._runtime.on_close(self._loading)

    async def get(self, key: KeyValue, *, ttl: Duration | None = None) -> V | None:
        """The value of one entity.

        Args:
            key: what addresses it.
            ttl: how long the entry is fresh, if it is loaded now.

        Returns:
            The value; None if it does not exist.

        Raises:
            InvalidKey: the key value does not fit the source.
            LoadTimeout: loading took longer than the policy allows.
            Whatever the source raises, such as `DatabaseUnavailable`.
        """
        return await self._get(key, self._loading.loader(key), ttl)

    async def get_many(self, keys: Iterable[Any]) -> dict[Any, V]:
        """The values of many entities, by key; what does not exist is left out.

        Hits cost one call to Redis, misses one to the source.
        """
        self._loading.expect_company()
        return found_only(await self._get_many(keys, self._loading.loader))

    async def refresh(self, key: KeyValue) -> V | None:
        """Loads now, whatever is cached."""
        return await self._refresh(key, self._loading.loader(key))
