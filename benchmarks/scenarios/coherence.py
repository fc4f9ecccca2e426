"""How soon this process's local tier knows of another's write."""

import asyncio
import time

from asynccache import Cache, LocalTier
from benchmarks.model import Context, Finding, Series, Target
from benchmarks.timing import percentile

NAME = "coherence"


async def run(context: Context) -> Finding:
    here = await context.stack.enter_async_context(
        Cache(context.redis_url, namespace="bench-coherence", ttl=60, local=LocalTier())
    )
    there = await context.stack.enter_async_context(Cache(context.redis_url, namespace="bench-coherence", ttl=60))
    entries = here.runtime.reader.entries
    assert entries is not None
    key = here.scope.space.cell("", "k")
    while not entries.on:
        await asyncio.sleep(0.001)
    p99s, p50s = [], []
    for _ in range(context.rounds):
        lags = []
        for value in range(100 if context.quick else 300):
            await there.set("k", value)
            while entries.get(key) is None:
                await here.get("k")
                await asyncio.sleep(0)
            await there.set("k", value + 0.5)
            began = time.perf_counter()
            while await here.get("k") != value + 0.5:
                await asyncio.sleep(0)
            lags.append((time.perf_counter() - began) * 1000)
        lags.sort()
        p99s.append(percentile(lags, 0.99))
        p50s.append(percentile(lags, 0.5))
    finding = Finding(
        NAME,
        "Another client's write is acknowledged -> the local tier serves it, 99th percentile",
        "ms",
        [Series("asynccache, p99", p99s), Series("asynccache, p50", p50s)],
    )
    finding.judge(Target("p99 at most 10 ms", at_most=10))
    return finding
