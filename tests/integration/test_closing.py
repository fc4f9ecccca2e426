"""Buffered writes, and a cache's start and stop, cancelled at each of their awaits; and calls whose cache is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from asynccache import (
    Cache,
    LoadCancelled,
    StoreUnavailable,
    WriteBehind,
)
from asynccache.postgres import PostgresTable
from tests.support.awaits import MOST_AWAITS, AtAwait, connections_of, nothing_is_left, outcome, tasks_end
from tests.support.caches import MakeCache


@dataclass
class Item:
    """A row of the table."""

    name: str
    value: int


BUFFERED: dict[str, Callable[[WriteBehind[Item]], Coroutine[Any, Any, Any]]] = {
    "put": lambda items: items.put("k", Item("k", 2)),
    "put_many": lambda items: items.put_many({name: Item(name, 2) for name in "kl"}),
    "delete": lambda items: items.delete("k", "l"),
    "increment": lambda items: items.increment("k", value=5),
    "maximum": lambda items: items.maximum("l", value=5),
    "get": lambda items: items.get("k"),
    "get_many": lambda items: items.get_many("klm"),
    "refresh": lambda items: items.refresh("k"),
    "invalidate": lambda items: items.invalidate("k"),
    "flush": lambda items: items.flush(),
    "pending": lambda items: items.pending(),
}


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "with the answer"])
@pytest.mark.parametrize("state", ["clean", "pending"])
@pytest.mark.parametrize("name", BUFFERED)
@pytest.mark.one_loop
async def test_a_buffered_write_cancelled_at_any_await_is_done_or_not_and_blocks_nobody(
    make_cache: MakeCache, redis: Redis, pool: asyncpg.Pool[Any], namespace: str, name: str, state: str, late: bool
) -> None:
    await pool.execute("CREATE TABLE item (name text PRIMARY KEY, value int)")
    cache, other = await make_cache(background=False), await make_cache(background=False)
    table = PostgresTable(pool, "item", key="name", model=Item)
    items = WriteBehind(cache, "item", sink=table, partitions=2, defaults={"value": 0})
    neighbour = WriteBehind(other, "item", sink=table, partitions=2, defaults={"value": 0})
    await items.put("k", Item("k", 1))
    await items.flush()
    await neighbour.flush()
    tasks = asyncio.all_tasks()
    for at in range(MOST_AWAITS):
        for key in "kl":
            await items.put(key, Item(key, 1))
        if state == "clean":
            await items.flush()
        cancelled = AtAwait(at, late=late)
        work = asyncio.create_task(cancelled.run(BUFFERED[name](items)))
        error = await outcome(work)
        assert error is None or not isinstance(error, Exception), error
        await tasks_end(tasks)
        await nothing_is_left(redis, cache, namespace)
        pending = await neighbour.get_many("kl")
        assert pending == await items.get_many("kl")
        await neighbour.flush()
        assert sum(status.pending + status.in_batch for status in await items.pending()) == 0
        rows = await pool.fetch("SELECT name, value FROM item WHERE name IN ('k', 'l')")
        assert {row["name"]: Item(**row) for row in rows} == pending
        if not cancelled.reached:
            break
    assert at > 0


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "with the answer"])
@pytest.mark.one_loop
async def test_a_cancelled_start_leaves_the_cache_closed_and_the_next_one_opens_it(
    redis_url: str, namespace: str, redis: Redis, late: bool
) -> None:
    cache = Cache(redis_url, namespace=namespace, ttl=60)
    tasks = asyncio.all_tasks()
    for at in range(MOST_AWAITS):
        cancelled = AtAwait(at, late=late)
        work = asyncio.create_task(cancelled.run(cache.startup()))
        error = await outcome(work)
        await tasks_end(tasks)
        if error is None:
            await cache.shutdown()
        assert cache.health().state == "closed"
        async with cache:
            await cache.set("k", at)
            assert await cache.get("k") == at
            await nothing_is_left(redis, cache, namespace)
        if not cancelled.reached:
            break
    assert at > 0


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "with the answer"])
@pytest.mark.one_loop
async def test_a_cancelled_stop_stops_all_the_same(
    redis_url: str, namespace: str, redis: Redis, pool: asyncpg.Pool[Any], late: bool
) -> None:
    await pool.execute("CREATE TABLE item (name text PRIMARY KEY, value int)")
    tasks = asyncio.all_tasks()
    for at in range(MOST_AWAITS):
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        table = PostgresTable(pool, "item", key="name", model=Item)
        items = WriteBehind(cache, "item", sink=table, partitions=2, flush_every=3600)
        await cache.startup()
        await items.put("k", Item("k", at))
        held = asyncio.Event()
        loading = asyncio.create_task(cache.get_or_load("x", held.wait))
        while not cache.stats.loads:
            await asyncio.sleep(0)
        cancelled = AtAwait(at, late=late)
        work = asyncio.create_task(cancelled.run(cache.shutdown()))
        await outcome(work)
        assert cache.health().state == "closed"
        assert isinstance(await outcome(loading), LoadCancelled)
        await tasks_end(tasks)
        await nothing_is_left(redis, cache, namespace)
        assert await pool.fetchval("SELECT value FROM item") == at
        if not cancelled.reached:
            break
    assert at > 0


CALLS: dict[str, Callable[[Cache], Coroutine[Any, Any, Any]]] = {
    "get": lambda cache: cache.get("k"),
    "get_many": lambda cache: cache.get_many("kl"),
    "get_or_load": lambda cache: cache.get_or_load("k", _value, tags=["t"]),
    "set": lambda cache: cache.set("k", 1, tags=["t"]),
    "delete": lambda cache: cache.delete("k", "l"),
    "invalidate_tags": lambda cache: cache.invalidate_tags("t"),
}


async def _value() -> str:
    return "value"


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "with the answer"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.one_loop
async def test_a_cache_closed_at_any_await_of_a_call_opens_no_connection_and_leaves_no_task(
    redis_url: str, namespace: str, name: str, late: bool
) -> None:
    tasks = asyncio.all_tasks()
    for at in range(MOST_AWAITS):
        cache = Cache(redis_url, namespace=namespace, ttl=60)
        await cache.startup()
        connections = connections_of(cache)
        await connections.disconnect()  # so that the call is to open one
        closing: list[asyncio.Task[None]] = []

        def close(cache: Cache = cache, closing: list[asyncio.Task[None]] = closing) -> None:
            closing.append(asyncio.create_task(cache.shutdown()))

        closed = AtAwait(at, late=late, do=close)
        answer = await outcome(asyncio.create_task(closed.run(CALLS[name](cache))))
        assert not isinstance(answer, BaseException) or isinstance(answer, StoreUnavailable | LoadCancelled), answer
        await asyncio.gather(*closing)
        await cache.shutdown()
        await tasks_end(tasks)
        assert not connections._in_use_connections
        assert not any(connection.is_connected for connection in connections._available_connections)
        if not closed.reached:
            break
    assert at > 0
