"""One load over real processes: cold keys, stale values, and loaders that are killed."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from asynccache import Cache, Policy
from tests.support.workers import Worker, Workers

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(180)]

PROCESSES, CALLERS = 8, 50
LEASE = 2.0


async def start(workers: Workers, redis_url: str, namespace: str, **policy: Any) -> list[Worker]:
    policy = {"ttl": 600, "lease": LEASE, "early": 0, **policy}
    started = await asyncio.gather(
        *(workers.start("tests.processes.reader", redis_url, namespace, json.dumps(policy)) for _ in range(PROCESSES))
    )
    for worker in started:
        assert await worker.hear() == "ready"
    return started


async def answers(worker: Worker) -> dict[str, Any]:
    """What a worker's callers got; its loader's own words are passed over."""
    while True:
        said = await worker.hear()
        if "values" in said:
            answer: dict[str, Any] = said
            return answer


async def loader_of(workers: list[Worker]) -> Worker:
    """The worker that says that it is loading."""

    async def listen(worker: Worker) -> Worker:
        assert "loading" in await worker.hear()
        return worker

    tasks = [asyncio.create_task(listen(worker)) for worker in workers]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return done.pop().result()


async def test_a_cold_key_is_loaded_once_by_eight_processes(redis_url: str, redis: Redis, namespace: str) -> None:
    async with Workers() as running:
        workers = await start(running, redis_url, namespace)
        await asyncio.gather(*(worker.say(CALLERS) for worker in workers))
        await loader_of(workers)
        await redis.rpush(f"test:{namespace}:go", "go")
        found = await asyncio.gather(*(answers(worker) for worker in workers))
    assert {value for answer in found for value in answer["values"]} == {"value 1"}
    assert int(await redis.get(f"test:{namespace}:loads") or 0) == 1


async def test_a_killed_loader_blocks_nobody_past_its_lease(redis_url: str, redis: Redis, namespace: str) -> None:
    async with Workers() as running:
        workers = await start(running, redis_url, namespace)
        await asyncio.gather(*(worker.say(CALLERS) for worker in workers))
        killed = await loader_of(workers)
        await killed.kill()
        rest = [worker for worker in workers if worker is not killed]
        await loader_of(rest)
        await redis.rpush(f"test:{namespace}:go", "go")
        found = await asyncio.gather(*(answers(worker) for worker in rest))
    assert {value for answer in found for value in answer["values"]} == {"value 2"}
    assert int(await redis.get(f"test:{namespace}:loads") or 0) == 2
    # The promise is about waiting, so the wait is what is looked at: a lease, and as long again for a busy machine.
    assert max(answer["slowest"] for answer in found) < 2 * LEASE


async def test_a_stale_value_is_refreshed_once_and_nobody_waits(redis_url: str, redis: Redis, namespace: str) -> None:
    async with Cache(redis_url, namespace=namespace, policy=Policy(ttl=0.05, stale=600, jitter=0, early=0)) as cache:
        await cache.set("hot", "stale value")
        async with asyncio.timeout(10):
            while (await cache.explain("hot")).reason.name != "STALE":
                await asyncio.sleep(0.005)
    async with Workers() as running:
        workers = await start(running, redis_url, namespace, ttl=600, stale=600)
        await asyncio.gather(*(worker.say(CALLERS) for worker in workers))
        # The refresh is still held, and all have their answers.
        found = await asyncio.gather(*(answers(worker) for worker in workers))
        assert {value for answer in found for value in answer["values"]} == {"stale value"}
        async with asyncio.timeout(10):
            while int(await redis.get(f"test:{namespace}:loads") or 0) < 1:
                await asyncio.sleep(0.005)
        await redis.rpush(f"test:{namespace}:go", "go")
        async with Cache(redis_url, namespace=namespace, ttl=600) as cache, asyncio.timeout(10):
            while await cache.get("hot") != "value 1":
                await asyncio.sleep(0.005)
        await asyncio.gather(*(worker.say(CALLERS) for worker in workers))
        fresh = await asyncio.gather(*(answers(worker) for worker in workers))
    assert {value for answer in fresh for value in answer["values"]} == {"value 1"}
    assert int(await redis.get(f"test:{namespace}:loads") or 0) == 1
