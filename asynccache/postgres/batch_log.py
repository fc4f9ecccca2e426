"""The table of batch ids: a row for each batch that was applied, written in the transaction that applied it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from asynccache.postgres.database import transaction
from asynccache.postgres.names import qualified

__all__ = ["BatchLog", "NoBatchLog", "create"]

# One number for every name: tables are made once in a lifetime. From "asynccach" in a phone's letters.
_LOCK = 279_622_224

_PRUNED_AT_ONCE = 10_000


class NoBatchLog(Exception):
    """The table is not there yet."""


class BatchLog:
    """Which batches have been applied."""

    def __init__(self, schema: str, name: str) -> None:
        self.sql = qualified(schema, name)
        self._record = f"INSERT INTO {self.sql} (id) VALUES ($1::uuid) ON CONFLICT (id) DO NOTHING RETURNING true"  # noqa: S608 - quoted
        # The second index is for `prune`, which would read the whole table to find that nothing is old enough.
        self._create = (
            f"CREATE TABLE IF NOT EXISTS {self.sql}"
            " (id uuid PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now(), UNIQUE (applied_at, id))"
        )
        self._prune = (
            f"DELETE FROM {self.sql} WHERE id IN (SELECT id FROM {self.sql}"  # noqa: S608 - the same
            " WHERE applied_at < now() - pg_catalog.make_interval(secs => $1)"
            f" ORDER BY applied_at LIMIT {_PRUNED_AT_ONCE} FOR UPDATE SKIP LOCKED)"
        )

    async def record(self, connection: Any, batch: UUID) -> bool:
        """Notes a batch; waits for anybody who is applying the same one now.

        Args:
            connection: in the transaction that applies the batch.
            batch: its id.

        Returns:
            Whether it is new.

        Raises:
            NoBatchLog: there is no table; the transaction is spoilt.
        """
        try:
            return bool(await connection.fetchval(self._record, batch))
        except asyncpg.UndefinedTableError as error:
            raise NoBatchLog from error

    async def exists(self, connection: Any) -> bool:
        """Whether the table is there now."""
        return bool(await connection.fetchval("SELECT pg_catalog.to_regclass($1) IS NOT NULL", self.sql))

    async def prune(self, connection: Any, older_than: float) -> int:
        """Deletes some of the ids older than so many seconds; returns how many."""
        try:
            status: str = await connection.execute(self._prune, older_than)
        except asyncpg.UndefinedTableError:
            return 0
        return int(status.rsplit(maxsplit=1)[-1])

    async def install(self, connection: Any) -> None:
        """Creates the table unless it is there."""
        await create(connection, self._create)


async def create(connection: Any, statement: str) -> None:
    """Runs a `CREATE TABLE IF NOT EXISTS`, one session at a time: it fails in one of two that run it at once."""
    async with transaction(connection):
        await connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})")
        await connection.execute(statement)
