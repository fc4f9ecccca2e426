"""The keys that a query returns, streamed through a cursor on the server, however many they are.

The cursor lives in a read-only transaction on one connection, which is held until the stream ends. Each answer of the
server has a bound of time; the consumer, who loads and caches what it is given, has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final, TypeVar

import asyncpg

from asynccache.errors import ConfigurationError
from asynccache.postgres.database import Connections
from asynccache.postgres.failures import reading
from asynccache.postgres.row_keys import RowKey

__all__ = ["stream_keys"]

T = TypeVar("T")

_PAGE: Final = 1000
_CLEAN_UP_SECONDS: Final = 2.0


async def stream_keys(
    connections: Connections, key: RowKey, query: str, args: tuple[Any, ...], seconds: float
) -> AsyncGenerator[Any, None]:
    """Yields key values.

    Args:
        connections: where the connection comes from.
        key: of the table.
        query: returns the key columns.
        args: its arguments.
        seconds: the longest the connection, and each answer, may take.

    Raises:
        ConfigurationError: the query returns another number of columns than the key has.
        DatabaseUnavailable: the server does not answer, or refuses the query.
        SchemaMismatch: the query names what is not there.
    """
    what = f"streaming keys{connections.where}"
    with reading(what):
        pool = connections.pool()
        connection = await _within(seconds, pool.acquire())
    clean = False
    try:
        transaction = connection.transaction(readonly=True)
        with reading(what):
            await _within(seconds, transaction.start())
            statement = await _within(seconds, connection.prepare(query))
            _check_columns(key, query, statement)
            cursor = await _within(seconds, statement.cursor(*args))
        while True:
            with reading(what):
                rows = await _within(seconds, cursor.fetch(_PAGE))
            for row in rows:
                yield _key(key, tuple(row.values()))
            if len(rows) < _PAGE:
                break
        with reading(what):
            await _within(_CLEAN_UP_SECONDS, transaction.rollback())
        clean = True
    finally:
        if not clean:
            # In the middle of a stream the server has more to say, which nobody wants to wait for.
            with suppress(asyncpg.InterfaceError):
                connection.terminate()
        with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await pool.release(connection, timeout=_CLEAN_UP_SECONDS)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout(seconds):
        return await work


def _check_columns(key: RowKey, query: str, statement: Any) -> None:
    found, wanted = [attribute.name for attribute in statement.get_attributes()], [one.name for one in key.columns]
    if len(found) != len(wanted):
        raise ConfigurationError(
            f"query={query!r:.200} must return the key of {key.table.name}, ({', '.join(wanted)}), and nothing else:"
            f" it returns ({', '.join(found)})"
        )


def _key(key: RowKey, parts: tuple[Any, ...]) -> Any:
    parts = key.returned(tuple([_plain(part) for part in parts]))
    return parts[0] if len(parts) == 1 else parts


def _plain(part: Any) -> Any:
    # Keys of numeric columns are whole numbers.
    return int(part) if isinstance(part, Decimal) and part == part.to_integral_value() else part
