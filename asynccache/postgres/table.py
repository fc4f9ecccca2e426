"""`PostgresTable`: a table as `Source` and `Sink`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar, overload
from uuid import UUID

from asynccache.errors import ConfigurationError, DatabaseUnavailable, SchemaMismatch
from asynccache.policy import Duration, seconds
from asynccache.postgres.adjusting import adjustable_fields
from asynccache.postgres.applying import Bound, apply_all, apply_what_fits
from asynccache.postgres.batch_log import BatchLog
from asynccache.postgres.binding import bind
from asynccache.postgres.catalog import read_table
from asynccache.postgres.database import AnyDatabase, connections_for
from asynccache.postgres.dead_letters import TableLetters
from asynccache.postgres.exact import fetch_exact
from asynccache.postgres.failures import reading, refusal, writing
from asynccache.postgres.letters import LetterTable
from asynccache.postgres.models import Model, model_for
from asynccache.postgres.names import parse_name
from asynccache.postgres.reading import Reader
from asynccache.postgres.row_keys import check_arity
from asynccache.postgres.rows import key_arrays
from asynccache.postgres.statements import Statements
from asynccache.postgres.streaming import stream_keys
from asynccache.postgres.writing import Writer
from asynccache.protocols import Applied, Batch

__all__ = ["PostgresTable"]

V = TypeVar("V")

_SLOWLY = 20
"""How many times `timeout` finding the bad rows of a batch may take."""


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
            connection included. Finding the bad rows of a write-behind batch may take 20 times as long.
        batch_table: where ids of write-behind batches are kept; made when first needed. Without a schema it is in the
            table's own, so that every process finds the same one whatever its search path.
        dead_letter_table: where writes of write-behind batches are kept that the database refuses; the same holds.

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
        dead_letter_table: str = "asynccache_dead_letter",
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
        dead_letter_table: str = "asynccache_dead_letter",
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
        dead_letter_table: str = "asynccache_dead_letter",
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
        self._letter_table = parse_name(dead_letter_table, "dead_letter_table")
        self._dead_letters: TableLetters[V] = TableLetters(self._connections, self._ready, table, self._timeout)
        self._binding: Bound[V] | None = None
        self._lock = asyncio.Lock()

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The names that the key columns have in the model, in order, whether it has them or not."""
        fields = {column: field for field, column in self._columns.items()}
        return tuple(fields.get(column, column) for column in self._key)

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
            self._binding.key.check(key)

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
        rows, _ = await self._load(keys, ())
        return rows

    async def stream_keys(self, query: str, /, *args: Any) -> AsyncGenerator[Any, None]:
        """Streams the keys that a query returns, over one connection, which is held until the end.

        Args:
            query: returns the key columns, in the key's order, and no others.
            args: for `$1`, `$2` and so on.

        Raises:
            ConfigurationError: the query returns another number of columns than the key has.
            SchemaMismatch, DatabaseUnavailable: as `load_many`; the longest an answer may take is `timeout`.
        """
        bound = await self._ready()
        async with aclosing(stream_keys(self._connections, bound.key, query, args, self._timeout)) as keys:
            async for key in keys:
                yield key

    async def load_exact(self, keys: Sequence[Any], batch_ids: Sequence[UUID]) -> tuple[dict[Any, V], frozenset[UUID]]:
        """Loads rows by key, and which batches had been applied, both as they were at one moment.

        Args:
            keys: key values, as for `load_many`.
            batch_ids: of batches that may or may not have been applied.

        Returns:
            The rows there were, by the key values given, and the ids of the batches they contain.

        Raises:
            InvalidKey, SchemaMismatch, DatabaseUnavailable: as `load_many`.
        """
        return await self._load(list(keys), [*batch_ids])

    async def _load(self, keys: list[Any], batch_ids: Sequence[UUID]) -> tuple[dict[Any, V], frozenset[UUID]]:
        bound = await self._ready()
        parts = [bound.key.parts(key) for key in keys]
        arrays = key_arrays(parts) if parts else [[] for _ in self._key]
        applied: frozenset[UUID] = frozenset()
        async with self._forget_what_changed():
            with reading(f"loading {len(keys)} row(s) of {self._shown}{self._at}"):
                async with self._connections.connection(self._timeout) as connection:
                    if batch_ids:
                        records, applied = await fetch_exact(connection, bound, arrays, batch_ids)
                    else:
                        records = await connection.fetch(bound.statements.load, *arrays)
            found = await bound.reader.values(records)
        rows = {key: found[key_parts] for key, key_parts in zip(keys, parts, strict=True) if key_parts in found}
        return rows, applied

    async def apply(self, batch: Batch[V]) -> Applied[V]:
        """Applies writes: one statement for all puts, one for all deletes, in one transaction.

        Puts that write different columns (a dict without some, a `None` that is left to the database) go in one
        statement for each stretch of equal ones, in the order of keys. Adjustments go in one statement for each set of
        columns, and another for the rows that are missing. With an id, thousands of rows that write the same columns
        are copied into a temporary table first, if the connection may make one.

        Args:
            batch: the writes; each key once. With an id, it is applied once however often it is given, and writes that
                are refused for what they hold go to the dead letters, while all others are applied.

        Returns:
            Whether it had been applied before; else, for a batch without an id, the rows put, as the database holds
            them, and for one with an id what was refused.

        Raises:
            WriteRejected: a row was refused, and the batch has no id; nothing was written.
            DatabaseUnavailable: the outcome is unknown; applying the same batch again is safe if it has an id.
            SchemaMismatch: the table has been changed, or a row as stored does not fit the model.
            ConfigurationError: a key occurs twice, or a value holds another key than its own, and there is no id.
        """
        if not batch.writes:
            return Applied()
        bound = await self._ready()
        async with self._forget_what_changed():
            with writing(f"writing {len(batch.writes)} row(s) of {self._shown}{self._at}"):
                try:
                    prepared = bound.writer.prepare(batch.writes)
                    async with self._connections.connection(self._timeout) as connection:
                        return await apply_all(connection, bound, batch, prepared)
                except Exception as error:
                    if batch.id is None or refusal(error) is None:
                        raise
                # Refused for a row, even if that was at COMMIT, so nothing has been written.
                slowly = self._timeout * _SLOWLY
                async with self._connections.connection(slowly) as connection:
                    return await apply_what_fits(connection, bound, batch, slowly)

    async def prune(self, older_than: Duration, buffer: str | None = None) -> int:
        """Forgets some of the batch ids that were applied longer ago than this.

        A batch whose id is forgotten before it is acknowledged would be applied twice: keep ids for longer than any
        batch can stay frozen.

        Args:
            older_than: how old.
            buffer: only ids of batches from this buffer (`Batch.buffer`), and those that say none, as earlier versions
                recorded them, if they are a month old, too; None for all that the table holds.

        Returns:
            How many were forgotten; bounded per call, 0 when none are left.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or refuses.
        """
        age = seconds(older_than, "older_than")
        bound = await self._ready()
        with writing(f"pruning {bound.batches.sql}{self._at}"):
            async with self._connections.connection(self._timeout) as connection:
                return await bound.batches.prune(connection, age, buffer)

    @property
    def dead_letters(self) -> TableLetters[V]:
        """Writes of write-behind batches that the database refused: to look at, retry and drop."""
        return self._dead_letters

    async def adjustable(self) -> dict[str, str]:
        """The fields that can be adjusted: `"exact"` (whole and decimal numbers) or `"float"`, by field.

        Raises:
            DatabaseUnavailable, SchemaMismatch: as `open`, if the table has not been opened.
        """
        return dict((await self._ready()).adjustable)

    async def install(self) -> None:
        """Creates the tables of batch ids and dead letters, unless they are there; otherwise whoever needs one does.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or refuses.
        """
        bound = await self._ready()
        with writing(f"creating {bound.batches.sql} and {bound.letters.sql}{self._at}"):
            async with self._connections.connection(self._timeout) as connection:
                await bound.batches.install(connection)
                await bound.letters.install(connection)

    @property
    def _at(self) -> str:
        return self._connections.where

    async def _ready(self) -> Bound[V]:
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

    async def _bind(self) -> Bound[V]:
        with reading(f"reading the description of the table {self._shown}{self._at}"):
            async with self._connections.connection(self._timeout) as connection:
                table = await read_table(connection, *self._name)
        binding = bind(table, self._model, self._key, self._columns)
        statements, reader = Statements(binding), Reader(binding)
        schema, name = self._batch_table
        letter_schema, letter_name = self._letter_table
        self._binding = Bound(
            binding.key,
            statements,
            reader,
            Writer(binding, statements, reader),
            BatchLog(schema or table.schema, name),
            LetterTable(letter_schema or table.schema, letter_name, table.sql),
            adjustable_fields(binding),
            self._timeout,
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
