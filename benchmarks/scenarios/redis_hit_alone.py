"""The latency of a hit in Redis for a caller who is alone."""

from benchmarks import contenders as c
from benchmarks.model import Context, Finding, Series, Target
from benchmarks.timing import prepare, race

NAME = "redis-hit-alone"


async def run(context: Context) -> Finding:
    ready = await prepare(context, {"asynccache": c.ours_redis, "redis-py and json": c.tutorial})
    rates = await race(context, ready, callers=1)
    series = [Series(one.name, [1e6 / rate for rate in one.rounds]) for one in rates]
    finding = Finding(NAME, "Redis hit, one caller", "microseconds", series)
    finding.judge(Target("at most 1.25 x redis-py and json", at_most=1.25, against="redis-py and json"))
    return finding
