"""What is installed in the database: the outbox, the listeners' positions (`outbox.sql`), and for each table a function
(`record.sql`, with `record_rows.sql` for each kind of statement) and four triggers.

A statement's trigger runs in the writer's transaction, so that what it records commits and rolls back with the change.
It must not fail where the change itself would not:

    rights      SECURITY DEFINER: writers need none on the outbox; its search_path is pinned, and nobody else may use it
    settings    values are recorded as text, in one form whatever the writer's DateStyle
    columns     one that was dropped or renamed since is noticed, and the whole table recorded as changed
    size        500 keys a row, and above `max_keys` a single row that says "the whole table"

Statements that change no row record nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from asynccache.postgres.changes.tables import TableChanges
from asynccache.postgres.names import qualified, quoted

__all__ = ["FORMAT", "LOCK", "Outbox", "literal"]

FORMAT = "1"
"""Of what triggers record; the first argument of each."""

LOCK = 279_622_225
"""Of the advisory lock under which something is installed."""

_KEYS_A_ROW = 500


class _Sql(Template):
    delimiter = "@"


_OUTBOX = _Sql(Path(__file__).with_name("outbox.sql").read_text(encoding="utf-8"))
_RECORD = _Sql(Path(__file__).with_name("record.sql").read_text(encoding="utf-8"))
_ROWS = _Sql(Path(__file__).with_name("record_rows.sql").read_text(encoding="utf-8"))
_EVENTS = {"insert": ("new",), "update": ("old", "new"), "delete": ("old",), "truncate": ()}


@dataclass(frozen=True, slots=True)
class Outbox:
    """The names of what is installed in one schema, and its SQL.

    Attributes:
        schema: where it is.
        max_keys: more keys than this in one statement are recorded as a change of the whole table.
        notify: whether writers wake listeners.
    """

    schema: str
    max_keys: int
    notify: bool

    @property
    def changes(self) -> str:
        """The table of changes, as SQL."""
        return qualified(self.schema, "asynccache_change")

    @property
    def listeners(self) -> str:
        """The table of positions, as SQL."""
        return qualified(self.schema, "asynccache_listener")

    @property
    def channel(self) -> str:
        """What is notified."""
        return f"asynccache_change_{_hash(self.schema)}"

    def function_name(self, table: TableChanges) -> str:
        """The bare name of a table's function: readable, and short enough whatever the table is called."""
        name = table.place(self.schema)[1]
        readable = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)[:30]
        return f"asynccache_record_{readable}_{_hash(table.relation(self.schema))}"

    def function(self, table: TableChanges) -> str:
        """The function of a table, as SQL."""
        return qualified(self.schema, self.function_name(table))

    def triggers(self) -> dict[str, str]:
        """The bare names of a table's triggers, by event."""
        return {event: f"asynccache_{event}_{_hash(self.schema)}" for event in _EVENTS}

    def create_tables(self) -> list[str]:
        """Statements that make the two tables, unless they are there."""
        text = _OUTBOX.substitute(changes=self.changes, listeners=self.listeners)
        return [statement.strip() for statement in text.split(";\n") if statement.strip()]

    def create_function(self, table: TableChanges, columns: Sequence[str]) -> list[str]:
        """Statements that make a table's function, or replace it: no lock on the table is taken.

        Args:
            table: the table.
            columns: what is recorded of a row.
        """
        common = {
            "changes": self.changes,
            "relation": literal(table.relation(self.schema)),
            "columns": f"ARRAY[{', '.join(literal(name) for name in columns)}]",
        }
        values = ", ".join(f"r.{quoted(name)}::text" for name in columns)
        # UNION takes what is equal once, as DISTINCT does.
        item = f"SELECT DISTINCT jsonb_build_array({values}) AS item FROM"
        recorded = {
            event: _ROWS.substitute(
                common,
                keys=_KEYS_A_ROW,
                counted=f"{which[-1]}_rows",
                items=" UNION ".join(f"{item} {one}_rows r" for one in which),
            )
            for event, which in _EVENTS.items()
            if which
        }
        body = _RECORD.substitute(
            common,
            **recorded,
            most=self.max_keys,
            notify="true" if self.notify else "false",
            channel=literal(self.channel),
        )
        tag = "$asynccache$"
        while tag in body:
            tag = f"$a{_hash(tag + body)}$"  # a tag may not begin with a digit
        function = self.function(table)
        return [
            (
                f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
                "SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'\n"
                f"AS {tag}\n{body}{tag}"
            ),
            f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC",
        ]

    def create_triggers(self, table: TableChanges, columns: Sequence[str]) -> list[str]:
        """Statements that make a table's triggers, or replace them; each waits for those who write to the table now,
        and they for it.

        Args:
            table: the table.
            columns: what is recorded of a row, which the triggers' arguments say.
        """
        arguments = ", ".join(literal(argument) for argument in (FORMAT, *columns))
        relation, function = table.relation(self.schema), self.function(table)
        return [
            f"CREATE OR REPLACE TRIGGER {quoted(name)} AFTER {event.upper()} ON {relation}\n"
            + (
                f"REFERENCING {' '.join(f'{which.upper()} TABLE AS {which}_rows' for which in _EVENTS[event])}\n"
                if _EVENTS[event]
                else ""
            )
            + f"FOR EACH STATEMENT EXECUTE FUNCTION {function}({arguments})"
            for event, name in self.triggers().items()
        ]

    def forget_positions(self, table: TableChanges) -> str:
        """A statement after which everybody who follows the table clears, since changes may have gone unrecorded."""
        return f"DELETE FROM {self.listeners} WHERE {literal(table.relation(self.schema))} = ANY (relations)"  # noqa: S608 - quoted

    def drop(self, table: TableChanges) -> list[str]:
        """Statements that take a table's triggers and function away."""
        relation = table.relation(self.schema)
        triggers = [f"DROP TRIGGER IF EXISTS {quoted(name)} ON {relation}" for name in self.triggers().values()]
        return [*triggers, f"DROP FUNCTION IF EXISTS {self.function(table)}()"]

    def drop_tables(self) -> list[str]:
        """Statements that take the two tables away."""
        return [f"DROP TABLE IF EXISTS {self.changes}", f"DROP TABLE IF EXISTS {self.listeners}"]


def literal(text: str) -> str:
    """A text as SQL, whatever `standard_conforming_strings` is."""
    quoted_text = "'" + text.replace("'", "''") + "'"
    return "E" + quoted_text.replace("\\", "\\\\") if "\\" in text else quoted_text


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
