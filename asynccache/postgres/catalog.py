"""What the catalog says about a table: its columns, their types, and what makes a row unique."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import asyncpg

from asynccache.errors import SchemaMismatch
from asynccache.postgres.names import did_you_mean, qualified, quoted

__all__ = ["Column", "Family", "Table", "Type", "read_table"]


class Family(enum.Enum):
    """Types that Python sees as one."""

    INTEGER = "int"
    TEXT = "str"
    NUMERIC = "Decimal"
    FLOAT = "float"
    TIMESTAMPTZ = "datetime with a time zone"
    TIMESTAMP = "datetime without a time zone"
    DATE = "date"
    TIME = "time"
    INTERVAL = "timedelta"
    UUID = "UUID"
    BOOLEAN = "bool"
    BYTES = "bytes"
    JSON = "what JSON can hold"
    ENUM = "Enum or str"
    ARRAY = "list"
    OTHER = "str, as PostgreSQL prints it"


_FAMILIES = {
    "int2": Family.INTEGER, "int4": Family.INTEGER, "int8": Family.INTEGER,
    "text": Family.TEXT, "varchar": Family.TEXT, "bpchar": Family.TEXT, "name": Family.TEXT,
    "numeric": Family.NUMERIC, "float4": Family.FLOAT, "float8": Family.FLOAT,
    "timestamptz": Family.TIMESTAMPTZ, "timestamp": Family.TIMESTAMP, "date": Family.DATE,
    "time": Family.TIME, "timetz": Family.TIME, "interval": Family.INTERVAL,
    "uuid": Family.UUID, "bool": Family.BOOLEAN, "bytea": Family.BYTES,
    "json": Family.JSON, "jsonb": Family.JSON,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Type:
    """A type with its domains taken off.

    Attributes:
        name: the base type's name as SQL, qualified and quoted; of an array, with `[]`.
        shown: as users know it, such as `bigint` or `character varying(10)`.
        family: what Python sees.
        base: the base type's bare name, such as `int8`.
        element: of an array, the type of its elements.
        labels: of an enum.
    """

    name: str
    shown: str
    family: Family
    base: str
    element: Type | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the catalog describes it.

    Attributes:
        generated: its value is computed; it is never written.
        identity: `always`, `by default`, or empty.
        deterministic: texts are equal only if they are the same, whatever its collation.
        has_default: an insert may leave it out, even if it must not be null.
    """

    name: str
    type: Type
    not_null: bool
    has_default: bool
    generated: bool
    identity: str
    deterministic: bool = True

    @property
    def needed(self) -> bool:
        """Whether an insert must give it."""
        return self.not_null and not (self.has_default or self.generated or self.identity)


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its columns, in their order.

    Attributes:
        unique: sets of columns that `ON CONFLICT` can name.
    """

    schema: str
    name: str
    columns: dict[str, Column]
    unique: tuple[frozenset[str], ...]

    @property
    def sql(self) -> str:
        """The name as SQL."""
        return qualified(self.schema, self.name)


_FIND = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text AS kind
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1)
"""

_VISIBLE = """
SELECT c.relname, n.nspname, pg_catalog.pg_table_is_visible(c.oid) AS visible
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
ORDER BY visible DESC, n.nspname, c.relname LIMIT 10000
"""

_COLUMNS = """
SELECT a.attname AS name, a.atttypid AS type, a.attnotnull AS not_null, a.atthasdef AS has_default,
    a.attgenerated <> '' AS generated, a.attidentity::text AS identity,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS shown, coalesce(c.collisdeterministic, true) AS deterministic
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_TYPES = """
WITH RECURSIVE needed(oid) AS (
    SELECT unnest($1::oid[])
    UNION
    SELECT next.oid FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid
    CROSS JOIN LATERAL (VALUES (t.typbasetype), (CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END)) next(oid)
    WHERE next.oid <> 0
)
SELECT t.oid, t.typname AS name, n.nspname AS schema, t.typtype::text AS kind, t.typbasetype AS base,
    CASE WHEN t.typcategory = 'A' AND t.typtype = 'b' AND t.oid NOT IN ('int2vector'::regtype, 'oidvector'::regtype)
        THEN t.typelem ELSE 0 END AS element, t.typnotnull AS not_null,
    t.typdefault IS NOT NULL AS has_default, pg_catalog.format_type(t.oid, NULL) AS shown,
    ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
        AS labels
FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
"""

# Only what ON CONFLICT can take as its arbiter: whole, valid, immediate, over plain columns.
_UNIQUE = """
SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = i.indrelid AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])) AS columns
FROM pg_catalog.pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    AND i.indexprs IS NULL
"""


async def read_table(connection: Any, schema: str, name: str) -> Table:
    """Reads a table's description.

    Args:
        connection: of asyncpg.
        schema: its schema, or empty for the first of the search path that has it.
        name: its name, exactly.

    Raises:
        SchemaMismatch: there is none, or it is a view or another thing without unique rows.
    """
    found = await connection.fetchrow(_FIND, qualified(schema, name))
    if found is None:
        await _not_found(connection, schema, name)
    if found["kind"] not in {"r", "p"}:
        raise SchemaMismatch(
            f"{qualified(schema, name)} is not a table (pg_class.relkind {found['kind']!r}): a PostgresTable needs rows"
            " with a unique key; for a view write an `async def load_many(keys)`"
        )
    oid = found["oid"]
    attributes = await connection.fetch(_COLUMNS, oid)
    types = {row["oid"]: row for row in await connection.fetch(_TYPES, [row["type"] for row in attributes])}
    unique = await connection.fetch(_UNIQUE, oid)
    columns = {row["name"]: _column(row, types) for row in attributes}
    return Table(found["nspname"], found["relname"], columns, tuple(frozenset(row["columns"]) for row in unique))


async def _not_found(connection: Any, schema: str, name: str) -> None:
    rows = await connection.fetch(_VISIBLE)
    here = [row["relname"] for row in rows if (row["nspname"] == schema if schema else row["visible"])]
    hint = did_you_mean(name, here)
    elsewhere = [row for row in rows if row["relname"] == name]
    if not hint and elsewhere:
        hint = f"; did you mean {qualified(elsewhere[0]['nspname'], name)}?"
    path = await connection.fetchval("SELECT pg_catalog.array_to_string(pg_catalog.current_schemas(false), ', ')")
    where = f"the schema {quoted(schema)}" if schema else f"the search path ({path or 'empty'})"
    raise SchemaMismatch(f"there is no table {quoted(name)} in {where}{hint}")


def _column(row: asyncpg.Record, types: dict[int, asyncpg.Record]) -> Column:
    not_null, has_default = row["not_null"], row["has_default"] and not row["generated"]
    described = types[row["type"]]
    while described["base"]:
        # A domain's own NOT NULL and DEFAULT hold for the column.
        not_null, has_default = not_null or described["not_null"], has_default or described["has_default"]
        described = types[described["base"]]
    return Column(
        row["name"],
        _type(described["oid"], types, row["shown"]),
        not_null,
        has_default,
        row["generated"],
        {"a": "always", "d": "by default"}.get(row["identity"], ""),
        row["deterministic"],
    )


def _type(oid: int, types: dict[int, asyncpg.Record], shown: str = "") -> Type:
    row = types[oid]
    while row["base"]:
        row = types[row["base"]]
    name = qualified(row["schema"], row["name"])
    shown = shown or row["shown"]
    if row["element"] and row["element"] in types:
        return Type(name, shown, Family.ARRAY, row["name"], element=_type(row["element"], types))
    if row["kind"] == "e":
        return Type(name, shown, Family.ENUM, row["name"], labels=tuple(row["labels"]))
    family = _FAMILIES.get(row["name"], Family.OTHER) if row["schema"] == "pg_catalog" else Family.OTHER
    return Type(name, shown, family, row["name"])
