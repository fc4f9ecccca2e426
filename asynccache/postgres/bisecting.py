"""Writes what can be written of a batch, in one transaction, and finds what cannot.

The database names no row when it refuses a statement over arrays, by which all rows go here. So a group that is
refused is undone, to a savepoint, and tried again in halves, down to single writes: about 2 log2(n) attempts for a bad
one in n. Deferred constraints are checked within each attempt, since at COMMIT it would be too late.

What is refused for the sake of another row (a unique value that the batch frees elsewhere, a parent that it inserts
elsewhere) may pass once the others are written: such writes are tried again, as long as that gets anywhere.

A write into which adjustments were merged (a put, and an increment after it) is tried without them before it is
refused: if that passes, they alone are refused, as they would have been had each been written by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from asynccache.postgres.failures import Refusal, refusal
from asynccache.postgres.row_keys import Parts
from asynccache.postgres.writing import Writer
from asynccache.protocols import Batch, Halves, Write

__all__ = ["Bisection", "begin_attempt"]

V = TypeVar("V")

_ROUNDS = 8
_CHECKED_AT_ONCE = 500

# The mode outlives a release and is undone by a rollback to the savepoint: so it is set before.
_BEGIN = "SET CONSTRAINTS ALL DEFERRED; SAVEPOINT asynccache"
_END = "SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT asynccache"
_UNDO = "ROLLBACK TO SAVEPOINT asynccache"


async def begin_attempt(connection: Any) -> None:
    """Begins the first attempt of a transaction; each one that ends begins the next."""
    await connection.execute(_BEGIN)


class Bisection(Generic[V]):
    """One batch, on one connection that is in a transaction.

    Attributes:
        halved: of the refused writes, by index, those of which all was written but their adjustments.
    """

    def __init__(self, connection: Any, writer: Writer[V], batch: Batch[V]) -> None:
        self._connection = connection
        self._writer = writer
        self._batch = batch
        self._writes = list(batch.writes)
        self._bare: dict[int, Refusal] = {}  # whose adjustments cannot even be sent: only their base is tried
        self.halved: dict[int, Halves[V]] = {}

    async def run(self) -> dict[int, Refusal]:
        """Writes what can be written.

        Returns:
            Why the others were refused, by their index in the batch, in order.
        """
        refused: dict[int, Refusal] = {}
        candidates = await self._sendable(refused)
        await begin_attempt(self._connection)
        for _ in range(_ROUNDS):
            found: dict[int, Refusal] = {}
            halved = len(self.halved)
            await self._bisect(candidates, found)
            refused.update(found)
            hopeful = [at for at in candidates if at in found and found[at].may_pass]
            if not hopeful or (len(found) == len(candidates) and len(self.halved) == halved):
                break
            for at in hopeful:
                del refused[at]
            candidates = hopeful
        else:
            refused.update(found)
        for at, why in self._bare.items():
            if at in refused:
                del self.halved[at]  # and neither can the rest be written
            refused.setdefault(at, why)
        self.halved = {at: halves for at, halves in self.halved.items() if at in refused}
        return dict(sorted(refused.items()))

    async def _sendable(self, refused: dict[int, Refusal]) -> list[int]:
        """Indexes of writes that are fit to be sent, by key; rows that exist are locked in this order."""
        keyed: list[tuple[Parts, int]] = []
        keyless: list[int] = []
        for at, write in enumerate(self._writes):
            if at and at % _CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
            keys = self._checked(write)
            if isinstance(keys, Refusal) and (halves := self._halves(at)) is not None:
                self._writes[at], self.halved[at], self._bare[at] = halves.base, halves, keys
                keys = self._checked(halves.base)
            if isinstance(keys, Refusal):
                refused[at] = keys
            elif keys:
                keyed.append((keys[0], at))
            else:
                keyless.append(at)
        keyed.sort()
        await self._writer.lock(self._connection, [key for key, _ in keyed])
        return [at for _, at in keyed] + keyless

    def _checked(self, write: Write[V]) -> list[Parts] | Refusal:
        try:
            return self._writer.prepare([write]).all_keys
        except Exception as error:
            why = refusal(error)
            if why is None:
                raise
            return why

    def _halves(self, at: int) -> Halves[V] | None:
        batch = self._batch
        if batch.halve is None or at >= len(batch.records):
            return None
        return batch.halve(batch.records[at])

    async def _bisect(self, group: list[int], refused: dict[int, Refusal]) -> None:
        if not group:
            return
        why = await self.attempt([self._writes[at] for at in group])
        if why is None:
            return
        if len(group) == 1:
            refused[group[0]] = await self._without_adjustments(group[0], why)
            return
        middle = len(group) // 2
        await self._bisect(group[:middle], refused)
        await self._bisect(group[middle:], refused)

    async def _without_adjustments(self, at: int, why: Refusal) -> Refusal:
        """Writes all but the adjustments of a write, which was refused; returns what cannot be written, and why."""
        if at in self.halved or (halves := self._halves(at)) is None:
            return why
        base = await self.attempt([halves.base])
        if base is not None:
            return base
        self.halved[at] = halves
        return why

    async def attempt(self, writes: Sequence[Write[V]]) -> Refusal | None:
        """Writes all of these or none; returns why not.

        An attempt must have begun, and the next one begins.
        """
        try:
            await self._writer.write(self._connection, self._writer.prepare(writes))
            await self._connection.execute(f"{_END}; {_BEGIN}")
        except Exception as error:
            why = refusal(error)
            if why is None:
                raise
            await self._connection.execute(_UNDO)
            return why
        return None
