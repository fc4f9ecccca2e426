"""Warming: keys are loaded before they are asked for, from a list, where the last run ended, or as they were hot."""

import asyncio
from collections.abc import Sequence

from asynccache import Cache, HotKeys, ReadThrough, WarmProgress, embedded


class Users:
    """Stands for a table: ids below 1000 exist."""

    async def load_many(self, keys: Sequence[int]) -> dict[int, str]:
        return {key: f"user {key}" for key in keys if key < 1000}


async def main() -> None:
    table = Users()
    async with embedded.redis_server() as server:
        async with Cache(server.url, namespace="shop", ttl="5m", hot_keys=HotKeys()) as cache:
            users = ReadThrough(cache, "user", source=table)

            # 1. A list, or anything else that yields keys: what is fresh is skipped, the rest loaded in batches.
            await users.get(7)
            report = await users.warm(range(990, 1010), rate=10_000)
            print(f"{report.loaded} loaded, {report.missing} missing")

            # 2. A run that is stopped goes on where it ended, in whatever process, under the name of a checkpoint.
            def stop_half_way(progress: WarmProgress) -> None:
                if progress.position >= 500:
                    warming.stop("it is morning")

            warming = users.warm(range(1000), batch=100, concurrency=1, resume="nightly", progress=stop_half_way)
            report = await warming
            print(f"stopped at {report.position}: {report.stopped}")
            report = await users.warm(range(1000), batch=100, resume="nightly")
            print(f"then {report.loaded} more to {report.position}; {cache.stats.loads} loads in all")

            # 3. Requests are counted in each process, and the counts merged in Redis.
            for _ in range(50):
                await users.get_many([3, 5])
            await users.get(8)
            await cache.clear()

        # A fresh process: it begins with what was hot, and is ready when that is loaded.
        cache = Cache(server.url, namespace="shop", ttl="5m", hot_keys=HotKeys())
        users = ReadThrough(cache, "user", source=table)
        cache.warm_at_start(users, hot=2, before_ready=True)
        async with cache:
            print("hot:", sorted(one.key for one in await users.hot(2)))
            await users.get_many([3, 5])
            print(cache.stats.hits, "hits,", cache.stats.misses, "misses")


asyncio.run(main())
