"""Forgets the ids of batches that the database applied long ago.

An id may go once its batch cannot come back: while the batch is frozen in Redis, its id is all that keeps it from being
applied again. So ids are kept for days, and nothing is pruned unless every batch that is frozen now was frozen after
the look before this one. (A worker that starts after a week's pause may find a batch that was applied, and not
acknowledged, a week ago: it must flush it before it prunes.)

That says nothing of batches that somebody holds in his hands and that are frozen no more: a worker that is stopped
between freezing and applying, while another one flushes its batch, applies it again when it goes on after its id has
been pruned. That is what `keep` is for: no worker may be stopped for longer.

Each buffer forgets its own ids: what is safe for one that keeps them for an hour is not for one that keeps them a week.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias
from uuid import UUID

from asynccache.errors import ConfigurationError, Unavailable
from asynccache.supervision import gather, logger
from asynccache.write_behind.buffer import PartitionStatus

__all__ = ["Prune", "Pruner", "Statuses"]

Prune: TypeAlias = Callable[[float, str], Awaitable[int]]
"""Deletes some of the ids that are older than so many seconds and belong to a buffer; returns how many."""

_ROUNDS: Final = 1000
"""Most calls at a time: they are small, so that nobody waits for them."""


class Statuses(Protocol):
    """A buffer that tells which batches are frozen."""

    @property
    def name(self) -> str:
        """Its name, under which the ids of its batches are recorded."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        ...

    async def status(self, number: int, /) -> PartitionStatus:
        """How much of one partition waits."""
        ...


class Pruner:
    """Prunes now and then.

    Args:
        name: of the strategy, for logs.
        buffer: tells which batches are frozen.
        prune: deletes ids.
        keep: seconds for which an id is kept.
        every: seconds between prunings; much less than `keep`.

    Raises:
        ConfigurationError: ids would not be kept long enough.
    """

    def __init__(self, name: str, buffer: Statuses, prune: Prune, *, keep: float, every: float) -> None:
        if keep < 2 * every:
            raise ConfigurationError(
                f"keep_ids={keep!r} (seconds) must be at least {2 * every:g}: a batch is safe by it"
            )
        self._name = name
        self._buffer = buffer
        self._prune = prune
        self._keep = keep
        self._every = every
        self._seen: frozenset[UUID] | None = None

    async def run(self) -> None:
        """Prunes until cancelled."""
        while True:
            try:
                await self.once()
            except Unavailable as error:
                logger.warning("write-behind %s: ids of old batches could not be pruned: %s", self._name, error)
            await asyncio.sleep(self._every * random.uniform(0.9, 1.1))  # noqa: S311 - not all workers at once

    async def once(self) -> int:
        """Prunes if it is safe now; returns how many ids went.

        Raises:
            StoreUnavailable, DatabaseUnavailable: it could not be done.
        """
        before, self._seen = self._seen, None
        statuses = await gather(self._buffer.status(number) for number in range(self._buffer.partitions))
        self._seen = frozenset(status.batch for status in statuses if status.batch is not None)
        if before is None or before & self._seen:
            return 0
        pruned = 0
        for _ in range(_ROUNDS):
            some = await self._prune(self._keep, self._buffer.name)
            pruned += some
            if not some:
                break
        return pruned
