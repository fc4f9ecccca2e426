"""Transactions of the application's that end the cache's writes: after the COMMIT, and not before.

`cache.updating` inside of a transaction would end with its block, while the COMMIT is yet to come; a reader in between
loads the row as it was, and may store it. So writes that are entered inside of `transaction(...)` keep their marks, and
readers go to the database, until the transaction has ended:

    COMMIT done       the entries are emptied
    COMMIT refused    the same, and if none was sent: what readers load is what the database has
    COMMIT unanswered the marks stay until `write_timeout`: the database may yet carry it out

A crash at any point leaves the marks, which expire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

from asynccache.errors import ConfigurationError, DatabaseUnavailable
from asynccache.postgres.database import Database, connections_for, roll_back
from asynccache.supervision import TaskOwner, finish
from asynccache.transactions import Transaction

__all__ = ["transaction"]

Isolation: TypeAlias = Literal["serializable", "repeatable_read", "read_committed", "read_uncommitted"]

_current: ContextVar[tuple[Any, Transaction] | None] = ContextVar("asynccache_postgres_transaction", default=None)
_owner = TaskOwner("transactions")


@asynccontextmanager
async def transaction(
    database: Any,
    *,
    isolation: Isolation | None = None,
    readonly: bool = False,
    deferrable: bool = False,
) -> AsyncIterator[Any]:
    """A transaction in which `cache.updating` waits for the COMMIT.

    `async with transaction(pool) as connection, cache.updating(users.key(42)): await connection.execute("UPDATE ...")`

    On a connection that is in such a transaction already it is a savepoint, and writes end with the outermost. Writes
    of other tasks that are started inside take part, too, if they end before it does. What write-through and
    write-behind change they commit by themselves.

    Args:
        database: an `asyncpg.Pool` or what else a `PostgresTable` takes, for a connection of its own; or a connection.
        isolation, readonly, deferrable: as for `asyncpg.Connection.transaction`.

    Yields:
        The connection.

    Raises:
        ConfigurationError: the connection is in a transaction opened by other means, whose end would not be seen.
        Whatever asyncpg raises.
    """
    async with AsyncExitStack() as stack:
        if isinstance(database, Database):
            database = database.pool()
        if hasattr(database, "transaction") and hasattr(database, "is_in_transaction"):
            connection = database
        else:
            connection = await stack.enter_async_context(connections_for(database).pool().acquire())
        inside = _current.get()
        if inside is not None and inside[1].open and _same(inside[0], connection):
            async with connection.transaction():
                yield connection
            return
        if connection.is_in_transaction():
            raise ConfigurationError(
                "transaction(connection): it is in a transaction already, whose end would not be seen; open that one"
                " with transaction(connection), too, or put `cache.updating(...)` around it"
            )
        options: dict[str, Any] = {"readonly": readonly, "deferrable": deferrable}
        if isolation is not None:
            options["isolation"] = isolation
        own = connection.transaction(**options)
        await own.start()
        joined = Transaction()
        token = _current.set((connection, joined))
        try:
            with joined:
                yield connection
        except BaseException:
            try:
                await finish(_owner, roll_back(connection, own))
            finally:
                await joined.end()
            raise
        finally:
            _reset(token)
        try:
            await own.commit()
        except BaseException as error:
            await _end_unsure(connection, joined, error)
            raise
        await joined.end()


async def _end_unsure(connection: Any, joined: Transaction, error: BaseException) -> None:
    """Ends writes after a COMMIT that failed or was cancelled."""
    clean = False
    try:
        # A COMMIT that was cancelled is over only when the server answers the next command.
        clean = await finish(_owner, roll_back(connection))
    finally:
        await joined.end(error if clean else DatabaseUnavailable("the connection was lost at COMMIT"))


def _same(one: Any, other: Any) -> bool:
    """Whether two connections are the same, through the pool's proxies."""
    return _bare(one) is _bare(other)


def _bare(connection: Any) -> Any:
    return getattr(connection, "_con", None) or connection


def _reset(token: Any) -> None:
    try:
        _current.reset(token)
    except ValueError:  # a generator that is closed by another task has another context
        return
