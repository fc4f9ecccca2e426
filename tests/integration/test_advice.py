"""What `asynccache advise` predicts is what happens on real servers."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asynccache.advising import Plan, Workload, World, read_trace, simulate
from benchmarks.replay import make_table, replay

WORKLOAD = Workload(reads=400, writes=20, keys=200, skew=0.9, duration=3.0)
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
    await compare(plan, redis_url, pool, namespace, tmp_path / "trace.jsonl")


@pytest.mark.one_loop
@pytest.mark.parametrize("early", [0.0, 2.0])
async def test_so_it_is_where_loads_are_slow_and_refreshed_early(
    early: float, redis_url: str, pool: asyncpg.Pool[Any], namespace: str, tmp_path: Path
) -> None:
    plan = Plan("read-through", ttl=0.4, early=early)
    await compare(plan, redis_url, pool, namespace, tmp_path / "trace.jsonl", query_seconds=0.02)


@pytest.mark.one_loop
async def test_predicted_staleness_is_within_three_points_of_the_real_one(
    redis_url: str, pool: asyncpg.Pool[Any], namespace: str
) -> None:
    # Keys are many and queries slow: with 100 keys the few hottest decide, and jitter alone moves the share by a point
    # and a half; a load that takes 2 ms takes 20 on a busy machine, which moves it by two more.
    workload = Workload(reads=400, writes=100, keys=1000, skew=0.9, duration=3.0).trace()
    plan = Plan("read-through", ttl=0.5, stale=0.5)
    await make_table(pool, workload.key_count)
    real = await replay(workload, plan, redis_url, pool, namespace, query_seconds=0.02, foreign=True)
    predicted = [simulate(workload, plan, World(query_cost=0.02, foreign=1.0, seed=seed)) for seed in range(20)]
    outdated = statistics.mean(outcome.outdated_share for outcome in predicted)
    assert real.outdated_share > 0.1
    assert abs(outdated - real.outdated_share) < 0.03, (outdated, real.outdated_share)
    assert abs(predicted[0].hit_ratio - real.hit_ratio) < 0.03


async def compare(
    plan: Plan, redis_url: str, pool: asyncpg.Pool[Any], namespace: str, path: Path, query_seconds: float = 0.0
) -> None:
    workload = WORKLOAD.trace()
    await make_table(pool, WORKLOAD.keys)
    replayed = await replay(workload, plan, redis_url, pool, namespace, path, query_seconds=query_seconds)
    real = replayed.hit_ratio
    recorded = read_trace(path.read_text().splitlines(keepends=True))  # noqa: ASYNC240 - nothing else runs
    world = World(query_cost=query_seconds or 0.002, write_cost=0.002)
    made, seen = simulate(workload, plan, world), simulate(recorded, plan, world)
    assert len(recorded) == len(workload) + 1  # and the read that connects
    assert abs(seen.hit_ratio - real) < 0.03, f"from what was recorded: {seen.hit_ratio:.3f}, real {real:.3f}"
    assert abs(made.hit_ratio - real) < 0.03, f"from a few numbers: {made.hit_ratio:.3f}, real {real:.3f}"
