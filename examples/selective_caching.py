"""Selective caching: what is read once, what is not worth it, and what is too large stays out of Redis."""

import asyncio
from dataclasses import dataclass

from asynccache import AfterRequests, Cache, CacheAside, Predicate, embedded


@dataclass
class Product:
    id: int
    name: str
    on_sale: bool = True


PRODUCTS = {1: Product(1, "tea"), 2: Product(2, "coal", on_sale=False), 3: Product(3, "salt" * 100)}
LOADED: list[int] = []


async def load(key: int) -> Product | None:
    LOADED.append(key)
    return PRODUCTS.get(key)


async def times_loaded(products: CacheAside[Product], key: int, reads: int) -> int:
    LOADED.clear()
    for _ in range(reads):
        await products.get(key, load)
    return len(LOADED)


async def main() -> None:
    async with embedded.redis_server() as server, Cache(server.url, namespace="shop", ttl="5m") as cache:
        # 1. Stored at the second request within ten minutes: a crawler that reads everything once fills nothing.
        popular = CacheAside(cache, "popular", type=Product, admit=AfterRequests(2, within="10m"))
        print("read once:", await times_loaded(popular, 1, 1), "load,", cache.stats.fills, "stored")
        print("read nine times more:", await times_loaded(popular, 1, 9), "load,", cache.stats.fills, "stored")

        # 2. Stored if the value is worth it.
        on_sale = CacheAside(cache, "on-sale", type=Product, admit=Predicate(lambda product: product.on_sale))
        print("on sale:", await times_loaded(on_sale, 1, 5), "load; else:", await times_loaded(on_sale, 2, 5), "loads")

        # 3. Stored unless it is a giant.
        small = CacheAside(cache, "small", type=Product, max_value_bytes=200)
        print("small:", await times_loaded(small, 1, 5), "load; giant:", await times_loaded(small, 3, 5), "loads")

        stats = cache.stats
        print(f"{stats.fills} stored, {stats.refused} refused, {stats.too_large} too large")


asyncio.run(main())
