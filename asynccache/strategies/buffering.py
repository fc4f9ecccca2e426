"""The parts of a write-behind strategy: its buffer with a life and a watch, receipts, dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from redis.asyncio import RedisCluster

from asynccache.errors import ConfigurationError, DatabaseUnavailable, DurabilityNotReached, StoreUnavailable
from asynccache.keys import CellKey
from asynccache.protocols import Applied, Batch, DeadLetter, DeadLetters, KeepsDeadLetters, Puts, Retried, Sink, Write
from asynccache.stores.guarded import GuardedStore
from asynccache.strategies.runtime import BufferHealth
from asynccache.strategies.scope import Scope
from asynccache.strategies.versions import VersionCounter
from asynccache.strategies.writing import Writer
from asynccache.supervision import logger
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.lane import Outcome, Written
from asynccache.write_behind.layout import Op
from asynccache.write_behind.memory_buffer import MemoryBuffer
from asynccache.write_behind.overflow import OnFull
from asynccache.write_behind.ownership import Claims, RedisClaims
from asynccache.write_behind.safety import Durability, Safety, Unsafe, check_settings

__all__ = ["Buffering", "Letters", "MarkedSink", "OpenedSink", "Receipt", "check_arguments"]

_LOOK_SECONDS: Final = 30.0
_RECORDED: Final = {"P": "put", "D": "delete", "I": "increment"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What holds after a write-behind write.

    Attributes:
        durability: what was asked for, and holds: "memory", "redis", "fsync" or "replicated".
        confirmed: how many disks or replicas confirmed it beside Redis' own memory.
        pending: how many keys wait in the fullest of the partitions that were written to.
        written_through: how many of the writes went to the database at once, because the buffer was full.
    """

    durability: Durability
    confirmed: int
    pending: int
    written_through: int = 0


def check_arguments(where: str, sink: object, on_full: object, version: object, **counts: object) -> None:
    """Raises `ConfigurationError` for an argument that cannot work; `counts` must be positive ints."""
    if not isinstance(sink, Sink):
        raise ConfigurationError(
            f"{where}: sink must have `async def apply(batch)`, as a PostgresTable has; {sink.__class__.__name__} has"
            " not"
        )
    if on_full not in get_args(OnFull):
        raise ConfigurationError(f"{where}: on_full={on_full!r} must be 'wait', 'raise' or 'write_through'")
    if version is not None and not isinstance(version, VersionCounter):
        raise ConfigurationError(
            f"{where}: version must be a VersionCounter(): what pends is read under one key, whatever its version;"
            " to leave entries behind give the strategy another name"
        )
    for what, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigurationError(f"{where}: {what}={count!r} must be a positive int")


class Buffering:
    """The buffer of one strategy: opened and closed with the cache, and looked after while it is open.

    Args:
        scope: the namespace that it is in.
        name: the strategy's name.
        partitions, max_pending, durability, replicas, unsafe, confirm_timeout: see `WriteBehind`.
        spread_above: see `Buffer`.

    Attributes:
        buffer: where writes wait.
        claims: where workers share the partitions; None if this process has all.
        watch: the service that looks after the buffer.
        letters: where the dead letters are, to be counted.
        dead_letters: how many there were at the last look.
        durability: what a write waits for.
    """

    def __init__(
        self,
        scope: Scope,
        name: str,
        *,
        partitions: int,
        max_pending: int,
        spread_above: int,
        durability: Durability,
        replicas: int,
        unsafe: Unsafe,
        confirm_timeout: float,
    ) -> None:
        runtime, space = scope.runtime, scope.space
        store: Any = runtime.store
        where = f"WriteBehind {name!r}"
        check_settings(where, durability, unsafe)
        self._where = where
        self._name = f"{scope.where}{name}"
        self._runtime = runtime
        self.durability = durability
        self.claims: Claims | None = None
        self.buffer: Buffer | MemoryBuffer
        self._safety: Safety | None = None
        self._last: Receipt | None = None
        if durability == "memory":
            self.buffer = MemoryBuffer(space, name, partitions=partitions, max_pending=max_pending, clock=runtime.clock)
        else:
            if not isinstance(store, GuardedStore):
                raise ConfigurationError(
                    f"{where} needs a cache in Redis; {store!r} cannot buffer writes: use durability='memory'"
                    " or a Redis URL"
                )
            self._safety = Safety(
                where,
                store,
                space.buffer(name, 0, "confirm"),
                durability=durability,
                replicas=replicas,
                unsafe=unsafe,
                patience=confirm_timeout,
                clock=runtime.clock,
            )
            self.buffer = Buffer(
                store,
                space,
                name,
                partitions=partitions,
                max_pending=max_pending,
                spread_above=spread_above,
                together=not isinstance(store.inner.client, RedisCluster),
                send=self._safety.send if durability != "redis" else None,
            )
            self.claims = RedisClaims(store, space, name)
        self._wanted = 0 if self._safety is None else self._safety.wanted
        self.letters: DeadLetters | None = None
        self.dead_letters: int | None = None
        self.watch = _Watch(f"buffer:{self._name}", self.look)

    async def open(self) -> None:
        """Checks that Redis holds what this process takes for granted.

        Raises:
            ConfigurationError: another number of partitions, or (with `unsafe="refuse"`) a Redis that may lose writes.
            StoreUnavailable: no answer, and the cache requires one.
        """
        try:
            await self.buffer.open()
            if self._safety is not None:
                await self._safety.check()
        except StoreUnavailable as error:
            guard = self._runtime.guard
            if guard is None or guard.required:
                raise
            logger.warning("%s: Redis was not checked yet: %s", self._where, error)

    async def aclose(self) -> None:
        """Answers everybody who writes."""
        await self.buffer.aclose()

    async def look(self) -> None:
        """Looks whether Redis still has the buffer, and may keep it.

        Raises:
            StoreUnavailable: no answer.
        """
        if not await self.buffer.check():
            logger.error(
                "%s: Redis has lost its data: writes that were acknowledged and not flushed are gone", self._where
            )
        if self._safety is not None:
            try:
                await self._safety.check()
            except ConfigurationError as error:
                logger.error("%s; writes are refused", error)
        if self.letters is not None and self._runtime.background:
            try:
                self.dead_letters = await self.letters.count(self._name)
            except DatabaseUnavailable as error:
                logger.info("%s: dead letters were not counted: %s", self._where, error)

    def health(self, *, ok: bool, lag: float, error: str | None) -> BufferHealth:
        """How the strategy is, with what its flusher says."""
        problem = None if self._safety is None else self._safety.problem
        return BufferHealth(
            self._name,
            ok and problem is None,
            lag,
            self.dead_letters,
            self.buffer.losses,
            problem or (None if ok else error),
        )

    @property
    def fate(self) -> str:
        """What becomes of writes that were not flushed when the cache closed."""
        return "they are safe in Redis" if self._safety is not None else "what the database has not is lost"

    def refuse_unsafe(self) -> None:
        """Raises if Redis was last seen in a state in which it may lose writes, and that is not to be risked.

        Raises:
            DurabilityNotReached: nothing was written.
        """
        if self._safety is not None and (problem := self._safety.problem) is not None:
            raise DurabilityNotReached(problem)

    def plain_receipt(self, written: Written) -> Receipt | None:
        """What holds for one write, in the usual case; None if it was not taken, or `receipt` has more to do."""
        if written.outcome is not Outcome.ACCEPTED or self._wanted or self._runtime.recorder is not None:
            return None
        return self._plain(written.pending)

    def _plain(self, pending: int) -> Receipt:
        # Who wrote to the same partition at the same time gets the same one.
        if self._last is None or self._last.pending != pending:
            self._last = Receipt(self.durability, 0, pending)
        return self._last

    def receipt(self, ops: Sequence[Op], written: Sequence[Written], through: int) -> Receipt:
        """What holds for writes that were taken; records them if the cache records.

        Raises:
            DurabilityNotReached: fewer disks or replicas confirmed them than asked.
        """
        recorder = self._runtime.recorder
        if recorder is not None and not through:  # else the writes of the database recorded themselves
            at = recorder.now()
            for op in ops:
                if op.key is not None:
                    recorder.record(_RECORDED[op.kind], self.buffer.cell(op.key), at)
        wanted = self._wanted
        if len(written) == 1 and not wanted and not through:
            return self._plain(written[0].pending)
        confirmed = min((one.confirmed for one in written), default=0)
        if len(written) > through and confirmed < wanted:
            raise DurabilityNotReached(
                f"{self._where}: the write is buffered in Redis, but {confirmed} of {wanted} confirmed it in time"
                f" (durability={self.durability!r})"
            )
        pending = max((one.pending for one in written), default=0)
        return Receipt(self.durability, confirmed, pending, through)

    def __repr__(self) -> str:
        return f"Buffering({self.buffer!r}, {self.durability!r})"


class _Watch:
    """Looks after a buffer every so often."""

    def __init__(self, name: str, look: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._look = look

    @property
    def name(self) -> str:
        return self._name

    async def run(self, alive: Callable[[], None]) -> None:
        while True:
            try:
                await self._look()
            except StoreUnavailable as error:
                logger.info("%s: not looked at: %s", self._name, error)
            alive()
            await asyncio.sleep(_LOOK_SECONDS)


class Letters:
    """The dead letters of one strategy: writes that the database refused for what they hold.

    Args:
        prepare: opens the sink.
        sink: keeps them.
        origin: the strategy's name.
        decode: makes a write of a record.
        forget: takes away what is cached of keys.
    """

    def __init__(
        self,
        prepare: Callable[[], Awaitable[None]],
        sink: object,
        origin: str,
        decode: Callable[[bytes], Write[Any]],
        forget: Callable[[Sequence[Any]], Awaitable[None]],
    ) -> None:
        self._prepare = prepare
        self._sink = sink
        self._origin = origin
        self._decode = decode
        self._forget = forget

    @property
    def kept(self) -> DeadLetters | None:
        """Where the sink keeps them; None if it does not."""
        return self._sink.dead_letters if isinstance(self._sink, KeepsDeadLetters) else None

    def check(self) -> DeadLetters:
        """Where the sink keeps them.

        Raises:
            ConfigurationError: it does not.
        """
        if (kept := self.kept) is None:
            raise ConfigurationError(
                f"WriteBehind {self._origin!r}: {type(self._sink).__name__} keeps no dead letters; a PostgresTable does"
            )
        return kept

    async def list(self, *, limit: int = 100, after: int = 0) -> tuple[DeadLetter, ...]:
        """Letters without their records, oldest first; `after` is the last id of the page before."""
        await self._prepare()
        return await self.check().list(self._origin, limit=limit, after=after)

    async def show(self, letter: int) -> tuple[DeadLetter, Write[Any] | None] | None:
        """One letter and the write it holds; None if there is none.

        Raises:
            DecodeError: this version of the model cannot read the write.
        """
        await self._prepare()
        found = await self.check().show(letter)
        if found is None or found.origin != self._origin:
            return None
        return found, None if found.record is None else self._decode(found.record)

    async def count(self) -> int:
        """How many there are."""
        await self._prepare()
        return await self.check().count(self._origin)

    async def retry(self, *letters: int, mend: Callable[[Write[Any]], Write[Any]] | None = None) -> Retried:
        """Tries these letters again, or all, over what the rows hold now: a put replaces what was written since.

        Args:
            letters: ids; none for all.
            mend: changes each write before it is tried.
        """
        await self._prepare()
        decode = self._decode if mend is None else lambda record: mend(self._decode(record))
        retried = await self.check().retry(self._origin, list(letters) or None, decode=decode)
        await self._forget(retried.keys)
        return retried

    async def drop(self, *letters: int) -> int:
        """Deletes these letters for good, or all; returns how many."""
        await self._prepare()
        return await self.check().drop(list(letters) or None, origin=self._origin)

    def __repr__(self) -> str:
        return f"Letters({self._origin!r})"


class OpenedSink:
    """A sink, opened before its first use by whoever comes first: a caller, or the flusher."""

    def __init__(self, sink: Sink[Any], open_: Callable[[], Awaitable[None]]) -> None:
        self._sink = sink
        self._open = open_

    async def apply(self, batch: Batch[Any]) -> Applied[Any]:
        await self._open()  # also while the cache closes
        return await self._sink.apply(batch)


class MarkedSink:
    """A sink whose batches are writes of the cells of their keys, as those of any writer: see `writing.py`.

    For a buffer that other processes do not see. What they read is then never older than a batch that has ended, also
    if this process ends between the database's commit and the rest.

    Args:
        sink: applies batches.
        writer: marks cells.
        cell: names the cell of a key.
    """

    def __init__(self, sink: Sink[Any], writer: Writer, cell: Callable[[Any], CellKey]) -> None:
        self._sink = sink
        self._writer = writer
        self._cell = cell

    async def apply(self, batch: Batch[Any]) -> Applied[Any]:
        keys = batch.writes.keys if isinstance(batch.writes, Puts) else map(_key_of, batch.writes)
        async with self._writer.update([self._cell(key) for key in keys if key is not None], counted=False):
            return await self._sink.apply(batch)


def _key_of(write: Write[Any]) -> Any:
    return getattr(write, "key", None)  # an append has none
