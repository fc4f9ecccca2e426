"""The listener: turns what triggers have recorded in the outbox into invalidations. This module holds the protocol.

Invariant: once a change of a followed table is committed, every entry and tag mapped from it is invalidated in Redis
after the commit, at least once, whatever crashes, restarts or disconnects in between. (So a load that read the row as
it was cannot be what rests: either it had not stored yet, and its lease is void now, or what it stored is emptied.)

    record    a trigger inserts what changed into the outbox, in the writer's transaction, with the transaction's id;
              NOTIFY at its commit is a mere wake-up
    claim     one process holds the listener's row, by a lease (`places.py`); the others stand by
    look      now := pg_current_snapshot(). To be handled is what is visible in `now` and not in `position`
    tell      page by page, in order of (xid, id), bounded: invalidate, and wait for Redis' acknowledgement
    move      position := now, in memory at once and in the row within `poll`; by whoever holds the row only

Neither ids nor transaction ids are in the order of commits, so a position is no number but a snapshot: which
transactions had ended. A row whose transaction runs while `now` is taken is not visible in it, and so is left for the
next look, however low its id; one that ended before is visible, and is read now. Nothing is in between: for a committed
row, `pg_visible_in_snapshot(xid, s)` says exactly whether a statement with the snapshot s sees it. A transaction that
stays open for hours stays in the snapshot's list of those running, and costs one look into the index at each turn. This
is how PgQ cuts its batches (https://github.com/pgq/pgq; see PostgreSQL's documentation of "Transaction ID and Snapshot
Information Functions").

A crash after `look` or `tell` repeats them: to invalidate twice is to invalidate once. A crash before `move` has
reached the row repeats what came after the last one that did.

A position may be lost: the row is new, or was given up after `retention` without a move, and so may changes be that it
had not seen; or it was taken on another server, before a failover or a restore. Then

    begin     position := pg_current_snapshot(), cleared := false, committed: from now on nobody prunes what comes after
    clear     outdate all that any change of the tables could; wait for Redis
    cleared   := true; a crash before repeats the clearing

What the position does not see was committed after it, and will be read; unless one who had not seen `begin` has pruned
it, but he saw it committed, which was before `begin` was, and so before the clearing.

Prune: what is visible in the positions of all listeners, looked at in one statement.

Redis down: nothing moves; the row is released, so that a process that reaches Redis may take over, and claimed again
after `poll`. Postgres down: the supervisor starts the listener again within `longest_wait`. A connection that is
silently dead: every statement is bounded by `timeout`, and there is one every `poll` seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import asyncpg

from asynccache.clock import Clock
from asynccache.errors import StoreUnavailable
from asynccache.events import ChangesHealth
from asynccache.postgres.changes.ddl import Outbox
from asynccache.postgres.changes.decoding import Decoder
from asynccache.postgres.changes.installing import Survey
from asynccache.postgres.changes.interpreting import ChangesStats, Interpreter, Read
from asynccache.postgres.changes.mapping import Follows, Outdated
from asynccache.postgres.changes.outbox import START, OutboxReader, Page
from asynccache.postgres.changes.places import Place, Places, Snapshot, server_of
from asynccache.postgres.changes.tables import TableChanges
from asynccache.postgres.database import Connections
from asynccache.postgres.failures import reading
from asynccache.supervision import logger

__all__ = ["ChangeListener", "Surveys", "Timing"]

_TOLD_AT_ONCE: Final = 500
"""Keys told in one call to Redis, which has its own time limit."""
_PRUNE_EVERY: Final = 5.0
_PRUNE_ROUNDS: Final = 10
_SURVEY_EVERY: Final = 1.0
"""Seconds between two looks for what is missing."""
_CLEAN_UP_SECONDS: Final = 1.0


class Surveys(Protocol):
    """What looks at what is installed."""

    async def survey(self, connection: Any) -> Survey:
        """What is there; raises SchemaMismatch if there is no outbox."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds.

    Attributes:
        poll: between two looks without a wake-up.
        timeout: one statement, at most.
        lease: how long a claim holds.
    """

    poll: float
    timeout: float
    lease: float


class _NotOurs(Exception):
    """Another one has claimed the row, or it was given up."""


class ChangeListener:
    """The service that tells one namespace of changes.

    Args:
        name: of the service.
        connections: where they come from.
        surveys: is asked at each new connection, and while something is missing.
        outbox: names and SQL.
        tables: what to listen to.
        follower: is told.
        places: the listener's row.
        timing: how long things take.
        clock: reads time.
    """

    def __init__(
        self,
        name: str,
        connections: Connections,
        surveys: Surveys,
        outbox: Outbox,
        tables: list[TableChanges],
        follower: Follows,
        places: Places,
        timing: Timing,
        clock: Clock,
    ) -> None:
        self.name = name
        self.longest_wait = max(5.0, 2 * timing.poll)
        self.counts = ChangesStats()
        self._connections = connections
        self._surveys = surveys
        self._outbox = outbox
        self._follower = follower
        self._places = places
        self._timing = timing
        self._clock = clock
        self._interpreter = Interpreter(tables, outbox.schema, follower, self.counts)
        self._reader = OutboxReader(outbox, self._interpreter.relations)
        self._survey: Survey | None = None
        self._surveyed = False
        self._surveyed_at = 0.0
        self._doubt = False
        self._position: Snapshot | None = None
        self._saved_at = 0.0
        self._pruned_at = clock.monotonic()
        self._active = False
        self._lag: float | None = None
        self._current_at: float | None = None
        self._problem: str | None = None

    def health(self) -> ChangesHealth:
        """How it is, as far as this process knows."""
        age = None if self._current_at is None else max(0.0, self._clock.monotonic() - self._current_at)
        return ChangesHealth(
            self.name.partition(":")[2],
            self._problem is None,
            self._active,
            self._lag,
            age,
            self.counts.changes,
            self._problem,
        )

    async def run(self, alive: Callable[[], None]) -> None:
        """Listens until cancelled.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or refuses.
            SchemaMismatch: the triggers are not installed.
        """
        await self._connections.open()
        try:
            while True:
                place = await self._claim(alive)
                try:
                    await self._work(place, alive)
                except _NotOurs:
                    logger.warning("%s: its place was taken or given up; claiming it again", self.name)
                except StoreUnavailable as error:
                    if self._problem is None:
                        logger.warning("%s: Redis was not told, and is tried again: %s", self.name, error)
                    self._note(error)
                    _stop_if_told()
                    await self._pause()
        except Exception as error:
            self._note(error)
            self._surveyed = False
            raise
        finally:
            self._active = False
            await self._connections.aclose()

    def _note(self, error: Exception) -> None:
        self._problem = f"{type(error).__name__}: {error}"

    async def _pause(self) -> None:
        await asyncio.sleep(self._timing.poll * random.uniform(0.8, 1.2))  # noqa: S311 - not all processes at once

    # -- standing by

    async def _claim(self, alive: Callable[[], None]) -> Place:
        """Waits until the work is ours; meanwhile a look every `poll` seconds, on a connection of the pool."""
        while True:
            with reading(f"claiming the place of {self.name}{self._connections.where}"):
                async with self._connections.connection(self._timing.timeout) as connection:
                    if not self._surveyed:  # first, for its message: without the tables the claim would fail
                        await self._surveys.survey(connection)
                        self._surveyed = True
                    place = await self._places.claim(connection)
                    age = None if place else await self._places.age(connection)
            if place is not None:
                return place
            if age is not None:
                self._current_at = self._clock.monotonic() - age
            self._problem = None
            alive()
            await self._pause()

    # -- the work

    async def _work(self, place: Place, alive: Callable[[], None]) -> None:
        connection = await self._connections.dedicated(self._timing.timeout)
        answers = False
        try:
            wake = asyncio.Event()
            with reading(f"listening to changes{self._connections.where}"):
                async with asyncio.timeout(self._timing.timeout):
                    await self._prepare(connection, wake)
            await self._take_up(connection, place)
            self._active = True
            while True:
                wake.clear()
                await self._round(connection)
                _stop_if_told()
                self._problem = "; ".join(self._survey.faults) or None if self._survey else None
                alive()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.poll):
                        await wake.wait()
        except (StoreUnavailable, _NotOurs, asyncio.CancelledError):
            answers = True
            raise
        finally:
            self._active = False
            await self._leave(connection, release=answers)

    async def _prepare(self, connection: Any, wake: asyncio.Event) -> None:
        def woken(*_: object) -> None:
            wake.set()

        await connection.execute(f"SELECT pg_catalog.set_config('application_name', 'asynccache {self.name}', false)")
        await self._look_around(connection)
        connection.add_termination_listener(woken)
        if self._outbox.notify:
            await connection.add_listener(self._outbox.channel, woken)

    async def _leave(self, connection: Any, *, release: bool) -> None:
        try:
            if release and not connection.is_closed():
                with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    async with asyncio.timeout(_CLEAN_UP_SECONDS):
                        await self._places.release(connection)
                        await connection.close()
        finally:
            if not connection.is_closed():
                connection.terminate()

    async def _ask(self, work: Callable[[], Any]) -> Any:
        """One statement, within the time that it may take."""
        with reading(f"reading changes{self._connections.where}"):
            async with asyncio.timeout(self._timing.timeout):
                return await work()

    async def _take_up(self, connection: Any, place: Place) -> None:
        """Goes on from the position, or begins anew if it is lost."""
        here = await self._ask(lambda: server_of(connection))
        now = await self._ask(lambda: self._reader.now(connection))
        position, cleared = place.position, place.cleared
        if place.server != here or position.xmax > now.xmax:
            logger.warning(
                "%s: %s, so what changed meanwhile is not known: clearing all that it could outdate",
                self.name,
                "it is new here, or was away for too long" if not place.server else "this is not the server it knew",
            )
            position, cleared = await self._ask(lambda: self._places.begin(connection, here)), False
            if position is None:
                raise _NotOurs
        if not cleared:
            await self._clear(connection)
            if not await self._ask(lambda: self._places.clear(connection)):
                raise _NotOurs
        self._position = position
        self._saved_at = self._clock.monotonic()

    async def _round(self, connection: Any) -> None:
        """Handles what has been committed since the position."""
        position = self._position
        assert position is not None  # noqa: S101 - taken up before
        if self._doubt:
            await self._clear(connection)
            self._doubt = False
        began = self._clock.monotonic()
        now = await self._ask(lambda: self._reader.now(connection))
        cursor, more, handled, lag = START, True, False, 0.0
        while more:
            page: Page = await self._ask(lambda cursor=cursor: self._reader.read(connection, position, now, cursor))  # type: ignore[misc]  # of this turn
            read_at = self._clock.monotonic()
            cursor, more = page.last, page.more
            if page.changes:
                # The functions of users, and of versions, take as long as they take; the lease must not end meanwhile.
                outdated = await self._interpreter.outdated(
                    page.changes, self._reading_on(connection), lambda: self._save(connection, position)
                )
                await self._tell(connection, outdated, position)
                handled = True
                lag = max(lag, page.age + self._clock.monotonic() - read_at)
        self._position, self._current_at = now, began
        if handled:
            self._lag = lag
        await self._save(connection, now)
        if self._clock.monotonic() - self._pruned_at >= _PRUNE_EVERY:
            await self._prune(connection)
        if self._survey and self._survey.faults and self._clock.monotonic() - self._surveyed_at >= _SURVEY_EVERY:
            await self._ask(lambda: self._look_around(connection))

    def _reading_on(self, connection: Any) -> Read:
        def read(decoder: Decoder, columns: tuple[str, ...], rows: list[list[str | None]]) -> Any:
            return self._ask(lambda: decoder.rows(connection, columns, rows))

        return read

    async def _clear(self, connection: Any) -> None:
        """Outdates all that any change of the tables could."""
        await self._tell(connection, self._interpreter.everything(), None)
        self.counts.cleared += 1

    async def _tell(self, connection: Any, outdated: Outdated, position: Snapshot | None) -> None:
        """Invalidates, in bounded calls; keeps the place meanwhile."""
        for cells, generations in outdated.batches(_TOLD_AT_ONCE):
            await self._follower.invalidate(cells, generations)
            await self._save(connection, position)
        self.counts.entries += len(outdated.cells)
        self.counts.tags += len(outdated.generations)

    async def _look_around(self, connection: Any) -> None:
        """Reads what is installed. What was missing, and is there now, has missed changes: it is to be cleared."""
        before, self._survey = self._survey, await self._surveys.survey(connection)
        self._surveyed_at = self._clock.monotonic()
        self._interpreter.describe(self._survey.tables)
        faults, known = self._survey.faults, before.faults if before else ()
        if faults != known:
            self._doubt |= bool(known)
            if faults:
                logger.error("%s: %s", self.name, "; ".join(faults))

    async def _save(self, connection: Any, position: Snapshot | None) -> None:
        """Writes the position and renews the lease, if `poll` has passed since it was last done."""
        now = self._clock.monotonic()
        if now - self._saved_at < self._timing.poll * 0.9:
            return
        if position is None:
            ours = await self._ask(lambda: self._places.renew(connection))
        else:
            ours = await self._ask(lambda: self._places.move(connection, position))
        if not ours:
            raise _NotOurs
        self._saved_at = now

    async def _prune(self, connection: Any) -> None:
        await self._ask(lambda: self._places.forget(connection))
        for _ in range(_PRUNE_ROUNDS):
            pruned = await self._ask(lambda: self._reader.prune(connection))
            self.counts.pruned += pruned
            if not self._reader.left(pruned):
                break
        self._pruned_at = self._clock.monotonic()

    def __repr__(self) -> str:
        return f"ChangeListener({self.name!r}, {'active' if self._active else 'not active'})"


def _stop_if_told() -> None:
    """Ends a task that was cancelled and went on: `asyncio.wait_for` of Python 3.11, by which redis-py sends commands,
    drops a cancellation that comes just when the command has been sent."""
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError
