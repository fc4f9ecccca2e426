"""The table of batch ids: a row for each batch that was applied, written in the transaction that applied it.

Several tables, strategies and applications may share it. Each row names the buffer that its batch came from, which
alone knows for how long it needs the id. Rows without a name are those of versions that did not record it; such a
version goes on beside this one, for the column has a default.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import asyncpg

from asynccache.postgres.database import transaction
from asynccache.postgres.names import qualified

__all__ = ["BatchLog", "NoBatchLog", "create"]

# One number for every name: tables are made once in a lifetime. From "asynccach" in a phone's letters.
_LOCK = 279_622_224

_PRUNED_AT_ONCE = 10_000
_CREATE_SECONDS: Final = 30.0

_NAMELESS_DAYS: Final = 30
"""How long ids are kept at least that name no buffer: nobody knows how long they are needed."""


class NoBatchLog(Exception):
    """The table is not there yet, or is that of an earlier version."""


class BatchLog:
    """Which batches have been applied."""

    def __init__(self, schema: str, name: str) -> None:
        self.sql = sql = qualified(schema, name)
        self._record = (
            f"INSERT INTO {sql} (id, buffer) VALUES ($1::uuid, $2) ON CONFLICT (id) DO NOTHING RETURNING true"  # noqa: S608 - quoted
        )
        # The second index is for `prune`, which would read the whole table to find that nothing is old enough.
        self._create = (
            f"CREATE TABLE IF NOT EXISTS {sql} (id uuid PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now(),"
            " buffer text NOT NULL DEFAULT '', UNIQUE (buffer, applied_at, id))"
        )
        # Which rewrites no rows. Whoever reads the table for long must not make all flushers wait behind this.
        self._complete = (
            f"SET LOCAL lock_timeout = '2s'; ALTER TABLE {sql} ADD COLUMN IF NOT EXISTS buffer text NOT NULL DEFAULT ''"
        )
        self._prune_all, self._prune_of = (
            f"DELETE FROM {sql} WHERE id IN (SELECT id FROM {sql}"  # noqa: S608 - the same
            f" WHERE applied_at < now() - pg_catalog.make_interval(secs => $1){of}"
            f" ORDER BY applied_at LIMIT {_PRUNED_AT_ONCE} FOR UPDATE SKIP LOCKED)"
            for of in ("", " AND buffer = $2")
        )

    async def record(self, connection: Any, batch: UUID, buffer: str) -> bool:
        """Notes a batch; waits for anybody who is applying the same one now.

        Args:
            connection: in the transaction that applies the batch.
            batch: its id.
            buffer: where it came from.

        Returns:
            Whether it is new.

        Raises:
            NoBatchLog: there is no table, or no column for the buffer; the transaction is spoilt.
        """
        try:
            return bool(await connection.fetchval(self._record, batch, buffer))
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            raise NoBatchLog from error

    async def exists(self, connection: Any) -> bool:
        """Whether the table is there now."""
        return bool(await connection.fetchval("SELECT pg_catalog.to_regclass($1) IS NOT NULL", self.sql))

    async def prune(self, connection: Any, older_than: float, buffer: str | None) -> int:
        """Deletes some of the ids older than so many seconds; returns how many.

        Args:
            connection: not in a transaction.
            older_than: seconds.
            buffer: only those of this one, and such as name none and are old enough for anybody; None for all.
        """
        if buffer is None:
            return await self._pruned(connection, self._prune_all, older_than)
        deleted = await self._pruned(connection, self._prune_of, older_than, buffer)
        if deleted or not buffer:
            return deleted
        return await self._pruned(connection, self._prune_of, max(older_than, _NAMELESS_DAYS * 86_400.0), "")

    async def _pruned(self, connection: Any, statement: str, *arguments: Any) -> int:
        try:
            status: str = await connection.execute(statement, *arguments)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):  # the next batch sees to that
            return 0
        return int(status.rsplit(maxsplit=1)[-1])

    async def install(self, connection: Any) -> None:
        """Creates the table unless it is there, and completes one of an earlier version."""
        await create(connection, self._create)
        if await self._columns(connection) == {"id", "applied_at"}:
            await create(connection, self._complete)

    async def _columns(self, connection: Any) -> set[str]:
        rows = await connection.fetch(
            "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1)"
            " AND attnum > 0 AND NOT attisdropped",
            self.sql,
        )
        return {row[0] for row in rows}


async def create(connection: Any, statement: str) -> None:
    """Runs a `CREATE TABLE IF NOT EXISTS` or the like, one session at a time: it fails in one of two that run it at
    once."""
    async with transaction(connection, _CREATE_SECONDS):
        await connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})")
        await connection.execute(statement)
