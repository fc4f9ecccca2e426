"""Installs what `ddl.py` describes, takes it away, and looks whether it is there.

Each table has a transaction of its own: a lock on one is not held while another one is waited for. Triggers that are as
they should be are not touched, so that an installation at each deploy locks nothing. Where there were none, changes may
have gone unrecorded: the positions of those who follow the table are given up, so that they clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asynccache.errors import ConfigurationError, SchemaMismatch
from asynccache.postgres.catalog import Table, read_table
from asynccache.postgres.changes.ddl import FORMAT, LOCK, Outbox
from asynccache.postgres.changes.tables import TableChanges
from asynccache.postgres.database import transaction
from asynccache.postgres.names import did_you_mean, quoted

__all__ = ["INSTALLING", "Installer", "Survey"]

_FIX: Final = "run `asynccache install module:cache`, `await changes.install()`, or a migration with `changes.sql()`"
INSTALLING: Final = 60.0
"""The longest that an installation may take, in seconds; locks on tables are waited for."""
_OLDEST: Final = 140_000
_LOCK_WAIT: Final = "10s"

_TRIGGERS: Final = """
SELECT t.tgname::text AS name, t.tgenabled::text AS enabled, t.tgargs AS arguments, p.proname::text AS function,
    n.nspname::text AS schema
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid = pg_catalog.to_regclass($1) AND NOT t.tgisinternal AND t.tgname = ANY ($2::text[])
"""
_IN_USE: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE NOT t.tgisinternal AND n.nspname = $1 AND p.proname LIKE 'asynccache\\_record\\_%')
"""
_RIGHTS: Final = """
SELECT pg_catalog.has_table_privilege(pg_catalog.to_regclass($1), 'SELECT')
    AND pg_catalog.has_table_privilege(pg_catalog.to_regclass($1), 'DELETE')
    AND pg_catalog.has_table_privilege(pg_catalog.to_regclass($2), 'SELECT')
    AND pg_catalog.has_table_privilege(pg_catalog.to_regclass($2), 'INSERT')
    AND pg_catalog.has_table_privilege(pg_catalog.to_regclass($2), 'UPDATE')
    AND pg_catalog.has_table_privilege(pg_catalog.to_regclass($2), 'DELETE')
"""


@dataclass(frozen=True, slots=True)
class Survey:
    """What is there.

    Attributes:
        tables: those that were found, as the catalog describes them, by their name as SQL.
        faults: why changes of some tables are not recorded, or not as they should be.
    """

    tables: Mapping[str, Table]
    faults: tuple[str, ...]


class Installer:
    """The outbox of one schema, and the triggers of these tables.

    Args:
        outbox: names and SQL.
        tables: what to listen to. Several of one table share its triggers.
    """

    def __init__(self, outbox: Outbox, tables: Sequence[TableChanges]) -> None:
        self._outbox = outbox
        self._tables: dict[str, tuple[TableChanges, list[str]]] = {}
        for table in tables:
            _, columns = self._tables.setdefault(table.relation(outbox.schema), (table, []))
            columns += [name for name in table.columns if name not in columns]

    @property
    def relations(self) -> list[str]:
        """The tables, as SQL."""
        return list(self._tables)

    def sql(self) -> str:
        """All statements, for a migration."""
        statements = self._outbox.create_tables()
        for table, columns in self._tables.values():
            statements += self._outbox.create_function(table, columns)
            statements += self._outbox.create_triggers(table, columns)
            statements.append(self._outbox.forget_positions(table))
        return "".join(f"{statement};\n" for statement in statements)

    def drop_sql(self) -> str:
        """The statements that take the triggers away; the two tables stay, since others may use them."""
        statements = [one for table, _ in self._tables.values() for one in self._outbox.drop(table)]
        return "".join(f"{statement};\n" for statement in statements)

    async def survey(self, connection: Any) -> Survey:
        """Looks at what is there.

        Raises:
            SchemaMismatch: there is no outbox, or no right to use it.
        """
        outbox = self._outbox
        found = await connection.fetchval(
            "SELECT pg_catalog.to_regclass($1) IS NOT NULL AND pg_catalog.to_regclass($2) IS NOT NULL",
            outbox.changes,
            outbox.listeners,
        )
        if not found:
            raise SchemaMismatch(f"there is no {outbox.changes}: nothing records changes; {_FIX}")
        if not await connection.fetchval(_RIGHTS, outbox.changes, outbox.listeners):
            raise SchemaMismatch(
                f"this role must be granted SELECT and DELETE on {outbox.changes}, and SELECT, INSERT, UPDATE and"
                f" DELETE on {outbox.listeners}"
            )
        tables: dict[str, Table] = {}
        faults: list[str] = []
        for relation, (table, columns) in self._tables.items():
            try:
                described = await read_table(connection, *table.place(outbox.schema))
                _check_columns(described, columns)
            except SchemaMismatch as error:
                faults.append(str(error))
                continue
            tables[relation] = described
            recorded = await self._recorded(connection, table)
            missing = [quoted(name) for name in columns if name not in (recorded or ())]
            if recorded is None:
                faults.append(f"{relation} has no triggers of {outbox.changes}, or they are disabled; {_FIX}")
            elif missing:
                faults.append(f"the triggers of {relation} do not record {', '.join(missing)}; {_FIX}")
        return Survey(tables, tuple(faults))

    async def install(self, connection: Any) -> None:
        """Makes what is missing.

        Raises:
            SchemaMismatch: there is no such table, or no such column.
            ConfigurationError: the server is too old.
        """
        version = int(await connection.fetchval("SELECT pg_catalog.current_setting('server_version_num')"))
        if version < _OLDEST:
            raise ConfigurationError(f"PostgresChanges needs PostgreSQL 14, and this is {version // 10_000}")
        outbox = self._outbox
        for table, columns in self._tables.values():
            _check_columns(await read_table(connection, *table.place(outbox.schema)), columns)
        async with transaction(connection, INSTALLING):
            await _alone(connection)
            for statement in outbox.create_tables():
                await connection.execute(statement)
        for table, columns in self._tables.values():
            async with transaction(connection, INSTALLING):
                await _alone(connection)
                described = await read_table(connection, *table.place(outbox.schema))
                recorded = await self._recorded(connection, table)
                # What another application has asked for stays recorded.
                wanted = [*columns, *(n for n in recorded or () if n in described.columns and n not in columns)]
                for statement in outbox.create_function(table, wanted):
                    await connection.execute(statement)
                if recorded is None or set(recorded) != set(wanted):
                    for statement in outbox.create_triggers(table, wanted):
                        await connection.execute(statement)
                if recorded is None:
                    await connection.execute(outbox.forget_positions(table))

    async def uninstall(self, connection: Any) -> None:
        """Takes the tables' triggers away, and the outbox with the last of them."""
        outbox = self._outbox
        for table, _ in self._tables.values():
            async with transaction(connection, INSTALLING):
                await _alone(connection)
                found = await connection.fetchval(
                    "SELECT pg_catalog.to_regclass($1) IS NOT NULL", table.relation(outbox.schema)
                )
                for statement in outbox.drop(table)[0 if found else -1 :]:
                    await connection.execute(statement)
        async with transaction(connection, INSTALLING):
            await _alone(connection)
            if not await connection.fetchval(_IN_USE, outbox.schema):
                for statement in outbox.drop_tables():
                    await connection.execute(statement)

    async def _recorded(self, connection: Any, table: TableChanges) -> tuple[str, ...] | None:
        """The columns that the triggers record; None unless all four are there, enabled, and alike."""
        names = self._outbox.triggers()
        rows = await connection.fetch(_TRIGGERS, table.relation(self._outbox.schema), list(names.values()))
        wanted = (self._outbox.schema, self._outbox.function_name(table))
        arguments = {bytes(row["arguments"]) for row in rows}
        if (
            len(rows) < len(names)
            or len(arguments) != 1
            or any((row["schema"], row["function"]) != wanted or row["enabled"] not in {"O", "A"} for row in rows)
        ):
            return None
        version, *columns = arguments.pop().rstrip(b"\0").decode(errors="replace").split("\0")
        return tuple(columns) if version == FORMAT else None

    def __repr__(self) -> str:
        return f"Installer({self._outbox.changes}, {', '.join(self._tables)})"


async def _alone(connection: Any) -> None:
    await connection.execute(
        f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'; SELECT pg_catalog.pg_advisory_xact_lock({LOCK})"
    )


def _check_columns(table: Table, columns: Sequence[str]) -> None:
    for name in columns:
        if name not in table.columns:
            raise SchemaMismatch(f"{table.sql} has no column {quoted(name)}{did_you_mean(name, table.columns)}")
