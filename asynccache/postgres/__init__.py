"""PostgreSQL over asyncpg: `PostgresTable`, a table as `Source` and `Sink`; transactions that end writes; and
`PostgresChanges`, through which a cache follows what is changed by others.

table = PostgresTable(pool, "users", key="id", model=User)
users = ReadThrough(cache, "user", source=table, ttl=300)
"""

from __future__ import annotations

from asynccache.postgres.changes import ChangesStats, PostgresChanges, TableChanges
from asynccache.postgres.database import Database
from asynccache.postgres.table import PostgresTable
from asynccache.postgres.transactions import transaction

__all__ = ["ChangesStats", "Database", "PostgresChanges", "PostgresTable", "TableChanges", "transaction"]
