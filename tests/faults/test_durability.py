"""What each level of durability promises, and a Redis that cannot keep it: refused, warned of, and never in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import Cache, ConfigurationError, DurabilityNotReached, StoreUnavailable, WriteBehind
from asynccache.embedded import Server
from asynccache.postgres import PostgresTable
from tests.support.fixtures import StartServer, redis_client
from tests.support.gates import until

Pool: TypeAlias = "asyncpg.Pool[Any]"


@pytest.fixture
async def table(pool: Pool) -> PostgresTable[dict[str, Any]]:
    await pool.execute("CREATE TABLE item (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0)")
    return PostgresTable(pool, "item", key="id", model=dict)


@asynccontextmanager
async def writing(
    server: Server, table: PostgresTable[dict[str, Any]], **options: Any
) -> AsyncIterator[WriteBehind[dict[str, Any]]]:
    cache = Cache(server.url, namespace="n", ttl=60, background=False)
    items = WriteBehind(cache, "item", sink=table, defaults={"n": 0}, confirm_timeout=2, **options)
    async with cache:
        yield items


async def configure(server: Server, **settings: object) -> None:
    async with redis_client(server.url) as client:
        for name, value in settings.items():
            await client.config_set(name.replace("_", "-"), str(value))


async def follow(replica: Server, main: Server) -> None:
    """Makes one server a replica of another, and waits until it has all."""
    async with redis_client(main.url) as leading, redis_client(replica.url) as following:
        await leading.config_set("repl-diskless-sync-delay", 0)
        address = leading.connection_pool.connection_kwargs
        await following.slaveof(address.get("host", "127.0.0.1"), address["port"])

        async def connected() -> bool:
            return (await leading.info("replication")).get("connected_slaves") == 1 and (
                (await following.info("replication")).get("master_link_status") == "up"
            )

        await until(connected, "the replica")


async def has_waitaof(server: Server) -> bool:
    async with redis_client(server.url) as client:
        version = (await client.info("server"))["redis_version"]
    return tuple(map(int, version.split(".")[:2])) >= (7, 2)


async def test_a_write_with_fsync_outlives_a_kill_of_redis_at_once(
    dedicated_redis: Server, table: PostgresTable[dict[str, Any]]
) -> None:
    if not await has_waitaof(dedicated_redis):
        with pytest.raises(ConfigurationError, match="WAITAOF"):
            async with writing(dedicated_redis, table, durability="fsync"):
                pass
        return
    await configure(dedicated_redis, appendfsync="everysec")
    async with writing(dedicated_redis, table, durability="fsync") as items:
        receipt, _ = await asyncio.gather(items.put(1, {"id": 1, "n": 1}), items.increment(2, n=5))
        assert (receipt.durability, receipt.confirmed) == ("fsync", 1)
    await dedicated_redis.kill()
    await dedicated_redis.start()
    async with writing(dedicated_redis, table, durability="redis") as items:
        assert await items.get_many([1, 2]) == {1: {"id": 1, "n": 1}, 2: {"id": 2, "n": 5}}


async def test_a_write_that_too_few_replicas_have_says_so_and_is_counted_once(
    dedicated_redis: Server, start_redis: StartServer, table: PostgresTable[dict[str, Any]]
) -> None:
    with pytest.raises(ConfigurationError, match="1 connected replicas"):
        async with writing(dedicated_redis, table, durability="replicated"):
            pass
    replica = await start_redis()
    await follow(replica, dedicated_redis)
    async with (
        redis_client(replica.url) as other,
        writing(dedicated_redis, table, durability="replicated") as items,
    ):
        receipt = await items.increment(1, n=1)
        assert receipt.confirmed == 1
        await other.slaveof()
        with pytest.raises(DurabilityNotReached, match="0 of 1"):
            await items.increment(1, n=1)
        assert await items.get(1) == {"id": 1, "n": 2}  # it is buffered, and once, although it was sent again


async def test_a_repeated_call_does_not_take_a_replica_for_confirming_what_it_has_not_also_without_memory(
    dedicated_redis: Server, start_redis: StartServer, table: PostgresTable[dict[str, Any]]
) -> None:
    replica = await start_redis()
    await follow(replica, dedicated_redis)
    async with writing(dedicated_redis, table, durability="replicated") as items:
        await items.increment(1, n=1)
        store: Any = items._runtime.store
        run_many: Any = store.run_many
        calls = 0

        async def lose_the_first(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            answers = await run_many(*args)
            if calls > 1:
                return answers
            # It is merged, and nobody hears of it: not its writer, whose connection is gone, nor the replica.
            await configure(dedicated_redis, maxmemory=1)
            await store.inner.client.connection_pool.disconnect()
            error = StoreUnavailable("the connection was lost")
            error.__cause__ = ConnectionResetError()
            raise error

        await replica.pause()
        try:
            store.run_many = lose_the_first
            # On a connection that has written nothing, WAIT would count every replica there is; and here the mark that
            # is set for it is refused.
            with pytest.raises(DurabilityNotReached, match="0 of 1"):
                await items.increment(1, n=1)
        finally:
            await replica.resume()
        assert calls > 1
        await configure(dedicated_redis, maxmemory=0)
        assert (await items.increment(1, n=1)).confirmed == 1
        assert await items.get(1) == {"id": 1, "n": 3}


async def test_a_redis_that_may_evict_buffered_writes_is_refused_also_if_it_is_changed_while_running(
    dedicated_redis: Server, table: PostgresTable[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async with writing(dedicated_redis, table) as items:
        await items.increment(1, n=1)
        await configure(dedicated_redis, maxmemory_policy="allkeys-lru")
        await items._buffering.look()
        assert "allkeys-lru" in caplog.text
        with pytest.raises(DurabilityNotReached, match="allkeys-lru"):
            await items.increment(1, n=1)
        await configure(dedicated_redis, maxmemory_policy="noeviction")
        await items._buffering.look()
        await items.increment(1, n=1)
    await configure(dedicated_redis, maxmemory_policy="allkeys-lru")
    with pytest.raises(ConfigurationError, match="allkeys-lru"):
        async with writing(dedicated_redis, table):
            pass
    caplog.clear()
    async with writing(dedicated_redis, table, unsafe="warn") as items:
        await items.increment(1, n=1)
    assert "allkeys-lru" in caplog.text
    caplog.clear()
    async with writing(dedicated_redis, table, unsafe="allow") as items:
        await items.increment(1, n=1)
    assert "allkeys-lru" not in caplog.text


async def test_a_redis_without_an_append_only_file_is_named(
    start_redis: StartServer, table: PostgresTable[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    server = await start_redis()
    async with writing(server, table) as items:
        await items.increment(1, n=1)
    assert [record.levelno for record in caplog.records if "append-only" in record.message] == [logging.WARNING]
    if await has_waitaof(server):
        with pytest.raises(ConfigurationError, match="append-only"):
            async with writing(server, table, durability="fsync"):
                pass


async def test_a_flushall_in_mid_flight_loses_what_redis_lost_doubles_nothing_and_is_reported(
    dedicated_redis: Server, table: PostgresTable[dict[str, Any]], pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    async with writing(dedicated_redis, table) as items, redis_client(dedicated_redis.url) as client:
        await items.increment(1, n=1)
        apply = table.apply

        async def apply_late(batch: Any, /) -> Any:
            applied = await apply(batch)
            await client.flushall()  # between the commit and its acknowledgement
            return applied

        table.apply = apply_late  # type: ignore[assignment, method-assign]
        await items.flush()
        table.apply = apply  # type: ignore[method-assign]
        await items.increment(1, n=1)
        await items._buffering.look()
        assert "Redis has lost its data" in caplog.text
        assert await items.get(1) == {"id": 1, "n": 2}
        await items.flush()
        assert await pool.fetchval("SELECT n FROM item WHERE id = 1") == 2


async def test_a_redis_out_of_memory_refuses_writes_whole_and_goes_on_with_what_it_has(
    dedicated_redis: Server, table: PostgresTable[dict[str, Any]], pool: Pool
) -> None:
    async with writing(dedicated_redis, table) as items:
        await items.increment(1, n=1)
        await configure(dedicated_redis, maxmemory=1)
        for _ in range(5):
            with pytest.raises(StoreUnavailable, match="memory"):
                await items.increment(1, n=1)
        assert await items.get(1) == {"id": 1, "n": 1}
        await configure(dedicated_redis, maxmemory=0)
        await items.increment(1, n=1)
        await items.flush()
        assert await pool.fetchval("SELECT n FROM item WHERE id = 1") == 2
