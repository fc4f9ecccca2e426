"""What a writer does when the buffer is full: wait, fail, or write to the database itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

from asynccache.clock import Clock
from asynccache.errors import BufferFull, WriteRejected
from asynccache.protocols import KeyValue
from asynccache.supervision import backoff
from asynccache.write_behind.buffer import Buffered
from asynccache.write_behind.lane import Outcome, Written
from asynccache.write_behind.layout import Op

__all__ = ["OnFull", "Overflow", "WriteThrough"]

OnFull: TypeAlias = Literal["wait", "raise", "write_through"]
"""What a write does when `max_pending` keys wait: wait for room, raise `BufferFull`, or change the database itself."""

WriteThrough: TypeAlias = Callable[[Op], Awaitable[None]]
"""Carries out one operation in the database, and takes what is cached of its key away."""

_PAUSE: Final = (0.01, 0.25)


class Applies(Protocol):
    """Where writes wait, as a writer sees it."""

    async def apply(self, ops: Sequence[Op]) -> list[Written]:
        """Merges operations."""
        ...

    async def lookup(self, keys: Sequence[KeyValue]) -> dict[Any, Buffered]:
        """What is buffered of each key."""
        ...


class Overflow:
    """Takes operations into the buffer, and does what the user chose with those that find no room.

    Args:
        what: the strategy, for messages.
        buffer: where writes wait.
        on_full: what to do.
        patience: the longest wait for room, in seconds.
        wake: tells the flusher.
        write_through: for `on_full="write_through"`.
        clock: reads time.
    """

    def __init__(
        self,
        what: str,
        buffer: Applies,
        *,
        on_full: OnFull,
        patience: float,
        wake: Callable[[], None],
        write_through: WriteThrough,
        clock: Clock,
    ) -> None:
        self._what = what
        self._buffer = buffer
        self._on_full = on_full
        self._patience = patience
        self._wake = wake
        self._write_through = write_through
        self._clock = clock

    async def apply(self, ops: Sequence[Op]) -> tuple[list[Written], int]:
        """Merges operations, each for itself; returns what became of them, and how many went to the database.

        Raises:
            BufferFull: no room, or none in time; those before it and some after it were taken.
            WriteRejected: a number would leave the range in which it can be buffered, or the database refused it.
            StoreUnavailable: Redis did not acknowledge all of them.
        """
        written = await self._buffer.apply(ops)
        return written, await self.settle(ops, written)

    async def settle(self, ops: Sequence[Op], written: list[Written]) -> int:
        """Does with operations that were not taken what is to be done; see `apply`.

        Args:
            ops: the operations.
            written: what became of each; replaced where that changes.

        Returns:
            How many went to the database.
        """
        full = [at for at, one in enumerate(written) if one.outcome is not Outcome.ACCEPTED]
        through = 0
        if full:
            deadline = self._clock.monotonic() + self._patience
            for at in full:
                if written[at].outcome is Outcome.FULL:
                    self._wake()
                    if self._on_full == "raise":
                        raise self._full(ops, at)
                    found = await self._find_room(ops, at, deadline)
                    if found is None:
                        through += 1
                        continue
                    written[at] = found
                if written[at].outcome is Outcome.OUT_OF_RANGE:
                    raise WriteRejected(
                        f"{self._what}: a number of {ops[at].key!r} would leave the range that can be buffered exactly"
                    )
        return through

    async def _find_room(self, ops: Sequence[Op], at: int, deadline: float) -> Written | None:
        """Tries until there is room; None if it was written to the database instead."""
        op, attempt = ops[at], 0
        while True:
            if self._on_full == "write_through" and await self._free(op):
                await self._write_through(op)
                return None
            attempt += 1
            pause = min(backoff(attempt, *_PAUSE), deadline - self._clock.monotonic())
            if pause <= 0:
                raise self._full(ops, at)
            await asyncio.sleep(pause)
            (written,) = await self._buffer.apply((op,))
            if written.outcome is not Outcome.FULL:
                return written

    async def _free(self, op: Op) -> bool:
        """Whether nothing waits for the key: a batch that is frozen would be applied over what is written now."""
        if op.key is None:
            return True
        buffered = (await self._buffer.lookup((op.key,)))[op.key]
        return buffered.pending is None and buffered.frozen is None

    def _full(self, ops: Sequence[Op], at: int) -> BufferFull:
        waited = "" if self._on_full == "raise" else f" for {self._patience:g} s"
        of = f", write {at + 1} of {len(ops)}" if len(ops) > 1 else ""
        return BufferFull(
            f"{self._what}: max_pending keys wait for the database{waited}; it is down, or slower than what is written"
            f" (key {ops[at].key!r}{of})"
        )
