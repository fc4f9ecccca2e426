"""Writes inside of transactions: the cache waits for the COMMIT."""

import asyncio

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from asynccache import Cache, embedded
from asynccache.integrations.sqlalchemy import enlist
from asynccache.postgres import transaction


async def main() -> None:
    async with (
        embedded.servers() as servers,
        asyncpg.create_pool(servers.database_url) as pool,
        Cache(servers.redis_url, namespace="shop", ttl="5m") as cache,
    ):
        await pool.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
        await pool.execute("INSERT INTO users VALUES (1, 'Ada')")

        @cache.cached(key="name:{user_id}")
        async def name(user_id: int) -> str:
            return await pool.fetchval("SELECT name FROM users WHERE id = $1", user_id)

        # asyncpg
        async with transaction(pool) as connection:
            async with cache.updating(name.key(1)):
                await connection.execute("UPDATE users SET name = 'Ada Lovelace' WHERE id = 1")
            print("before the COMMIT, everybody else:", await name(1))  # from the database, and not cached
        print("after it:", await name(1))

        # SQLAlchemy
        engine = create_async_engine(servers.database_url.replace("postgresql://", "postgresql+asyncpg://"))
        async with AsyncSession(engine) as session, session.begin():
            await enlist(session, cache.updating(name.key(1)))
            await session.execute(text("UPDATE users SET name = 'Countess of Lovelace' WHERE id = 1"))
        print("after the session's:", await name(1))
        await engine.dispose()


asyncio.run(main())
