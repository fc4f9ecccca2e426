"""What tests of the flusher by itself stand on: a buffer on Redis behind a proxy, a table, and a count of its looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg
from redis.asyncio import Redis

from asynccache.codecs import codec_for
from asynccache.keys import KeySpace
from asynccache.postgres import PostgresTable
from asynccache.protocols import Batch
from asynccache.stores.redis import RedisStore
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.flusher import Flusher
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows
from tests.support.gates import Gate, until
from tests.support.proxy import Proxy

Pool: TypeAlias = "asyncpg.Pool[Any]"

CREATE = "CREATE TABLE item (id bigint PRIMARY KEY, n bigint NOT NULL CHECK (n >= 0))"


@dataclass
class Item:
    id: int
    n: int = 0


class WatchedTable(PostgresTable[Item]):
    """A table whose batches are looked at, and can be held.

    Attributes:
        sizes: of the batches that were applied, in their order.
        keys: of what they put, in their order.
        at_once, most_at_once: how many are being applied, now and at most.
        before, after: hold batches before they are applied, and after.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sizes: list[int] = []
        self.keys: list[int] = []
        self.calls = self.at_once = self.most_at_once = 0
        self.before: Gate | None = None
        self.after: Gate | None = None

    async def apply(self, batch: Batch[Item], /) -> Any:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.before is not None:
                await self.before.stop()
            applied = await super().apply(batch)
            if not applied.again:
                self.sizes.append(len(batch.writes))
                self.keys += [key for write in batch.writes if (key := getattr(write, "key", None)) is not None]
            if self.after is not None:
                await self.after.stop()
            return applied
        finally:
            self.at_once -= 1


class World:
    """One strategy's buffer and table.

    Attributes:
        buffer: the flusher's, whose way to Redis leads through `proxy`.
        writers: the same one as other processes see it.
        records: of both.
        table: where it flushes to.
        proxy: in front of Redis.
        redis: a bare client.
        store: the flusher's.
        pool: of the database.
    """

    def __init__(
        self, store: RedisStore, direct: RedisStore, space: KeySpace, table: WatchedTable, proxy: Proxy, redis: Redis
    ) -> None:
        self.space = space
        self.store = store
        self._direct = direct
        self.records: Records[Item] = Records(codec_for(Item), Rows(Item, key=("id",)))
        self.table = table
        self.proxy = proxy
        self.redis = redis
        self.partition(4)

    def partition(self, partitions: int) -> None:
        """Spreads the buffer over so many."""
        self.buffer, self.writers = (
            Buffer(store, self.space, "item", partitions=partitions, max_pending=10_000)
            for store in (self.store, self._direct)
        )

    def keys(self, partition: int) -> Iterator[int]:
        """Keys in a partition, from the smallest on."""
        return (key for key in count() if self.buffer.partition_of(key) == partition)

    async def put(self, partition: int, count_: int = 1, *, skip: int = 0, n: int = 0) -> list[int]:
        """Writes so many keys of a partition, beginning after the first `skip`; returns them."""
        keys = list(islice(self.keys(partition), skip, skip + count_))
        pack = codec_for(Item).pack
        await self.writers.apply([self.records.put_op(key, pack(Item(key, n)), None) for key in keys])
        return keys

    async def increment(self, partition: int) -> int:
        """Adds 1 to the first key of a partition; returns the key."""
        key = next(self.keys(partition))
        await self.writers.apply([self.records.increment_op(key, {"n": 1})])
        return key

    async def put_nonsense(self, partition: int) -> None:
        """What no version can read, and has waited for long."""
        keys = self.writers._partitions[partition]
        await self.redis.hset(keys.pending, "x", "nonsense")
        await self.redis.hset(keys.meta, "dirty", "1")

    async def make_old(self, partition: int) -> None:
        """What pends in a partition has waited for long."""
        assert await self.redis.hexists(self.writers._partitions[partition].meta, "dirty")
        await self.redis.hset(self.writers._partitions[partition].meta, "dirty", "1")

    async def left(self) -> int:
        """How many writes are not flushed."""
        statuses = [await self.writers.status(number) for number in range(self.writers.partitions)]
        return sum(status.pending + status.in_batch for status in statuses)

    async def rows(self) -> dict[int, int]:
        """What the table holds: n by key."""
        return {row["id"]: row["n"] for row in await self.table._connections.pool().fetch("SELECT id, n FROM item")}

    def flusher(self, **options: Any) -> Flusher[Item]:
        """A flusher of the buffer, not running."""
        options = {"flush_every": 0.05, "max_batch": 10, "dead_letters": self.table.dead_letters, **options}
        return Flusher("item", self.buffer, self.records, self.table, **options)

    @asynccontextmanager
    async def unwritable(self, partition: int) -> AsyncIterator[int]:
        """Holds the first key of a partition in a transaction of somebody else's; its writers wait."""
        key = next(self.keys(partition))
        async with self.table._connections.pool().acquire() as other:
            held = other.transaction()
            await held.start()
            await other.execute("INSERT INTO item VALUES ($1, 99)", key)
            try:
                yield key
            finally:
                await held.rollback()


class Looks:
    """How often a running flusher has looked at what pends."""

    def __init__(self, flusher: Flusher[Any]) -> None:
        self._flusher = flusher
        self.count = 0

    def one(self) -> None:
        self.count += 1

    def _after(self, before: int) -> bool:
        return self.count > before

    async def several(self) -> None:
        """Lets it look three times: whatever it begins by itself, it has begun by then."""
        for _ in range(3):
            before = self.count
            self._flusher.wake()
            await until(partial(self._after, before), "a look at what pends")


@asynccontextmanager
async def running(flusher: Flusher[Any]) -> AsyncIterator[Looks]:
    """A flusher at work."""
    looks = Looks(flusher)
    task = asyncio.create_task(flusher.run(looks.one))
    try:
        yield looks
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def world(redis_url: str, namespace: str, pool: Pool, redis: Redis) -> AsyncIterator[World]:
    """An empty one."""
    parts = urlsplit(redis_url)
    await pool.execute(CREATE)
    table = WatchedTable(pool, "item", key="id", model=Item)
    await table.open()
    await table.install()
    async with Proxy.to(parts.hostname or "127.0.0.1", parts.port or 6379) as proxy:
        stores = RedisStore(proxy.url(redis_url), timeout=1.0), RedisStore(redis_url, timeout=10.0)
        for store in stores:
            await store.open()
        made = World(*stores, KeySpace((namespace,)), table, proxy, redis)
        try:
            yield made
        finally:
            await made.buffer.aclose()
            await made.writers.aclose()
            for store in stores:
                await store.aclose()
            await table.aclose()
