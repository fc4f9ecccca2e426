"""Applies batches on a connection: at once where all rows are good, else as much as can be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from asynccache.errors import SchemaMismatch
from asynccache.postgres.batch_log import BatchLog, NoBatchLog
from asynccache.postgres.bisecting import Bisection
from asynccache.postgres.database import transaction
from asynccache.postgres.failures import TRY_AGAIN
from asynccache.postgres.letters import LetterTable
from asynccache.postgres.reading import Reader
from asynccache.postgres.row_keys import RowKey
from asynccache.postgres.staging import CannotStage
from asynccache.postgres.statements import Statements
from asynccache.postgres.writing import Prepared, Writer
from asynccache.protocols import Applied, Batch, Rejected

__all__ = ["Bound", "apply_all", "apply_what_fits", "trying_again"]

T = TypeVar("T")
V = TypeVar("V")

_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Bound(Generic[V]):
    """A table that has been described, and all that works on it; `timeout` is for one transaction, in seconds."""

    key: RowKey
    statements: Statements
    reader: Reader[V]
    writer: Writer[V]
    batches: BatchLog
    letters: LetterTable
    adjustable: dict[str, str]
    timeout: float


async def apply_all(connection: Any, bound: Bound[V], batch: Batch[V], prepared: Prepared[V]) -> Applied[V]:
    """Applies a batch whole, or raises. With an id, long runs of rows are copied, if that can be done here."""

    async def own() -> Applied[V]:
        if prepared.statements == 1:
            # A statement of its own is a transaction; an append without columns is one for each row.
            return Applied(stored=await bound.writer.write(connection, prepared, returning=True))
        async with transaction(connection, bound.timeout):
            return Applied(stored=await bound.writer.write(connection, prepared, returning=True, turns=True))

    async def recorded(batch_id: UUID, *, copying: bool) -> Applied[V]:
        async with transaction(connection, bound.timeout):
            # Before the id, for which others wait.
            sent = await bound.writer.stage(connection, prepared) if copying else prepared
            if not await bound.batches.record(connection, batch_id, batch.buffer):
                return Applied(again=True)
            await bound.writer.write(connection, sent)
        return Applied()

    async def attempt() -> Applied[V]:
        if batch.id is None:
            return await own()
        with suppress(CannotStage):
            return await recorded(batch.id, copying=True)
        return await recorded(batch.id, copying=False)

    return await trying_again(connection, bound, attempt)


async def apply_what_fits(connection: Any, bound: Bound[V], batch: Batch[V], seconds: float) -> Applied[V]:
    """Applies what can be of a batch with an id, in so many seconds at most; the rest become dead letters in the same
    transaction."""
    batch_id = batch.id
    assert batch_id is not None  # noqa: S101 - others are applied whole
    await bound.letters.ensure(connection)

    async def attempt() -> Applied[V]:
        async with transaction(connection, seconds):
            if not await bound.batches.record(connection, batch_id, batch.buffer):
                return Applied(again=True)
            bisection = Bisection(connection, bound.writer, batch)
            refused = await bisection.run()
            if refused:
                await bound.letters.add(connection, batch, refused, bisection.halved)
        return Applied(rejected=tuple([Rejected(at, why.reason, why.sqlstate) for at, why in refused.items()]))

    return await trying_again(connection, bound, attempt)


async def trying_again(connection: Any, bound: Bound[Any], attempt: Callable[[], Awaitable[T]]) -> T:
    """Runs a transaction until it passes: makes or completes the table of batch ids, and gets out of deadlocks."""
    for number in range(1, _ATTEMPTS + 1):
        try:
            return await attempt()
        except NoBatchLog:
            await bound.batches.install(connection)
        except TRY_AGAIN:
            if number == _ATTEMPTS:
                raise
            await asyncio.sleep(random.uniform(0.0, 0.02 * number))  # noqa: S311 - spreads those who collided
    raise SchemaMismatch(f"{bound.batches.sql} was created and is not there, or is no table of batch ids")
