"""An application as users write it, for the command line: a cache with one write-behind strategy, made at import."""

from __future__ import annotations

import os

from asynccache import Cache, WriteBehind
from asynccache.postgres import Database, PostgresChanges, PostgresTable, TableChanges
from tests.processes.cli_score import Score

# It has a web part of its own, which leaves the flushing to workers.
cache = Cache(os.environ["APP_REDIS"], namespace=os.environ["APP_NAMESPACE"], ttl=60, background=False)
table = PostgresTable(Database(os.environ["APP_DATABASE"]), f"{os.environ['APP_SCHEMA']}.scores", key="id", model=Score)
scores = WriteBehind(
    cache, "score", sink=table, partitions=8, flush_every=float(os.environ.get("APP_FLUSH_EVERY", "0.1")), max_batch=100
)


def make_cache() -> Cache:
    return cache


async def make_cache_later() -> Cache:
    return cache


def fail() -> Cache:
    raise RuntimeError("no settings")


following = Cache(os.environ["APP_REDIS"], namespace=os.environ["APP_NAMESPACE"], ttl=60, background=False)
following.follow(
    PostgresChanges(
        Database(os.environ["APP_DATABASE"]),
        tables=[TableChanges("scores", key="id", tags=["scores"])],
        schema=os.environ["APP_SCHEMA"],
        poll=0.1,
    )
)
empty = Cache(os.environ["APP_REDIS"], namespace="empty", ttl=60)
number = 42
