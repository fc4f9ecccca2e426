import asyncio
from dataclasses import dataclass

import asyncpg

from asynccache import Cache, WriteThrough, embedded
from asynccache.postgres import PostgresTable


@dataclass
class User:
    id: int
    name: str


async def main() -> None:
    async with (
        embedded.servers() as servers,  # in production: your own URLs
        asyncpg.create_pool(servers.database_url) as pool,
        Cache(servers.redis_url, namespace="shop", ttl="5m") as cache,
    ):
        await pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL)")
        users = WriteThrough(cache, "user", source=PostgresTable(pool, "users", key="id", model=User))

        await users.put(42, User(42, "Ada"))  # Postgres, then Redis
        print(await users.get(42))  # from Redis

        async with cache.updating(users.key(42)):  # a write of your own: no race can leave the old row cached
            await pool.execute("UPDATE users SET name = 'Ada Lovelace' WHERE id = 42")
        print(await users.get(42))  # loaded once, however many ask

        @cache.cached(ttl="1m", tags=["users"])
        async def count_users() -> int:
            return await pool.fetchval("SELECT count(*) FROM users")

        print(await count_users(), "user")
        await cache.invalidate_tags("users")  # reaches every list and count that carries the tag
        print(cache.stats.hits, "hits,", cache.stats.loads, "loads")


asyncio.run(main())
