"""Many rows of a batch on their way into a table: by COPY into a temporary one, from which one statement takes them.

What it saves is Postgres's work with arrays: long ones are read, and taken apart, more slowly than they are copied.

A temporary table is the session's own, and its name tells the types of its columns. It is made where it is missing and
emptied by each COMMIT, so that a connection writes to the catalog once and no transaction finds another's rows.
Whether it is there is asked in each transaction: a rollback undoes it, `DISCARD ALL` drops it, and a pgbouncer gives
the next transaction another session.

Nothing is decided here about a row. What COPY refuses is said as arrays would say it, so that the batch is bisected,
and that goes by arrays.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

import asyncpg

from asynccache.postgres.failures import refusal
from asynccache.postgres.names import qualified, quoted
from asynccache.postgres.rows import Run
from asynccache.postgres.transport import Transport
from asynccache.supervision import logger

__all__ = ["COPIED_FROM", "CannotStage", "Stage"]

COPIED_FROM: Final = 5000
"""The fewest rows that are copied. `python -m benchmarks --scenario flush-statement` measures both ways: at a thousand
rows the trips that COPY takes cost more than it saves, from here on they do not, even if the rows are two numbers."""

_SCHEMA: Final = "pg_temp"
_ORDINAL: Final = "n"
_EXISTS: Final = "SELECT pg_catalog.to_regclass($1) IS NOT NULL"
_LONG: Final = frozenset({"text", *(qualified("pg_catalog", name) for name in ("text", "bpchar", "bytea"))})
"""Types of values that Postgres compresses, and puts elsewhere, where a row would be long."""
_OPTIONS: Final = "WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS"
"""Rows stay as they are up to the size of a page: what is compressed for the merge to read is compressed in vain."""
_UNABLE: Final = frozenset({
    "0A",  # a server that has no such thing
    "22",  # pages of another size; of a row it never gets here
    "3F",  # a server that has no such schema
    "42",  # no privilege; a table of that name which is somebody else's, or another
    "53",  # no space where temporary tables are
    "54",  # more columns than a table may have
})  # fmt: skip
"""Classes of errors after which arrays may still do."""
_LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, EOFError)


class CannotStage(Exception):
    """Rows cannot be copied here, and may go by arrays; the transaction is spoilt."""


class Stage:
    """Copies the rows of one bound table.

    Once it cannot, it leaves all rows to arrays: whoever has no right to make temporary tables, or has a codec that
    COPY does not know, would pay for each attempt with a transaction.

    Args:
        table: the table's name, for the log.
        transports: of the key columns.
    """

    def __init__(self, table: str, transports: Sequence[Transport]) -> None:
        self._table = table
        self._key = tuple(transports)
        self._able = True

    async def put(self, connection: Any, runs: Sequence[Run]) -> list[Run]:
        """Copies those of the runs that are long enough.

        COPY looks at no time limit while it waits for its client, so a process that is stopped in the middle of it
        stays there: nothing must be locked yet that others wait for.

        Args:
            connection: at the beginning of a transaction.
            runs: of one batch.

        Returns:
            The runs, with the tables that hold their rows.

        Raises:
            CannotStage: they must go by arrays, and later ones will.
            Whatever asyncpg raises if a value cannot be sent or a row is refused, or the connection is lost.
        """
        if not self._able or all(run.size < COPIED_FROM for run in runs):
            return [*runs]
        if not hasattr(connection, "copy_records_to_table"):
            self._give_up(f"{type(connection).__name__} has no copy_records_to_table")
        staged: list[Run] = []
        made: Counter[tuple[str, ...]] = Counter()
        for run in runs:
            arrays = [*run.keys, *run.arrays]
            if run.size < COPIED_FROM or not arrays:
                staged.append(run)
                continue
            transports = [*(self._key if run.keys else ()), *(bound.transport for bound in run.fields)]
            types = tuple([transport.element for transport in transports])
            name = _name(types, made[types])
            made[types] += 1
            await self._make(connection, name, types)
            await self._copy(connection, name, arrays, run.size)
            staged.append(replace(run, staged=qualified(_SCHEMA, name)))
        return staged

    async def _make(self, connection: Any, name: str, types: Sequence[str]) -> None:
        try:
            if not await connection.fetchval(_EXISTS, qualified(_SCHEMA, name)):
                # IF NOT EXISTS instead of the question would send a notice with each batch.
                await connection.execute(_create(name, types))
        except asyncpg.PostgresError as error:
            if _arrays_may_do(error):
                self._give_up(error)
            raise

    async def _copy(self, connection: Any, name: str, arrays: Sequence[Sequence[Any]], size: int) -> None:
        records = zip(*arrays, range(size), strict=True)
        try:
            await connection.copy_records_to_table(
                name, schema_name=_SCHEMA, columns=_aliases(len(arrays)), records=records
            )
        except (asyncpg.InternalClientError, asyncpg.UnsupportedClientFeatureError) as error:
            self._give_up(error)  # a codec that makes text
        except asyncpg.PostgresError as error:
            if refusal(error) is None and _arrays_may_do(error):
                self._give_up(error)
            raise
        except _LOST:
            raise
        except Exception as error:
            # As asyncpg calls it where it encodes arrays.
            raise asyncpg.DataError(f"invalid input for COPY: {error}") from error

    def _give_up(self, why: Exception | str) -> NoReturn:
        if self._able:
            self._able = False
            logger.warning("rows of %s are sent as arrays, since they cannot be copied: %s", self._table, why)
        raise CannotStage(str(why)) from (why if isinstance(why, Exception) else None)


def _arrays_may_do(error: asyncpg.PostgresError) -> bool:
    return (error.sqlstate or "")[:2] in _UNABLE


def _create(name: str, types: Sequence[str]) -> str:
    columns = [f"{alias} {type_}" for alias, type_ in zip(_aliases(len(types)), [*types, "int"], strict=True)]
    statement = f"CREATE TEMPORARY TABLE {quoted(name)} ({', '.join(columns)}) {_OPTIONS}"
    # In CREATE itself this can be said from version 16 on.
    external = [f"ALTER c{n} SET STORAGE EXTERNAL" for n, type_ in enumerate(types, 1) if type_ in _LONG]
    if external:
        statement += f"; ALTER TABLE {qualified(_SCHEMA, name)} {', '.join(external)}"
    return statement


def _name(types: Sequence[str], number: int) -> str:
    shape = hashlib.sha256("\n".join(types).encode()).hexdigest()[:16]
    return f"asynccache_staged_{shape}_{number}"


def _aliases(columns: int) -> list[str]:
    return [*(f"c{position}" for position in range(1, columns + 1)), _ORDINAL]
