"""A model bound to a table: checked against the catalog, and ready to be written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asynccache.errors import SchemaMismatch
from asynccache.postgres.annotations import enum_of, fits, shown
from asynccache.postgres.catalog import Column, Family, Table
from asynccache.postgres.models import Model, OpenDict
from asynccache.postgres.names import did_you_mean, quoted
from asynccache.postgres.row_keys import KEY_FAMILIES, RowKey
from asynccache.postgres.transport import Transport, transport_for

__all__ = ["Binding", "BoundField", "bind"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class BoundField:
    """A field of the model and its column."""

    field: str
    column: Column
    transport: Transport


@dataclass(frozen=True, slots=True)
class Binding(Generic[V]):
    """What is known about a model in its table.

    Attributes:
        key: the key columns.
        read: every field, in the model's order.
        written: the fields that a put writes, without those of the key.
        key_fields: the fields that repeat a part of the key, by the part's position.
    """

    table: Table
    model: Model[V]
    key: RowKey
    read: tuple[BoundField, ...]
    written: tuple[BoundField, ...]
    key_fields: tuple[tuple[int, BoundField], ...]


def bind(table: Table, model: Model[V], key: Sequence[str], columns: Mapping[str, str]) -> Binding[V]:
    """Binds a model to a table.

    Args:
        table: from the catalog.
        model: the model.
        key: names of the key columns.
        columns: names of columns that differ from their field's, by field.

    Raises:
        SchemaMismatch: they do not fit; the message lists every reason.
    """
    problems: list[str] = []
    by_field = _columns_of(table, model, columns, problems)
    _check_key(table, key, problems)
    _check_needed(table, model, {*by_field.values(), *key}, problems)
    for field, annotation in model.fields.items():
        column = table.columns.get(by_field.get(field, ""))
        if column is not None:
            _check_type(table, model, field, annotation, column, problems)
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise SchemaMismatch(f"{model.name} and the table {table.sql} do not fit:{listed}")
    read = tuple(
        BoundField(
            field,
            table.columns[column],
            transport_for(
                table.columns[column].type,
                model.fields.get(field, Any),
                to_member=model.to_member,
                json_dump=model.json_dump(field),
            ),
        )
        for field, column in by_field.items()
    )
    written = tuple(
        bound
        for bound in read
        if bound.column.name not in key and not bound.column.generated and bound.column.identity != "always"
    )
    key_fields = tuple((list(key).index(bound.column.name), bound) for bound in read if bound.column.name in key)
    return Binding(table, model, RowKey(table, key), read, written, key_fields)


def _columns_of(table: Table, model: Model[Any], columns: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    if isinstance(model, OpenDict):
        fields = {column: field for field, column in columns.items()}
        by_field = {fields.get(column, column): column for column in table.columns}
    else:
        by_field = {field: columns.get(field, field) for field in model.fields}
        problems.extend(
            f"columns= names the field {field!r}, which {model.name} has not{did_you_mean(field, model.fields)}"
            for field in columns
            if field not in model.fields
        )
    taken: dict[str, str] = {}
    for field, column in [*by_field.items(), *columns.items()]:
        if column not in table.columns:
            problem = f"there is no column {quoted(column)} for the field {field!r}" + did_you_mean(
                column, table.columns
            )
            if problem not in problems:
                problems.append(problem)
        elif taken.setdefault(column, field) != field:
            problems.append(f"the fields {taken[column]!r} and {field!r} both name the column {quoted(column)}")
    return by_field


def _check_key(table: Table, key: Sequence[str], problems: list[str]) -> None:
    missing = [name for name in key if name not in table.columns]
    problems.extend(f"there is no key column {quoted(name)}{did_you_mean(name, table.columns)}" for name in missing)
    for name in key:
        column = table.columns.get(name)
        if column is None:
            continue
        if column.type.family not in KEY_FAMILIES:
            problems.append(
                f"the key column {quoted(name)} is {column.type.shown}, of which different values can be one row or"
                " equal ones look different: use an integer, text, uuid, boolean, bytea, date, timestamp or enum"
            )
        if not column.deterministic:
            problems.append(
                f"the key column {quoted(name)} has a collation that is not deterministic, so that different keys"
                " can be one row"
            )
        if column.generated:
            problems.append(f"the key column {quoted(name)} is generated, so that no row can be written by it")
    if not missing and frozenset(key) not in table.unique:
        others = [", ".join(quoted(name) for name in sorted(names)) for names in table.unique]
        names = ", ".join(quoted(name) for name in key)
        unique = f"unique are ({'), ('.join(others)})" if others else "nothing is unique in this table"
        problems.append(
            f"the key ({names}) has no primary key or unique constraint (whole and not deferrable), which ON CONFLICT"
            f" needs; {unique}"
        )


def _check_needed(table: Table, model: Model[Any], given: set[str], problems: list[str]) -> None:
    problems.extend(
        f"the column {quoted(column.name)} ({column.type.shown}) is NOT NULL and has no default, and {model.name} has"
        " no field for it"
        for column in table.columns.values()
        if column.needed and column.name not in given
    )


def _check_type(
    table: Table, model: Model[Any], field: str, annotation: Any, column: Column, problems: list[str]
) -> None:
    if fits(annotation, column.type):
        return
    problem = (
        f"{model.name}.{field} is {shown(annotation)}, and {table.name}.{column.name} is {column.type.shown}:"
        f" declare it as {column.type.family.value}"
    )
    if column.type.family is Family.ENUM and (member := enum_of(annotation)) is not None:
        strange = sorted({item.name for item in member} - set(column.type.labels))
        problem = (
            f"{model.name}.{field} is {member.__name__}, and {table.name}.{column.name} is {column.type.shown}, which"
            f" has the labels {', '.join(column.type.labels)}: neither the names nor the values of {member.__name__}"
            f" are all among them (names that are not: {', '.join(strange)})"
        )
    problems.append(problem)
