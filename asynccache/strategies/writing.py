"""The write path that strategies share: mark what is about to change, change the database, take the marks away.

    begin    each cell and each tag's generation becomes a writing cell: reads go to the database and store nothing
    write    the caller changes the database
    end      the cell becomes the new value, or empty; the generation becomes a new one

A crash after `begin` leaves writing cells: they expire at the writer's deadline, and nothing old is in them. A caller
that is cancelled still ends its write; an error inside ends it with an empty cell, since the database may have
changed. If Redis fails at the end, the store's journal ends it before anything is served again. After an error that
leaves open whether and when the database commits (a lost connection, a timeout) the marks stay until the deadline: an
entry loaded before a late commit would be a stale rest.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from asynccache.entry import NewValue
from asynccache.errors import DatabaseUnavailable, LoadTimeout, StoreUnavailable
from asynccache.events import Counters
from asynccache.steps import BeginWrite, Bump, EndBump, EndWrite, Invalidate, Step
from asynccache.stores.base import Store
from asynccache.supervision import TaskOwner, finish, logger
from asynccache.tokens import new_salt, new_token
from asynccache.transactions import current_transaction

__all__ = ["OnOutage", "Update", "Writer", "unsettled"]

OnOutage: TypeAlias = Literal["refuse", "proceed"]
"""What a write does when Redis cannot be told of it: raise before the database is touched, or go on and invalidate
what it touched before the cache serves anything again."""

_CHUNK: Final = 1000
"""Steps in one call to the store, which has to end within its timeout."""
_SHOWN: Final = 5


class Writer:
    """Begins and ends writes.

    Args:
        store: holds the cells.
        counters: counts.
        on_outage: what a write does without Redis.
        write_timeout: longest allowed write, in seconds; after that a crashed writer's marks are gone.
    """

    def __init__(self, store: Store, counters: Counters, *, on_outage: OnOutage, write_timeout: float) -> None:
        self._store = store
        self._count = counters
        self._refuse = on_outage == "refuse"
        self._write_ms = int(write_timeout * 1000)
        self._owner = TaskOwner("writes")

    @property
    def write_seconds(self) -> float:
        """The longest allowed write, in seconds."""
        return self._write_ms / 1000

    def update(
        self,
        cells: Sequence[str] | Callable[[], Awaitable[Sequence[str]]],
        generations: Sequence[str] = (),
        *,
        deferred: bool = False,
        counted: bool = True,
    ) -> Update:
        """A write of these cells and of whatever carries these generations, to be entered around the database's.

        Args:
            cells: keys, or what finds them once the write begins.
            generations: of tags.
            deferred: inside of a transaction that ends writes (`Transaction`) it ends with that.
            counted: it is one write; else it carries out others, which were counted and recorded when they were made.
        """
        return Update(self, cells, tuple(dict.fromkeys(generations)), deferred=deferred, counted=counted)

    async def invalidate(self, cells: Sequence[str], generations: Sequence[str] = (), *, certain: bool = False) -> None:
        """Empties cells, and outdates whatever carries the generations.

        Args:
            cells: keys.
            generations: of tags and namespaces.
            certain: raises without an answer from Redis whatever `on_outage` says, because the caller will try again.

        Raises:
            StoreUnavailable: Redis did not confirm it; it is carried out before this process serves anything again.
        """
        steps: list[tuple[str, Step]] = [(key, Invalidate()) for key in dict.fromkeys(cells)]
        steps += [(key, Bump(new_salt())) for key in dict.fromkeys(generations)]
        if not steps:
            return
        self._count.invalidations += len(steps)
        try:
            await self._apply(steps)
        except StoreUnavailable:
            self._count.store_failures += 1
            if self._refuse or certain:
                raise

    async def begin(self, update: Update) -> None:
        """Marks what is about to change."""
        mark = BeginWrite(update.token, self._write_ms)
        steps = [(key, mark) for key in (*update.cells, *update.generations)]
        try:
            # Run to its end even if the caller is cancelled: else the marks might come after their end.
            await finish(self._owner, self._apply(steps))
        except StoreUnavailable:
            self._count.store_failures += 1
            if self._refuse:
                raise
        except BaseException:
            await self.end(update, failed=True)
            raise

    async def end(self, update: Update, *, failed: bool) -> None:
        """Takes the marks away."""
        values = {} if failed else update.values
        steps: list[tuple[str, Step]] = [(key, EndWrite(update.token, values.get(key))) for key in update.cells]
        steps += [(key, EndBump(update.token, new_salt())) for key in update.generations]
        self._count.writes += update.counted
        try:
            await finish(self._owner, self._apply(steps))
        except StoreUnavailable:
            # The database has the write; the journal has the rest.
            self._count.store_failures += 1

    def leave(self, update: Update) -> None:
        """Lets the marks expire by themselves."""
        self._count.writes += update.counted
        # Of a batch its flusher tells, and not each time it tries.
        level = logging.WARNING if update.counted else logging.INFO
        logger.log(level, "the outcome of a write is unknown: %r is not cached for %g s", update, self.write_seconds)

    async def _apply(self, steps: Sequence[tuple[str, Step]]) -> None:
        if len(steps) == 1:
            await self._store.apply(*steps[0])  # together with those of other callers
            return
        failed: StoreUnavailable | None = None
        for at in range(0, len(steps), _CHUNK):
            try:
                await self._store.apply_many(steps[at : at + _CHUNK])
            except StoreUnavailable as error:  # what it owes is in its journal; the rest has to get there, too
                failed = error
        if failed is not None:
            raise failed

    async def aclose(self) -> None:
        """Waits for nothing: ends of writes belong to the tasks that wait for them."""
        await self._owner.aclose()


class Update:
    """One write, as an async context manager.

    Attributes:
        values: what the cells are to become, if nobody else writes them meanwhile; a cell that is left out is emptied.
        deleted: cells of what no longer exists.
        counted: whether it counts, and is recorded, as a write.
    """

    def __init__(
        self,
        writer: Writer,
        cells: Sequence[str] | Callable[[], Awaitable[Sequence[str]]],
        generations: tuple[str, ...],
        *,
        deferred: bool,
        counted: bool = True,
    ) -> None:
        self._writer = writer
        self._find = cells if callable(cells) else None
        self.cells: tuple[str, ...] = () if callable(cells) else tuple(dict.fromkeys(cells))
        self.generations = generations
        self.token = b""
        self.values: dict[str, NewValue] = {}
        self.deleted: frozenset[str] = frozenset()
        self._deferred = deferred
        self.counted = counted
        self._failed = False

    async def __aenter__(self) -> Self:
        if self._find is not None:
            self.cells = tuple(dict.fromkeys(await self._find()))
        self.token = new_token()  # here, so that one object may be entered again
        self.values = {}
        self._failed = False
        await self._writer.begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transaction = current_transaction() if self._deferred else None
        if transaction is not None:
            self._failed = error is not None
            transaction.updates.append(self)
        else:
            await self.end(error)

    async def end(self, error: BaseException | None = None) -> None:
        """Takes the marks away, or leaves them if it is open what the database does.

        Args:
            error: what the body, or the transaction that it was in, raised.
        """
        if error is not None and unsettled(error):
            self._writer.leave(self)
        else:
            await self._writer.end(self, failed=self._failed or error is not None)

    def __repr__(self) -> str:
        names = (*self.cells, *self.generations)
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"Update({', '.join(names[:_SHOWN]) or '...'}{more})"


def unsettled(error: BaseException) -> bool:
    """Whether the database may yet commit what the block was doing. Cancellation is not among them: drivers wait until
    the server has ended a cancelled statement, as asyncpg's pool does before it takes the connection back."""
    if isinstance(error, LoadTimeout):
        return False
    if isinstance(error, DatabaseUnavailable | TimeoutError | OSError):
        return True
    # asyncpg's and psycopg's alike: connection exceptions, statement completion unknown, the server was shut down.
    state = getattr(error, "sqlstate", None)
    return isinstance(state, str) and (state.startswith(("08", "57P")) or state == "40003")
