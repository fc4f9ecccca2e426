"""Every store carries out every step as `steps.transition` says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given

from asynccache.steps import Step, transition
from asynccache.stores.guarded import GuardedStore
from asynccache.stores.memory import MemoryStore
from asynccache.stores.redis import RedisStore
from asynccache.testing.contract import EXAMPLES, RawStoreContract, steps


class TestMemoryStore(RawStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[MemoryStore]:
        store = MemoryStore()
        await store.open()
        yield store
        await store.aclose()

    async def seed(self, store: MemoryStore, key: str, cell: bytes, life_ms: int) -> None:
        store._cells[key] = (cell, store.now_ms() + life_ms)

    async def life_ms(self, store: MemoryStore, key: str) -> int | None:
        cell, expires = store._get(key, store.now_ms())
        return None if cell is None else expires - store.now_ms()


class _OnRedis(RawStoreContract):
    @pytest.fixture
    async def raw(self, redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            yield client

    async def seed(self, store: Any, key: str, cell: bytes, life_ms: int) -> None:
        await _client(store).set(key, cell, px=life_ms)

    async def life_ms(self, store: Any, key: str) -> int | None:
        left = int(await _client(store).pttl(key))
        assert left != -1, f"{key} never expires"
        return None if left == -2 else left

    @EXAMPLES
    @given(step=steps())
    async def test_a_key_of_another_type_counts_as_unreadable_and_is_replaced(
        self, store: Any, prefix: str, raw: redis.asyncio.Redis, step: Step
    ) -> None:
        await raw.delete(prefix)
        await raw.lpush(prefix, "not a cell")
        assert list(await store.read([prefix])) == [None]
        reply = await store.apply(prefix, step)
        after = transition(b"?", reply.now_ms + 1, step, reply.now_ms)
        assert reply.outcome is after.reply.outcome
        kind = await raw.type(prefix)
        if after.cell == b"?":
            assert kind == b"list"
        else:
            assert kind == (b"none" if after.cell is None else b"string")


class TestRedisStore(_OnRedis):
    @pytest.fixture
    async def store(self, redis_url: str) -> AsyncIterator[RedisStore]:
        store = RedisStore(redis_url)
        await store.open()
        yield store
        await store.aclose()


class TestGuardedStore(_OnRedis):
    @pytest.fixture
    async def store(self, redis_url: str, prefix: str) -> AsyncIterator[GuardedStore]:
        store = GuardedStore(RedisStore(redis_url), everything=f"{prefix}:everything")
        await store.open()
        yield store
        await store.aclose()
        assert store.opened == 0, "the circuit opened although Redis is well"


def _client(store: Any) -> redis.asyncio.Redis:
    inner = store.inner if isinstance(store, GuardedStore) else store
    client = inner.client
    assert isinstance(client, redis.asyncio.Redis)
    return client
