"""A batch made into statements, and the step that applies them on a connection.

What is written is decided before a connection is taken; when it is committed, and under which batch id, is the
caller's business.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from msgspec import UNSET

from asynccache.errors import ConfigurationError, WriteRejected
from asynccache.postgres.binding import Binding, BoundField
from asynccache.postgres.models import OpenDict
from asynccache.postgres.names import did_you_mean
from asynccache.postgres.reading import Reader
from asynccache.postgres.row_keys import Parts
from asynccache.postgres.statements import Statements
from asynccache.protocols import Delete, Put, Write

__all__ = ["Prepared", "Writer"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows that write the same columns, in the order of their keys: one statement."""

    fields: tuple[BoundField, ...]
    keys: list[Parts]
    arrays: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch, ready for a connection.

    Attributes:
        all_keys: of every write, in their order.
        deletes: keys of rows to remove, in their order.
        runs: puts.
        callers: keys as the caller gave them.
    """

    all_keys: list[Parts]
    deletes: list[Parts]
    runs: list[_Run]
    callers: dict[Parts, Any]

    @property
    def mixed(self) -> bool:
        """Whether it both puts and deletes."""
        return bool(self.deletes and self.runs)

    @property
    def statements(self) -> int:
        """How many statements apply it, at least."""
        return bool(self.deletes) + sum(1 if run.fields else 2 for run in self.runs)


class Writer(Generic[V]):
    """Writes the rows of one bound table."""

    def __init__(self, binding: Binding[V], statements: Statements, reader: Reader[V]) -> None:
        self._binding = binding
        self._statements = statements
        self._reader = reader
        self._key = binding.key
        self._take: Callable[[Any], tuple[Any, ...]] = binding.model.take_apart([b.field for b in binding.written])
        self._take_key = binding.model.take_apart([bound.field for _, bound in binding.key_fields])
        # None cannot be stored there, so it means what a missing value means.
        self._by_database = frozenset(
            index
            for index, bound in enumerate(binding.written)
            if bound.column.not_null and (bound.column.has_default or bound.column.identity)
        )

    def prepare(self, writes: Sequence[Write[V]]) -> Prepared:
        """Checks a batch, sorts it by key, and makes arrays of it.

        Raises:
            ConfigurationError: a key occurs twice, or a value holds another key than it is put under.
            InvalidKey: a key does not fit the table.
            WriteRejected: a value is not of the model, or holds what its column cannot.
        """
        callers: dict[Parts, Any] = {}
        deletes: list[Parts] = []
        puts: list[tuple[Parts, V]] = []
        for write in writes:
            if not isinstance(write, Put | Delete):
                raise ConfigurationError(f"PostgresTable applies Put and Delete, not {type(write).__name__}")
            parts = self._key.parts(write.key)
            if parts in callers:
                raise ConfigurationError(f"the key {write.key!r} occurs twice in one batch: which write is the last?")
            callers[parts] = write.key
            if isinstance(write, Put):
                puts.append((parts, write.value))
            else:
                deletes.append(parts)
        # Everybody locks rows in this order, so that no two batches wait for each other.
        deletes.sort()
        puts.sort(key=_key_of)
        rows = [(parts, self._row(callers[parts], parts, value)) for parts, value in puts]
        runs = [self._run(shape, list(group)) for shape, group in itertools.groupby(rows, key=_shape_of)]
        return Prepared(sorted(callers), deletes, runs, callers)

    async def write(self, connection: Any, prepared: Prepared, *, returning: bool) -> dict[Any, V]:
        """Applies a prepared batch.

        Deletes go first, since a put may take what a deleted row held of another unique constraint. So rows of a batch
        that does both are not locked in the one order of keys: such batches take turns, table by table.

        Args:
            connection: in a transaction, if there is more than one statement.
            returning: whether rows are wanted as stored.

        Returns:
            The rows that were put, as stored, by their caller's key.
        """
        if prepared.mixed:
            # Locking the rows there are is not enough: another such batch may insert, between our two statements, a
            # row that we are about to put while we hold one that it wants. Each deadlock costs `deadlock_timeout`.
            await connection.execute(self._statements.take_turns)
            # In order at least the rows that are there: batches that only put or only delete take no turns.
            await connection.fetchval(self._statements.lock, *_arrays(prepared.all_keys))
        if prepared.deletes:
            await connection.execute(self._statements.delete, *_arrays(prepared.deletes))
        stored: dict[Any, V] = {}
        for run in prepared.runs:
            stored.update(await self._put(connection, run, prepared.callers, returning=returning))
        return stored

    async def _put(self, connection: Any, run: _Run, callers: dict[Parts, Any], *, returning: bool) -> dict[Any, V]:
        arrays = [*_arrays(run.keys), *run.arrays]
        if not returning or not run.fields:
            await connection.execute(self._statements.upsert(run.fields, returning=False), *arrays)
            if not returning:
                return {}
            # Nothing to update, so rows that were there are not returned.
            records = await connection.fetch(self._statements.load, *_arrays(run.keys))
        else:
            records = await connection.fetch(self._statements.upsert(run.fields, returning=True), *arrays)
        found = await self._reader.values(records)
        # A trigger may have changed a key: then that is not the row of any key that was put.
        return {callers[parts]: value for parts, value in found.items() if parts in callers}

    def _row(self, key: Any, parts: Parts, value: V) -> tuple[Any, ...]:
        model = self._binding.model
        if not model.takes(value):
            raise WriteRejected(f"{self._where(key)}: {model.name} is expected, not {type(value).__name__}")
        if self._binding.key_fields:
            self._check_key(key, parts, value)
        if isinstance(model, OpenDict):
            self._check_names(key, value)
        row = self._take(value)
        if self._by_database and any(row[index] is None for index in self._by_database):
            return tuple([UNSET if item is None and i in self._by_database else item for i, item in enumerate(row)])
        return row

    def _check_key(self, key: Any, parts: Parts, value: V) -> None:
        for (position, bound), held in zip(self._binding.key_fields, self._take_key(value), strict=True):
            if held is UNSET:
                continue
            try:
                same = bound.transport.encode_all([held])[0] == parts[position]
            except (TypeError, ValueError):
                same = False
            if not same:
                raise ConfigurationError(
                    f"{self._where(key)}: the value's {bound.field} is {held!r}, and the key says {parts[position]!r}:"
                    " put it under its own key"
                )

    def _check_names(self, key: Any, value: Any) -> None:
        known = {bound.field for bound in self._binding.read}
        for name in value:
            if name not in known:
                raise WriteRejected(
                    f"{self._where(key)}: there is no column for {name!r}{did_you_mean(str(name), known)}"
                )

    def _run(self, shape: tuple[bool, ...], rows: list[tuple[Parts, tuple[Any, ...]]]) -> _Run:
        present = [index for index, there in enumerate(shape) if there]
        fields = tuple(self._binding.written[index] for index in present)
        columns = list(zip(*(row for _, row in rows), strict=True)) if present else []
        arrays = []
        for index, bound in zip(present, fields, strict=True):
            try:
                arrays.append(bound.transport.encode_all(columns[index]))
            except Exception:  # noqa: BLE001 - a serializer of the user's may raise anything
                arrays.append([self._encoded(bound, parts, row[index]) for parts, row in rows])
        return _Run(fields, [parts for parts, _ in rows], arrays)

    def _encoded(self, bound: BoundField, parts: Parts, value: Any) -> Any:
        try:
            return bound.transport.encode_all([value])[0]
        except Exception as error:
            key = parts[0] if len(parts) == 1 else parts
            raise WriteRejected(
                f"{self._where(key)}: the column {bound.column.name} ({bound.column.type.shown}) cannot hold"
                f" {value!r:.100}: {error}"
            ) from error

    def _where(self, key: Any) -> str:
        return f"{self._binding.table.name} {key!r}"


def _arrays(keys: list[Parts]) -> list[list[Any]]:
    return [list(column) for column in zip(*keys, strict=True)]


def _key_of(put: tuple[Parts, Any]) -> Parts:
    return put[0]


def _shape_of(row: tuple[Parts, tuple[Any, ...]]) -> tuple[bool, ...]:
    return tuple([item is not UNSET for item in row[1]])
