"""Connections: the application's pool, or one of our own that several tables may share.

A connection is used for one operation, within one bound of time, and goes back as it came: no session state but an
empty temporary table that nobody relies on, so that pgbouncer may hand each transaction to another server connection.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from asynccache.errors import CacheNotOpen, ConfigurationError, DatabaseUnavailable
from asynccache.postgres.failures import reading
from asynccache.supervision import TaskOwner, finish

__all__ = ["AnyDatabase", "Connections", "Database", "connections_for", "roll_back", "transaction"]

_CLEAN_UP_SECONDS = 2.0
"""The longest that a failed operation may take to leave its connection clean; then the connection is dropped."""


class Connections(ABC):
    """Where connections come from."""

    @property
    def where(self) -> str:
        """` at` which server, for messages, if that is known; never with a password."""
        return ""

    @abstractmethod
    async def open(self) -> None:
        """Makes it usable."""

    @abstractmethod
    async def aclose(self) -> None:
        """Gives back what `open` took; called as often."""

    @abstractmethod
    def pool(self) -> asyncpg.Pool[Any]:
        """The pool, which must be open.

        Raises:
            CacheNotOpen: it is not open yet.
        """

    @asynccontextmanager
    async def connection(self, seconds: float) -> AsyncIterator[Any]:
        """A connection for one operation.

        Args:
            seconds: the longest that waiting for a connection and all statements on it may take together.

        Raises:
            DatabaseUnavailable: it took longer.
        """
        pool = self.pool()
        waiting = True
        try:
            async with asyncio.timeout(seconds) as scope:
                connection = await pool.acquire()
                waiting = False
                try:
                    yield connection
                except BaseException:
                    # What went wrong is what the caller must see, a cancellation above all; a connection that cannot
                    # be cleaned is dropped by the pool.
                    with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                        await pool.release(connection, timeout=_CLEAN_UP_SECONDS)
                    raise
                await pool.release(connection, timeout=_CLEAN_UP_SECONDS)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DatabaseUnavailable(
                f"PostgreSQL{self.where} gave no {'connection' if waiting else 'answer'} within {seconds:g} s"
                + (f" (the pool has {pool.get_size()} of {pool.get_max_size()})" if waiting else "")
            ) from error

    async def dedicated(self, seconds: float) -> Any:
        """A connection outside of the pool, made as the pool makes its own; whoever asks for it closes it.

        Args:
            seconds: the longest that connecting may take.

        Raises:
            DatabaseUnavailable: it took longer, or failed.
        """
        with reading(f"connecting to PostgreSQL{self.where}"):
            async with asyncio.timeout(seconds):
                pool: Any = self.pool()
                return await pool._get_new_connection()  # noqa: SLF001 - asyncpg has no public name for it


class Database(Connections):
    """A pool of our own, which tables share.

    It connects when the first of them is opened, and closes with the last.

    Args:
        dsn: such as `postgresql://user:password@host:5432/name`.
        min_size: connections kept open, at least.
        max_size: connections at most.
        options: anything else that `asyncpg.create_pool` takes, such as `ssl`, `server_settings`, or
            `statement_cache_size=0` for a pgbouncer before 1.21.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(self, dsn: str, *, min_size: int = 0, max_size: int = 10, **options: Any) -> None:
        if not isinstance(dsn, str) or not dsn.startswith(("postgres://", "postgresql://")):
            # Not shown: it may hold a password.
            raise ConfigurationError(
                f"dsn must be a str such as 'postgresql://user@host:5432/name'; got {type(dsn).__name__}"
            )
        if not _ports_are_numbers(dsn):
            # asyncpg's own message would show the end of a password with "/" in it.
            raise ConfigurationError(
                "dsn cannot be read: a port is not a number; write special characters of user and password as %XX"
            )
        if max_size < 1 or not 0 <= min_size <= max_size:
            raise ConfigurationError(f"min_size={min_size} and max_size={max_size} must be 0 <= min <= max, 1 <= max")
        self._dsn = dsn
        self._options = {"min_size": min_size, "max_size": max_size, **options}
        self._pool: asyncpg.Pool[Any] | None = None
        self._users = 0
        self._lock = asyncio.Lock()
        self._shown = _without_password(dsn)

    @property
    def where(self) -> str:
        return f" at {self._shown}"

    async def open(self) -> None:
        """Opens the pool, unless it is open.

        Raises:
            DatabaseUnavailable: it cannot be reached (with `min_size=0` that shows at the first use).
            ConfigurationError: the DSN or an option cannot work.
        """
        async with self._lock:
            if self._pool is None:
                self._pool = await self._opened()
            self._users += 1

    async def _opened(self) -> asyncpg.Pool[Any]:
        try:
            pool: asyncpg.Pool[Any] = asyncpg.create_pool(self._dsn, **self._options)
        except (ValueError, TypeError, asyncpg.InterfaceError) as error:
            raise ConfigurationError(f"{self!r}: {error}") from error
        try:
            with reading(f"cannot connect to PostgreSQL{self.where}"):
                await pool
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def aclose(self) -> None:
        """Closes the pool if this was its last user."""
        async with self._lock:
            self._users = max(0, self._users - 1)
            if self._users or self._pool is None:
                return
            pool, self._pool = self._pool, None
            await finish(TaskOwner("closing a pool"), _closed(pool))

    def pool(self) -> asyncpg.Pool[Any]:
        if self._pool is None:
            raise CacheNotOpen(
                f"{self!r} is not open: use it inside `async with cache:`, or `async with` the table itself"
            )
        return self._pool

    def __repr__(self) -> str:
        return f"Database({self._shown!r}, {'open' if self._pool is not None else 'closed'})"


async def _closed(pool: asyncpg.Pool[Any]) -> None:
    try:
        async with asyncio.timeout(_CLEAN_UP_SECONDS):
            await pool.close()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


class _Given(Connections):
    """A pool of the application's, which it opens and closes."""

    def __init__(self, given: Callable[[], Any], shown: str) -> None:
        self._given = given
        self._shown = shown

    @property
    def where(self) -> str:
        # asyncpg has no public name for it, and uvloop's errors do not tell it.
        pool = self._given()
        dsn = next(iter(getattr(pool, "_connect_args", ())), None)
        if isinstance(dsn, str) and dsn:
            return f" at {_without_password(dsn)}"
        options = getattr(pool, "_connect_kwargs", {})
        return f" at {options['host']}:{options.get('port') or 5432}" if options.get("host") else ""

    async def open(self) -> None:
        self.pool()

    async def aclose(self) -> None:
        """Nothing was taken."""

    def pool(self) -> asyncpg.Pool[Any]:
        found = self._given()
        if not _is_pool(found):
            raise ConfigurationError(
                f"the function given as database must return an asyncpg.Pool, not {type(found).__name__}"
            )
        pool: asyncpg.Pool[Any] = found
        return pool

    def __repr__(self) -> str:
        return self._shown


AnyDatabase: TypeAlias = "asyncpg.Pool[Any] | str | Database | Callable[[], Any]"
"""What a table takes as its database."""


def connections_for(database: Any) -> Connections:
    """Connections from what a user gives.

    Raises:
        ConfigurationError: it is none of the things that a table takes.
    """
    if isinstance(database, Connections):
        return database
    if isinstance(database, str):
        return Database(database)
    if _is_pool(database):
        return _Given(lambda: database, "an asyncpg.Pool")
    if callable(database) and not isinstance(database, type):
        return _Given(database, f"the pool of {getattr(database, '__name__', database)!r}")
    raise ConfigurationError(
        "database must be an asyncpg.Pool, a DSN, a Database or a function that returns a pool, not"
        f" {type(database).__name__}"
    )


def _is_pool(value: object) -> bool:
    return not isinstance(value, type) and all(
        hasattr(value, name) for name in ("acquire", "release", "get_size", "get_max_size")
    )


_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL idle_in_transaction_session_timeout = '3s'"
"""In one trip. Between two statements of ours there are milliseconds, unless the process stands still."""
_BOUND: Final = (
    "; SELECT pg_catalog.set_config('transaction_timeout', (1000 * extract(epoch FROM least("
    "nullif(pg_catalog.current_setting('transaction_timeout')::interval, interval '0'), interval '{ms} ms'"
    "))::numeric)::bigint::text, true)"
)
"""Between preparing a statement and executing it a session is not idle for Postgres, which does not look at the time of
the statement while it waits for its client: only this ends it, from version 17 on. A role's own bound holds if it is
less."""
_LONGEST_MS: Final = 2_000_000_000
_LATER_MS: Final = 1000
"""How much later than this process the server ends a transaction: whoever is there to ask says what took too long."""


@asynccontextmanager
async def transaction(connection: Any, seconds: float) -> AsyncIterator[None]:
    """A transaction, in the level that `ON CONFLICT` needs to see what others have just committed.

    Whatever ends it early, cancellation included, rolls it back, within a bound of time. If this process stands still
    in the middle of it, or the network does, the server ends the session: nobody waits for its locks for longer than 3
    seconds, or `seconds` if it stands still in the middle of a statement. COPY is the exception: nothing ends it as it
    waits for its client, so it must come before all locks.

    Args:
        connection: not in a transaction.
        seconds: the longest that it may take; the server itself ends it soon after (PostgreSQL 17 or newer).
    """
    begin = _BEGIN
    if connection.get_server_version() >= (17,):
        begin += _BOUND.format(ms=min(int(seconds * 1000), _LONGEST_MS) + _LATER_MS)
    try:
        await connection.execute(begin)
        yield
        await connection.execute("COMMIT")
    except BaseException:
        await roll_back(connection)
        raise


async def roll_back(connection: Any, transaction: Any = None) -> bool:
    """Ends a transaction that failed, within a bound of time.

    Args:
        connection: the connection.
        transaction: asyncpg's own object for it, if it was begun by that and is open.

    Returns:
        Whether the server says that it has ended; else the connection is dropped, and what became of it is unknown.
    """
    try:
        async with asyncio.timeout(_CLEAN_UP_SECONDS):
            await (connection.execute("ROLLBACK") if transaction is None else transaction.rollback())
    except Exception:  # noqa: BLE001 - the error that led here is the one to report
        _drop(connection)
        return False
    except BaseException:
        _drop(connection)
        raise
    return True


def _drop(connection: Any) -> None:
    # A connection that was lost has left the pool already, and says so.
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def _ports_are_numbers(dsn: str) -> bool:
    hosts = dsn.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2].split(",")
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts]
    return all(port.isdecimal() for port in ports if port)


def _without_password(dsn: str) -> str:
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
        user = f"{parts.username}@" if parts.username else ""
        return f"{parts.scheme}://{user}{parts.hostname or ''}{port}{parts.path}"
    except ValueError:
        return "postgresql://..."
