"""Write-behind: a put is acknowledged by Redis, and reaches the database in a batch soon after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from asynccache.errors import BufferFull, ConfigurationError, StoreUnavailable
from asynccache.keys import CellKey
from asynccache.policy import Duration, Policy, seconds
from asynccache.protocols import KeyValue, Sink, Source
from asynccache.strategies.base import Strategy, Tags, found_only
from asynccache.strategies.filling import new_value
from asynccache.strategies.runtime import Host
from asynccache.strategies.sources import AnySource, Loading, model_of
from asynccache.strategies.verdicts import storable
from asynccache.supervision import gather, logger
from asynccache.tokens import new_token
from asynccache.write_behind.buffer import Buffer, PartitionStatus, ScriptRunner
from asynccache.write_behind.flusher import Flusher, FlusherStats
from asynccache.write_behind.records import Records

__all__ = ["WriteBehind"]

V = TypeVar("V")


class WriteBehind(Strategy[V]):
    """A cache that takes writes at Redis' speed and flushes them into the database in batches.

    Until a write is flushed, it is what every process reads, after its cached value has expired, too. Each write
    reaches the database exactly once, also if the flusher is killed in the middle.

    Args:
        cache: the cache, or a namespace of it.
        name: names the entity in keys.
        sink: a `PostgresTable`, or anything with `async def apply(batch)` that remembers the ids of batches.
        source: loads what is neither cached nor pending; the sink itself if it can load.
        ttl, policy, type, tags: as for `ReadThrough`.
        flush_every: seconds between flushes: how far the database may lag behind.
        max_batch: most writes in one transaction.
        max_pending: most keys that may wait in Redis; beyond it `put` raises `BufferFull`.
        partitions: over how many hash slots of a Redis Cluster the buffer is spread; all processes must agree.
        drain: longest time that closing the cache waits for the last flush, in seconds; what is left stays in Redis.

    Raises:
        MissingTTL: there is no TTL here nor in the cache.
        ConfigurationError: another argument cannot work.
    """

    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        sink: Sink[V],
        source: AnySource[V] | None = None,
        ttl: Duration | None = None,
        policy: Policy | None = None,
        type: Any = None,
        tags: Tags = (),
        flush_every: Duration = 1.0,
        max_batch: int = 1000,
        max_pending: int = 1_000_000,
        partitions: int = 1,
        drain: Duration = 10.0,
    ) -> None:
        if not isinstance(sink, Sink):
            raise ConfigurationError(
                f"WriteBehind {name!r}: sink must have `async def apply(batch)`, as a PostgresTable has;"
                f" {sink.__class__.__name__} has not"
            )
        for what, count in (("max_batch", max_batch), ("max_pending", max_pending), ("partitions", partitions)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ConfigurationError(f"WriteBehind {name!r}: {what}={count!r} must be a positive int")
        if source is None and isinstance(sink, Source):
            source = sink
        super().__init__(
            cache,
            name,
            ttl=ttl,
            policy=policy,
            type=model_of(sink) if type is None else type,
            tags=tags,
            parts=(sink, source),
        )
        store: Any = self._runtime.store
        if not hasattr(store, "run"):
            raise ConfigurationError(f"WriteBehind {name!r} needs a cache in Redis; {store!r} cannot buffer writes")
        runner: ScriptRunner = store
        self._drain = seconds(drain, "drain")
        self._records: Records[V] = Records(self._recipe.codec)
        self._buffer = Buffer(runner, self._runtime.space, name, partitions=partitions, max_pending=max_pending)
        self._max_batch = max_batch
        self._source = None if source is None else Loading(source)
        self._loading: Loading[V] = Loading(self._load_many)
        self._flusher = Flusher(
            name,
            self._buffer,
            self._records,
            _Opened(sink, self),
            flush_every=seconds(flush_every, "flush_every", least=0.001, zero=False),
            max_batch=max_batch,
        )
        self._since_flush = 0
        self._runtime.on_close(self)
        self._runtime.serve(self._flusher)

    def key(self, key: KeyValue) -> CellKey:
        """The key in Redis of one entity's readable value; it shares a hash slot with its partition's buffer."""
        return self._buffer.cell(key)

    async def get(self, key: KeyValue, *, ttl: Duration | None = None) -> V | None:
        """The value of one entity as last put by anybody, flushed or not; None if it does not exist."""
        return await self._get(key, self._loading.loader(key), ttl)

    async def get_many(self, keys: Iterable[Any]) -> dict[Any, V]:
        """The values of many entities, by key; what does not exist is left out."""
        self._loading.expect_company()
        return found_only(await self._get_many(keys, self._loading.loader))

    async def refresh(self, key: KeyValue) -> V | None:
        """Reads what pends, or the database, whatever is cached."""
        return await self._refresh(key, self._loading.loader(key))

    async def put(self, key: KeyValue, value: V, *, ttl: Duration | None = None) -> None:
        """Writes one entity; returns once Redis has it.

        Args:
            key: what addresses it.
            value: its new value.
            ttl: how long the cached entry is fresh. The pending write does not expire.

        Raises:
            EncodeError, ValueTooLarge, InvalidKey: it cannot be written; nothing was.
            BufferFull: too much waits for the database; nothing was written.
            StoreUnavailable: Redis did not acknowledge it; whether it was written is unknown.
        """
        await self._prepare()
        cell = self._cell(key)
        recipe = self._recipe
        packed = recipe.codec.pack(value)
        names = self._generations(key)
        generations = await self._runtime.generations_now(names)
        readable = None
        if storable(generations):
            life = recipe.policy.with_ttl(ttl).life_ms()
            readable = new_value(recipe, packed, new_token(), generations, life)
        await self._write(cell, key, self._records.put(key, packed), readable)

    async def put_many(self, values: Mapping[Any, V], *, ttl: Duration | None = None) -> None:
        """Writes many entities; each is acknowledged by itself. See `put`."""
        await gather(self.put(key, value, ttl=ttl) for key, value in values.items())

    async def delete(self, *keys: KeyValue) -> None:
        """Deletes entities; returns once Redis has it. Until it is flushed, all processes read None. See `put`."""
        await self._prepare()
        cells = [(self._cell(key), key) for key in dict.fromkeys(keys)]
        await gather(self._write(cell, key, self._records.delete(key), None) for cell, key in cells)

    async def flush(self) -> None:
        """Flushes all that pends now, and waits until the database has it.

        Raises:
            StoreUnavailable, DatabaseUnavailable: not all could be flushed; nothing is lost.
            WriteRejected: the database refused a row.
        """
        await self._prepare()
        await self._flusher.flush()

    async def pending(self) -> tuple[PartitionStatus, ...]:
        """How much waits for the database, by partition."""
        await self._prepare()
        return tuple([await self._buffer.status(number) for number in range(self._buffer.partitions)])

    @property
    def flushed(self) -> FlusherStats:
        """What this process has flushed."""
        return self._flusher.stats

    async def aclose(self) -> None:
        """Flushes what pends until `drain` seconds are over, and says what is left. Called when the cache closes."""
        await self._loading.aclose()
        if self._source is not None:
            await self._source.aclose()
        if not self._runtime.background:
            return
        left = await self._flusher.drain(self._drain)
        if left:
            count = "an unknown number of" if left < 0 else str(left)
            logger.warning("%r closed with %s writes not flushed; they are safe in Redis", self, count)

    async def _write(self, cell: CellKey, key: KeyValue, record: bytes, readable: Any) -> None:
        del cell  # checked by making it; the buffer names it itself
        try:
            done = await self._buffer.write(key, record, readable)
        except StoreUnavailable:
            self._runtime.counters.store_failures += 1
            raise
        if not done:
            raise BufferFull(
                f"{self!r}: max_pending keys wait for the database; it is down, or slower than what is written"
            )
        self._runtime.counters.writes += 1
        self._since_flush += 1
        if self._since_flush >= self._max_batch:
            self._since_flush = 0
            self._flusher.wake()

    async def _load_many(self, keys: Sequence[Any]) -> dict[Any, V]:
        """What pends or is frozen, else what the database has.

        In this order: a batch is acknowledged only after the database has it, so what is in neither is in the database.
        """
        records = await self._buffer.find(keys)
        values = {key: self._records.value(record) for key, record in records.items()}
        rest = [key for key in keys if key not in values]
        if rest and self._source is not None:
            values.update(await self._source.load_many(rest))
        return found_only(values)


class _Opened:
    """The sink, opened before its first use by whoever comes first: a caller, or the flusher."""

    def __init__(self, sink: Sink[Any], strategy: WriteBehind[Any]) -> None:
        self._sink = sink
        self._strategy = strategy

    async def apply(self, batch: Any) -> Any:
        await self._strategy._open_parts()  # noqa: SLF001 - a part of it; also while the cache closes
        return await self._sink.apply(batch)
