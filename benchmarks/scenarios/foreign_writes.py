"""Local hits while another process writes other keys, 5,000 a second."""

import asyncio
import sys
import time

from asynccache import Cache, LocalTier
from benchmarks.contenders import KEYS
from benchmarks.model import Context, Finding, Row, Series, Target, sample_row

NAME = "foreign-writes"

_WRITER = """
import asyncio, sys, time
from redis.asyncio import Redis

async def main(url, rate, seconds):
    client, end, done, began = Redis.from_url(url), time.monotonic() + seconds, 0, time.monotonic()
    while time.monotonic() < end:
        pipe = client.pipeline(transaction=False)
        for _ in range(50):
            pipe.set(f"bench-foreign:row:{1000 + done % 5000}", b"x" * 300, px=60000)
            done += 1
        await pipe.execute()
        await asyncio.sleep(max(0, began + done / rate - time.monotonic()))
    await client.aclose()

asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
"""


async def run(context: Context) -> Finding:
    cache = await context.stack.enter_async_context(
        Cache(context.redis_url, namespace="bench-foreign", ttl=600, local=LocalTier())
    )

    @cache.cached(key="row:{key}")
    async def read(key: int) -> Row:
        return sample_row(key)

    entries = cache.runtime.reader.entries
    assert entries is not None
    while not entries.on:
        await asyncio.sleep(0.001)

    async def rate() -> float:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < context.window:
            for _ in range(200):
                await read(done % KEYS)
                done += 1
            await asyncio.sleep(0)  # as a service would: pushes are read between requests
        return done / (time.perf_counter() - began)

    for _ in range(5):
        for key in range(KEYS):
            await read(key)
        await asyncio.sleep(0.01)
    quiet, loaded = [], []
    for _ in range(context.rounds):
        quiet.append(await rate())
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, context.redis_url, "5000", str(context.window + 3)
        )
        await asyncio.sleep(0.7)  # it has started
        loaded.append(await rate())
        writer.kill()
        await writer.wait()
    finding = Finding(
        NAME,
        "Local hits while others write 5,000 other keys a second",
        "hits/s",
        [Series("under writes", loaded), Series("without writes", quiet)],
    )
    finding.judge(Target("at least 0.8 x the rate without writes", at_least=0.8, against="without writes"))
    finding.notes.append("the writer and Redis share the machine's cores with the reader")
    return finding
