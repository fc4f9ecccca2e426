"""Sees what COPY does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from asynccache.postgres import staging


class Copies:
    """What COPY did.

    Attributes:
        begun: how often it began.
        rows: how many rows each brought.
        gate: if it is set, each waits for it after its first row.
        waiting: set by the first that waits.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.rows: list[int] = []
        self.gate: asyncio.Event | None = None
        self.waiting = asyncio.Event()

    async def stopping(self, records: Any, gate: asyncio.Event) -> AsyncIterator[Any]:
        rows = iter(records)
        yield next(rows)
        self.waiting.set()
        await gate.wait()
        for row in rows:
            yield row


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    """Two rows are enough for COPY, and what it does is seen."""
    seen = Copies()
    copy = asyncpg.Connection.copy_records_to_table

    async def watched(self: Any, *args: Any, records: Any, **options: Any) -> Any:
        seen.begun += 1
        if seen.gate is not None:
            records = seen.stopping(records, seen.gate)
        status = await copy(self, *args, records=records, **options)
        seen.rows.append(int(status.rsplit(maxsplit=1)[-1]))
        return status

    monkeypatch.setattr(asyncpg.Connection, "copy_records_to_table", watched)
    monkeypatch.setattr(staging, "COPIED_FROM", 2)
    return seen
