"""The strategy that the processes of the write-behind tests share, its table, and what its operations do to a row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from asynccache import Cache, DatabaseUnavailable, StoreUnavailable, WriteBehind
from asynccache.postgres import Database, PostgresTable

__all__ = ["CREATE", "Operation", "Score", "after", "do", "open_cache", "possible", "write_behind"]

CREATE = """
    CREATE TABLE scores (id int PRIMARY KEY, points int NOT NULL DEFAULT 0, changes int NOT NULL DEFAULT 0);
    CREATE FUNCTION count_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.changes := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE OLD.changes + 1 END;
        RETURN NEW;
    END $$;
    CREATE TRIGGER count_changes BEFORE INSERT OR UPDATE ON scores FOR EACH ROW EXECUTE FUNCTION count_changes();
"""
"""`changes` tells how often a row was written, which a put applied twice does not tell otherwise."""

Operation: TypeAlias = tuple[str, int]
"""put, add or delete, and the number."""


@dataclass
class Score:
    id: int
    points: int = 0


def write_behind(cache: Cache, database: str, schema: str, **options: Any) -> WriteBehind[Score]:
    """Small batches and leases, so that much happens in little time."""
    settings = {"search_path": schema}
    table = PostgresTable(
        Database(database, max_size=6, server_settings=settings), "scores", key="id", model=Score, timeout=5
    )
    options = {"flush_every": 0.05, "max_batch": 20, "partitions": 4, "lease": 1.0, **options}
    return WriteBehind(cache, "score", sink=table, **options)


async def open_cache(cache: Cache) -> None:
    """Opens a cache, as soon as its servers let it."""
    while True:
        try:
            await cache.startup()
        except (StoreUnavailable, DatabaseUnavailable):
            await asyncio.sleep(0.05)
        else:
            return


async def do(scores: WriteBehind[Score], key: int, operation: Operation) -> None:
    kind, number = operation
    if kind == "put":
        await scores.put(key, Score(key, number))
    elif kind == "add":
        await scores.increment(key, points=number)
    else:
        await scores.delete(key)


def after(points: int | None, operation: Operation) -> int | None:
    """The points of a row after an operation; None for no row."""
    kind, number = operation
    if kind == "delete":
        return None
    return number if kind == "put" else (points or 0) + number


def possible(points: Iterable[int | None], operation: Operation, *, certain: bool) -> set[int | None]:
    """What the points may be after an operation that was acknowledged, or may have been done or not."""
    done = {after(one, operation) for one in points}
    return done if certain else done.union(points)
