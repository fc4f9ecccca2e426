"""Tags, namespaces and versions: three ways to outdate many entries at the cost of one."""

import asyncio
from dataclasses import dataclass

from asynccache import Cache, ReadThrough, Upgrade, VersionCounter, embedded


@dataclass
class User:
    id: int
    name: str


USERS = {1: User(1, "Ada"), 2: User(2, "Grace")}


async def load_user(key: int) -> User | None:
    return USERS.get(key)


async def main() -> None:
    async with embedded.redis_server() as server, Cache(server.url, namespace="shop", ttl="5m") as cache:

        @cache.cached(tags=["users"])
        async def count_users() -> int:
            return len(USERS)

        @cache.cached(key="profile:{user_id}", tags=["users", "user:{user_id}"])
        async def profile(user_id: int) -> str:
            return f"{USERS[user_id].name}'s page"

        # 1. Tags: everything that depends on the table, or on one row.
        print(await count_users(), "users;", await profile(1))
        async with cache.updating(tags=["users"]):  # a write: what carries the tag is not cached meanwhile
            USERS[3] = User(3, "Mary")
        print(await count_users(), "users")
        USERS[1] = User(1, "Ada L.")
        await cache.invalidate_tags("user:1")  # no write of ours: what has changed is told afterwards
        print(await profile(1))

        # 2. Namespaces: a part of the cache that can be cleared, whatever is in it.
        tenant = cache.namespace("tenant-7", ttl="1m")
        await tenant.set("greeting", "hello")
        await tenant.clear()
        print("greeting:", await tenant.get("greeting"))

        # 3. Versions: as a part of the key (a deploy raises it), or counted by the cache.
        users = ReadThrough(cache, "user", source=load_user, version=VersionCounter())
        await users.get(2)
        USERS[2] = User(2, "Grace H.")
        await users.bump(2)
        print((await users.get(2)).name)

        # A model that has changed reads what the old one wrote, through a function, instead of loading it all again.
        @dataclass
        class UserV2:
            id: int
            name: str
            email: str | None

        newer = ReadThrough(
            cache,
            "user",
            source=load_user,  # never asked here
            type=UserV2,
            version=VersionCounter(),
            upgrade=[Upgrade(User, lambda old: UserV2(old.id, old.name, email=None))],
        )
        print(await newer.get(2) == UserV2(2, "Grace H.", None), cache.stats.unreadable, "unreadable")


asyncio.run(main())
