"""SQLAlchemy's async session: writes of the cache that end with the session's transaction (extra `sqlalchemy`).

As in `asynccache.postgres.transactions`: the marks are set at once and taken away after the COMMIT or the rollback;
they stay where the outcome is unknown.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from asynccache.errors import ConfigurationError, DatabaseUnavailable, MissingExtra
from asynccache.strategies.writing import Update, unsettled
from asynccache.transactions import Transaction

try:
    from sqlalchemy import Connection, Engine, ExceptionContext, event
    from sqlalchemy.exc import UnboundExecutionError
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.util import await_only
except ModuleNotFoundError as error:
    raise MissingExtra("this needs SQLAlchemy 2: pip install 'asynccache[sqlalchemy]'") from error

__all__ = ["enlist"]

_KEY: Final = "asynccache"


async def enlist(session: AsyncSession | async_scoped_session[Any], *updates: Update) -> None:
    """Begins writes now, and ends them when the session's transaction does.

    `await enlist(session, cache.updating(users.key(42), tags=["users"]))`, before the row is changed. Savepoints
    (`begin_nested`) end nothing: the outermost transaction does, whether it commits, rolls back or is closed.

    Args:
        session: an `AsyncSession`; it begins a transaction, unless it is in one.
        updates: what `cache.updating(...)` or a strategy's `updating(...)` returned.

    Raises:
        ConfigurationError: not a session, or not such writes.
        StoreUnavailable: Redis cannot be told (with `on_outage="refuse"`); nothing was begun that is not ended.
    """
    if isinstance(session, async_scoped_session):
        session = session()
    if not isinstance(session, AsyncSession):
        raise ConfigurationError(
            f"session must be an AsyncSession of SQLAlchemy, not {type(session).__name__} ({session!r})"
        )
    for update in updates:
        if not isinstance(update, Update):
            raise ConfigurationError(
                f"enlist takes what cache.updating(...) returns, not {type(update).__name__} ({update!r})"
            )
    ending = session.sync_session.info.get(_KEY)
    if ending is None:
        ending = session.sync_session.info[_KEY] = _Ending(session.sync_session)
    with suppress(UnboundExecutionError):  # of several databases: each is watched from its first use
        ending.watch((await session.connection()).sync_connection)
    for update in updates:
        await update.__aenter__()
        ending.transaction.updates.append(update)


class _Ending:
    """Ends the writes of one session's present transaction.

    SQLAlchemy does not tell its listeners what a failed COMMIT raised; the engine does.
    """

    def __init__(self, session: Any) -> None:
        self.transaction = Transaction()
        self.error: BaseException | None = None
        self._committing = False
        for name, listener in (
            ("after_begin", self._begun),
            ("before_commit", self._about_to_commit),
            ("after_commit", self._settled),
            ("after_rollback", self._settled),
            ("after_transaction_end", self._ended),
        ):
            event.listen(session, name, listener)

    def watch(self, connection: Connection | None) -> None:
        """Notes what goes wrong on a connection of the session's."""
        if connection is None:
            return
        if connection.engine not in _engines:
            _engines.add(connection.engine)
            event.listen(connection.engine, "handle_error", _failed)
        _watched[connection] = self

    def _begun(self, _session: Any, _transaction: Any, connection: Connection) -> None:
        self.watch(connection)

    def _about_to_commit(self, session: Any) -> None:
        if not session.in_nested_transaction():
            self._committing, self.error = True, None

    def _settled(self, session: Any) -> None:
        if not session.in_nested_transaction():
            self._committing = False

    def _ended(self, _session: Any, transaction: Any) -> None:
        if transaction.parent is not None:
            return
        # Without a COMMIT on its way nothing can have been committed, whatever has become of the connection.
        unknown = self._committing and (self.error is None or unsettled(self.error))
        self._committing = False
        if self.transaction.updates:
            text = f"whether a session has committed is unknown: {self.error}"
            await_only(self.transaction.end(DatabaseUnavailable(text) if unknown else None))


_engines: Final[WeakSet[Engine]] = WeakSet()
_watched: Final[WeakKeyDictionary[Connection, _Ending]] = WeakKeyDictionary()


def _failed(context: ExceptionContext) -> None:
    ending = None if context.connection is None else _watched.get(context.connection)
    if ending is not None:
        lost = context.is_disconnect
        ending.error = OSError(str(context.original_exception)) if lost else context.original_exception
