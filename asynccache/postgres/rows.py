"""Values of the model as arrays: what a row is made of, checked, and gathered with those of its shape."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from msgspec import UNSET, UnsetType

from asynccache.errors import ConfigurationError, WriteRejected
from asynccache.postgres.binding import Binding, BoundField
from asynccache.postgres.models import OpenDict
from asynccache.postgres.names import did_you_mean
from asynccache.postgres.row_keys import Parts

__all__ = ["RowMaker", "Run", "key_arrays"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Run:
    """Rows that write the same columns, in the order they are written in: one statement.

    Attributes:
        fields: the columns.
        keys: the rows' keys, by column; empty for appended rows, whose keys are among the fields or left to the
            database.
        arrays: the values, by column.
        size: how many rows.
        staged: the temporary table that holds them by now, as SQL; empty if the statement takes them as arrays.
    """

    fields: tuple[BoundField, ...]
    keys: list[list[Any]]
    arrays: list[list[Any]]
    size: int
    staged: str = ""


class _NewRow:
    def __repr__(self) -> str:
        return "(a new row)"


_NEW = _NewRow()


class RowMaker(Generic[V]):
    """Takes values of one bound model apart."""

    def __init__(self, binding: Binding[V]) -> None:
        self._binding = binding
        self._take: Callable[[Any], tuple[Any, ...]] = binding.model.take_apart([b.field for b in binding.written])
        self._columns = [(binding.model.take(bound.field), bound.transport) for bound in binding.written]
        self._key_columns = [(position, binding.model.take(bound.field)) for position, bound in binding.key_fields]
        self._take_key = binding.model.take_apart([bound.field for _, bound in binding.key_fields])
        self._open = isinstance(binding.model, OpenDict)
        self._appended = (*(bound for _, bound in binding.key_fields), *binding.written)
        # None cannot be stored there, so it means what a missing value means.
        self._by_database = frozenset(
            index
            for index, bound in enumerate(binding.written)
            if bound.column.not_null and (bound.column.has_default or bound.column.identity)
        )

    def runs(self, rows: Iterable[tuple[Any, Parts, V]]) -> list[Run]:
        """Rows under keys, in the order given.

        Args:
            rows: the key as the caller gave it and as it is sent, and the value.

        Raises:
            WriteRejected: a value is not of the model, or holds what its column cannot.
            ConfigurationError: a value holds another key than it is put under.
        """
        made = [(parts, self._row(key, parts, value)) for key, parts, value in rows]
        return [
            self._run(self._binding.written, shape, list(group))
            for shape, group in itertools.groupby(made, key=_shape_of)
        ]

    def run(self, keys: Sequence[list[Any]], values: Sequence[V]) -> Run | None:
        """Rows under keys, in the order given, made by column: what `runs` makes of them, at a fraction of its cost.

        Args:
            keys: as they are sent, by column.
            values: at least one.

        Returns:
            None if they must be looked at one by one: they do not all write the same columns, or something is wrong
            with one of them.
        """
        # Whether a model takes a value depends on its class alone.
        if self._open or len({*map(type, values)}) != 1 or not self._binding.model.takes(values[0]):
            return None
        for position, take in self._key_columns:
            held = [*map(take, values)]
            # Of one class, since True equals 1.
            if held != keys[position] or len({*map(type, held), *map(type, keys[position])}) != 1:
                return None
        arrays = []
        for index, (take, transport) in enumerate(self._columns):
            array = [*map(take, values)]
            kinds = {*map(type, array)}
            if UnsetType in kinds or (index in self._by_database and type(None) in kinds):
                return None
            if kinds != {transport.exact}:
                try:
                    array = transport.encode_all(array)
                except Exception:  # noqa: BLE001 - a serializer of the user's may raise anything; whose it is, `runs` says
                    return None
            arrays.append(array)
        return Run(self._binding.written, [*keys], arrays, len(values))

    def appended(self, values: Iterable[V]) -> list[Run]:
        """Rows without a key given, in the order given; see `runs`. A key that is None is left to the database."""
        made: list[tuple[Parts, tuple[Any, ...]]] = []
        for value in values:
            self._check(_NEW, value)
            key = tuple([UNSET if part is None else part for part in self._take_key(value)])
            made.append(((), (*key, *self._stored(value))))
        return [
            self._run(self._appended, shape, list(group)) for shape, group in itertools.groupby(made, key=_shape_of)
        ]

    def _row(self, key: Any, parts: Parts, value: V) -> tuple[Any, ...]:
        self._check(key, value)
        if self._binding.key_fields:
            self._check_key(key, parts, value)
        return self._stored(value)

    def _check(self, key: Any, value: V) -> None:
        model = self._binding.model
        if not model.takes(value):
            raise WriteRejected(f"{self._where(key)}: {model.name} is expected, not {type(value).__name__}")
        if self._open:
            self._check_names(key, value)

    def _stored(self, value: V) -> tuple[Any, ...]:
        row = self._take(value)
        if self._by_database and any(row[index] is None for index in self._by_database):
            return tuple([UNSET if item is None and i in self._by_database else item for i, item in enumerate(row)])
        return row

    def _check_key(self, key: Any, parts: Parts, value: V) -> None:
        for (position, bound), held in zip(self._binding.key_fields, self._take_key(value), strict=True):
            part = parts[position]
            if held is UNSET or (type(held) is type(part) and held == part):
                continue
            try:
                same = bound.transport.encode_all([held])[0] == part
            except (TypeError, ValueError):
                same = False
            if not same:
                raise ConfigurationError(
                    f"{self._where(key)}: the value's {bound.field} is {held!r}, and the key says {part!r}:"
                    " put it under its own key"
                )

    def _check_names(self, key: Any, value: Any) -> None:
        known = {bound.field for bound in self._binding.read}
        for name in value:
            if name not in known:
                raise WriteRejected(
                    f"{self._where(key)}: there is no column for {name!r}{did_you_mean(str(name), known)}"
                )

    def _run(
        self, columns: Sequence[BoundField], shape: tuple[bool, ...], rows: list[tuple[Parts, tuple[Any, ...]]]
    ) -> Run:
        present = [index for index, there in enumerate(shape) if there]
        fields = tuple(columns[index] for index in present)
        taken = list(zip(*(row for _, row in rows), strict=True)) if present else []
        arrays = []
        for index, bound in zip(present, fields, strict=True):
            try:
                arrays.append(bound.transport.encode_all(taken[index]))
            except Exception:  # noqa: BLE001 - a serializer of the user's may raise anything
                arrays.append([self._encoded(bound, parts, row[index]) for parts, row in rows])
        return Run(fields, key_arrays([parts for parts, _ in rows if parts]), arrays, len(rows))

    def _encoded(self, bound: BoundField, parts: Parts, value: Any) -> Any:
        try:
            return bound.transport.encode_all([value])[0]
        except Exception as error:
            key = (parts[0] if len(parts) == 1 else parts) if parts else _NEW
            raise WriteRejected(
                f"{self._where(key)}: the column {bound.column.name} ({bound.column.type.shown}) cannot hold"
                f" {value!r:.100}: {error}"
            ) from error

    def _where(self, key: Any) -> str:
        return f"{self._binding.table.name} {key!r}"


def key_arrays(keys: list[Parts]) -> list[list[Any]]:
    """An array for each key column."""
    return [list(column) for column in zip(*keys, strict=True)]


def _shape_of(row: tuple[Parts, tuple[Any, ...]]) -> tuple[bool, ...]:
    return tuple([item is not UNSET for item in row[1]])
