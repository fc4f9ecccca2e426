"""Write-through: a put changes the database and the cache, or neither."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar, Unpack

from asynccache.errors import ConfigurationError, DatabaseUnavailable
from asynccache.policy import Duration
from asynccache.protocols import Applied, Batch, Delete, KeyValue, Put, Sink, Source
from asynccache.strategies.base import EntryOptions
from asynccache.strategies.filling import new_value
from asynccache.strategies.read_through import ReadThrough
from asynccache.strategies.scope import Host
from asynccache.strategies.verdicts import storable

__all__ = ["SourceAndSink", "WriteThrough"]

V = TypeVar("V")


class SourceAndSink(Source[V], Sink[V], Protocol[V]):
    """Loads and writes, as a `PostgresTable` does."""


class WriteThrough(ReadThrough[V]):
    """A cache that is written before the caller goes on, together with the database.

    The value cached is the row as the database holds it, defaults and generated columns included. Of two concurrent
    writers of one key neither value is cached, since only the database knows which came last; the next read loads it.

    Args:
        cache: the cache, or a namespace of it.
        name: names the entity in keys.
        source: a `PostgresTable`, or anything that is a `Source` and a `Sink`.
        type, max_batch, options: as for `ReadThrough`. What `admit` refuses is written, and not cached.

    Raises:
        MissingTTL: there is no TTL here nor in the cache.
        ConfigurationError: another argument cannot work.
    """

    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        source: SourceAndSink[V],
        type: Any = None,
        max_batch: int = 1000,
        **options: Unpack[EntryOptions],
    ) -> None:
        if not isinstance(source, Sink):
            raise ConfigurationError(
                f"WriteThrough {name!r}: source must also have `async def apply(batch)`, as a PostgresTable has;"
                f" {source.__class__.__name__} has not"
            )
        super().__init__(cache, name, source=source, type=type, max_batch=max_batch, **options)
        self._sink: Sink[V] = source

    async def put(self, key: KeyValue, value: V, *, ttl: Duration | None = None, tags: Iterable[str] = ()) -> V:
        """Writes one entity.

        Args:
            key: what addresses it.
            value: its new value.
            ttl: how long the cached entry is fresh.
            tags: tags to invalidate: lists and aggregates that the change may touch.

        Returns:
            The value as the database holds it.

        Raises:
            EncodeError, ValueTooLarge, InvalidKey: it cannot be cached; nothing was written.
            WriteRejected: the database refused it; nothing was written.
            DatabaseUnavailable: the outcome is unknown; the entry is emptied, so that reads show what became of it.
            StoreUnavailable: Redis cannot be told (with `on_outage="refuse"`); nothing was written.
        """
        return (await self.put_many({key: value}, ttl=ttl, tags=tags))[key]

    async def put_many(
        self, values: Mapping[Any, V], *, ttl: Duration | None = None, tags: Iterable[str] = ()
    ) -> dict[Any, V]:
        """Writes many entities in one transaction; all are written, or none. See `put`."""
        for value in values.values():
            self._recipe.codec.pack(value)  # what cannot be cached must not be half done
        stored = await self._apply([Put(key, value) for key, value in values.items()], ttl, tags)
        return {key: stored.get(key, value) for key, value in values.items()}

    async def delete(self, *keys: KeyValue, tags: Iterable[str] = ()) -> None:
        """Deletes entities in one transaction. See `put`."""
        await self._apply([Delete(key) for key in dict.fromkeys(keys)], None, tags)

    delete_many = delete

    async def _apply(self, writes: list[Put[V] | Delete], ttl: Duration | None, tags: Iterable[str]) -> Mapping[Any, V]:
        await self._prepare()
        if not writes:
            return {}
        recipe = self._recipe
        policy = recipe.policy.with_ttl(ttl)
        async with self._update([write.key for write in writes], tags) as update:
            cells = dict(zip(dict.fromkeys(write.key for write in writes), update.cells, strict=True))
            update.deleted = frozenset(cells[write.key] for write in writes if isinstance(write, Delete))
            generations = await self._generations_now(writes)
            applied = await self._bounded(Batch(writes))
            for write in writes:
                own = generations.get(write.key)
                if not isinstance(write, Put) or own is None:
                    continue
                cell, value = cells[write.key], applied.stored.get(write.key, write.value)
                # The database may have made of it what has other tags, of which nothing was read before the write.
                known = self._tags.late is None or own.keys() >= set(self._generations_of(write.key, value))
                if known and (recipe.admit is None or recipe.admit.admits_put(cell, value)):
                    packed = recipe.codec.pack(value)
                    update.values[cell] = new_value(recipe, packed, update.token, own, policy.life_ms())
        return applied.stored

    async def _bounded(self, batch: Batch[V]) -> Applied[V]:
        limit = self._runtime.writer.write_seconds
        try:
            async with asyncio.timeout(limit) as bound:
                return await self._sink.apply(batch)
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise DatabaseUnavailable(
                f"{self._name}: the write took longer than write_timeout={limit:g} s; whether it was done is unknown"
            ) from error

    async def _generations_now(self, writes: list[Put[V] | Delete]) -> dict[Any, dict[str, bytes | None]]:
        """The generations that the new entries carry, read before the database is changed; none for a key of which one
        is missing or being written: its entry is emptied instead."""
        wanted = {write.key: self._generations_of(write.key, write.value) for write in writes if isinstance(write, Put)}
        keys = list(dict.fromkeys(name for names in wanted.values() for name in names))
        found = await self._runtime.generations_now(keys)
        own = {key: {name: found[name] for name in names} for key, names in wanted.items()}
        return {key: generations for key, generations in own.items() if storable(generations)}
