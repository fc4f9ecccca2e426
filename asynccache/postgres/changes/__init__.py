"""Invalidation driven by the database: triggers record what changes, and a listener tells the cache.

`source.py` is what users hold, `tables.py` what they say of a table, `listener.py` the protocol; `outbox.py` reads what
the triggers of `ddl.py` have recorded, and `places.py` remembers how far a listener has come.
"""

from __future__ import annotations

from asynccache.postgres.changes.source import ChangesStats, PostgresChanges
from asynccache.postgres.changes.tables import TableChanges

__all__ = ["ChangesStats", "PostgresChanges", "TableChanges"]
