"""Writes that wait for the database, in Redis, where they are safe from this process.

Per partition, under one hash tag:

    pending    hash  field (the encoded key) -> record of the last write of that key
    pending:n  hash  the same, n from 1 to 64: its bucket, for a key that found `spread_above` others in `pending`
    batch      hash  the same, of the writes that are being flushed; frozen until the database has them
    batch:n    hash  the same, of a bucket
    meta       hash  batch: id of the frozen batch; parts: in which hashes it is; acks: how many were acknowledged;
                     dirty: since when something pends; spread: how much of it is in buckets; turn: the hash that
                     became a batch last

    seen     string  one for each writing process: its last call and the verdicts (see `lanes`)
    setup    hash    once for a strategy: how many partitions it has, and a mark that is gone if Redis lost its data

What pends becomes a batch by renaming hashes, at no cost for what is in them. So that a batch is bounded even when much
pends, what does not fit into one is spread over buckets by a hash of the key. A key pends in one place only, and is
found with two looks. Buckets are named by the scripts themselves: they are in the slot of the hash that is passed.

A write merges into its record and sets or empties the readable cell in one script, so a reader sees either neither or
both; and it takes any reader's lease away, so that no older row can be filled in after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4
from zlib import crc32

from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.keys import CellKey, KeySpace, encode_key
from asynccache.protocols import KeyValue
from asynccache.stores.scripts import Call, ScriptRunner, load_script
from asynccache.write_behind.lane import Lane, Send, Target, Written
from asynccache.write_behind.lanes import Lanes
from asynccache.write_behind.layout import Op

__all__ = ["Buffer", "Buffered", "Frozen", "PartitionStatus"]

# Read with the module: not on the event loop.
_FREEZE, _ACK, _STATUS, _LOOKUP, _SETUP, _FORGET, _OVERTAKE = (
    load_script(name, "asynccache.write_behind", prelude=None)
    for name in ("freeze", "ack", "status", "lookup", "setup", "forget", "overtake")
)


# Each call of it is a command of its own: one that is refused must not be repeated with others that were not.
_MERGE: Final = load_script("merge", "asynccache.write_behind", prelude=None)._replace(many=None)
_LOOKUP_CHUNK: Final = 1000
_BUCKETS: Final = 64  # as in freeze.lua
_LOOKS: Final = 20
_LANES: Final = 2  # more do not help: this process is the slower part


class Buffered(NamedTuple):
    """What the buffer knows of one key, all at one moment.

    Attributes:
        pending: its record that is in no batch.
        frozen: its record in the frozen batch, which the database may have by now.
        batch: id of its partition's frozen batch.
        acks: how many batches of the partition were acknowledged. If this or `batch` has changed, a row that was read
            from the database meanwhile does not belong to these records.
    """

    pending: bytes | None
    frozen: bytes | None
    batch: UUID | None
    acks: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """A batch on its way into the database.

    Attributes:
        id: names it.
        records: its writes, by field.
        left: how many writes of its partition were in no batch when this was looked at.
    """

    id: UUID
    records: Mapping[bytes, bytes]
    left: int = 0


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How much of one partition waits.

    Attributes:
        partition: its number.
        pending: keys with a write that is in no batch.
        in_batch: keys in the frozen batch.
        age: the oldest write that waits is at most so many seconds old; 0 if there is none.
        batch: id of the frozen batch.
        acks: batches that were acknowledged.
        owner: the worker that flushes the partition; None if nobody claims it.
    """

    partition: int
    pending: int
    in_batch: int
    age: float
    batch: UUID | None
    acks: int = 0
    owner: str | None = None


class _Partition(NamedTuple):
    pending: str
    batch: str
    meta: str
    owner: str


class Buffer:
    """The buffered writes of one strategy.

    Args:
        store: runs the scripts.
        space: names the keys.
        name: the strategy's name.
        partitions: over how many hash slots the keys are spread.
        max_pending: most keys that may pend in one partition.
        spread_above: how many of them stand in one hash before others are spread; best what a batch holds.
        together: whether writes to several partitions may share a command, which they cannot in a cluster.
        send: how writes go to Redis; through `store` without one.
    """

    def __init__(
        self,
        store: ScriptRunner,
        space: KeySpace,
        name: str,
        *,
        partitions: int,
        max_pending: int,
        spread_above: int = 1000,
        together: bool = True,
        send: Send | None = None,
    ) -> None:
        self._store = store
        self._space = space
        self._name = name
        self._max_pending = max_pending
        self._partitions = [
            _Partition(*(space.buffer(name, number, part) for part in ("pending", "batch", "meta", "owner")))
            for number in range(partitions)
        ]
        self._setup = space.buffer(name, 0, "setup")
        self._mark: str | None = None
        self._losses = 0

        def lane() -> Lane:
            writer = Lane.new_writer()
            targets = [
                Target(
                    partition.pending,
                    partition.meta,
                    space.buffer(name, number, f"seen.{writer}"),
                    space.partition_cells(name, number),
                )
                for number, partition in enumerate(self._partitions)
            ]
            return Lane(name, _MERGE, targets, max_pending, spread_above, send or self._send, together=together)

        self._lanes = Lanes(lane, min(_LANES, partitions))
        self._lane_of = [self._lanes.of(number) for number in range(partitions)]
        self._cells = [space.partition_cells(name, number) for number in range(partitions)]

    async def open(self) -> None:
        """Checks that Redis holds as many partitions as are configured here.

        Raises:
            ConfigurationError: it holds another number.
            StoreUnavailable: no answer.
        """
        self._lanes.open()
        await self.check()

    async def aclose(self) -> None:
        """Answers everybody who writes; what waits in Redis stays there."""
        await self._lanes.aclose()
        try:
            await self._store.run_many([Call(_FORGET, (key,), ()) for key in self._lanes.forgettable()])
        except StoreUnavailable:  # they expire by themselves
            return

    async def check(self) -> bool:
        """Whether Redis still has what it had when it was checked last. If not, acknowledged writes were lost in it.

        Raises:
            ConfigurationError: another number of partitions is in use.
            StoreUnavailable: no answer.
        """
        reply = await self._store.run(_SETUP, (self._setup,), (len(self._partitions), uuid4().hex))
        partitions, mark = int(reply[0]), reply[1].decode()
        if partitions != len(self._partitions):
            raise ConfigurationError(
                f"WriteBehind {self._name!r}: partitions={len(self._partitions)}, but Redis holds its writes in"
                f" {partitions}: set partitions={partitions} here and in every process; or flush all with that number,"
                f" stop every process, delete the key {self._setup!r}, and start with the new one"
            )
        lost = self._mark is not None and mark != self._mark
        self._mark = mark
        self._losses += lost
        return not lost

    @property
    def losses(self) -> int:
        """How often Redis was found to have lost its data since this buffer was made."""
        return self._losses

    @property
    def waiting(self) -> int:
        """Operations of this process that were not sent yet."""
        return self._lanes.waiting

    @property
    def name(self) -> str:
        """Its name among all buffers whose writes come into one database: the namespace's, and the strategy's."""
        return "/".join((*self._space.path, self._name))

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self._partitions)

    def keys(self) -> list[str]:
        """The keys of the buffer in Redis, those apart that remember the calls of a writing process."""
        once = [self._space.buffer(self._name, 0, part) for part in ("setup", "workers", "confirm")]
        spread = [
            f"{key}:{n}" for one in self._partitions for key in (one.pending, one.batch) for n in range(1, _BUCKETS + 1)
        ]
        return [*once, *spread, *(key for one in self._partitions for key in one)]

    def partition_of(self, key: KeyValue) -> int:
        """The number of the partition of a key."""
        return self._spread(encode_key(key))[0]

    def cell(self, key: KeyValue) -> CellKey:
        """Where the readable value of a key stands: in the slot of its partition."""
        field = encode_key(key)
        return CellKey(self._cells[self._spread(field)[0]] + field)

    async def _send(self, calls: Sequence[Call]) -> tuple[Sequence[Any], int]:
        return await self._store.run_many(calls), 0

    async def apply(self, ops: Sequence[Op]) -> list[Written]:
        """Merges operations, those of one key in their order; each for itself.

        A caller that is cancelled cannot know whether its operations were merged.

        Returns:
            What became of each, in order.

        Raises:
            StoreUnavailable: Redis did not acknowledge all of them; each may have been merged or not, but not twice.
        """
        return await self._lanes.submit([(*self._spread(op.field), op.raw) for op in ops])

    def apply_one(self, op: Op) -> asyncio.Future[Written]:
        """Merges one operation; see `apply`."""
        # As `_spread` says, without a frame more.
        rest, number = divmod(crc32(op.field.encode()), len(self._lane_of))
        return self._lane_of[number].submit_one(number, rest % _BUCKETS + 1, op.raw)

    async def lookup(self, keys: Sequence[KeyValue]) -> dict[Any, Buffered]:
        """What is buffered of each key; those of one partition are seen at one moment (up to 1,000 of them)."""
        by_partition: dict[int, list[tuple[int, str, Any]]] = {}
        for key in keys:
            field = encode_key(key)
            number, bucket = self._spread(field)
            by_partition.setdefault(number, []).append((bucket, field, key))
        chunks = [
            (self._partitions[number], wanted[at : at + _LOOKUP_CHUNK])
            for number, wanted in by_partition.items()
            for at in range(0, len(wanted), _LOOKUP_CHUNK)
        ]
        calls = []
        for (pending_key, batch_key, meta, _), chunk in chunks:
            buckets, fields, _ = zip(*chunk, strict=True)
            calls.append(Call(_LOOKUP, (pending_key, batch_key, meta), (bytes(buckets), *fields)))
        # One alone may share a call with those of other callers.
        replies = [await self._store.run(*calls[0])] if len(calls) == 1 else await self._store.run_many(calls)
        found: dict[Any, Buffered] = {}
        for (_, chunk), reply in zip(chunks, replies, strict=True):
            if isinstance(reply, Exception):
                raise reply
            batch, acks, pending, frozen = reply
            id_ = UUID(batch.decode()) if batch else None
            for (*_, key), above, below in zip(chunk, pending, frozen, strict=True):
                found[key] = Buffered(above or None, below or None, id_, acks)
        return found

    def _spread(self, field: str) -> tuple[int, int]:
        """The partition and the bucket of a field."""
        rest, number = divmod(crc32(field.encode()), len(self._partitions))
        return number, rest % _BUCKETS + 1

    async def freeze(self, number: int, max_batch: int, max_bytes: int = 0) -> Frozen | None:
        """The batch to flush next: the frozen one, else a new one; None if nothing pends.

        Args:
            number: the partition.
            max_batch: most records in a new batch.
            max_bytes: most bytes of them, unless the first one is larger; 0 for any number.

        Raises:
            StoreUnavailable: no answer; or others acknowledged each batch before it could be read.
        """
        pending, batch, meta, _ = self._partitions[number]
        for _ in range(_LOOKS):
            reply = await self._store.run(_FREEZE, (pending, batch, meta), (max_batch, uuid4().hex, max_bytes))
            if not reply:
                return None
            id_, parts, left = reply
            hashes = [batch if part == b"0" else f"{batch}:{int(part)}" for part in parts.split(b",")]
            # Not by the script, which takes longer for it. The id has not changed in between, so neither has the batch.
            looks = [*(("HGETALL", name) for name in hashes), ("HGET", meta, "batch")]
            *found, still = await self._store.run_many((), looks)
            for answer in (*found, still):
                if isinstance(answer, Exception):
                    raise answer
            if still == id_:
                records: dict[bytes, bytes] = {}
                for some in found:
                    records.update(some)
                return Frozen(UUID(id_.decode()), records, left)
        raise StoreUnavailable(f"{self._name}: others acknowledged {_LOOKS} batches while they were being read")

    async def ack(self, number: int, batch: UUID, misread: Sequence[KeyValue] = ()) -> bool:
        """Drops a batch that the database has; False if another flusher did.

        Args:
            number: the partition.
            batch: its id.
            misread: keys whose readable values may be what the database refused: they are emptied in the same step, or
                a worker that ends after it would leave them for their TTL.
        """
        partition = self._partitions[number]
        cells = [self.cell(key) for key in misread]
        return bool(await self._store.run(_ACK, (partition.batch, partition.meta, *cells), (batch.hex,)))

    async def overtake(self, key: KeyValue) -> bool:
        """Tells readers that a row was written past the buffer; whether the frozen batch holds its key, too, and hides
        the row until it is acknowledged."""
        field = encode_key(key)
        number, bucket = self._spread(field)
        keys = (self._partitions[number].batch, self._partitions[number].meta)
        return bool(await self._store.run(_OVERTAKE, keys, (field, bucket)))

    async def status(self, number: int) -> PartitionStatus:
        """How much of one partition waits."""
        partition = self._partitions[number]
        keys = (partition.pending, partition.batch, partition.meta, partition.owner)
        pending, in_batch, oldest, now, batch, acks, owner = await self._store.run(_STATUS, keys, ())
        age = max(0, now - oldest) / 1000 if oldest else 0.0
        id_ = UUID(batch.decode()) if batch else None
        return PartitionStatus(number, pending, in_batch, age, id_, acks, owner.decode() if owner else None)

    def __repr__(self) -> str:
        return f"Buffer({self._name!r}, partitions={self.partitions})"
