"""Scores written behind: the row, a table that can be held, and a strategy as in another process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg

from asynccache import Cache, WriteBehind
from asynccache.postgres import PostgresTable
from asynccache.protocols import Batch
from tests.support.gates import Gate

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class Score:
    """A row of `score`."""

    player: str
    points: int = 0
    best: int = 0
    money: Decimal = Decimal(0)
    ratio: float = 0.0


class HeldTable(PostgresTable[Score]):
    """A table whose batches can be held before they are applied, and after."""

    before: Gate | None = None
    after: Gate | None = None

    async def apply(self, batch: Batch[Score], /) -> Any:
        if self.before is not None:
            await self.before.stop()
        applied = await super().apply(batch)
        if self.after is not None:
            await self.after.stop()
        return applied


MakeScores: TypeAlias = Callable[..., Awaitable[WriteBehind[Score]]]


async def fresh(scores: WriteBehind[Score], key: str = "ada") -> Score | None:
    """What is read when nothing is cached."""
    await scores.invalidate(key)
    return await scores.get(key)


def behind(cache: Cache, table: HeldTable, **options: Any) -> WriteBehind[Score]:
    """A strategy with `durability="memory"` that flushes when it is told to."""
    options = {"name": "score", "partitions": 1, "flush_every": 3600, "durability": "memory", "sink": table, **options}
    return WriteBehind(cache, **options)


async def points(scores: WriteBehind[Score], key: str = "ada") -> int | None:
    found = await scores.get(key)
    return None if found is None else found.points
