"""How far `asynccache advise` is off: predicted hit ratios beside those of real runs on real servers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import asyncpg

from asynccache.advising import Plan, Workload, World, read_trace, simulate
from benchmarks.model import Context, Finding, Series, Target
from benchmarks.replay import make_table, replay

NAME = "advice"
_COST = 0.002

PLANS = [
    Plan("read-through", ttl=0.5),
    Plan("read-through", ttl=1.0),
    Plan("read-through", ttl=3.0),
    Plan("read-through", ttl=0.5, stale=0.5),
    Plan("write-through", ttl=0.5),
    Plan("write-through", ttl=3.0),
    Plan("write-behind", ttl=0.5, flush_every=0.5),
    Plan("write-behind", ttl=3.0, flush_every=0.5),
]


async def run(context: Context) -> Finding:
    workload = Workload(reads=500, writes=25, keys=500, skew=0.9, duration=3 if context.quick else 15)
    trace = workload.trace()
    world = World(query_cost=_COST, write_cost=_COST)
    real: list[float] = []
    before: list[float] = []
    after: list[float] = []
    pool = await context.stack.enter_async_context(asyncpg.create_pool(context.database_url, min_size=1))
    await make_table(pool, workload.keys)
    with tempfile.TemporaryDirectory() as folder:
        for number, plan in enumerate(PLANS):
            path = Path(folder) / f"{number}.jsonl"
            replayed = await replay(trace, plan, context.redis_url, pool, f"bench-advice-{number}", path)
            real.append(100 * replayed.hit_ratio)
            with path.open() as lines:
                after.append(100 * simulate(read_trace(lines), plan, world).hit_ratio)
            before.append(100 * simulate(trace, plan, world).hit_ratio)
    await pool.execute("DROP TABLE items")
    off = [max(abs(one - two) for one, two in zip(real, found, strict=True)) for found in (after, before)]
    finding = Finding(
        NAME,
        f"Hit ratio, predicted and real, over {len(PLANS)} plans: largest difference",
        "points",
        [Series("predicted from the recorded trace", off[:1]), Series("predicted from a few numbers", off[1:])],
    )
    finding.judge(Target("within 3 points", at_most=3))
    finding.targets.append(("from a few numbers: within 3 points", off[1], off[1] <= 3))
    for plan, one, two, three in zip(PLANS, real, before, after, strict=True):
        stale = f", stale {plan.stale:g} s" if plan.stale else ""
        finding.notes.append(
            f"{plan.strategy}, TTL {plan.ttl:g} s{stale}: real {one:.1f}%, from the trace {three:.1f}%,"
            f" from a few numbers {two:.1f}%"
        )
    return finding
