"""Four processes of 250 callers miss one key at once."""

import uuid

import asyncpg

from asynccache.cli.demo.scenes import stampede
from benchmarks.model import Context, Finding, Series, Target

NAME = "stampede"


async def run(context: Context) -> Finding:
    schema = f"bench_{uuid.uuid4().hex[:8]}"
    connection = await asyncpg.connect(context.database_url)
    slowest, loads = [], []
    try:
        await connection.execute(f"CREATE SCHEMA {schema}")
        for turn in range(2 if context.quick else 5):
            await connection.execute(f"CREATE TABLE {schema}.loads (id bigint GENERATED ALWAYS AS IDENTITY)")
            result = await stampede(
                context.redis_url,
                context.database_url,
                schema,
                f"bench-{schema}-{turn}",
                processes=4,
                callers=1000,
                load_seconds=0.25,
            )
            await connection.execute(f"DROP TABLE {schema}.loads")
            loads.append(result.loads)
            slowest.append((result.slowest_seconds - result.load_seconds) * 1000)
    finally:
        await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        await connection.close()
    finding = Finding(
        NAME,
        "Stampede, 4 processes x 250 callers: slowest answer after the load",
        "ms",
        [Series("asynccache", slowest)],
    )
    finding.judge(Target("the slowest of all at most 50 ms after the load", at_most=50))
    finding.targets.append(("1 load", float(max(loads)), max(loads) == 1))
    return finding
