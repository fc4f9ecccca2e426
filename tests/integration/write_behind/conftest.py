"""A table of scores, and strategies that write behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import Cache, LocalTier, WriteBehind
from tests.integration.write_behind.scores import HeldTable, Score, behind
from tests.support.caches import MakeCache

Pool: TypeAlias = "asyncpg.Pool[Any]"


@pytest.fixture
async def table(pool: Pool) -> HeldTable:
    await pool.execute(
        "CREATE TABLE score (player text PRIMARY KEY, points bigint NOT NULL CHECK (points > -1000), best bigint,"
        " money numeric, ratio float8, note text DEFAULT 'new')"
    )
    return HeldTable(pool, "score", key="player", model=Score)


@pytest.fixture
def make_scores(make_cache: MakeCache, table: HeldTable) -> Callable[..., Awaitable[WriteBehind[Score]]]:
    """Write-behind strategies, each in a cache of its own, as in another process; none flushes by itself."""

    async def make(**options: Any) -> WriteBehind[Score]:
        options = {"partitions": 1, "ttl": 60, "sink": table, **options}
        return WriteBehind(await make_cache(background=False), "score", **options)

    return make


@pytest.fixture
async def cached(make_cache: MakeCache) -> Cache:
    return await make_cache()


@pytest.fixture
async def scores(cached: Cache, table: HeldTable) -> WriteBehind[Score]:
    return behind(cached, table)


@pytest.fixture(params=[False, True], ids=["without a tier", "with a local tier"])
def local(request: pytest.FixtureRequest) -> LocalTier | None:
    return LocalTier() if request.param else None
