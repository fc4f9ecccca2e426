"""Takes operations of concurrent callers to Redis: one pipeline at a time. Partitions share a command, unless Redis is
a cluster; one that is refused leaves the others alone.

Invariant: each operation that was acknowledged was merged exactly once, and one without an answer at most once.

Every call carries this writer's id and a number that only grows, and the script remembers the last one with its reply.
So a call whose outcome is unknown is sent again, with the same number, until an answer comes or the tries are used up;
and a call that was given up and arrives late, after its successor, does nothing. That needs one call in flight at a
time: were there two, the later might arrive first and void the earlier. What comes meanwhile makes the next pipeline.
A second lane (`lanes.py`) is a second writer.

A caller that is cancelled takes its operation back if it was not sent yet; else it is merged or not, as after any
call without an answer.
"""

from __future__ import annotations

import asyncio
import enum
from asyncio import get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from asynccache.errors import StoreUnavailable
from asynccache.stores.scripts import Argument, Call, Script
from asynccache.supervision import TaskOwner, backoff, copy_error
from asynccache.tokens import new_token

__all__ = ["Lane", "Outcome", "Placed", "Send", "Target", "Written"]

_MAX_OPS: Final = 1000
"""In one pipeline: a script holds up everybody else on the server."""
_MAX_SHARED: Final = 200
"""In one command, unless those of one partition are more."""
_MAX_BYTES: Final = 8 * 1024 * 1024
_TRIES: Final = 3
_SEEN_MS: Final = 3_600_000
_CLOSING: Final = 5.0

Send: TypeAlias = Callable[[Sequence[Call]], Awaitable[tuple[Sequence[Any], int]]]
"""Runs the calls in one pipeline; returns the replies, and how many others confirmed them (disks, replicas)."""


class Target(NamedTuple):
    """The keys of one partition that a write changes: three, and what those of its cells begin with."""

    pending: str
    meta: str
    seen: str
    cells: str


class Outcome(enum.Enum):
    """What became of one operation."""

    ACCEPTED = "accepted"
    FULL = "full"
    """`max_pending` keys pend in its partition, and it is of another one: nothing was written."""
    OUT_OF_RANGE = "out of range"
    """A number would have left the range in which it can be buffered exactly: nothing was written."""


_VERDICTS: Final = {ord("1"): Outcome.ACCEPTED, ord("0"): Outcome.FULL, ord("r"): Outcome.OUT_OF_RANGE}


class Written(NamedTuple):
    """What became of one operation, how many keys now pend in its partition, and how many disks or replicas have it."""

    outcome: Outcome
    pending: int
    confirmed: int


@dataclass(slots=True, eq=False)
class _Many:
    """What became of the operations that one caller has submitted together, as far as it is known."""

    written: list[Any]
    left: int


Placed: TypeAlias = tuple[int, int, bytes]
"""The number of an operation's partition, its bucket in that, and the operation, as `lua/merge.lua` takes it."""

_Item: TypeAlias = "tuple[int, int, bytes, asyncio.Future[Any], _Many | None, int]"
"""An operation that is `Placed`, and who waits for it."""

_Part: TypeAlias = "tuple[int, list[_Item]]"
"""A partition's number, and what goes there."""


class Lane:
    """The way of one strategy's operations into its partitions.

    Args:
        name: for the tasks and the repr.
        script: merges into partitions.
        targets: the keys of each partition.
        max_pending: most keys that may pend in one partition.
        spread_above: how many of them stand in one hash before others go to their buckets.
        send: runs the calls.
        together: whether partitions share commands, which they cannot in a cluster.
        tries: how often a call without an answer is sent.
    """

    def __init__(
        self,
        name: str,
        script: Script,
        targets: Sequence[Target],
        max_pending: int,
        spread_above: int,
        send: Send,
        *,
        together: bool = True,
        tries: int = _TRIES,
    ) -> None:
        self._name = name
        self._script = script
        self._together = together
        self._targets = targets
        self._max_pending = max_pending
        self._spread_above = spread_above
        self._send = send
        self._tries = tries
        self._seq = 0
        self._queue: deque[_Item] = deque()
        self._owner = TaskOwner(f"{name}-writes")
        self._pumping = False
        self._closed = False
        self._used: set[str] = set()
        self._unsure = False  # whether a copy of a call may yet arrive

    @staticmethod
    def new_writer() -> str:
        """An id that no other writer has."""
        return new_token().hex()

    @property
    def waiting(self) -> int:
        """Operations that were not sent yet."""
        return len(self._queue)

    def forgettable(self) -> list[str]:
        """The keys that remember this writer's calls, once more. After `aclose` nobody needs them, unless a call had no
        answer at first, even if it had when sent again: its first copy may yet arrive, and would be merged."""
        used = [] if self._unsure else sorted(self._used)
        self._used.clear()
        return used

    def open(self) -> None:
        """Lets operations in, again after `aclose`."""
        self._closed = False

    def submit_one(self, number: int, bucket: int, raw: bytes) -> asyncio.Future[Written]:
        """Queues one operation, which is `Placed`; see `submit`."""
        future: asyncio.Future[Written] = get_running_loop().create_future()
        if self._closed:
            future.set_exception(self._refusal())
        else:
            self._queue.append((number, bucket, raw, future, None, 0))
            if not self._pumping:
                self._begin()
        return future

    def submit(self, ops: Sequence[Placed]) -> asyncio.Future[list[Written]]:
        """Queues operations; the future has what became of each, in order.

        Its error is `StoreUnavailable`: no answer, or a refusal; some may have been merged.
        """
        future: asyncio.Future[list[Written]] = get_running_loop().create_future()
        if self._closed:
            future.set_exception(self._refusal())
        elif not ops:
            future.set_result([])
        else:
            many = _Many([None] * len(ops), len(ops))
            self._queue.extend([(*op, future, many, at) for at, op in enumerate(ops)])
            if not self._pumping:
                self._begin()
        return future

    def _begin(self) -> None:
        self._pumping = True
        # It begins with the next turn of the loop: the other callers of this one are yet to come.
        self._owner.start(self._pump()).add_done_callback(self._ended)

    def _refusal(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._name}: the buffer is closed")

    async def aclose(self) -> None:
        """Refuses what comes, and answers everybody: what was queued is still sent, within a bounded time."""
        self._closed = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await self._owner.join()
        finally:
            await self._owner.aclose()
            self._fail(self._queue, StoreUnavailable(f"{self._name}: closed before it was written"))
            self._queue.clear()

    async def _pump(self) -> None:
        while self._queue:
            items = self._take()
            if items:
                try:
                    await self._write(items)
                except StoreUnavailable as error:
                    # Those who waited meanwhile would wait for one timeout after the other.
                    self._fail(items, error)
                    self._fail(self._queue, error)
                    self._queue.clear()
                except BaseException as error:
                    reason = error if isinstance(error, Exception) else StoreUnavailable(f"{self._name}: closed")
                    self._fail(items, reason)
                    raise
            await asyncio.sleep(0)  # so that those who were answered can be in the next pipeline

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._pumping = False
        if self._queue:
            if self._closed or task.cancelled():
                self._fail(self._queue, StoreUnavailable(f"{self._name}: closed before it was written"))
                self._queue.clear()
            else:  # somebody came after its last look, or it failed and was reported
                self._begin()

    def _take(self) -> list[_Item]:
        queue = self._queue
        if len(queue) <= _MAX_OPS:  # the usual case, in a fraction of the time
            items = [item for item in queue if not item[3].done()]
            if sum([len(item[2]) for item in items]) < _MAX_BYTES:
                queue.clear()
                return items
        items, size = [], 0
        while queue and len(items) < _MAX_OPS and size < _MAX_BYTES:
            item = queue.popleft()
            if not item[3].done():  # its caller was cancelled
                items.append(item)
                size += len(item[2])
        return items

    async def _write(self, items: Sequence[_Item]) -> None:
        parts: dict[int, list[_Item]] = {}
        for item in items:
            part = parts.get(item[0])
            if part is None:
                parts[item[0]] = [item]
            else:
                part.append(item)
        self._seq += 1
        shares = _shares(list(parts.items()), _MAX_SHARED if self._together else 0)
        found, confirmed = await self._sent([self._call(share) for share in shares])
        replies = [reply for answer, share in zip(found, shares, strict=True) for reply in _each(answer, len(share))]
        for part, reply in zip(parts.values(), replies, strict=True):
            if isinstance(reply, Exception):
                self._fail(part, reply)
                continue
            verdicts, pending = reply
            if len(verdicts) != len(part):
                self._fail(
                    part, StoreUnavailable(f"{self._name}: the outcome of a write is unknown: a newer one is in")
                )
                continue
            became = {verdict: Written(_VERDICTS[verdict], pending, confirmed) for verdict in {*verdicts}}
            for (_, _, _, future, many, at), verdict in zip(part, verdicts, strict=True):
                if many is None:
                    if not future.done():
                        future.set_result(became[verdict])
                    continue
                many.written[at] = became[verdict]
                many.left -= 1
                if not many.left and not future.done():
                    future.set_result(many.written)

    def _call(self, parts: Sequence[_Part]) -> Call:
        keys: list[str] = []
        args: list[Argument] = [self._seq, self._max_pending, _SEEN_MS, self._spread_above]
        for number, items in parts:
            pending, meta, seen, cells = self._targets[number]
            self._used.add(seen)
            keys += (pending, meta, seen)
            args += (cells, b"".join([item[2] for item in items]), bytes([item[1] for item in items]))
        return Call(self._script, keys, args)

    async def _sent(self, calls: Sequence[Call]) -> tuple[Sequence[Any], int]:
        attempt = 1
        while True:
            try:
                return await self._send(calls)
            except BaseException as error:
                self._unsure = True
                if not isinstance(error, StoreUnavailable):
                    raise
                # Without a cause nothing was sent: the circuit is open, or the store closed.
                if attempt >= self._tries or error.__cause__ is None:
                    raise
            await asyncio.sleep(backoff(attempt, 0.02, 0.2))
            attempt += 1

    @staticmethod
    def _fail(items: Sequence[_Item] | deque[_Item], error: Exception) -> None:
        for item in items:
            future = item[3]
            if not future.done():
                future.set_exception(copy_error(error))

    def __repr__(self) -> str:
        return f"Lane({self._name!r}, waiting={len(self._queue)})"


def _shares(parts: Sequence[_Part], most: int) -> list[list[_Part]]:
    """Parts by the command that they share, which holds so many operations unless one part alone has more."""
    shares: list[list[_Part]] = []
    room = 0
    for part in parts:
        size = len(part[1])
        if size > room:
            shares.append([])
            room = most
        shares[-1].append(part)
        room -= size
    return shares


def _each(answer: Any, parts: int) -> Sequence[Any]:
    """The replies to the parts that shared a command."""
    if isinstance(answer, Exception):
        return [answer] * parts
    return [_refused(reply) if isinstance(reply, Exception) else reply for reply in answer]


def _refused(error: Exception) -> StoreUnavailable:
    refused = StoreUnavailable(f"Redis: {type(error).__name__}: {error}")
    refused.__cause__ = error
    return refused
