"""A batch made into statements, and the step that applies them on a connection.

What is written is decided before a connection is taken; when it is committed, and under which batch id, is the
caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from asynccache.errors import ConfigurationError
from asynccache.postgres.adjusting import Adjuster, Adjusting
from asynccache.postgres.binding import Binding
from asynccache.postgres.reading import Reader
from asynccache.postgres.row_keys import Parts
from asynccache.postgres.rows import RowMaker, Run, key_arrays
from asynccache.postgres.staging import Stage
from asynccache.postgres.statements import Statements
from asynccache.protocols import Adjust, Append, Delete, Put, Puts, Write

__all__ = ["Prepared", "Writer"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Prepared(Generic[V]):
    """A batch, ready for a connection.

    Attributes:
        deletes: keys of rows to remove, in their order; of rows to put anew, too.
        runs: puts.
        adjusting: rows to adjust, in the order of their keys.
        appended: rows to insert, in the order of the batch.
        callers: keys as the caller gave them, of every write that has one, by what is sent for them.
    """

    deletes: list[Parts]
    runs: list[Run]
    adjusting: list[Adjusting[V]]
    appended: list[Run]
    callers: Callable[[], dict[Parts, Any]]

    @property
    def all_keys(self) -> list[Parts]:
        """Of every write that has one, in the order in which everybody reaches rows."""
        return sorted(self.callers())

    @property
    def mixed(self) -> bool:
        """Whether it does more than one thing to rows that may exist, so that they are not reached in one order."""
        return bool(self.deletes) + bool(self.runs) + bool(self.adjusting) > 1

    @property
    def statements(self) -> int:
        """How many statements apply it, at least."""
        puts = sum(1 if run.fields else 2 for run in self.runs)
        appends = sum(1 if run.fields else run.size for run in self.appended)
        return bool(self.deletes) + puts + 3 * bool(self.adjusting) + appends


class Writer(Generic[V]):
    """Writes the rows of one bound table."""

    def __init__(self, binding: Binding[V], statements: Statements, reader: Reader[V]) -> None:
        self._statements = statements
        self._reader = reader
        self._key = binding.key
        self._rows = RowMaker(binding)
        self._adjuster = Adjuster(binding, statements, self._rows)
        self._stage = Stage(binding.table.sql, binding.key.transports)

    def prepare(self, writes: Sequence[Write[V]]) -> Prepared[V]:
        """Checks a batch, sorts it by key, and makes arrays of it.

        Raises:
            ConfigurationError: a key occurs twice, or a value holds another key than it is put under.
            InvalidKey: a key does not fit the table.
            WriteRejected: a value is not of the model, or holds what its column cannot.
        """
        if isinstance(writes, Puts) and (prepared := self._prepare_columns(writes)) is not None:
            return prepared
        callers: dict[Parts, Any] = {}
        deletes: list[Parts] = []
        puts: list[tuple[Any, Parts, V]] = []
        adjusts: list[tuple[Parts, Adjust[V]]] = []
        appends: list[V] = []
        for write in writes:
            if isinstance(write, Append):
                appends.append(write.value)
                continue
            if not isinstance(write, Put | Delete | Adjust):
                raise ConfigurationError(
                    f"PostgresTable applies Put and Delete, Adjust and Append, not {type(write).__name__}"
                )
            parts = self._key.parts(write.key)
            if parts in callers:
                raise ConfigurationError(f"the key {write.key!r} occurs twice in one batch: which write is the last?")
            callers[parts] = write.key
            if isinstance(write, Put):
                puts.append((write.key, parts, write.value))
            if isinstance(write, Adjust):
                adjusts.append((parts, write))
            elif isinstance(write, Delete) or write.anew:
                deletes.append(parts)
        # Everybody locks rows in this order, so that no two batches wait for each other.
        deletes.sort()
        puts.sort(key=_parts_of)
        return Prepared(
            deletes,
            self._rows.runs(puts),
            self._adjuster.prepare(adjusts),
            self._rows.appended(appends),
            lambda: callers,
        )

    def _prepare_columns(self, puts: Puts[V]) -> Prepared[V] | None:
        """The same for puts by column; None if they must be looked at one by one."""
        keys, columns = puts.keys, self._key.columns_of(puts.keys)
        if columns is None or len({*keys}) < len(keys):
            return None
        order = sorted(range(len(keys)), key=keys.__getitem__)
        values = puts.values
        run = self._rows.run([[column[at] for at in order] for column in columns], [values[at] for at in order])
        if run is None:
            return None
        return Prepared([], [run], [], [], lambda: {self._key.parts(key): key for key in keys})

    async def stage(self, connection: Any, prepared: Prepared[V]) -> Prepared[V]:
        """Copies what is long enough of a batch to where the statements of `write` find it; see `Stage.put`.

        Args:
            connection: at the beginning of the transaction in which the batch is written, without `returning`.
        """
        staged = await self._stage.put(connection, [*prepared.runs, *prepared.appended])
        puts = len(prepared.runs)
        return replace(prepared, runs=staged[:puts], appended=staged[puts:])

    async def write(
        self, connection: Any, prepared: Prepared[V], *, returning: bool = False, turns: bool = False
    ) -> dict[Any, V]:
        """Applies a prepared batch.

        Deletes go first, since a put may take what a deleted row held of another unique constraint. So rows of a batch
        that does both are not reached in the one order of keys, and all that exist are locked before.

        Args:
            connection: in a transaction, if there is more than one statement.
            returning: whether rows are wanted as stored.
            turns: batches that do both take turns, table by table. Write-behind can do without: its batches share no
                keys, and it tries again after a deadlock.

        Returns:
            The rows that were put, as stored, by their caller's key.
        """
        if prepared.mixed:
            if turns:
                # Locking the rows there are is not enough: another such batch may insert, between our two statements,
                # a row that we are about to put while we hold one that it wants. Each deadlock costs
                # `deadlock_timeout`.
                await connection.execute(self._statements.take_turns)
            # In order at least the rows that are there: batches that do one thing only take no turns.
            await self.lock(connection, prepared.all_keys)
        if prepared.deletes:
            await connection.execute(self._statements.delete, *key_arrays(prepared.deletes))
        stored: dict[Any, V] = {}
        for run in prepared.runs:
            stored.update(await self._put(connection, run, prepared, returning=returning))
        if prepared.adjusting:
            await self._adjuster.apply(connection, prepared.adjusting)
        for run in prepared.appended:
            await self._append(connection, run)
        return stored

    async def lock(self, connection: Any, keys: list[Parts]) -> None:
        """Locks the rows there are, in the order of `keys`."""
        if keys:
            await connection.fetchval(self._statements.lock, *key_arrays(keys))

    async def _put(self, connection: Any, run: Run, prepared: Prepared[V], *, returning: bool) -> dict[Any, V]:
        arrays = [] if run.staged else [*run.keys, *run.arrays]
        if not returning or not run.fields:
            statement = self._statements.upsert(run.fields, returning=False, staged=run.staged)
            await connection.execute(statement, *arrays)
            if not returning:
                return {}
            # Nothing to update, so rows that were there are not returned.
            records = await connection.fetch(self._statements.load, *run.keys)
        else:
            records = await connection.fetch(self._statements.upsert(run.fields, returning=True), *arrays)
        found = await self._reader.values(records)
        # A trigger may have changed a key: then that is not the row of any key that was put.
        callers = prepared.callers()
        return {callers[parts]: value for parts, value in found.items() if parts in callers}

    async def _append(self, connection: Any, run: Run) -> None:
        statement = self._statements.append(run.fields, staged=run.staged)
        if run.fields:
            await connection.execute(statement, *([] if run.staged else run.arrays))
        else:
            for _ in range(run.size):
                await connection.execute(statement)


def _parts_of(put: tuple[Any, Parts, Any]) -> Parts:
    return put[1]
