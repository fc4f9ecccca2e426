"""Caches that follow changes, opened in the test's namespace and schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import asyncpg
import pytest

from asynccache import Cache
from tests.support.changes import CREATE, World, world


class Follow(Protocol):
    """Opens a process's cache that follows; the triggers are installed with the first."""

    async def __call__(self, url: str = ..., **options: Any) -> World: ...


@pytest.fixture(autouse=True)
def nothing_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests look at what was recorded; those of pruning ask for it."""
    monkeypatch.setattr("asynccache.postgres.changes.listener._PRUNE_EVERY", 3600.0)


@pytest.fixture
async def follow(redis_url: str, namespace: str, pool: asyncpg.Pool[Any], schema: str) -> AsyncIterator[Follow]:
    await pool.execute(CREATE)
    async with AsyncExitStack() as stack:

        async def open_world(url: str = redis_url, **options: Any) -> World:
            of_cache = options.pop("cache", {})
            cache = Cache(url, **{"namespace": namespace, "ttl": 60, **of_cache})
            found = world(cache, pool, schema, **options)
            await found.changes.install()
            await stack.enter_async_context(cache)
            return found

        yield open_world
