"""`PostgresTable`: a table as `Source` and `Sink`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from asynccache.errors import ConfigurationError, DatabaseUnavailable, SchemaMismatch
from asynccache.policy import Duration, seconds
from asynccache.postgres.batch_log import BatchLog, NoBatchLog
from asynccache.postgres.binding import bind
from asynccache.postgres.catalog import read_table
from asynccache.postgres.database import AnyDatabase, connections_for, transaction
from asynccache.postgres.failures import TRY_AGAIN, reading, writing
from asynccache.postgres.models import Model, model_for
from asynccache.postgres.names import parse_name
from asynccache.postgres.reading import Reader
from asynccache.postgres.row_keys import RowKey, check_arity
from asynccache.postgres.statements import Statements
from asynccache.postgres.writing import Prepared, Writer
from asynccache.protocols import Applied, Batch

__all__ = ["PostgresTable"]

V = TypeVar("V")

_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class _Bound(Generic[V]):
    key: RowKey
    statements: Statements
    reader: Reader[V]
    writer: Writer[V]
    batches: BatchLog


class PostgresTable(Generic[V]):
    """Rows of a PostgreSQL table as values of a model: a `Source` that loads by key and a `Sink` that writes.

    Args:
        database: an `asyncpg.Pool` (which stays the application's: it is never closed here), a DSN, a `Database` that
            several tables share, or a function without arguments that returns a pool once the application has one.
        table: the table's name, `users` or `app.users`; case counts. It is looked up along the search path.
        key: the key column, or several; with several, a key is a tuple in their order. They need a primary key or
            unique constraint.
        model: a dataclass, msgspec Struct, pydantic model, TypedDict or dict. Fields are columns of the same name;
            other columns are left alone, and take their default in a new row. It may leave out the key.
        columns: names of columns that differ from their field's, by field.
        timeout: the longest one operation may take (seconds, `timedelta`, or text such as `"5s"`), waiting for a
            connection included.
        batch_table: where ids of write-behind batches are kept; made when first needed. Without a schema it is in the
            table's own, so that every process finds the same one whatever its search path.

    A value's field for a column that the database computes (generated, or identity `ALWAYS`) is read, never written.
    `None` for a NOT NULL column that has a default, a key that a dict has not, and `msgspec.UNSET` all leave the column
    to the database: its default in a new row, what it was in another.

    Raises:
        ConfigurationError: an argument cannot work. No I/O is done here.
    """

    @overload
    def __init__(
        self: PostgresTable[dict[str, Any]],
        database: AnyDatabase,
        table: str,
        *,
        key: str | Sequence[str],
        model: type[dict[Any, Any]],
        columns: Mapping[str, str] | None = None,
        timeout: Duration = 30,
        batch_table: str = "asynccache_batch",
    ) -> None: ...

    @overload
    def __init__(
        self,
        database: AnyDatabase,
        table: str,
        *,
        key: str | Sequence[str],
        model: type[V],
        columns: Mapping[str, str] | None = None,
        timeout: Duration = 30,
        batch_table: str = "asynccache_batch",
    ) -> None: ...

    def __init__(
        self,
        database: AnyDatabase,
        table: str,
        *,
        key: str | Sequence[str],
        model: type[Any],
        columns: Mapping[str, str] | None = None,
        timeout: Duration = 30,
        batch_table: str = "asynccache_batch",
    ) -> None:
        self._connections = connections_for(database)
        self._name = parse_name(table, "table")
        self._shown = table
        self._key = _key_columns(key)
        self.model: type[V] = model
        self._model: Model[V] = model_for(model)
        self._columns = _column_names(columns)
        self._timeout = seconds(timeout, "timeout", least=0.001, zero=False)
        self._batch_table = parse_name(batch_table, "batch_table")
        self._binding: _Bound[V] | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Connects, and checks the model against the table.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached.
            SchemaMismatch: there is no such table, or it does not fit; the message lists every reason.
        """
        await self._connections.open()
        try:
            async with self._lock:
                self._binding = await self._bind()
        except BaseException:
            await self._connections.aclose()
            raise

    async def aclose(self) -> None:
        """Gives back the connections that `open` took."""
        await self._connections.aclose()

    async def __aenter__(self) -> PostgresTable[V]:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def check_key(self, key: Any) -> None:
        """Checks a key before it is used; only its arity until the table has been opened.

        Raises:
            InvalidKey: it cannot be the key of a row.
        """
        if self._binding is None:
            check_arity(self._name[1], self._key, key)
        else:
            self._binding.key.parts(key)

    async def load_many(self, keys: Sequence[Any]) -> dict[Any, V]:
        """Loads rows by key, in one statement.

        Args:
            keys: key values; a tuple each if the key has several columns.

        Returns:
            The rows there are, by the key values given.

        Raises:
            InvalidKey: a key cannot be the key of a row.
            SchemaMismatch: a row does not fit the model, or the table has been changed.
            DatabaseUnavailable: PostgreSQL cannot be reached, refuses, or takes longer than `timeout`.
        """
        keys = list(keys)
        if not keys:
            return {}
        bound = await self._ready()
        parts = [bound.key.parts(key) for key in keys]
        arrays = [list(column) for column in zip(*parts, strict=True)]
        async with self._forget_what_changed():
            with reading(f"loading {len(keys)} row(s) of {self._shown}{self._at}"):
                async with self._connections.connection(self._timeout) as connection:
                    records = await connection.fetch(bound.statements.load, *arrays)
            found = await bound.reader.values(records)
        return {key: found[key_parts] for key, key_parts in zip(keys, parts, strict=True) if key_parts in found}

    async def apply(self, batch: Batch[V]) -> Applied[V]:
        """Applies writes: one statement for all puts, one for all deletes, in one transaction.

        Puts that write different columns (a dict without some, a `None` that is left to the database) go in one
        statement for each stretch of equal ones, in the order of keys.

        Args:
            batch: the writes; each key once. With an id, it is applied once however often it is given.

        Returns:
            Whether it had been applied before; else, for a batch without an id, the rows as the database holds them.

        Raises:
            WriteRejected: a row was refused; nothing was written.
            DatabaseUnavailable: the outcome is unknown; applying the same batch again is safe if it has an id.
            SchemaMismatch: the table has been changed, or a row as stored does not fit the model.
            ConfigurationError: a key occurs twice, or a value holds another key than its own.
        """
        if not batch.writes:
            return Applied()
        bound = await self._ready()
        prepared = bound.writer.prepare(batch.writes)
        async with self._forget_what_changed():
            with writing(f"writing {len(batch.writes)} row(s) of {self._shown}{self._at}"):
                async with self._connections.connection(self._timeout) as connection:
                    return await self._apply(connection, bound, batch, prepared)

    async def install(self) -> None:
        """Creates the table of batch ids, unless it is there; otherwise the first batch with an id does so.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or refuses.
        """
        batches = (await self._ready()).batches
        with writing(f"creating {batches.sql}{self._at}"):
            async with self._connections.connection(self._timeout) as connection:
                await batches.install(connection)

    async def _apply(self, connection: Any, bound: _Bound[V], batch: Batch[V], prepared: Prepared[V]) -> Applied[V]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if batch.id is None and prepared.statements == 1:
                    return Applied(stored=await bound.writer.write(connection, prepared, returning=True))
                async with transaction(connection):
                    if batch.id is not None and not await bound.batches.record(connection, batch.id):
                        return Applied(again=True)
                    own = batch.id is None
                    return Applied(stored=await bound.writer.write(connection, prepared, returning=own, turns=own))
            except NoBatchLog:
                await bound.batches.install(connection)
            except TRY_AGAIN:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(random.uniform(0.0, 0.02 * attempt))  # noqa: S311 - spreads those who collided
        raise SchemaMismatch(f"{bound.batches.sql} was created and is not there")

    @property
    def _at(self) -> str:
        return self._connections.where

    async def _ready(self) -> _Bound[V]:
        if self._binding is not None:
            return self._binding
        try:
            # Waiting for whoever reads the description belongs to this caller's time, too.
            async with asyncio.timeout(self._timeout), self._lock:
                return self._binding or await self._bind()
        except TimeoutError as error:
            raise DatabaseUnavailable(
                f"PostgreSQL{self._connections.where} gave no description of {self._shown} within {self._timeout:g} s"
            ) from error

    async def _bind(self) -> _Bound[V]:
        with reading(f"reading the description of the table {self._shown}{self._at}"):
            async with self._connections.connection(self._timeout) as connection:
                table = await read_table(connection, *self._name)
        binding = bind(table, self._model, self._key, self._columns)
        statements, reader = Statements(binding), Reader(binding)
        schema, name = self._batch_table
        self._binding = _Bound(
            binding.key,
            statements,
            reader,
            Writer(binding, statements, reader),
            BatchLog(schema or table.schema, name),
        )
        return self._binding

    @asynccontextmanager
    async def _forget_what_changed(self) -> AsyncIterator[None]:
        try:
            yield
        except SchemaMismatch:
            # The next use reads the description again: after a migration no restart is needed.
            self._binding = None
            raise

    def __repr__(self) -> str:
        key = self._key[0] if len(self._key) == 1 else self._key
        state = "open" if self._binding else "not open"
        return f"PostgresTable({self._shown!r}, key={key!r}, model={self._model.name}, {state})"


def _key_columns(key: Any) -> tuple[str, ...]:
    names = (key,) if isinstance(key, str) else tuple(key) if isinstance(key, Sequence) else ()
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigurationError(f"key must be a column's name or several, each once, not {key!r}")
    return names


def _column_names(columns: Any) -> dict[str, str]:
    if columns is None:
        return {}
    if not isinstance(columns, Mapping) or not all(isinstance(n, str) for pair in columns.items() for n in pair):
        raise ConfigurationError(f"columns must map names of fields to names of columns, not {columns!r}")
    return dict(columns)
