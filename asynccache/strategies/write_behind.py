"""Write-behind: a put is acknowledged by Redis, and reaches the database in a batch soon after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, Unpack

from asynccache.errors import ConfigurationError
from asynccache.keys import CellKey
from asynccache.policy import Duration, seconds
from asynccache.protocols import Batch, KeyValue, Number, Sink, Source
from asynccache.strategies.base import EntryOptions, found_only
from asynccache.strategies.buffered_reads import BufferedReads
from asynccache.strategies.buffering import Buffering, Letters, MarkedSink, OpenedSink, Receipt, check_arguments
from asynccache.strategies.explaining import Explanation
from asynccache.strategies.putting import PutOps
from asynccache.strategies.runtime import BufferHealth
from asynccache.strategies.scope import Host
from asynccache.strategies.sourced import Sourced
from asynccache.strategies.sources import AnySource, Loading, model_of
from asynccache.supervision import logger
from asynccache.write_behind.buffer import PartitionStatus
from asynccache.write_behind.flusher import Flusher, FlusherStats
from asynccache.write_behind.lane import Written
from asynccache.write_behind.layout import Op
from asynccache.write_behind.overflow import OnFull, Overflow
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows
from asynccache.write_behind.safety import Durability, Unsafe

__all__ = ["WriteBehind"]

V = TypeVar("V")

PARTITIONS: Final = 16
"""Over how many parts a buffer is spread where nobody says otherwise."""


class WriteBehind(Sourced[V]):
    """A cache that takes writes at Redis' speed and flushes them into the database in batches.

    Until a write is flushed, it is what every process reads, after its cached value has expired, too. Each write
    reaches the database exactly once, also if the flusher is killed in the middle.

    Args:
        cache: the cache, or a namespace of it.
        name: names the entity in keys.
        sink: a `PostgresTable`, or anything with `async def apply(batch)` that remembers the ids of batches.
        source: loads what is neither cached nor pending; the sink itself if it can load.
        type: as for `ReadThrough`.
        defaults: for `increment`, `maximum` and `minimum` of a key without a row: the fields that have no default in
            the model, as a mapping, or a function from the key to a whole row.
        flush_every: how long a write waits at most before it is flushed, in seconds.
        max_batch: most writes in one transaction, or, behind, five times as many; so many are flushed sooner.
        max_batch_bytes: most bytes of one batch, unless one write alone is larger.
        max_pending: most keys that may wait, by partition.
        on_full: what a write beyond that does: "wait" for room, "raise" `BufferFull`, or "write_through": change the
            database itself.
        full_timeout: the longest such a wait, in seconds; then `BufferFull` is raised.
        partitions: over how many parts the buffer is spread, which workers share; all processes must agree.
        at_once: how many partitions one process flushes at the same time, each over a connection of its own.
        durability: what holds when a write returns. "memory": this process has it, and alone reads it until it has
            flushed it; "redis": Redis has it; "fsync": its append-only file has it on disk (`WAITAOF`, Redis 7.2 or
            Valkey); "replicated": `replicas` replicas have it, too.
        replicas: for "replicated".
        unsafe: what happens if Redis may lose writes (an `allkeys-...` eviction policy, no append-only file for
            "fsync", too few replicas): "refuse" them, "warn", or "allow".
        confirm_timeout: the longest wait for disks and replicas, in seconds; then `DurabilityNotReached` is raised.
        lease: seconds after which other workers take over from one that was killed.
        keep_batch_ids: how long the database remembers its batches; longer than any worker may be stopped.
        drain: longest time that closing the cache waits for the last flush, in seconds; what is left stays in Redis.
        options: see `EntryOptions`; as `version` only a `VersionCounter()`. What `admit` refuses is written anyway.

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
        type: Any = None,
        defaults: Mapping[str, Any] | Callable[[Any], V] | None = None,
        flush_every: Duration = 1.0,
        max_batch: int = 1000,
        max_batch_bytes: int = 8 * 1024 * 1024,
        max_pending: int = 1_000_000,
        on_full: OnFull = "wait",
        full_timeout: Duration = 10.0,
        partitions: int = PARTITIONS,
        at_once: int = 4,
        durability: Durability = "redis",
        replicas: int = 1,
        unsafe: Unsafe = "refuse",
        confirm_timeout: Duration = 5.0,
        lease: Duration = 5.0,
        keep_batch_ids: Duration = 7 * 86_400,
        drain: Duration = 10.0,
        **options: Unpack[EntryOptions],
    ) -> None:
        where = f"WriteBehind {name!r}"
        check_arguments(
            where,
            sink,
            on_full,
            options.get("version"),
            max_batch=max_batch,
            max_batch_bytes=max_batch_bytes,
            max_pending=max_pending,
            partitions=partitions,
            at_once=at_once,
            replicas=replicas,
        )
        source = sink if source is None and isinstance(sink, Source) else source
        super().__init__(cache, name, type=model_of(sink) if type is None else type, parts=(sink, source), **options)
        self._sink = sink
        self._drain = seconds(drain, "drain")
        rows: Rows[V] = Rows(self._recipe.codec.type, defaults, key=getattr(sink, "key_fields", ()))
        self._records: Records[V] = Records(self._recipe.codec, rows, self._recipe.upgrades)
        self._buffering = Buffering(
            self._scope,
            name,
            partitions=partitions,
            max_pending=max_pending,
            spread_above=max_batch,
            durability=durability,
            replicas=replicas,
            unsafe=unsafe,
            confirm_timeout=seconds(confirm_timeout, "confirm_timeout"),
        )
        self._buffer = self._buffering.buffer
        self._runtime.adopt(self._buffering)
        self._parts = (*self._parts, self._buffering)
        self._reads = BufferedReads(self._runtime, self._recipe, self._buffer, self._records, source, self._hot)
        self._loading: Loading[V] = self._reads.loading
        self._overlay = self._reads.overlay
        self._letters = Letters(self._prepare, sink, self.origin, self._records.write, self._readers_forget)
        opened: Sink[V] = OpenedSink(sink, self._open_parts)
        self._flusher: Flusher[V] = Flusher(
            self.origin,
            self._buffer,
            self._records,
            opened if self._overlay is None else MarkedSink(opened, self._runtime.writer, self.key),
            flush_every=seconds(flush_every, "flush_every", least=0.001, zero=False),
            max_batch=max_batch,
            max_batch_bytes=max_batch_bytes,
            at_once=at_once,
            claims=self._buffering.claims,
            lease=seconds(lease, "lease", least=0.5, zero=False),
            on_rejected=self._readers_forget,
            prune=getattr(sink, "prune", None),
            keep_ids=seconds(keep_batch_ids, "keep_batch_ids", least=60, zero=False),
            dead_letters=self._letters.kept,
            clock=self._runtime.clock,
        )
        self._overflow = Overflow(
            where,
            self._buffer,
            on_full=on_full,
            patience=seconds(full_timeout, "full_timeout"),
            wake=self._flusher.wake,
            write_through=self._write_through,
            clock=self._runtime.clock,
        )
        self._same_names = self._fixed if self._tags.late is None else None
        self._puts = PutOps(self._runtime, self._recipe, self._records, self.key)
        self._buffering.letters = self._letters.kept
        self._runtime.reports.append(self._health)
        self._runtime.on_close(self)
        self._runtime.serve(self._buffering.watch, always=True)
        self._runtime.serve(self._flusher, always=durability == "memory")

    # -- reading

    def key(self, key: KeyValue) -> CellKey:
        """The key in Redis of one entity's readable value; it shares a hash slot with its partition's buffer."""
        return self._buffer.cell(key)

    async def key_now(self, key: KeyValue) -> CellKey:
        return self.key(key)

    async def get(self, key: KeyValue, *, ttl: Duration | None = None) -> V | None:
        """The value of one entity with all writes by anybody, flushed or not; None if it does not exist."""
        if self._overlay is None:
            return await self._get(key, self._loading.loader(key), ttl)
        return await self._overlay.get(key, lambda: self._get(key, self._loading.loader(key), ttl))

    async def get_many(self, keys: Iterable[Any]) -> dict[Any, V]:
        """The values of many entities, by key; what does not exist is left out."""
        below = self._below_many
        return found_only(await (below(keys) if self._overlay is None else self._overlay.get_many(keys, below)))

    async def refresh(self, key: KeyValue) -> V | None:
        """Reads what pends and the database, whatever is cached."""
        below = partial(self._refresh, key, self._loading.loader(key))
        return await (below() if self._overlay is None else self._overlay.get(key, below, counted=False))

    async def explain(self, key: KeyValue) -> Explanation:
        self._runtime.check()
        above = None if self._overlay is None else self._overlay.explain(key)
        return await super().explain(key) if above is None else above

    # -- writing

    async def put(self, key: KeyValue, value: V, *, ttl: Duration | None = None) -> Receipt:
        """Writes one entity; returns once what `durability` says holds.

        Args:
            key: what addresses it.
            value: its new value.
            ttl: how long the cached entry is fresh. The pending write does not expire.

        Returns:
            What holds now.

        Raises:
            EncodeError, ValueTooLarge, InvalidKey: it cannot be written; nothing was.
            BufferFull: too much waits for the database; nothing was written.
            StoreUnavailable: Redis did not acknowledge it; whether it was written is unknown.
            DurabilityNotReached: it is buffered, but fewer disks or replicas confirmed it than asked.
        """
        if not self._ready:
            await self._prepare()
        if not self._runtime.usable:
            raise self._runtime.refusal()
        packed = self._recipe.codec.pack(value)
        for check in self._checks:
            check(key)
        names = self._same_names or self._generations_of(key, value)
        if self._overlay is not None:  # no cell shows it before the database has it
            op = self._puts.op_without_cell(key, packed, ttl)
        else:
            seen = self._puts.recent(names) or await self._puts.read(names)
            op = self._puts.op(key, value, packed, seen, ttl)
        self._buffering.refuse_unsafe()
        written = await self._buffer.apply_one(op)
        return self._taken(written) or await self._settled(op, written)

    async def put_many(self, values: Mapping[Any, V], *, ttl: Duration | None = None) -> Receipt:
        """Writes many entities, each for itself: after an error some may have been written. See `put`."""
        await self._prepare()
        pack = self._recipe.codec.pack
        packed = []
        for key, value in values.items():
            self._cell(key)  # checks the key
            packed.append((key, value, pack(value), self._generations_of(key, value)))
        if self._overlay is None:
            return await self._apply(await self._puts.many(packed, ttl))
        return await self._apply([self._puts.op_without_cell(key, one, ttl) for key, _, one, _ in packed])

    async def delete(self, *keys: KeyValue) -> Receipt:
        """Deletes entities; until it is flushed, all processes read None. Returns and raises as `put`."""
        await self._prepare()
        for key in keys:
            self._cell(key)
        return await self._apply([self._records.delete_op(key) for key in dict.fromkeys(keys)])

    async def increment(self, key: KeyValue, /, **columns: Number) -> Receipt:
        """Adds to numeric columns of one entity; negative amounts subtract. Combined with other writes of the key.

        A key without a row begins with one of `defaults`, and a NULL with the default of its column. Calls that were
        not acknowledged are never counted twice.

        Args:
            key: what addresses the entity.
            columns: the amounts, by field of the model: ints and Decimals (up to nine decimals) are added exactly.

        Returns and raises as `put`; and
            ConfigurationError: no such column, or an amount that does not fit it; nothing was written.
            WriteRejected: the sum of what pends would leave the range that can be buffered exactly.
        """
        return await self._adjust(self._records.increment_op, key, columns)

    async def maximum(self, key: KeyValue, /, **columns: Number) -> Receipt:
        """Raises numeric columns to at least these values. See `increment`."""
        return await self._adjust(self._records.maximum_op, key, columns)

    async def minimum(self, key: KeyValue, /, **columns: Number) -> Receipt:
        """Lowers numeric columns to at most these values. See `increment`."""
        return await self._adjust(self._records.minimum_op, key, columns)

    async def append(self, *values: V) -> Receipt:
        """Inserts rows whose keys the database makes, or the values hold; they are not cached. Returns and raises as
        `put`."""
        await self._prepare()
        return await self._apply([self._records.append_op(self._recipe.codec.pack(value)) for value in values])

    # -- flushing

    async def flush(self) -> None:
        """Flushes all that pends now, whoever owns it, and waits until the database has it.

        Raises:
            StoreUnavailable, DatabaseUnavailable: not all could be flushed; nothing is lost.
        """
        await self._prepare()
        await self._flusher.flush()

    def pause(self) -> None:
        """Flushes nothing more in this process, until `resume`; what is written waits in Redis."""
        self._flusher.pause()

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._flusher.resume()

    async def pending(self) -> tuple[PartitionStatus, ...]:
        """How much waits for the database, by partition."""
        await self._prepare()
        return tuple([await self._buffer.status(number) for number in range(self._buffer.partitions)])

    @property
    def flushed(self) -> FlusherStats:
        """What this process has flushed."""
        return self._flusher.stats

    @property
    def dead_letters(self) -> Letters:
        """The writes of this strategy that the database refused: list, show, retry, drop.

        Raises:
            ConfigurationError: the sink keeps none.
        """
        self._letters.check()
        return self._letters

    async def aclose(self) -> None:
        """Flushes what pends until `drain` seconds are over, and says what is left. Called when the cache closes."""
        await self._reads.aclose()
        if not self._runtime.background and self._buffering.durability != "memory":
            return
        left = await self._flusher.drain(self._drain)
        if left:
            count = "an unknown number of" if left < 0 else str(left)
            logger.warning("%r closed with %s writes not flushed; %s", self, count, self._buffering.fate)

    # -- inside

    def _health(self) -> BufferHealth:
        stats = self._flusher.stats
        return self._buffering.health(ok=self._flusher.ok, lag=stats.lag, error=stats.last_error)

    async def _adjust(
        self, make: Callable[[Any, Mapping[str, Number]], Op], key: KeyValue, columns: Mapping[str, Number]
    ) -> Receipt:
        await self._prepare()
        for check in self._checks:
            check(key)
        if not self._reads.adjustable:
            raise ConfigurationError(
                f"{self!r}: numbers can only be adjusted where a row can be read together with the ids of applied"
                " batches: give a source with `async def load_exact(keys, batch_ids)`, as a PostgresTable has"
            )
        op = make(key, columns)
        self._buffering.refuse_unsafe()
        written = await self._buffer.apply_one(op)
        return self._taken(written) or await self._settled(op, written)

    def _taken(self, written: Written) -> Receipt | None:
        receipt = self._buffering.plain_receipt(written)
        if receipt is not None:
            self._count(1)
        return receipt

    async def _settled(self, op: Op, one: Written) -> Receipt:
        written = [one]
        through = await self._overflow.settle((op,), written)
        self._count(1)
        return self._buffering.receipt((op,), written, through)

    def _count(self, writes: int) -> None:
        self._runtime.counters.writes += writes
        self._flusher.expect(writes)

    async def _apply(self, ops: Sequence[Op]) -> Receipt:
        self._buffering.refuse_unsafe()
        written, through = await self._overflow.apply(ops)
        self._count(len(ops))
        return self._buffering.receipt(ops, written, through)

    async def _write_through(self, op: Op) -> None:
        cells = [] if op.key is None else [self._cell(op.key)]
        async with self._runtime.writer.update(cells):
            await self._sink.apply(Batch([self._records.write(op.record())]))
            # Before it returns: a read that begins then must not answer from what it saw earlier, nor from a batch that
            # was frozen meanwhile, which the database has or had before this.
            if op.key is not None and await self._buffer.overtake(op.key):
                await self._flusher.flush()

    async def _readers_forget(self, keys: Sequence[Any]) -> None:
        await self._runtime.writer.invalidate([self._cell(key) for key in keys if key is not None])

    async def _below_many(self, keys: Iterable[Any]) -> dict[Any, V | None]:
        self._loading.expect_company()
        return await self._get_many(keys, self._loading.loader)
