"""Invalidates a tag with a million entries, and one with ten."""

import random
import statistics
import time
from collections import Counter
from typing import Any

from redis.asyncio import Redis

from asynccache import Cache, Reason
from benchmarks.model import Context, Finding, Series, Target

NAME = "tag-invalidation"
USES_LOOP = False  # a million entries are not made twice
_CHUNK = 2000
_SEARCHING = ("scan", "keys", "sscan", "smembers", "del", "unlink", "flushdb")


async def _invalidate(cache: Cache, tag: str) -> float:
    began = time.perf_counter()
    await cache.invalidate_tags(tag)
    return (time.perf_counter() - began) * 1e6


async def _commands(client: Any) -> Counter[str]:
    found = await client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in found.items()})


async def _served(cache: Cache, keys: list[tuple[str, int]]) -> int:
    """How many of these entries are fresh."""
    return sum([(await cache.explain(key)).reason is Reason.FRESH for key in keys])


async def run(context: Context) -> Finding:
    large, small = 20_000 if context.quick else 1_000_000, 10
    cache = await context.stack.enter_async_context(
        Cache(context.redis_url, namespace=f"bench-tags-{time.time_ns()}", ttl=3600)
    )
    client = await context.stack.enter_async_context(Redis.from_url(context.redis_url))
    for tag, size in (("large", large), ("small", small)):
        for at in range(0, size, _CHUNK):
            await cache.set_many({(tag, row): row for row in range(at, min(size, at + _CHUNK))}, tags=[tag])
    dice = random.Random(5)
    samples = [("large", dice.randrange(large)) for _ in range(200)] + [("small", row) for row in range(small)]
    served = await _served(cache, samples)
    assert served == len(samples), served
    await cache.invalidate_tags("warm-up")

    before = await _commands(client)
    first = {tag: await _invalidate(cache, tag) for tag in ("large", "small")}
    commands = await _commands(client) - before
    left = await _served(cache, samples)
    rounds: dict[str, list[float]] = {"large": [], "small": []}
    for _ in range(context.rounds):
        taken: dict[str, list[float]] = {"large": [], "small": []}
        for at in range(100 if context.quick else 500):
            for tag in ("large", "small") if at % 2 else ("small", "large"):
                taken[tag].append(await _invalidate(cache, tag))
        for tag, times in taken.items():
            rounds[tag].append(statistics.median(times))
    finding = Finding(
        NAME,
        f"Invalidating a tag with {large:,} entries, median of one caller",
        "us",
        [Series(f"{large:,} entries", rounds["large"]), Series(f"{small} entries", rounds["small"])],
    )
    finding.judge(Target("at most 1.5 times one with 10 entries", at_most=1.5, against=f"{small} entries"))
    finding.targets.append((f"none of {len(samples)} entries looked at is served after it", float(left), left == 0))
    searching = sum(commands[name] for name in _SEARCHING)
    finding.targets.append(("no key is searched for or deleted by it", float(searching), searching == 0))
    finding.notes.append(f"the first one, when all were fresh: {first['large']:.0f} us, and {first['small']:.0f} us")
    sent = ", ".join(f"{calls} {name}" for name, calls in sorted(commands.items()) if name not in {"info", "hello"})
    finding.notes.append(f"commands that Redis ran for these two: {sent}")
    for tag, size in (("large", large), ("small", small)):
        cells = [cache.scope.space.cell("", (tag, row)) for row in range(size)]
        for at in range(0, size, _CHUNK):
            await client.unlink(*cells[at : at + _CHUNK])
    return finding
