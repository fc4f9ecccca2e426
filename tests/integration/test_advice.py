"""What `asynccache advise` predicts is what happens on real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asynccache.advising import Plan, Workload, World, read_trace, simulate
from benchmarks.replay import make_table, replay

WORKLOAD = Workload(reads=500, writes=25, keys=300, skew=0.9, duration=3.0)
PLANS = [
    Plan("read-through", ttl=0.4),
    Plan("read-through", ttl=2.0),
    Plan("read-through", ttl=0.4, stale=0.4),
    Plan("write-through", ttl=1.0),
    Plan("write-behind", ttl=1.0, flush_every=0.5),
]


@pytest.mark.one_loop
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.strategy}-{plan.ttl:g}-{plan.stale:g}")
async def test_a_predicted_hit_ratio_is_within_three_points_of_the_real_one(
    plan: Plan, redis_url: str, pool: asyncpg.Pool[Any], namespace: str, tmp_path: Path
) -> None:
    workload = WORKLOAD.trace()
    await make_table(pool, WORKLOAD.keys)
    path = tmp_path / "trace.jsonl"
    real = await replay(workload, plan, redis_url, pool, namespace, str(path))
    recorded = read_trace(path.read_text().splitlines(keepends=True))
    world = World(query_cost=0.002, write_cost=0.002)
    made, seen = simulate(workload, plan, world), simulate(recorded, plan, world)
    assert len(recorded) == len(workload) + 1  # and the read that connects
    assert abs(seen.hit_ratio - real) < 0.03, "from what was recorded"
    assert abs(made.hit_ratio - real) < 0.03, "from a few numbers"
