"""Who flushes which partition: worker processes share them evenly, without talking to each other.

Nothing here is needed for safety. Two workers that flush one partition at once write nothing twice and lose nothing,
for the batch's id decides (see `flusher`): a worker that was stopped for longer than its lease, a Redis that forgot the
leases, or a clock that jumped cost duplicate work only. Ownership saves that work, and nothing else may rest on it.

    workers  sorted set  worker -> until when it counts as alive, by the server's clock
    owner    string      one for each partition: the worker that flushes it, with the same lease

Each worker says every so often that it lives and learns who else does. From that list alone each computes the same
distribution, gives up what is not its share once no batch of it is under way, and claims what is, as far as nobody
holds it. A worker that stops gives everything up; one that is killed is missing from the list, and its partitions are
free, after its lease.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.keys import KeySpace
from asynccache.stores.scripts import ScriptRunner, load_script
from asynccache.supervision import backoff, gather, logger

__all__ = ["Claims", "Ownership", "RedisClaims", "new_worker_id", "shares"]

# Read with the module: not on the event loop.
_HEARTBEAT, _CLAIM, _DISCLAIM = (
    load_script(name, "asynccache.write_behind", prelude=None) for name in ("heartbeat", "claim", "disclaim")
)
_BEAT: Final = 1.0
"""Longest time between two signs of life, in seconds; with it, how long a rebalancing takes."""
_SETTLE: Final = 0.25
"""Seconds until the next look, while somebody else still holds a part of this worker's share."""


class Claims(Protocol):
    """Where workers see each other. Each method raises `StoreUnavailable`, and is safe to repeat."""

    async def heartbeat(self, worker: str, lease_ms: int) -> list[str]:
        """Says that `worker` lives for so long, or leaves with 0; returns who lives, sorted."""
        ...

    async def claim(self, number: int, worker: str, lease_ms: int) -> bool:
        """Makes `worker` the owner of a partition for so long; False if another one is."""
        ...

    async def disclaim(self, number: int, worker: str) -> bool:
        """Gives a partition up; False if it was another's."""
        ...


class RedisClaims:
    """Claims of one strategy's partitions, in Redis.

    Args:
        store: runs the scripts.
        space: names the keys.
        name: the strategy's name.
    """

    def __init__(self, store: ScriptRunner, space: KeySpace, name: str) -> None:
        self._store = store
        self._space = space
        self._name = name

    async def heartbeat(self, worker: str, lease_ms: int) -> list[str]:
        # In the slot of the first partition, like all that there is once for a strategy.
        workers = self._space.buffer(self._name, 0, "workers")
        return [live.decode() for live in await self._store.run(_HEARTBEAT, (workers,), (worker, lease_ms))]

    async def claim(self, number: int, worker: str, lease_ms: int) -> bool:
        return bool(await self._store.run(_CLAIM, (self._owner(number),), (worker, lease_ms)))

    async def disclaim(self, number: int, worker: str) -> bool:
        return bool(await self._store.run(_DISCLAIM, (self._owner(number),), (worker,)))

    def _owner(self, number: int) -> str:
        return self._space.buffer(self._name, number, "owner")

    def __repr__(self) -> str:
        return f"RedisClaims({self._name!r})"


def new_worker_id() -> str:
    """A name for this process that people can find it by, and that no other has, nor this one after a fork."""
    return f"{socket.gethostname()[:100]}-{os.getpid()}-{secrets.token_hex(4)}"


def shares(workers: Iterable[str], partitions: int) -> dict[str, frozenset[int]]:
    """Which partitions each worker has: all have as many, give or take one, and few move when one joins or leaves.

    Rendezvous hashing (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996) with a bound for
    each worker: pairs are taken by descending weight, as long as the partition is free and the worker's bound allows.

    Args:
        workers: their names, in any order.
        partitions: how many there are.
    """
    names = sorted(set(workers))
    if not names:
        return {}
    least, extra = divmod(partitions, len(names))
    taken: dict[str, set[int]] = {name: set() for name in names}
    free = set(range(partitions))
    for _, number, name in sorted((_weight(name, number), number, name) for name in names for number in free):
        mine = taken[name]
        if number not in free or len(mine) > least or (len(mine) == least and not extra):
            continue
        if len(mine) == least:
            extra -= 1
        mine.add(number)
        free.discard(number)
    return {name: frozenset(numbers) for name, numbers in taken.items()}


def _weight(worker: str, number: int) -> bytes:
    return hashlib.blake2b(f"{number}:{worker}".encode(), digest_size=8).digest()


class Ownership:
    """This process's share of the partitions of one strategy.

    Args:
        claims: where workers see each other.
        partitions: how many partitions there are.
        lease: seconds after which others take over from a worker that says nothing more.
        busy: whether a batch of a partition is under way here; it is given up afterwards.
        changed: called when there is a partition more to work on.
        clock: reads time.

    Raises:
        ConfigurationError: `lease` is too short.
    """

    def __init__(
        self,
        claims: Claims,
        partitions: int,
        *,
        lease: float = 5.0,
        busy: Callable[[int], bool] = lambda _: False,
        changed: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if lease < 0.1:
            raise ConfigurationError(f"lease={lease!r} (seconds) must be at least 0.1: it is renewed over the network")
        self._claims = claims
        self._partitions = partitions
        self._lease = lease
        self._busy = busy
        self._changed = changed
        self._clock = clock
        self._worker = new_worker_id()
        self._workers: tuple[str, ...] = ()
        self._wanted: frozenset[int] = frozenset()
        self._until: dict[int, float] = {}  # what is claimed, and until when that surely holds

    @property
    def worker(self) -> str:
        """This process's name among the workers."""
        return self._worker

    @property
    def workers(self) -> tuple[str, ...]:
        """Who was alive at the last look, sorted; empty before the first."""
        return self._workers

    @property
    def owned(self) -> tuple[int, ...]:
        """The partitions that this process may begin work on, sorted."""
        return tuple(sorted(number for number in self._until if self.owns(number)))

    def owns(self, number: int) -> bool:
        """Whether this process may begin work on a partition."""
        return number in self._wanted and self._until.get(number, 0.0) > self._clock.monotonic()

    async def run(self) -> None:
        """Takes part until cancelled, and then leaves."""
        self._worker = new_worker_id()  # a process that was forked is another one
        failures = 0
        try:
            while True:
                try:
                    settled = await self.beat()
                except StoreUnavailable:
                    # Whoever works on the partitions meets the same error, and reports it.
                    failures += 1
                    pause = backoff(failures, 0.1, _BEAT)
                else:
                    failures = 0
                    pause = min(_BEAT, self._lease / 3) if settled else min(_SETTLE, self._lease / 3)
                await asyncio.sleep(pause * random.uniform(0.9, 1.0))  # noqa: S311 - not all at once
        finally:
            await self.leave()

    async def beat(self) -> bool:
        """Says that this process lives, and adjusts what it holds; True if it holds just its share.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        lease_ms = round(self._lease * 1000)
        live = await self._claims.heartbeat(self._worker, lease_ms)
        if tuple(live) != self._workers:
            self._workers = tuple(live)
            self._wanted = shares(live, self._partitions).get(self._worker, frozenset())
        leaving = [number for number in self._until if number not in self._wanted and not self._busy(number)]
        for number in leaving:
            del self._until[number]
        await gather(self._claims.disclaim(number, self._worker) for number in leaving)
        before = self._clock.monotonic()
        held = set(self._until)
        asked = sorted(self._wanted | held)
        answers = await gather(self._claims.claim(number, self._worker, lease_ms) for number in asked)
        for number, mine in zip(asked, answers, strict=True):
            if mine:
                self._until[number] = before + self._lease
            else:
                self._until.pop(number, None)
        if self._until.keys() - held:
            self._changed()
        return self._until.keys() == self._wanted

    async def leave(self) -> None:
        """Gives up everything, so that others need not wait for the lease; in vain without Redis."""
        held, self._until, self._wanted, self._workers = list(self._until), {}, frozenset(), ()
        try:
            async with asyncio.timeout(1.0):
                await gather(
                    (
                        self._claims.heartbeat(self._worker, 0),
                        *(self._claims.disclaim(number, self._worker) for number in held),
                    )
                )
        except (StoreUnavailable, TimeoutError) as error:
            logger.warning("worker %s could not say that it left: %s", self._worker, error)

    def __repr__(self) -> str:
        return f"Ownership({self._worker!r}, owned={list(self.owned)})"
