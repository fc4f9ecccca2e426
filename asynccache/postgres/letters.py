"""The table of dead letters: a row for each write that was refused, in the transaction that applied the others."""

# ruff: noqa: S608 - names are quoted, and parameters carry all else

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg

from asynccache.postgres.batch_log import create
from asynccache.postgres.failures import Refusal
from asynccache.postgres.names import qualified
from asynccache.protocols import Append, Batch, DeadLetter, Halves

__all__ = ["LetterTable"]

_COLUMNS = "id, origin, target, key, operation, reason, sqlstate, failed_at, batch_id, attempts"


class LetterTable:
    """Dead letters of one table.

    Args:
        schema: of the letters' table.
        name: of the letters' table, which other tables may use, too.
        target: the table whose letters these are, quoted.
    """

    def __init__(self, schema: str, name: str, target: str) -> None:
        self.sql = qualified(schema, name)
        self._target = target
        self._create = (
            f"CREATE TABLE IF NOT EXISTS {self.sql} (id bigint GENERATED ALWAYS AS IDENTITY, origin text NOT NULL,"
            " target text NOT NULL, key text, operation text NOT NULL, record bytea, reason text NOT NULL,"
            " sqlstate text, batch_id uuid, attempts int NOT NULL DEFAULT 1,"
            " failed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (target, origin, id))"
        )
        self._add = (
            f"INSERT INTO {self.sql} (origin, target, key, operation, record, reason, sqlstate, batch_id)"
            " SELECT $1, $2, d.key, d.operation, d.record, d.reason, d.sqlstate, $3"
            " FROM unnest($4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[])"
            " AS d(key, operation, record, reason, sqlstate)"
        )
        mine = f"FROM {self.sql} WHERE target = $1"
        self._list = f"SELECT {_COLUMNS} {mine} AND ($2::text IS NULL OR origin = $2) AND id > $3 ORDER BY id LIMIT $4"
        self._list_of = f"SELECT {_COLUMNS} {mine} AND origin = $2 AND id > $3 ORDER BY id LIMIT $4"
        self._show = f"SELECT {_COLUMNS}, record {mine} AND id = $2"
        self._count = f"SELECT count(*) {mine} AND ($2::text IS NULL OR origin = $2)"
        chosen = "($2::text IS NULL OR origin = $2) AND ($3::bigint[] IS NULL OR id = ANY($3::bigint[]))"
        self._drop = f"DELETE {mine} AND {chosen}"
        self._ids = f"SELECT id {mine} AND {chosen} ORDER BY id"
        # Whoever retries the same letter at the same time has it.
        self._take = f"SELECT {_COLUMNS}, record {mine} AND origin = $2 AND id = $3 FOR UPDATE SKIP LOCKED"
        self._again = (
            f"UPDATE {self.sql} SET reason = $3, sqlstate = $4, attempts = attempts + 1, failed_at = now()"
            " WHERE target = $1 AND id = $2"
        )

    async def ensure(self, connection: Any) -> None:
        """Creates the table unless it is there; not in a transaction."""
        if not await connection.fetchval("SELECT pg_catalog.to_regclass($1) IS NOT NULL", self.sql):
            await self.install(connection)

    async def install(self, connection: Any) -> None:
        """Creates the table unless it is there, whoever else does so."""
        await create(connection, self._create)

    async def add(
        self, connection: Any, batch: Batch[Any], refused: Mapping[int, Refusal], halved: Mapping[int, Halves[Any]]
    ) -> None:
        """Keeps writes of a batch.

        Args:
            connection: in the transaction that applies the rest.
            batch: the batch.
            refused: why, by index of the write.
            halved: those of them of which only the adjustments were refused.
        """
        plain = _plain_for(connection)
        writes = [halved[at].rest if at in halved else batch.writes[at] for at in refused]
        records = [batch.records[at] if at < len(batch.records) else None for at in refused]
        await connection.execute(
            self._add,
            plain(batch.origin),
            plain(self._target),
            batch.id,
            [None if isinstance(write, Append) else plain(repr(getattr(write, "key", None))) for write in writes],
            [type(write).__name__.lower() for write in writes],
            [halved[at].record if at in halved else record for at, record in zip(refused, records, strict=True)],
            [plain(refusal.reason) for refusal in refused.values()],
            [refusal.sqlstate for refusal in refused.values()],
        )

    async def page(self, connection: Any, origin: str | None, limit: int, after: int) -> tuple[DeadLetter, ...]:
        """Letters without their records, by id."""
        statement = self._list if origin is None else self._list_of
        try:
            records = await connection.fetch(statement, self._mine(connection), origin, after, limit)
        except asyncpg.UndefinedTableError:
            return ()
        return tuple([_letter(record) for record in records])

    async def show(self, connection: Any, letter: int) -> DeadLetter | None:
        """One letter, with its record."""
        try:
            record = await connection.fetchrow(self._show, self._mine(connection), letter)
        except asyncpg.UndefinedTableError:
            return None
        return None if record is None else _letter(record)

    async def count(self, connection: Any, origin: str | None) -> int:
        """How many there are."""
        try:
            count: int = await connection.fetchval(self._count, self._mine(connection), origin)
        except asyncpg.UndefinedTableError:
            return 0
        return count

    async def drop(self, connection: Any, origin: str | None, ids: Sequence[int] | None) -> int:
        """Deletes letters; all if `ids` is None."""
        try:
            status: str = await connection.execute(self._drop, self._mine(connection), origin, ids)
        except asyncpg.UndefinedTableError:
            return 0
        return int(status.rsplit(maxsplit=1)[-1])

    async def ids(self, connection: Any, origin: str, ids: Sequence[int] | None) -> list[int]:
        """Which of these there are; all if `ids` is None."""
        try:
            records = await connection.fetch(self._ids, self._mine(connection), origin, ids)
        except asyncpg.UndefinedTableError:
            return []
        return [record[0] for record in records]

    async def take(self, connection: Any, origin: str, letter: int) -> DeadLetter | None:
        """A letter, locked until the transaction ends; None if it is gone or somebody else has it."""
        record = await connection.fetchrow(self._take, self._mine(connection), origin, letter)
        return None if record is None else _letter(record)

    async def refused_again(self, connection: Any, letter: int, refusal: Refusal) -> None:
        """Notes another attempt that failed."""
        reason = _plain_for(connection)(refusal.reason)
        await connection.execute(self._again, self._mine(connection), letter, reason, refusal.sqlstate)

    def _mine(self, connection: Any) -> str:
        return _plain_for(connection)(self._target)


def _letter(record: Any) -> DeadLetter:
    fields = dict(record)
    return DeadLetter(table=fields.pop("target"), **fields)


def _plain_for(connection: Any) -> Callable[[str], str]:
    """Makes text that the database can store, whatever bad text it is about: a letter must never be refused."""
    encoding = "utf-8" if str(connection.get_settings().server_encoding).upper() == "UTF8" else "ascii"
    return lambda text: text.replace("\0", "\\x00").encode(encoding, "backslashreplace").decode(encoding)
