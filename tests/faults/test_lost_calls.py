"""Write-behind calls whose replies are lost, that arrive late, or whose callers leave: each write counts once at most."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import StoreUnavailable, WriteBehind
from asynccache.postgres import PostgresTable
from asynccache.stores.scripts import Call
from tests.support.caches import MakeCache
from tests.support.gates import Gate

Pool: TypeAlias = "asyncpg.Pool[Any]"
Row: TypeAlias = dict[str, Any]


class Line:
    """The way of calls to Redis: loses replies, holds calls, or keeps them to be delivered later."""

    def __init__(self, store: Any) -> None:
        self._run = store.run_many
        store.run_many = self
        self.lose_replies = 0
        self.keep = self.keep_first = False
        self.kept: list[Sequence[Call]] = []
        self.gate: Gate | None = None
        self.calls = 0

    async def __call__(self, calls: Sequence[Call], *then: Any) -> Any:
        self.calls += 1
        if self.gate is not None:
            await self.gate.stop()
        if self.keep or (self.keep_first and not self.kept):
            self.kept.append(calls)
            raise _lost()
        answers = await self._run(calls, *then)
        if self.lose_replies:
            self.lose_replies -= 1
            raise _lost()
        return answers

    async def deliver(self) -> None:
        """What was kept arrives after all."""
        for calls in self.kept:
            await self._run(calls)


def _lost() -> StoreUnavailable:
    error = StoreUnavailable("no answer in time")
    error.__cause__ = TimeoutError()
    return error


@pytest.fixture
async def table(pool: Pool) -> PostgresTable[Row]:
    await pool.execute("CREATE TABLE item (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0)")
    return PostgresTable(pool, "item", key="id", model=dict)


async def behind(make_cache: MakeCache, table: PostgresTable[Row], **options: Any) -> tuple[WriteBehind[Row], Line]:
    cache = await make_cache(background=False)
    items: WriteBehind[Row] = WriteBehind(cache, "item", sink=table, defaults={"n": 0}, **options)
    await items.put(0, {"id": 0, "n": 0})
    return items, Line(cache.runtime.store)


async def test_an_increment_whose_reply_is_lost_is_sent_again_and_counted_once(
    make_cache: MakeCache, table: PostgresTable[Row], pool: Pool
) -> None:
    items, line = await behind(make_cache, table)
    for key in range(1, 20):
        line.lose_replies = 1 + key % 2
        await asyncio.gather(*(items.increment(key + shift, n=1) for shift in (0, 100, 200)))
    await items.flush()
    rows = await pool.fetch("SELECT id, n FROM item WHERE id > 0")
    assert len(rows) == 57
    assert {row["n"] for row in rows} == {1}


async def test_a_write_that_was_given_up_and_arrives_late_changes_nothing(
    make_cache: MakeCache, table: PostgresTable[Row]
) -> None:
    items, line = await behind(make_cache, table, partitions=1)
    line.keep = True
    with pytest.raises(StoreUnavailable):
        await items.put(1, {"id": 1, "n": 1})
    with pytest.raises(StoreUnavailable):
        await items.increment(2, n=5)
    line.keep = False
    await items.put(1, {"id": 1, "n": 2})
    await line.deliver()
    assert await items.get(1) == {"id": 1, "n": 2}
    await items.invalidate(1)
    assert await items.get(1) == {"id": 1, "n": 2}
    assert await items.get(2) is None


async def test_a_caller_who_leaves_takes_back_what_was_not_sent_and_disturbs_nobody(
    make_cache: MakeCache, table: PostgresTable[Row]
) -> None:
    items, line = await behind(make_cache, table)
    line.gate = Gate()
    sent = asyncio.create_task(items.increment(1, n=1))
    await line.gate.reached()
    waiting = [asyncio.create_task(items.increment(key, n=1)) for key in (2, 3)]
    await asyncio.sleep(0)
    sent.cancel()
    waiting[0].cancel()
    line.gate.open()
    line.gate = None
    await waiting[1]
    assert await items.get_many([1, 2, 3]) == {1: {"id": 1, "n": 1}, 3: {"id": 3, "n": 1}}


async def test_closing_answers_everybody_who_writes(make_cache: MakeCache, table: PostgresTable[Row]) -> None:
    items, line = await behind(make_cache, table)
    line.gate = gate = Gate()
    calls = [asyncio.create_task(items.increment(key, n=1)) for key in range(50)]
    await gate.reached()
    closing = asyncio.create_task(items._buffer.aclose())
    await asyncio.sleep(0)
    late = asyncio.create_task(items.increment(99, n=1))
    with pytest.raises(StoreUnavailable, match="closed"):
        await late
    gate.open()
    await closing
    assert {type(answer).__name__ for answer in await asyncio.gather(*calls, return_exceptions=True)} <= {
        "Receipt",
        "StoreUnavailable",
    }


async def test_a_copy_of_a_call_that_was_sent_twice_arrives_after_the_writer_has_closed_and_changes_nothing(
    make_cache: MakeCache, table: PostgresTable[Row]
) -> None:
    items, line = await behind(make_cache, table, partitions=1)
    line.keep_first = True  # the first copy is on its way, the second is answered
    await items.increment(1, n=5)
    line.keep_first = False
    await items._buffer.aclose()
    await line.deliver()
    other, _ = await behind(make_cache, table, partitions=1)
    assert await other.get(1) == {"id": 1, "n": 5}
