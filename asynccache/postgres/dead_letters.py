"""The dead letters of a `PostgresTable`, as users and tools handle them."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from asynccache.postgres.applying import Bound, trying_again
from asynccache.postgres.bisecting import Bisection, begin_attempt
from asynccache.postgres.database import Connections, transaction
from asynccache.postgres.failures import Refusal, writing
from asynccache.protocols import Batch, DeadLetter, Retried, Write

__all__ = ["TableLetters"]

V = TypeVar("V")

Decode = Callable[[bytes], Write[V]]


class TableLetters(Generic[V]):
    """Writes that the database refused, kept in a table beside it; see `asynccache.protocols.DeadLetters`.

    Args:
        connections: where connections come from.
        ready: describes the table.
        shown: its name for messages.
        timeout: the longest that one operation may take, in seconds; a retry, for each letter.
    """

    def __init__(
        self, connections: Connections, ready: Callable[[], Awaitable[Bound[V]]], shown: str, timeout: float
    ) -> None:
        self._connections = connections
        self._ready = ready
        self._shown = shown
        self._timeout = timeout

    async def list(self, origin: str | None = None, *, limit: int = 100, after: int = 0) -> tuple[DeadLetter, ...]:
        """Letters without their records, oldest first.

        Args:
            origin: of this strategy only.
            limit: how many at most.
            after: only letters with larger ids: the last id of the page before.
        """
        async with self._connected("reading") as (connection, bound):
            return await bound.letters.page(connection, origin, limit, after)

    async def show(self, letter: int) -> DeadLetter | None:
        """One letter with its record; None if there is none of this id."""
        async with self._connected("reading") as (connection, bound):
            return await bound.letters.show(connection, letter)

    async def count(self, origin: str | None = None) -> int:
        """How many there are."""
        async with self._connected("counting") as (connection, bound):
            return await bound.letters.count(connection, origin)

    async def drop(self, ids: Sequence[int] | None, *, origin: str | None = None) -> int:
        """Deletes letters for good: these, or all if `ids` is None; returns how many."""
        async with self._connected("dropping") as (connection, bound):
            return await bound.letters.drop(connection, origin, None if ids is None else [*ids])

    async def retry(self, origin: str, ids: Sequence[int] | None = None, *, decode: Decode[V]) -> Retried:
        """Tries letters again, oldest first, each in a transaction that also deletes the letter.

        A retried write is applied to the row as it is now: a put replaces what was written since. Letters that
        somebody else is retrying are left to them.

        Args:
            origin: the strategy's name.
            ids: which; None for all there are now.
            decode: makes a write of a letter's record; may mend it. Whatever it raises keeps the letter.

        Raises:
            DatabaseUnavailable: PostgreSQL is away; each letter is either done or still there.
        """
        async with self._connected("reading") as (connection, bound):
            found = await bound.letters.ids(connection, origin, None if ids is None else [*ids])
        applied, failed = 0, 0
        keys: builtins.list[Any] = []
        for letter in found:
            async with self._connected("retrying") as (connection, bound):
                done = await self._retry(connection, bound, origin, letter, decode)
            if done is None:
                continue
            if isinstance(done, Refusal):
                failed += 1
                continue
            applied += 1
            if hasattr(done, "key"):
                keys.append(done.key)
        return Retried(applied, failed, tuple(keys))

    async def _retry(
        self, connection: Any, bound: Bound[V], origin: str, number: int, decode: Decode[V]
    ) -> Write[V] | Refusal | None:
        async def attempt() -> Write[V] | Refusal | None:
            async with transaction(connection, bound.timeout):
                letter = await bound.letters.take(connection, origin, number)
                if letter is None:
                    return None
                write = _decoded(letter, decode)
                why: Refusal | None
                if isinstance(write, Refusal):
                    why = write
                else:
                    await begin_attempt(connection)
                    why = await Bisection(connection, bound.writer, Batch([write])).attempt([write])
                if why is None:
                    await bound.letters.drop(connection, origin, [number])
                    return write
                await bound.letters.refused_again(connection, number, why)
                return why

        return await trying_again(connection, bound, attempt)

    @asynccontextmanager
    async def _connected(self, what: str) -> AsyncIterator[tuple[Any, Bound[V]]]:
        bound = await self._ready()
        with writing(f"{what} dead letters of {self._shown}{self._connections.where}"):
            async with self._connections.connection(self._timeout) as connection:
                yield connection, bound

    def __repr__(self) -> str:
        return f"TableLetters({self._shown!r})"


def _decoded(letter: DeadLetter, decode: Decode[V]) -> Write[V] | Refusal:
    if letter.record is None:
        return Refusal("nothing was kept of this write but its key; drop the letter")
    try:
        return decode(letter.record)
    except Exception as error:  # noqa: BLE001 - the caller's own function may raise anything
        return Refusal(f"the record cannot be read: {type(error).__name__}: {error}")
