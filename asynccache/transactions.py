"""Transactions of the application's, which end the cache's writes that were entered inside of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Protocol, Self

__all__ = ["Ends", "Transaction", "current_transaction"]


class Ends(Protocol):
    """What is begun and must be ended."""

    async def end(self, error: BaseException | None = None) -> None:
        """Ends it; `error` is what the transaction raised."""
        ...


class Transaction:
    """A transaction of the application's: writes that are entered inside of it end when it does.

    With a write ended before the COMMIT, a reader could load the row as it was, and store it, after the marks are gone
    and before the new row can be seen: a stale rest. So the marks stay until the transaction has ended.

    Attributes:
        open: whether writes still join it.
        updates: those that have.
    """

    def __init__(self) -> None:
        self.open = False
        self.updates: list[Ends] = []
        self._token: Token[Transaction | None] | None = None

    def __enter__(self) -> Self:
        self.open = True
        self._token = _transaction.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False
        if self._token is not None:
            with suppress(ValueError):  # a generator that another task closes has another context
                _transaction.reset(self._token)
            self._token = None

    async def end(self, error: BaseException | None = None) -> None:
        """Ends what has joined: after the COMMIT, or after the ROLLBACK with what led to it.

        All of it is ended; a cancellation that comes in between is seen after that.
        """
        self.open = False
        cancelled: asyncio.CancelledError | None = None
        updates, self.updates = self.updates, []
        for update in updates:
            try:
                await update.end(error)
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
        if cancelled is not None:
            raise cancelled

    def __repr__(self) -> str:
        return f"Transaction({'open' if self.open else 'ended'}, updates={len(self.updates)})"


_transaction: ContextVar[Transaction | None] = ContextVar("asynccache_transaction", default=None)


def current_transaction() -> Transaction | None:
    """The transaction that this code runs in, if writes may still join it."""
    transaction = _transaction.get()
    return transaction if transaction is not None and transaction.open else None
