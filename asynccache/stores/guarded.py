"""A store behind a circuit breaker, which remembers what could not be invalidated.

Invariant: nothing that this process failed to invalidate is served by it again. Steps that void a cell and fail are
kept in a journal; while it is not empty the circuit is open, and it closes only after every one has been carried out.

    closed     calls go through; `failures` unanswered ones in a row open it
    open       calls fail at once, so that callers go to the loader without a wait
    half-open  a single probe, made by a task of the store and never by a caller: it asks for the server's time, then
               carries out the journal; success closes the circuit, failure leaves it open for a little longer

Leases that a call without an answer may have taken, or has not given back, are given back once Redis answers: else
callers would wait for a reader that is not there, up to the lease, for each key that was being loaded.

A crash while it is open loses the journal: other processes may then read what was not invalidated until its TTL.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import redis.exceptions

from asynccache.errors import StoreUnavailable
from asynccache.steps import (
    Acquire,
    BeginWrite,
    Bump,
    EndBump,
    EndWrite,
    Fill,
    Invalidate,
    Outcome,
    Put,
    Refresh,
    Release,
    Reply,
    Step,
)
from asynccache.stores.redis import RedisStore
from asynccache.stores.scripts import Argument, Call, Script
from asynccache.supervision import TaskOwner, backoff, logger
from asynccache.tokens import new_salt

__all__ = ["CircuitState", "GuardedStore"]

_PROBE_BASE: Final = 0.05
_PROBE_CAP: Final = 0.4
_PROBE_TIMEOUT: Final = 0.4
_CHUNK: Final = 500
"""Keys settled in one call, which has to end within the store's timeout."""
_MAX_MARKS: Final = 8
"""Writers of one key whose marks are remembered; the marks of more expire by themselves."""
_TRIES: Final = 3
"""How often a lease is given back that is not there, since the call that takes it may yet arrive."""


class CircuitState(enum.Enum):
    """Whether calls reach the store."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class GuardedStore:
    """A `RedisStore` that is left alone while it does not answer.

    Args:
        inner: the store.
        everything: the generation that outdates all entries, for when the journal overflows.
        failures: how many unanswered calls in a row open the circuit.
        max_journal: how many keys are remembered.
        required: whether `open` fails without an answer; else the circuit is open from the start.
    """

    def __init__(
        self,
        inner: RedisStore,
        *,
        everything: str,
        failures: int = 3,
        max_journal: int = 10_000,
        required: bool = True,
    ) -> None:
        self._required = required
        self._inner = inner
        self.now_ms: Callable[[], int] = inner.now_ms  # as it is: asked for by every hit
        self._everything = everything
        self._limit = failures
        self._max_journal = max_journal
        self._failures = 0
        self._state = CircuitState.CLOSED
        self._journal: dict[str, dict[bytes, Step]] = {}  # by key, then by the writer's token
        self._overflowed = False
        self._leases: dict[bytes, tuple[str, Release, int]] = {}  # by token: key, step, tries
        self._giving_back = False
        self._owner = TaskOwner("redis-probe")
        self._opened = 0
        self._closed = False

    @property
    def inner(self) -> RedisStore:
        """The store behind the breaker."""
        return self._inner

    @property
    def required(self) -> bool:
        """Whether `open` fails without an answer."""
        return self._required

    @property
    def state(self) -> CircuitState:
        """Whether calls reach the store now."""
        return self._state

    @property
    def opened(self) -> int:
        """How often the circuit has opened."""
        return self._opened

    @property
    def owed(self) -> int:
        """How many keys wait to be invalidated."""
        return len(self._journal) + self._overflowed

    async def open(self) -> None:
        self._failures = 0
        self._state = CircuitState.CLOSED
        self._closed = False
        try:
            await self._inner.open()
        except StoreUnavailable as error:
            if self._required:
                raise
            logger.warning("opened without Redis, which is used once it answers: %s", error)
            self._open()
            return
        if self.owed:  # from a life before this one
            await self._settle()

    async def aclose(self) -> None:
        """Ends the probe, after one last try to carry out what is owed."""
        self._closed = True
        await self._owner.aclose()
        self._leases.clear()
        self._giving_back = False
        if self.owed:
            try:
                await self._settle()
            except StoreUnavailable as error:
                logger.error("closed with %d invalidations owed: %s", self.owed, error)
        await self._inner.aclose()

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        self._admit()
        try:
            answer = await self._inner.read(keys)
        except StoreUnavailable as error:
            self._failed(error)
            raise
        self._failures = 0
        if self._state is not CircuitState.CLOSED:
            # The circuit opened while this read was under way: it may have missed an invalidation that is owed.
            self._admit()
        return answer

    async def apply(self, key: str, step: Step) -> Reply:
        self._admit((key, step))
        try:
            reply = await self._inner.apply(key, step)
        except StoreUnavailable as error:
            self._failed(error, (key, step))
            raise
        self._failures = 0
        return reply

    def expect_company(self) -> None:
        self._inner.expect_company()

    async def apply_many(self, steps: Sequence[tuple[str, Step]]) -> Sequence[Reply]:
        self._admit(*steps)
        try:
            replies = await self._inner.apply_many(steps)
        except StoreUnavailable as error:
            self._failed(error, *steps)
            raise
        self._failures = 0
        return replies

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> object:
        """Runs a script; see `RedisStore.run`."""
        self._admit()
        try:
            answer = await self._inner.run(script, keys, args)
        except StoreUnavailable as error:
            self._failed(error)
            raise
        self._failures = 0
        return answer

    async def run_many(self, calls: Sequence[Call], then: Sequence[Sequence[Argument]] = ()) -> Sequence[object]:
        """Runs scripts in one pipeline; see `RedisStore.run_many`."""
        self._admit()
        try:
            answers = await self._inner.run_many(calls, then)
        except StoreUnavailable as error:
            self._failed(error)
            raise
        self._failures = 0
        return answers

    def _admit(self, *steps: tuple[str, Step]) -> None:
        if self._state is not CircuitState.CLOSED:
            for key, step in steps:
                if not isinstance(step, BeginWrite):  # its end is what counts
                    self._owe(key, step)
                if not isinstance(step, Acquire | Refresh):  # it has taken nothing
                    self._abandon(key, step)
            raise StoreUnavailable(f"Redis: the circuit is {self._state.value}; a probe closes it once Redis answers")

    def _failed(self, error: StoreUnavailable, *steps: tuple[str, Step]) -> None:
        # A server that answers, if only that it refuses (out of memory, read-only), costs nobody a wait, and what it
        # has can still be read.
        self._failures = 0 if isinstance(error.__cause__, redis.exceptions.ResponseError) else self._failures + 1
        for key, step in steps:
            self._owe(key, step)
            self._abandon(key, step)
        if self._failures >= self._limit and self._state is CircuitState.CLOSED:
            logger.warning("circuit to Redis opened after %d failures in a row: %s", self._failures, error)
            self._open()

    def _owe(self, key: str, step: Step) -> None:
        """Remembers what must be carried out before anything is served again; the circuit opens until then."""
        token, owed = b"", step
        match step:
            case BeginWrite(token) | EndWrite(token):
                owed = EndWrite(token)
            case Invalidate() | Put():
                owed = Invalidate()
            case Bump() | EndBump():
                token = step.token if isinstance(step, EndBump) else b""
            case _:
                return
        if self._overflowed:
            return  # outdated with everything else
        steps = self._journal.setdefault(key, {})
        # Each takes its own writer's mark away; any of them voids the cell.
        if token in steps or len(steps) < _MAX_MARKS:
            steps[token] = owed
        if len(self._journal) > self._max_journal:
            # Every entry carries this one generation: to bump it outdates all the keys and tags, and is bounded.
            self._journal.clear()
            self._overflowed = True
        self._open()

    def _open(self) -> None:
        if self._state is CircuitState.CLOSED:
            self._state = CircuitState.OPEN
            self._opened += 1
            if not self._closed:  # else the next `open` sees to it
                self._owner.start(self._probe())

    async def _probe(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            await asyncio.sleep(backoff(attempt, _PROBE_BASE, _PROBE_CAP))
            self._state = CircuitState.HALF_OPEN
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT):
                    await self._inner.reset()
                    await self._inner.ping()
                await self._settle()
            except Exception as error:  # noqa: BLE001 - whatever it is: without a probe the circuit stays open for ever
                self._state = CircuitState.OPEN
                if not isinstance(error, StoreUnavailable | TimeoutError):
                    logger.warning("probe of Redis failed: %s: %s", type(error).__name__, error)
                continue
            self._failures = 0
            self._state = CircuitState.CLOSED
            logger.info("circuit to Redis closed after %d probes", attempt)
            return

    async def _settle(self) -> None:
        while self._journal or self._overflowed:
            overflowed, self._overflowed = self._overflowed, False
            owed = {key: self._journal.pop(key) for key in list(islice(self._journal, _CHUNK))}
            steps = [(key, step) for key, by_token in owed.items() for step in by_token.values()]
            if overflowed:
                steps.append((self._everything, Bump(new_salt())))
            try:
                await self._inner.apply_many(steps)
            except BaseException:
                self._overflowed |= overflowed
                for key, by_token in owed.items():
                    self._journal[key] = by_token | self._journal.get(key, {})
                raise

    def _abandon(self, key: str, step: Step) -> None:
        """Remembers a lease that nobody will use, and that may stand in the cell."""
        match step:
            case Acquire(token) | Refresh(token) | Fill(token):
                release = Release(token)
            case Release(token):
                release = step
            case _:
                return
        if len(self._leases) < self._max_journal and not self._closed:  # the rest expire by themselves
            self._leases[token] = (key, release, 0)
            if not self._giving_back:
                self._giving_back = True
                self._owner.start(self._give_back())

    async def _give_back(self) -> None:
        attempt = 0
        try:
            while self._leases:
                attempt += 1
                await asyncio.sleep(backoff(attempt, _PROBE_BASE, _PROBE_CAP))
                if self._state is not CircuitState.CLOSED:
                    continue
                leases = list(islice(self._leases.items(), _CHUNK))
                try:
                    replies = await self._inner.apply_many([(key, release) for _, (key, release, _) in leases])
                except StoreUnavailable:
                    continue
                for (token, (key, release, tries)), reply in zip(leases, replies, strict=True):
                    del self._leases[token]
                    if reply.outcome is Outcome.REFUSED and tries + 1 < _TRIES:
                        self._leases[token] = (key, release, tries + 1)
        finally:
            self._giving_back = False

    def __repr__(self) -> str:
        return f"GuardedStore({self._inner!r}, {self._state.value}, owed={self.owed})"
