"""Records what a cache is asked for, and asks which strategy would suit that best."""

import asyncio
import tempfile
from pathlib import Path

from asynccache import Cache, CacheAside, Recorder, embedded
from asynccache.advising import Need, advise, read_trace

PRICES = dict.fromkeys(range(50), 100)


async def load_price(product: int) -> int | None:
    return PRICES.get(product)


async def serve(url: str, path: Path) -> None:
    async with Cache(url, namespace="shop", ttl="10m", record=Recorder(path)) as cache:
        prices = CacheAside(cache, "price", type=int)
        for request in range(1000):
            product = request * request % 50
            if request % 10 == 9:
                async with prices.updating(product):
                    PRICES[product] += 1
            else:
                await prices.get(product, load=load_price)


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "trace.jsonl"
    with embedded.redis_server_sync() as server:
        asyncio.run(serve(server.url, path))
    with path.open() as lines:
        trace = read_trace(lines, name=str(path))

advice = advise(trace, Need(staleness=0, ttls=(600.0,), stale=0))
print(len(trace), "operations on", trace.key_count, "keys")
for outcome in advice.outcomes:
    print(f"{outcome.plan.strategy:13} {outcome.hit_ratio:6.1%} hits")
print(advice.verdict.text)
