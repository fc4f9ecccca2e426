"""A process of many callers: `python -m tests.processes.reader REDIS_URL NAMESPACE POLICY-JSON`.

For each command it runs so many callers of one key at once, and says what they got. Its loader counts itself in Redis,
says so, and waits until it is let go by a key there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from redis.asyncio import Redis

from asynccache import Cache, Policy


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(url: str, namespace: str, policy: str) -> None:
    loop = asyncio.get_running_loop()
    async with (
        Redis.from_url(url) as client,
        Cache(url, namespace=namespace, policy=Policy(**json.loads(policy))) as cache,
    ):

        async def load() -> str:
            number = await client.incr(f"test:{namespace}:loads")
            say({"loading": number})
            # Held until the test lets go; a list, so that every loader gets a go of its own.
            await client.blpop([f"test:{namespace}:go"], timeout=60)
            return f"value {number}"

        async def caller() -> tuple[Any, float]:
            began = time.monotonic()
            value = await cache.get_or_load("hot", load)
            return value, time.monotonic() - began

        say("ready")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            callers = int(json.loads(line))
            answers = await asyncio.gather(*(caller() for _ in range(callers)))
            say({"values": sorted({value for value, _ in answers}), "slowest": max(took for _, took in answers)})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
