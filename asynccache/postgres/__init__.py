"""PostgreSQL over asyncpg: `PostgresTable`, a table as `Source` and `Sink`, and transactions that end writes.

table = PostgresTable(pool, "users", key="id", model=User)
users = ReadThrough(cache, "user", source=table, ttl=300)
"""

from __future__ import annotations

from asynccache.postgres.database import Database
from asynccache.postgres.table import PostgresTable
from asynccache.postgres.transactions import transaction

__all__ = ["Database", "PostgresTable", "transaction"]
