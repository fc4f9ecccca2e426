"""The contenders: ourselves, peers as their documentation recommends them, and the bare limits."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis

from asynccache import Cache, LocalTier
from benchmarks.model import Context, Operation, Row, sample_row

__all__ = [
    "aiocache_memory",
    "aiocache_redis",
    "async_lru_memory",
    "bare_dict",
    "bare_mget",
    "cashews_memory",
    "cashews_redis",
    "dogpile_redis",
    "ours_local",
    "ours_redis",
    "tutorial",
]

KEYS = 64
"""How many keys the hits are spread over."""


class Loads:
    """How often contenders have loaded: a hit that loads is not one."""

    count = 0


async def load(key: int) -> Row:
    """What every contender caches."""
    Loads.count += 1
    return sample_row(key)


async def _until_near(cache: Cache, operation: Operation) -> None:
    entries = cache.runtime.reader.entries
    assert entries is not None
    async with asyncio.timeout(10):
        while not entries.on:
            await asyncio.sleep(0.001)
        for key in range(KEYS):
            hits = cache.stats.local_hits
            while cache.stats.local_hits == hits:
                await operation(key)
                await asyncio.sleep(0)


async def ours_local(context: Context) -> Operation:
    """Our decorator with the local tier; each caller gets a copy of its own."""
    cache = await context.stack.enter_async_context(
        Cache(context.redis_url, namespace="bench-local", ttl=600, local=LocalTier())
    )

    @cache.cached(key="row:{key}")
    async def read(key: int) -> Row:
        return await load(key)

    async def operation(at: int) -> Row:
        return await read(at % KEYS)

    await _until_near(cache, operation)
    return operation


async def ours_redis(context: Context) -> Operation:
    """Our decorator without a local tier."""
    cache = await context.stack.enter_async_context(Cache(context.redis_url, namespace="bench-redis", ttl=600))

    @cache.cached(key="row:{key}")
    async def read(key: int) -> Row:
        return await load(key)

    async def operation(at: int) -> Row:
        return await read(at % KEYS)

    return operation


async def cashews_memory(context: Context) -> Operation:
    """cashews' decorator in memory."""
    from cashews import Cache as Cashews  # noqa: PLC0415 - a peer may be missing

    cache = Cashews()
    cache.setup("mem://?size=10000")
    context.stack.push_async_callback(cache.close)

    read: Any = cache(ttl="10m", key="row:{key}")(load)
    return lambda at: read(at % KEYS)


async def cashews_redis(context: Context) -> Operation:
    """cashews' decorator on Redis."""
    from cashews import Cache as Cashews  # noqa: PLC0415 - a peer may be missing

    cache = Cashews()
    cache.setup(context.redis_url, max_connections=512, client_side=False)
    context.stack.push_async_callback(cache.close)

    read: Any = cache(ttl="10m", key="bench-cashews:{key}")(load)
    return lambda at: read(at % KEYS)


async def aiocache_memory(context: Context) -> Operation:
    """aiocache's decorator in memory."""
    from aiocache import SimpleMemoryCache, cached  # noqa: PLC0415 - a peer may be missing

    del context

    read: Any = cached(ttl=600, cache=SimpleMemoryCache, key_builder=lambda _, key: f"row:{key}")(load)

    return lambda at: read(at % KEYS)


async def aiocache_redis(context: Context) -> Operation:
    """aiocache's decorator on Redis, with its pickle serializer, as models need."""
    from aiocache import RedisCache, cached  # noqa: PLC0415 - a peer may be missing
    from aiocache.serializers import PickleSerializer  # noqa: PLC0415 - the same

    parts = urlsplit(context.redis_url)

    read: Any = cached(
        ttl=600,
        cache=RedisCache,
        endpoint=parts.hostname,
        port=parts.port,
        namespace="bench-aiocache",
        pool_max_size=512,
        serializer=PickleSerializer(),
        key_builder=lambda _, key: f"row:{key}",
    )(load)

    context.stack.push_async_callback(read.cache.close)
    return lambda at: read(at % KEYS)


async def async_lru_memory(context: Context) -> Operation:
    """async_lru's decorator."""
    from async_lru import alru_cache  # noqa: PLC0415 - a peer may be missing

    read: Any = alru_cache(maxsize=10_000)(load)

    context.stack.push_async_callback(read.cache_close)

    async def operation(at: int) -> Any:
        return await read(at % KEYS)

    return operation


async def dogpile_redis(context: Context) -> Operation:
    """dogpile.cache on Redis, in threads, since it is synchronous."""
    from dogpile.cache import make_region  # noqa: PLC0415 - a peer may be missing

    parts = urlsplit(context.redis_url)
    region = make_region().configure(
        "dogpile.cache.redis",
        expiration_time=600,
        arguments={"host": parts.hostname, "port": parts.port, "redis_expiration_time": 1200, "distributed_lock": True},
    )

    def create(key: int) -> Any:
        Loads.count += 1
        return msgspec.to_builtins(sample_row(key))

    def read(key: int) -> Any:
        return region.get_or_create(f"bench-dogpile:{key}", lambda: create(key))

    return lambda at: asyncio.to_thread(read, at % KEYS)


async def tutorial(context: Context) -> Operation:
    """redis-py and json, as the usual tutorial has it."""
    pool = BlockingConnectionPool.from_url(context.redis_url, max_connections=512)
    client = Redis(connection_pool=pool)
    context.stack.push_async_callback(pool.aclose)

    async def operation(at: int) -> Any:
        key = at % KEYS
        found = await client.get(f"bench-tutorial:{key}")
        if found is not None:
            return json.loads(found)
        value = msgspec.to_builtins(await load(key))
        await client.set(f"bench-tutorial:{key}", json.dumps(value), ex=600)
        return value

    for key in range(KEYS):
        await operation(key)
    return operation


async def bare_mget(context: Context) -> Operation:
    """The limit of batched reads: callers of a tick share an MGET, and nothing else is done."""
    pool = BlockingConnectionPool.from_url(context.redis_url, max_connections=16)
    client = Redis(connection_pool=pool)
    context.stack.push_async_callback(pool.aclose)
    decode = msgspec.msgpack.Decoder(Row).decode
    for key in range(KEYS):
        await client.set(f"bench-bare:{key}", msgspec.msgpack.encode(sample_row(key)), ex=600)
    waiting: list[tuple[str, asyncio.Future[Any]]] = []
    tasks: set[asyncio.Task[None]] = set()

    async def flush() -> None:
        batch = waiting[:]
        waiting.clear()
        for (_, future), raw in zip(batch, await client.mget([key for key, _ in batch]), strict=True):
            future.set_result(raw)

    def start() -> None:
        task = asyncio.get_running_loop().create_task(flush())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def operation(at: int) -> Row:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not waiting:
            loop.call_soon(start)
        waiting.append((f"bench-bare:{at % KEYS}", future))
        return decode(await future)

    return operation


async def bare_dict(context: Context) -> Operation:
    """The limit of reads from memory: a coroutine around a dict."""
    del context
    rows = {key: sample_row(key) for key in range(KEYS)}

    async def operation(at: int) -> Row:
        return rows[at % KEYS]

    return operation
