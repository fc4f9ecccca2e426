"""Rows and batch ids as they were at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from asynccache.errors import DatabaseUnavailable
from asynccache.postgres.applying import Bound

__all__ = ["fetch_exact"]

_ATTEMPTS = 4


async def fetch_exact(
    connection: Any, bound: Bound[Any], arrays: Sequence[list[Any]], batch_ids: Sequence[UUID]
) -> tuple[list[Any], frozenset[UUID]]:
    """Fetches rows for the reader, and which of the batches they contain.

    Args:
        connection: not in a transaction.
        bound: the table.
        arrays: of keys.
        batch_ids: the batches asked about.
    """
    statement = bound.statements.load_exact(bound.batches.sql)
    for _ in range(_ATTEMPTS):
        try:
            records = await connection.fetch(statement, *arrays, batch_ids)
        except asyncpg.UndefinedTableError:
            records = await connection.fetch(bound.statements.load, *arrays)
            # Asked afterwards: a batch that made the table meanwhile may be in these rows.
            if not await bound.batches.exists(connection):
                return records, frozenset()
            continue
        width = len(bound.key.columns)
        # A key column is NULL only in the row that stands for no rows.
        return [row for row in records if row[-1 - width] is not None], frozenset(records[0][-1])
    raise DatabaseUnavailable(f"{bound.batches.sql} comes and goes: rows could not be read along with it")
