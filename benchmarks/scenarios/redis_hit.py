"""A hit in Redis through the decorator, 64 callers; and latencies over concurrency."""

from benchmarks import contenders as c
from benchmarks.model import Context, Finding, Target
from benchmarks.timing import latencies, percentile, prepare, race

NAME = "redis-hit"


async def run(context: Context) -> Finding:
    ready = await prepare(
        context,
        {
            "asynccache": c.ours_redis,
            "cashews": c.cashews_redis,
            "aiocache": c.aiocache_redis,
            "dogpile.cache in threads": c.dogpile_redis,
            "redis-py and json": c.tutorial,
            "bare MGET batches": c.bare_mget,
        },
    )
    finding = Finding(
        NAME, "Redis hit through the decorator, 64 callers", "hits/s", await race(context, ready, callers=64)
    )
    finding.judge(
        Target("at least 10 x cashews", at_least=10, against="cashews"),
        Target("at least 7 x aiocache", at_least=7, against="aiocache"),
        Target("at least 7 x redis-py and json", at_least=7, against="redis-py and json"),
        Target("at least 0.4 x bare MGET batches", at_least=0.4, against="bare MGET batches"),
    )
    finding.curve_axes = ("callers", "p99 ms")
    for name, operation in ready.items():
        curve = []
        for callers in (1, 4, 16, 64, 256):
            taken = await latencies(operation, callers, context.window)
            curve.append((float(callers), percentile(taken, 0.99)))
        finding.curves[name] = curve
    return finding
