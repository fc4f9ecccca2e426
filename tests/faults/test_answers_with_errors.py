"""A Redis that answers with errors: it costs nobody a wait, and what it has is still served."""

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Cache, CacheAside, StoreUnavailable
from asynccache.embedded import Server
from tests.support.fixtures import StartServer, redis_client
from tests.support.gates import Table, until

TIMEOUT = 0.3
SOON = 2.5
"""Seconds: far below a lease, and enough for a busy machine."""


async def recovered(cache: Cache) -> None:
    await until(lambda: cache.health().ok, "the circuit to close")


async def prompt(answer: Any) -> Any:
    """An answer that must not take as long as a lease."""
    began = time.monotonic()
    found = await answer
    assert time.monotonic() - began < SOON
    return found


async def _rewritten(client: Redis) -> bool:
    info = await client.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]


@pytest.mark.one_loop
async def test_a_replica_that_may_not_be_written_serves_its_hits_and_refuses_writes(
    dedicated_redis: Server, namespace: str
) -> None:
    table = Table(hit="hit", miss="miss")
    client = redis_client(dedicated_redis.url)
    try:
        async with Cache(dedicated_redis.url, namespace=namespace, ttl=60, timeout=TIMEOUT) as cache:
            rows = CacheAside(cache, "row")
            assert await rows.get("hit", table.load) == "hit"
            await client.replicaof("127.0.0.1", 1)  # as after a failover; its master is not there
            for _ in range(10):
                assert await rows.get("hit", table.load) == "hit"
                assert await rows.get("miss", table.load) == "miss"
            assert table.loads == 11
            with pytest.raises(StoreUnavailable, match=r"ReadOnly|read only"):
                await rows.invalidate("hit")
            table.rows["hit"] = "new"
            assert await rows.get("hit", table.load) == "new"  # what could not be invalidated is not served
            await client.replicaof("NO", "ONE")
            await recovered(cache)
            assert await rows.get("hit", table.load) == "new"
            assert await rows.get("miss", table.load) == "miss"
            loads = table.loads
            assert await rows.get("hit", table.load) == "new"
            assert await rows.get("miss", table.load) == "miss"
            assert table.loads == loads
    finally:
        await client.aclose()


@pytest.mark.one_loop
async def test_a_redis_that_is_still_loading_its_data_is_waited_for_by_nobody(
    start_redis: StartServer, namespace: str
) -> None:
    slow = {"key-load-delay": 20_000, "loading-process-events-interval-bytes": 1024}  # microseconds a key
    server = await start_redis(append_only=True, settings=slow)
    table = Table(k="value")
    client = redis_client(server.url)
    async with Cache(server.url, namespace=namespace, ttl=60, timeout=TIMEOUT) as cache:
        rows = CacheAside(cache, "row")
        assert await rows.get("k", table.load) == "value"
        await client.mset({f"other {number}": "x" * 200 for number in range(200)})
        await client.bgrewriteaof()
        await until(lambda: _rewritten(client), "the data to be in a form that is loaded key by key")
        await server.kill()
        start = asyncio.create_task(server.start())
        answers = 0
        while not start.done():
            assert await prompt(rows.get("k", table.load)) == "value"
            answers += 1
            await asyncio.sleep(0.005)
        await start
        assert answers > 10
        assert table.loads > 10
        await recovered(cache)
        loads = table.loads
        assert await rows.get("k", table.load) == "value"
        assert table.loads == loads  # it is still there
    await client.aclose()


@pytest.mark.one_loop
async def test_a_redis_that_lost_everything_is_filled_anew(start_redis: StartServer, namespace: str) -> None:
    server = await start_redis(append_only=False)
    table = Table(k="old")
    async with Cache(server.url, namespace=namespace, ttl=60, timeout=TIMEOUT) as cache:
        rows = CacheAside(cache, "row", tags=["t"])
        assert await rows.get("k", table.load) == "old"
        async with rows.updating("k"):
            await server.kill()  # the writer's mark goes with it
            await server.start()
            table.rows["k"] = "new"
        await recovered(cache)
        for _ in range(3):
            assert await rows.get("k", table.load) == "new"
        assert table.loads == 2
        await cache.invalidate_tags("t")
        assert await rows.get("k", table.load) == "new"
        assert table.loads == 3


@pytest.mark.one_loop
async def test_a_missing_password_is_said_at_start(start_redis: StartServer, namespace: str) -> None:
    server = await start_redis(settings={"requirepass": "secret"})
    url = f"redis://127.0.0.1:{server.port}/0"
    with pytest.raises(StoreUnavailable, match=r"(?i)authenticat"):
        await Cache(url, namespace=namespace, ttl=1).startup()
