"""How far listeners have come: a row for each, which one process at a time holds by a lease.

A lease and not an advisory lock, so that it needs no session (pgbouncer may hand each statement to another one), and so
that a holder behind a dead network is replaced within the lease. Two who believe to hold it do no harm: to invalidate
twice is to invalidate once, and only the true holder can move the position.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import asyncpg

from asynccache.postgres.changes.ddl import Outbox

__all__ = ["Place", "Places", "Snapshot", "server_of"]

_SUPERSEDED = 3600.0
"""Seconds after which the place of another version of the same mapping, which nobody holds, is given up."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A `pg_snapshot`: which transactions had ended at a moment.

    Attributes:
        text: as PostgreSQL prints it, `xmin:xmax:in,progress`.
        xmax: the first transaction that had not begun.
        running: those before it that had not ended.
    """

    text: str
    xmax: int
    running: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Reads what PostgreSQL prints."""
        _, xmax, running = text.split(":")
        return cls(text, int(xmax), tuple(running.split(",")) if running else ())


@dataclass(frozen=True, slots=True)
class Place:
    """What a listener's row says.

    Attributes:
        position: every change that is visible in it has been handled, or is covered by a clearing.
        cleared: whether that clearing has been acknowledged by Redis.
        server: where the position was taken: it means nothing elsewhere.
    """

    position: Snapshot
    cleared: bool
    server: str


class Places:
    """The row of one listener.

    Args:
        outbox: where it is.
        name: the listener's.
        namespace: that follows.
        mapping: stands for what is mapped to what.
        relations: the tables that are followed, as SQL.
        lease: seconds for which a claim holds.
        retention: seconds after which a position that nobody has moved is given up.
    """

    def __init__(
        self,
        outbox: Outbox,
        name: str,
        namespace: str,
        mapping: str,
        relations: list[str],
        *,
        lease: float,
        retention: float,
    ) -> None:
        self._me = (name, namespace, mapping)
        self._relations = relations
        self._owner = uuid.uuid4()
        self._lease = lease
        self._retention = retention
        table = outbox.listeners
        mine = "l.name = $1 AND l.namespace = $2 AND l.mapping = $3"
        ours = f"{mine} AND l.owner = $4"
        until = "pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => {})"
        # The update first: an INSERT ... ON CONFLICT would lock the row for each that only looks.
        self._claim = (
            f"WITH taken AS (UPDATE {table} l SET owner = $4, lease_until = {until.format('$5')}"  # noqa: S608 - quoted
            f" WHERE {mine} AND (l.owner IS NULL OR l.owner = $4 OR l.lease_until < pg_catalog.clock_timestamp())"
            " RETURNING l.position::text AS position, l.cleared, l.server, false AS made),"
            f" made AS (INSERT INTO {table} (name, namespace, mapping, relations, position, cleared, server, owner,"
            " lease_until, seen_at) SELECT $1, $2, $3, $6::text[], pg_catalog.pg_current_snapshot(), false, '', $4,"
            f" {until.format('$5')}, pg_catalog.clock_timestamp()"
            f" WHERE NOT EXISTS (SELECT FROM {table} l WHERE {mine}) ON CONFLICT DO NOTHING"
            " RETURNING position::text AS position, cleared, server, true AS made)"
            " SELECT * FROM taken UNION ALL SELECT * FROM made"
        )
        self._age = (
            "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - l.seen_at)::float8"  # noqa: S608 - the same
            f" FROM {table} l WHERE {mine}"
        )
        self._move = (
            f"UPDATE {table} l SET position = $5::text::pg_snapshot, lease_until = {until.format('$6')},"  # noqa: S608 - the same
            f" seen_at = pg_catalog.clock_timestamp() WHERE {ours} AND l.cleared RETURNING true"
        )
        self._renew = f"UPDATE {table} l SET lease_until = {until.format('$5')} WHERE {ours} RETURNING true"  # noqa: S608 - the same
        self._begin = (
            f"UPDATE {table} l SET position = pg_catalog.pg_current_snapshot(), cleared = false, server = $5,"  # noqa: S608 - the same
            f" seen_at = pg_catalog.clock_timestamp() WHERE {ours} RETURNING l.position::text"
        )
        self._clear = f"UPDATE {table} l SET cleared = true WHERE {ours} RETURNING true"  # noqa: S608 - the same
        self._release = f"UPDATE {table} l SET owner = NULL WHERE {ours}"  # noqa: S608 - the same
        self._forget = (
            f"DELETE FROM {table} l WHERE l.seen_at < pg_catalog.clock_timestamp()"  # noqa: S608 - the same
            " - pg_catalog.make_interval(secs => CASE WHEN l.name = $1 AND l.namespace = $2 AND l.mapping <> $3"
            f" THEN least({_SUPERSEDED}, $4::float8) ELSE $4::float8 END) AND NOT ({mine})"
        )

    async def claim(self, connection: Any) -> Place | None:
        """Takes the row if nobody holds it, makes it if there is none; None if another one holds it."""
        row = await connection.fetchrow(self._claim, *self._me, self._owner, self._lease, self._relations)
        return None if row is None else Place(Snapshot.parse(row["position"]), row["cleared"], row["server"])

    async def age(self, connection: Any) -> float | None:
        """Seconds since the position was last moved, by whomever."""
        found: float | None = await connection.fetchval(self._age, *self._me)
        return found

    async def move(self, connection: Any, position: Snapshot) -> bool:
        """Moves the position and renews the lease; returns whether the row was still there, and ours."""
        found = await connection.fetchval(self._move, *self._me, self._owner, position.text, self._lease)
        return bool(found)

    async def renew(self, connection: Any) -> bool:
        """Renews the lease; returns whether the row was still there, and ours."""
        return bool(await connection.fetchval(self._renew, *self._me, self._owner, self._lease))

    async def begin(self, connection: Any, server: str) -> Snapshot | None:
        """Begins anew at what is committed now, before a clearing; None if the row is not ours any more."""
        found = await connection.fetchval(self._begin, *self._me, self._owner, server)
        return None if found is None else Snapshot.parse(found)

    async def clear(self, connection: Any) -> bool:
        """Notes that the clearing was acknowledged; returns whether the row was still there, and ours."""
        return bool(await connection.fetchval(self._clear, *self._me, self._owner))

    async def release(self, connection: Any) -> None:
        """Lets another one claim the row at once."""
        await connection.execute(self._release, *self._me, self._owner)

    async def forget(self, connection: Any) -> int:
        """Gives up the positions of listeners that have not moved for too long; returns how many."""
        status: str = await connection.execute(self._forget, *self._me, self._retention)
        return int(status.rsplit(maxsplit=1)[-1])

    def __repr__(self) -> str:
        return f"Places({'/'.join(self._me)})"


async def server_of(connection: Any) -> str:
    """Which history of which server and database this is: transaction ids mean nothing in another one.

    The system identifier and the timeline, which a promoted or restored server has changed, and the database's oid. A
    server that does not tell the first two, as some hosted ones do not, is known by the last.
    """
    try:
        found: str = await connection.fetchval(_SERVER)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFunctionError):
        found = await connection.fetchval(f"SELECT '-/-/' || {_DATABASE}")
    return found


_DATABASE = "(SELECT oid::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
_SERVER = (
    "SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) || '/'"  # noqa: S608 - all is ours
    " || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) || '/' || " + _DATABASE
)
