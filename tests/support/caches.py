"""Caches for tests, opened on the shared Redis and closed with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest

from asynccache import Cache


class MakeCache(Protocol):
    """Opens a cache in the test's namespace; each call is like another process with the same configuration."""

    async def __call__(self, **options: Any) -> Cache: ...


@pytest.fixture
async def make_cache(redis_url: str, namespace: str) -> AsyncIterator[MakeCache]:
    async with AsyncExitStack() as stack:

        async def make(url: str = redis_url, **options: Any) -> Cache:
            options.setdefault("namespace", namespace)
            options.setdefault("ttl", 60)
            return await stack.enter_async_context(Cache(url, **options))

        yield make


@pytest.fixture
async def cache(make_cache: MakeCache) -> Cache:
    """An open cache with a TTL of a minute."""
    return await make_cache()
