"""What AfterRequests(2) saves in Redis and costs in hits, if half of the requests are for keys of one request."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from redis.asyncio import Redis

from asynccache import Admission, AfterRequests, Always, Cache, CacheAside
from benchmarks.model import Context, Finding, Row, Series, Target, sample_row

NAME = "selective"
USES_LOOP = False
_CALLERS = 64
_SHARE = 40
"""Requests for each popular key."""


def _stream(count: int, popular: int) -> list[int]:
    """Requests of which every other one, on average, is for a key that is never asked for again; the others Zipf 1."""
    dice = random.Random(11)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(popular)))
    again = iter(dice.choices(range(popular), cum_weights=weights, k=count))
    once = itertools.count(popular)
    return [next(once) if dice.random() < 0.5 else next(again) for _ in range(count)]


async def _load(key: int) -> Row:
    return sample_row(key)


async def _run(context: Context, admit: Admission, stream: Sequence[int], rows: str) -> tuple[float, float]:
    """Megabytes by which Redis grew, and the hit ratio in percent."""
    async with (
        Redis.from_url(context.redis_url) as client,
        Cache(context.redis_url, namespace=f"bench-{rows}-{time.time_ns()}", ttl=3600) as cache,
    ):
        table: CacheAside[Row] = CacheAside(cache, rows, type=Row, admit=admit)
        await table.get_many([-1 - at for at in range(_CALLERS)], _load)  # opens the connections
        await table.invalidate(*(-1 - at for at in range(_CALLERS)))
        before, seen = (await client.info("memory"))["used_memory"], cache.stats

        async def caller(requests: Iterator[int]) -> None:
            for key in requests:
                found = await table.get(key, _load)
                assert found is not None
                assert found.id == key

        requests = iter(stream)
        await asyncio.gather(*(caller(requests) for _ in range(_CALLERS)))
        grown = (await client.info("memory"))["used_memory"] - before
        stats = cache.stats
        cells = [table.key(key) for key in dict.fromkeys(stream)]
        for at in range(0, len(cells), 1000):
            await client.unlink(*cells[at : at + 1000])
    return grown / 1e6, 100 * (stats.hits - seen.hits) / (stats.reads - seen.reads)


def _foretold(stream: Sequence[int]) -> tuple[float, float]:
    """Share of keys not stored, and points of hit ratio lost, by counting alone."""
    requests = Counter(stream)
    again = sum(count > 1 for count in requests.values())
    return 100 * (1 - again / len(requests)), 100 * again / len(stream)


async def run(context: Context) -> Finding:
    count = 40_000 if context.quick else 300_000
    popular = count // _SHARE
    stream = _stream(count, popular)
    selective, hits = await _run(context, AfterRequests(2, within="1h", capacity=count), stream, "selective")
    always, all_hits = await _run(context, Always(), stream, "always")
    finding = Finding(
        NAME,
        f"Redis memory after {count:,} requests, half for keys never asked for again, half Zipf 1 over {popular:,}",
        "MB",
        [Series("AfterRequests(2)", [selective]), Series("Always()", [always])],
    )
    finding.judge(Target("Redis grows by at most 40% of what it does with Always", at_most=0.4, against="Always()"))
    lost = all_hits - hits
    finding.targets.append(("at most 3 points of hit ratio lost", lost, lost <= 3))
    finding.notes.append(f"hit ratio {hits:.1f}% with AfterRequests(2), {all_hits:.1f}% with Always()")
    # Each key that is asked for again costs one more load: it is the length of the tail that decides.
    for times in (1, 10):
        unstored, points = _foretold(_stream(count, popular * times))
        finding.notes.append(
            f"by counting alone, with {popular * times:,} popular keys: {unstored:.0f}% of all keys not stored,"
            f" {points:.1f} points lost"
        )
    return finding
