"""A hit in memory through the decorator, one caller."""

from benchmarks import contenders as c
from benchmarks.model import Context, Finding, Target
from benchmarks.timing import prepare, race

NAME = "local-hit"


async def run(context: Context) -> Finding:
    ready = await prepare(
        context,
        {
            "asynccache": c.ours_local,
            "cashews memory": c.cashews_memory,
            "aiocache memory": c.aiocache_memory,
            "async_lru": c.async_lru_memory,
            "a coroutine around a dict": c.bare_dict,
        },
    )
    finding = Finding(NAME, "Local hit through the decorator", "hits/s", await race(context, ready, callers=1))
    finding.judge(
        Target("at least 30 x cashews memory", at_least=30, against="cashews memory"),
        Target("at least 8 x aiocache memory", at_least=8, against="aiocache memory"),
        Target("at least 0.7 x async_lru", at_least=0.7, against="async_lru"),
    )
    finding.notes.append("async_lru hands out the same object to all callers; ours is a copy of each caller's own")
    return finding
