"""Changes made behind the cache's back: a row is changed by anybody, and every process's cache knows."""

import asyncio
from dataclasses import dataclass

import asyncpg

from asynccache import Cache, ReadThrough, embedded
from asynccache.postgres import PostgresChanges, PostgresTable, TableChanges


@dataclass
class User:
    id: int
    name: str
    team_id: int


async def main() -> None:
    async with embedded.servers() as servers, asyncpg.create_pool(servers.database_url) as pool:
        await pool.execute("CREATE TABLE users (id int PRIMARY KEY, name text, team_id int)")
        await pool.execute("INSERT INTO users VALUES (1, 'Ada', 1), (2, 'Grace', 1), (3, 'Mary', 2)")

        cache = Cache(servers.redis_url, namespace="shop", ttl="1h")
        users = ReadThrough(cache, "user", source=PostgresTable(pool, "users", key="id", model=User))

        @cache.cached(tags=["team:{team_id}"])
        async def team(team_id: int) -> list[str]:
            rows = await pool.fetch("SELECT name FROM users WHERE team_id = $1 ORDER BY id", team_id)
            return [row["name"] for row in rows]

        # What a change of a row outdates: the user's entry, and the lists of the team it was and is in.
        changes = PostgresChanges(
            pool,
            tables=[TableChanges("users", key="id", entries=[users], tags=["team:{team_id}"], columns=["team_id"])],
        )
        cache.follow(changes)
        await changes.install()  # once; or `asynccache install shop.main:cache`, or a migration with `changes.sql()`

        async with cache:
            print(await users.get(1), await team(1), await team(2))

            # As psql, a migration, or another service would do it.
            stranger = await asyncpg.connect(servers.database_url)
            await stranger.execute("UPDATE users SET name = 'Ada Lovelace', team_id = 2 WHERE id = 1")
            await stranger.close()

            for _ in range(1000):  # it takes some milliseconds
                if await users.get(1) != User(1, "Ada", 1):
                    break
                await asyncio.sleep(0.01)
            print(await users.get(1), await team(1), await team(2))
            print("well:", cache.health().ok)


asyncio.run(main())
