"""Warming: loads keys before they are asked for, through the read path that all reads take.

Invariant: it is a reader among others. What it loads it stores under a lease, which every write takes away, so it never
replaces newer data; what another reader of any process is loading it does not load. So it may be stopped, repeated
and run twice at any time, and the worst that a crash leaves behind are leases that expire.

    feed    one task takes keys of the stream into batches, no more than `concurrency` ahead of the workers
    look    one MGET for a batch; what is fresh is skipped
    pace    what has to be loaded waits for its share of `rate`
    load    one `load_many` for the batch; failed keys are tried again, with growing waits
    tell    the position is that of the first key that is not done with; then progress, and the checkpoint

Without Redis it stops: what it would load it could not store, and the database would be asked for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable, Mapping, Sized
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from asynccache.errors import ConfigurationError, InvalidKey, StoreUnavailable
from asynccache.events import MissReason
from asynccache.strategies.checkpoints import Checkpoint
from asynccache.strategies.scope import Scope
from asynccache.strategies.verdicts import Hit
from asynccache.strategies.warm_bar import listener
from asynccache.strategies.warm_keys import Ask, Asking, Note, taker, with_generations
from asynccache.strategies.warm_reports import Pace, Settings, WarmKeys, WarmProgress, WarmReport
from asynccache.supervision import TaskOwner, backoff, gather, logger

__all__ = ["CLOSED", "Warming"]

V = TypeVar("V")

CLOSED: Final = "the cache was closed"
"""Why a warming ended that was under way at that time."""
_ATTEMPTS: Final = 5
"""How often a batch is tried."""
_RETRY_BASE: Final = 0.2
_RETRY_CAP: Final = 5.0
_YIELD: Final = 10_000
"""Keys that are skipped to resume before other tasks get a turn."""


class _Outcome(NamedTuple):
    """Whether a batch could load anything, and whether some of it failed for good."""

    loaded: bool
    failed: bool


class Warming(Generic[V]):
    """A warming, made by `warm` of a strategy: await it, and its report comes back. Nothing happens before.

    Args:
        scope: the namespace.
        name: the strategy.
        keys: the stream of keys.
        ask: makes questions.
        prepare: opens what the strategy needs.
        settings: how to go about it.
        crowd: tells the source that many keys are about to be loaded; None if it loads one at a time.
        awaited: whether `ask` waits for something.
        owned: whether `keys` is a generator that nobody else will close.

    Raises:
        ConfigurationError: `keys` is no stream of keys, or a checkpoint is wanted without Redis.
        MissingExtra: a progress bar is wanted, and `rich` is not installed.
    """

    def __init__(
        self,
        scope: Scope,
        name: str,
        keys: WarmKeys,
        ask: Ask[V],
        prepare: Callable[[], Awaitable[None]],
        settings: Settings,
        *,
        crowd: Callable[[], None] | None,
        awaited: bool = False,
        owned: bool = False,
    ) -> None:
        if isinstance(keys, str | bytes) or not isinstance(keys, Iterable | AsyncIterable):
            raise ConfigurationError(
                f"{name}: keys must be an iterable of keys, or an async one, not {type(keys).__name__} ({keys!r:.100})"
            )
        self._runtime = scope.runtime
        self._name = name
        self._keys = keys
        self._owned = owned
        self._asking = Asking(name, ask, awaited=awaited)
        self._prepare = prepare
        self._settings = settings
        self._crowd = crowd
        self._total = len(keys) if isinstance(keys, Sized) else None
        resume = settings.resume
        self._checkpoint = Checkpoint(scope, name, resume) if isinstance(resume, str) else None
        self._position = resume if isinstance(resume, int) else 0
        self._tell, self._close = listener(settings.progress, name)
        self._pace = Pace(settings.rate)
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._ahead = asyncio.Semaphore(settings.concurrency)
        self._ready: asyncio.Queue[tuple[int, list[Any]] | None] = asyncio.Queue()  # bounded by `_ahead`
        self._owner = TaskOwner("warming")
        self._feeder: asyncio.Task[None] | None = None
        self._halt = asyncio.Event()
        self._stopped: str | None = None
        self._begun = 0.0
        self._used = False
        self._done: dict[int, int] = {}  # ends of batches that are done with, by their begin
        self._given_up: list[tuple[int, int]] = []  # batches that failed since the last one that did not
        self._loaded = self._skipped = self._missing = self._failed = 0

    def stop(self, reason: str = "it was told to stop") -> None:
        """Lets the batches under way come to their end, and begins no more; the report says where to resume.

        A generator that is being waited for is cancelled.

        Args:
            reason: for the report.
        """
        if not self._halt.is_set():
            self._stopped = reason
            self._halt.set()
            if self._feeder is not None:
                self._feeder.cancel()

    @property
    def progress(self) -> WarmProgress:
        """How far it has come."""
        return WarmProgress(*self._facts())

    def __await__(self) -> Generator[Any, None, WarmReport]:
        return self.run().__await__()

    async def run(self) -> WarmReport:
        """Warms; the same as to await it.

        Returns:
            What was done. Failed keys, a Redis that does not answer, and a database that fails again and again do not
            raise: see `stopped` and `failed`.

        Raises:
            ConfigurationError: what will not pass, such as a table that does not fit its model.
            Whatever the stream of keys or `progress` raises.
        """
        if self._used:
            raise ConfigurationError(f"{self!r} has been run: make another, with resume={self._position}")
        self._used = True
        self._begun = self._runtime.clock.monotonic()
        self._runtime.check()
        self._runtime.running.add(self)
        try:
            main = self._owner.start(self._warm(), handled=True)
            await asyncio.wait((main,))
            if not main.cancelled():
                main.result()  # raises what was raised
        finally:
            self._runtime.running.discard(self)
            await self._owner.aclose()
            self._close()
        report = WarmReport(*self._facts(), stopped=self._stopped)
        logger.info("warmed: %s", report)
        return report

    async def aclose(self) -> None:
        """Ends it at once: its loads are cancelled, and give back their leases."""
        self.stop(CLOSED)
        await self._owner.aclose()

    async def _warm(self) -> None:
        await self._prepare()
        if not await self._resume():
            return
        self._feeder = feeder = self._owner.start(self._feed(), handled=True)
        if self._halt.is_set():
            feeder.cancel()
        feeder.add_done_callback(self._no_more)  # however it ends, and if that is before its first step
        await gather(self._work() for _ in range(self._settings.concurrency))
        if feeder.done() and not feeder.cancelled() and not self._halt.is_set():
            feeder.result()  # raises what the stream raised
            self._pass_over()
        if self._checkpoint is not None:
            await self._checkpoint.save(self._position, done=self._stopped is None)
        self._show()

    def _no_more(self, _: object) -> None:
        for _worker in range(self._settings.concurrency):
            self._ready.put_nowait(None)

    async def _resume(self) -> bool:
        if self._checkpoint is None:
            return True
        try:
            self._position = await self._checkpoint.begin()
        except StoreUnavailable as error:
            self.stop(f"the checkpoint could not be read: {error}")
            return False
        return True

    # -- feeding

    async def _feed(self) -> None:
        take = taker(self._keys)
        try:
            begin = 0
            while begin < self._position:
                skipped = await take(min(_YIELD, self._position - begin))
                if not skipped:
                    return
                begin += len(skipped)
                await asyncio.sleep(0)
            while True:
                await self._ahead.acquire()
                batch = await take(self._settings.batch_size)
                if not batch:
                    return
                self._ready.put_nowait((begin, batch))
                begin += len(batch)
        finally:
            if self._owned and isinstance(self._keys, AsyncGenerator):
                await self._keys.aclose()

    # -- working

    async def _work(self) -> None:
        while not self._halt.is_set() and (item := await self._ready.get()) is not None:
            begin, batch = item
            if self._halt.is_set():
                return
            outcome = await self._batch(batch)
            if outcome is None:
                continue
            self._ahead.release()
            self._finished(begin, begin + len(batch), outcome)
            if self._checkpoint is not None and not self._halt.is_set():
                await self._checkpoint.save(self._position)
            self._show()

    async def _batch(self, keys: list[Any]) -> _Outcome | None:
        """Warms a batch, in several attempts; None if it has to be done again after a stop."""
        attempt, waiting, errors, loaded = 0, keys, dict[str, Exception](), False
        while True:
            attempt += 1
            try:
                tried = await self._attempt(waiting, errors)
            except StoreUnavailable as error:
                logger.info("warming %s: Redis did not answer, attempt %d: %s", self._name, attempt, error)
                if attempt == _ATTEMPTS:
                    self.stop(f"Redis does not answer, and nothing that is loaded could be stored: {error}")
                    return None
            else:
                if tried is None:
                    return None
                failed = [note for note in tried if note.error is not None]
                loaded = loaded or len(failed) < len(tried)
                if not failed:
                    return _Outcome(loaded, failed=False)
                waiting = [note.key for note in failed]
                errors = {note.cell: note.error for note in failed if note.error is not None}
                logger.info("warming %s: attempt %d of %d keys: %r", self._name, attempt, len(failed), failed[0].error)
                if attempt == _ATTEMPTS or isinstance(failed[0].error, InvalidKey):
                    self._failed += len(failed)
                    logger.warning("warming %s: %d keys failed: %r", self._name, len(failed), failed[0].error)
                    return _Outcome(loaded, failed=True)
            if await self._pause(backoff(attempt, _RETRY_BASE, _RETRY_CAP)):
                return None

    async def _attempt(self, keys: list[Any], errors: Mapping[str, Exception]) -> list[Note[V]] | None:
        """Looks at keys, and loads what is not fresh.

        Args:
            keys: key values.
            errors: of the attempt before, by cell.

        Returns:
            What became of those that had to be loaded; None if it was stopped before that.
        """
        self._runtime.check()
        reader = self._runtime.reader
        since = reader.moment()
        asked, refused = await self._asking.questions(keys)
        verdicts = await with_generations(
            self._runtime, await reader.looker.look_many([question for _, question in asked])
        )
        works: list[tuple[Note[V], Callable[[], Awaitable[object]]]] = []
        paused: list[Note[V]] = []
        now = self._runtime.store.now_ms()
        for (note, question), verdict in zip(asked, verdicts, strict=True):
            if isinstance(verdict, Hit):
                if not verdict.stale and not self._settings.refresh:
                    continue
                if verdict.entry.refresh_until <= now:
                    works.append((note, partial(reader.refresh_stale, question, verdict, crowded=True)))
                elif question.key in errors:  # nobody may try again so soon
                    note.error = errors[question.key]
                    paused.append(note)
            elif verdict.reason is MissReason.UNAVAILABLE:
                raise StoreUnavailable("no answer to a look")
            elif verdict.reason is not MissReason.WRITING:  # what is being written could not be stored
                works.append((note, partial(reader.resolve, question, verdict, since)))
        if works and await self._pause(self._pace.reserve(len(works), self._runtime.clock.monotonic())):
            return None
        if len(works) > 1 and self._crowd is not None:
            self._crowd()
            self._runtime.store.expect_company()
        await gather(self._one(note, work) for note, work in works)
        self._failed += refused
        self._skipped += len(keys) - refused - len(works) - len(paused)
        return self._count([*(note for note, _ in works), *paused])

    def _count(self, notes: list[Note[V]]) -> list[Note[V]]:
        for note in notes:
            if isinstance(note.error, ConfigurationError) and not isinstance(note.error, InvalidKey):
                raise note.error
            if note.error is None:
                self._loaded += note.loaded
                self._missing += note.missing
                self._skipped += not (note.loaded or note.missing)  # somebody else was faster
        return notes

    async def _one(self, note: Note[V], work: Callable[[], Awaitable[object]]) -> None:
        try:
            if self._crowd is not None:
                await work()
                return
            # Before the lease is taken: readers of the key must not wait for our turn.
            async with self._turns:
                await work()
        except Exception as error:  # noqa: BLE001 - counted, and tried again
            note.error = error

    async def _pause(self, seconds: float) -> bool:
        """Waits; True if it is to stop."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._halt.wait()
        return self._halt.is_set()

    # -- telling

    def _finished(self, begin: int, end: int, outcome: _Outcome) -> None:
        if outcome.failed and not outcome.loaded:
            # The position stays before them: if this turns out to be an outage, they have to be done again.
            self._given_up.append((begin, end))
            if len(self._given_up) >= self._settings.max_failures:
                self.stop(f"{len(self._given_up)} batches in a row could not be loaded; the log says why")
            return
        if outcome.loaded:
            self._pass_over()
        self._advance(begin, end)

    def _pass_over(self) -> None:
        """What was given up was not an outage."""
        for begin, end in self._given_up:
            self._advance(begin, end)
        self._given_up.clear()

    def _advance(self, begin: int, end: int) -> None:
        self._done[begin] = end
        while (reached := self._done.pop(self._position, None)) is not None:
            self._position = reached

    def _show(self) -> None:
        if self._tell is not None:
            self._tell(self.progress)

    def _facts(self) -> tuple[int, int, int, int, int, int | None, float]:
        seconds = self._runtime.clock.monotonic() - self._begun if self._used else 0.0
        counts = (self._loaded, self._skipped, self._missing, self._failed)
        return self._position, *counts, self._total, seconds

    def __repr__(self) -> str:
        return f"Warming({self._name!r}, position={self._position}, {self._stopped or 'not stopped'})"
