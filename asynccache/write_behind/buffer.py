"""Writes that wait for the database, in Redis, where they are safe from this process.

Per partition, under one hash tag:

    pending  hash  field (the encoded key) -> record of the last write of that key
    batch    hash  the same, of the writes that are being flushed; frozen until the database has them
    meta     hash  batch: id of the frozen batch; acks: how many were acknowledged; dirty: since when something pends

A write sets its record and the readable cell in one script, so a reader sees either neither or both; and it takes any
reader's lease away, so that no older row can be filled in after it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from asynccache.entry import NewValue
from asynccache.keys import CellKey, KeySpace, encode_key
from asynccache.protocols import KeyValue
from asynccache.stores.scripts import Argument, Script, load_script

__all__ = ["Buffer", "Frozen", "PartitionStatus", "ScriptRunner"]

# Read with the module: not on the event loop.
_WRITE, _FIND, _FREEZE, _ACK, _STATUS = (
    load_script(name, "asynccache.write_behind", prelude=None) for name in ("write", "find", "freeze", "ack", "status")
)
_FIND_CHUNK: Final = 1000


class ScriptRunner(Protocol):
    """A store that can run scripts of others."""

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Runs a script that is safe to repeat."""
        ...


@dataclass(frozen=True, slots=True)
class Frozen:
    """A batch on its way into the database."""

    id: UUID
    records: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How much of one partition waits.

    Attributes:
        partition: its number.
        pending: keys with a write that is in no batch.
        in_batch: keys in the frozen batch.
        age: seconds since the oldest pending write, 0 if there is none.
        batch: id of the frozen batch.
    """

    partition: int
    pending: int
    in_batch: int
    age: float
    batch: UUID | None


@dataclass(frozen=True, slots=True)
class _Partition:
    pending: str
    batch: str
    meta: str


class Buffer:
    """The buffered writes of one strategy.

    Args:
        store: runs the scripts.
        space: names the keys.
        name: the strategy's name.
        partitions: over how many hash slots the keys are spread.
        max_pending: most keys that may pend in one partition.
    """

    def __init__(self, store: ScriptRunner, space: KeySpace, name: str, *, partitions: int, max_pending: int) -> None:
        self._store = store
        self._space = space
        self._name = name
        self._max_pending = max_pending
        self._partitions = [
            _Partition(*(space.buffer(name, number, part) for part in ("pending", "batch", "meta")))
            for number in range(partitions)
        ]

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self._partitions)

    def cell(self, key: KeyValue) -> CellKey:
        """Where the readable value of a key stands: in the slot of its partition."""
        return self._space.partition_cell(self._name, self._number(encode_key(key)), key)

    def _number(self, field: str) -> int:
        return zlib.crc32(field.encode()) % len(self._partitions)

    async def write(self, key: KeyValue, record: bytes, value: NewValue | None) -> bool:
        """Buffers one write; `value` becomes readable, or the cell empty without one. False if the buffer is full."""
        field = encode_key(key)
        partition = self._partitions[self._number(field)]
        args: list[Argument] = [field, record, self._max_pending]
        if value is not None:
            args += [value.fresh_ms, value.dead_ms, value.head(), value.rest()]
        keys = (self.cell(key), partition.pending, partition.meta)
        done, _ = await self._store.run(_WRITE, keys, args)
        return bool(done)

    async def find(self, keys: Sequence[KeyValue]) -> dict[Any, bytes]:
        """The newest records of these keys that the database may not have."""
        by_partition: dict[int, list[tuple[str, Any]]] = {}
        for key in keys:
            field = encode_key(key)
            by_partition.setdefault(self._number(field), []).append((field, key))
        found: dict[Any, bytes] = {}
        for number, wanted in by_partition.items():
            partition = self._partitions[number]
            for at in range(0, len(wanted), _FIND_CHUNK):
                chunk = wanted[at : at + _FIND_CHUNK]
                records = await self._store.run(
                    _FIND, (partition.pending, partition.batch), [field for field, _ in chunk]
                )
                found.update((key, record) for (_, key), record in zip(chunk, records, strict=True) if record)
        return found

    async def freeze(self, number: int, max_batch: int) -> Frozen | None:
        """The batch to flush next: the frozen one, else a new one; None if nothing pends."""
        partition = self._partitions[number]
        keys = (partition.pending, partition.batch, partition.meta)
        reply = await self._store.run(_FREEZE, keys, (max_batch, uuid4().hex))
        if not reply:
            return None
        return Frozen(UUID(reply[0].decode()), dict(zip(reply[1::2], reply[2::2], strict=True)))

    async def ack(self, number: int, batch: UUID) -> bool:
        """Drops a batch that the database has; False if another flusher did."""
        partition = self._partitions[number]
        return bool(await self._store.run(_ACK, (partition.batch, partition.meta), (batch.hex,)))

    async def status(self, number: int) -> PartitionStatus:
        """How much of one partition waits."""
        partition = self._partitions[number]
        keys = (partition.pending, partition.batch, partition.meta)
        pending, in_batch, dirty, now, batch = await self._store.run(_STATUS, keys, ())
        age = (now - dirty) / 1000 if dirty else 0.0
        return PartitionStatus(number, pending, in_batch, age, UUID(batch.decode()) if batch else None)

    def __repr__(self) -> str:
        return f"Buffer({self._name!r}, partitions={self.partitions})"
