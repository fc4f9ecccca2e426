"""Reads what triggers have recorded, from one snapshot to another, and prunes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from asynccache.postgres.changes.ddl import Outbox
from asynccache.postgres.changes.places import Snapshot

__all__ = ["START", "Change", "Cursor", "OutboxReader", "Page"]

Cursor = tuple[str, int]
"""The last change of a page: transaction and id."""

START: Final[Cursor] = ("0", 0)

_ROWS: Final = 2000
"""Most recorded changes of a page."""
_KEYS: Final = 10_000
"""Most keys of a page, of which the last change may have 500 more."""
_PRUNED_AT_ONCE: Final = 5000


@dataclass(frozen=True, slots=True)
class Change:
    """One recorded change: of up to 500 keys, or of the whole table.

    Attributes:
        relation: the table.
        op: insert, update, delete or truncate.
        columns: what was recorded of a row.
        rows: the texts; None for the whole table.
    """

    relation: str
    op: str
    columns: tuple[str, ...]
    rows: list[list[str | None]] | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some changes.

    Attributes:
        last: where the next page begins.
        more: whether there may be one.
        age: seconds since the oldest of them was recorded.
    """

    changes: list[Change]
    last: Cursor
    more: bool
    age: float


class OutboxReader:
    """The table of changes, for a listener to these tables."""

    def __init__(self, outbox: Outbox, relations: Sequence[str]) -> None:
        self._relations = list(dict.fromkeys(relations))
        wanted = (
            "(c.xid, c.id) > ($4::text::xid8, $5::bigint) AND c.relation = ANY ($6::text[])"
            " AND pg_catalog.pg_visible_in_snapshot(c.xid, $3::text::pg_snapshot)"
            f" ORDER BY c.xid, c.id LIMIT {_ROWS}"
        )
        # Two scans of the index, which a transaction that stays open for hours does not make longer.
        self._read = (
            "SELECT t.id, t.xid::text AS xid, t.relation, t.op, t.columns, t.rows::text AS rows, t.found,"  # noqa: S608 - quoted
            " EXTRACT(epoch FROM pg_catalog.clock_timestamp() - t.at)::float8 AS age FROM ("
            "SELECT b.*, count(*) OVER () AS found, sum(b.keys) OVER (ORDER BY b.xid, b.id) - b.keys AS before FROM ("
            f"(SELECT c.* FROM {outbox.changes} c WHERE c.xid = ANY ($1::text[]::xid8[]) AND {wanted})"
            " UNION ALL "
            f"(SELECT c.* FROM {outbox.changes} c WHERE c.xid >= $2::text::xid8 AND {wanted})"
            f" ORDER BY xid, id LIMIT {_ROWS}) b) t WHERE t.before < {_KEYS} ORDER BY t.xid, t.id"
        )
        # One statement, so that the positions are those of the moment at which the changes are looked at.
        self._prune = (
            f"DELETE FROM {outbox.changes} WHERE (xid, id) IN ("  # noqa: S608 - the same
            f"SELECT c.xid, c.id FROM {outbox.changes} c"
            " WHERE c.xid < (SELECT pg_catalog.pg_snapshot_xmax(l.position) AS xmax"
            f" FROM {outbox.listeners} l ORDER BY xmax LIMIT 1) AND NOT EXISTS (SELECT FROM {outbox.listeners} l"
            " WHERE NOT pg_catalog.pg_visible_in_snapshot(c.xid, l.position))"
            f" ORDER BY c.xid, c.id LIMIT {_PRUNED_AT_ONCE} FOR UPDATE OF c SKIP LOCKED)"
        )

    async def now(self, connection: Any) -> Snapshot:
        """What has been committed."""
        return Snapshot.parse(await connection.fetchval("SELECT pg_catalog.pg_current_snapshot()::text"))

    async def read(self, connection: Any, since: Snapshot, until: Snapshot, after: Cursor) -> Page:
        """Changes committed between two snapshots.

        Args:
            connection: of asyncpg.
            since: what was committed by then is left out.
            until: what was not yet committed by then is left out.
            after: where the page before ended.
        """
        records = await connection.fetch(
            self._read, list(since.running), str(since.xmax), until.text, *after, self._relations
        )
        if not records:
            return Page([], after, False, 0.0)
        changes = [Change(row["relation"], row["op"], tuple(row["columns"]), _rows(row["rows"])) for row in records]
        found = records[0]["found"]
        more = found >= _ROWS or len(records) < found
        return Page(changes, (records[-1]["xid"], records[-1]["id"]), more, max(row["age"] for row in records))

    async def prune(self, connection: Any) -> int:
        """Deletes some of what every listener has handled; returns how many, less than 5,000 when none are left."""
        status: str = await connection.execute(self._prune)
        return int(status.rsplit(maxsplit=1)[-1])

    @staticmethod
    def left(pruned: int) -> bool:
        """Whether there may be more to prune."""
        return pruned >= _PRUNED_AT_ONCE

    def __repr__(self) -> str:
        return f"OutboxReader({', '.join(self._relations)})"


def _rows(text: str | None) -> list[list[str | None]] | None:
    return None if text is None else msgspec.json.decode(text, type=list[list[str | None]])
