"""The table of batch ids: a row for each batch that was applied, written in the transaction that applied it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from asynccache.postgres.database import transaction
from asynccache.postgres.names import qualified

__all__ = ["BatchLog", "NoBatchLog"]

# One number for every name: tables are made once in a lifetime. From "asynccach" in a phone's letters.
_LOCK = 279_622_224


class NoBatchLog(Exception):
    """The table is not there yet."""


class BatchLog:
    """Which batches have been applied."""

    def __init__(self, schema: str, name: str) -> None:
        self.sql = qualified(schema, name)
        self._record = f"INSERT INTO {self.sql} (id) VALUES ($1::uuid) ON CONFLICT (id) DO NOTHING RETURNING true"  # noqa: S608 - quoted
        self._create = (
            f"CREATE TABLE IF NOT EXISTS {self.sql}"
            " (id uuid PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
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

    async def install(self, connection: Any) -> None:
        """Creates the table unless it is there."""
        async with transaction(connection):
            # CREATE TABLE IF NOT EXISTS fails in one of two sessions that run it at once.
            await connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})")
            await connection.execute(self._create)
