"""`durability="memory"`: writes wait in this process, which reads them at once and exactly; no other sees them before
the database does."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import (
    Cache,
    DatabaseUnavailable,
    LocalTier,
    StoreUnavailable,
    WriteBehind,
)
from asynccache.steps import Acquire, EndWrite, Fill
from tests.integration.write_behind.scores import HeldTable, Score, behind, points
from tests.integration.write_behind.test_write_behind import OPERATIONS, ROWS, stored, through_flushes
from tests.support.caches import MakeCache
from tests.support.gates import Gate, gated, until
from tests.support.proxy import Mode, Proxy

Pool: TypeAlias = "asyncpg.Pool[Any]"


async def test_writes_are_read_and_flushed_by_their_process(cached: Cache, table: HeldTable, pool: Pool) -> None:
    scores = behind(cached, table, flush_every=0.05)
    receipt = await scores.increment("ada", points=3)
    assert (receipt.durability, receipt.confirmed, receipt.pending) == ("memory", 0, 1)
    assert await scores.get("ada") == Score("ada", 3)

    async def arrived() -> bool:
        return await stored(pool) == Score("ada", 3)

    await until(arrived, "the flush")
    assert await scores.get("ada") == Score("ada", 3)


@pytest.mark.one_loop
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("second", OPERATIONS)
async def test_two_operations_in_any_order_read_and_end_as_in_sql_across_every_step_of_a_flush(
    scores: WriteBehind[Score], table: HeldTable, pool: Pool, row: str, first: str, second: str
) -> None:
    before = ROWS[row]
    if before is not None:
        await scores.put("ada", before)
        await scores.flush()

    async def all_read(expected: Score | None) -> None:
        assert await scores.get("ada") == expected
        assert await scores.get_many(["ada", "eve"]) == ({} if expected is None else {"ada": expected})
        await scores.invalidate("ada")
        assert await scores.get("ada") == expected
        assert await scores.refresh("ada") == expected
        assert await scores.get("ada") == expected

    await all_read(before)
    await through_flushes(scores, scores, table, pool, before, first, second, all_read)


async def test_writes_need_no_redis_and_what_was_put_or_deleted_is_read_without_it_and_the_database(
    make_cache: MakeCache, table: HeldTable, redis_url: str, proxy: Proxy
) -> None:
    cache = await make_cache(url=proxy.url(redis_url), timeout=0.2)
    scores = behind(cache, table)
    await scores.get("ada")  # what is cached says that there is none
    await proxy.set(Mode.REFUSE, cut=True)

    async def load_exact(*_: Any) -> Any:
        raise AssertionError("asked the database")

    table.load_exact = load_exact  # type: ignore[assignment, method-assign]
    before = cache.stats
    await scores.put("ada", Score("ada", 1))
    await scores.increment("ada", points=2)
    await scores.put_many({"eve": Score("eve", 5), "bob": Score("bob")})
    await scores.delete("bob")
    assert await scores.get("ada") == Score("ada", 3)
    assert await scores.get_many(["ada", "eve", "bob"]) == {"ada": Score("ada", 3), "eve": Score("eve", 5)}
    assert await scores.get("bob") is None
    after = cache.stats
    assert (after.local_hits - before.local_hits, after.misses - before.misses) == (5, 0)
    assert after.store_failures == before.store_failures


async def test_no_other_process_and_no_cell_shows_a_write_before_the_database_has_it_and_all_do_after(
    make_cache: MakeCache, table: HeldTable, local: LocalTier | None
) -> None:
    mine, other = await make_cache(local=local), await make_cache(local=local)
    scores, others = behind(mine, table), behind(other, table)
    await scores.put("ada", Score("ada", 1))
    await scores.flush()
    assert [await points(scores), await points(others)] == [1, 1]
    await scores.increment("ada", points=1)
    assert await points(scores) == 2
    await scores.put("ada", Score("ada", 7))
    for _ in range(2):
        assert [await points(scores), await points(others)] == [7, 1]
        cell = scores.key("ada")
        assert [await mine.get(cell, type=Score), await other.get(cell, type=Score)] == [
            Score("ada", 1),
            Score("ada", 1),
        ]
        await scores.refresh("ada")
        await scores.warm(["ada"])
    await scores.flush()
    assert await points(scores) == 7

    async def heard() -> bool:
        return await points(others) == 7

    await until(heard, "the push")


async def test_numbers_that_wait_are_added_to_what_is_cached_without_a_query_for_each(
    scores: WriteBehind[Score], cached: Cache
) -> None:
    await scores.put("ada", Score("ada", 10))
    await scores.flush()
    assert await points(scores) == 10
    loads = cached.stats.loads
    for expected in range(11, 21):
        await scores.increment("ada", points=1)
        assert await points(scores) == expected
    assert cached.stats.loads == loads


@pytest.mark.parametrize("query_first", [True, False], ids=["the row from before", "the row from after"])
@pytest.mark.parametrize("way", ["get", "get_many", "refresh"])
async def test_a_read_is_exact_although_a_whole_flush_ends_while_it_asks_the_database(
    scores: WriteBehind[Score], table: HeldTable, query_first: bool, way: str
) -> None:
    await scores.increment("ada", points=1)
    asked, load, held = Gate(), table.load_many, True

    async def load_late(keys: Any) -> Any:
        nonlocal held
        if not held:
            return await load(keys)
        held = False
        found = await load(keys) if query_first else None
        await asked.stop()
        return found if query_first else await load(keys)

    table.load_many = load_late  # type: ignore[method-assign]
    scores._loading._many = load_late
    reading = asyncio.create_task(scores.get_many(["ada", "eve"]) if way == "get_many" else getattr(scores, way)("ada"))
    await asked.reached()
    await scores.flush()
    await scores.increment("ada", points=1)
    asked.open()
    found: Any = await reading
    assert (found["ada"] if way == "get_many" else found).points == 2
    assert await points(scores) == 2


async def test_a_read_is_exact_although_a_batch_freezes_while_it_asks_for_the_cell(
    scores: WriteBehind[Score], cached: Cache, table: HeldTable
) -> None:
    store = gated(cached)
    await scores.increment("ada", points=1)
    reading_gate = store.reading = Gate()
    reading = asyncio.create_task(scores.get("ada"))
    await reading_gate.reached()
    table.after = Gate()
    flushing = asyncio.create_task(scores.flush())
    await table.after.reached()
    store.reading = None
    reading_gate.open()
    found = await reading
    assert found is not None
    assert found.points == 1
    table.after.open()
    await flushing


async def test_a_read_past_the_cell_does_not_share_a_load_for_it(
    scores: WriteBehind[Score], cached: Cache, table: HeldTable
) -> None:
    await scores.increment("ada", points=1)
    acquiring = gated(cached).before(Acquire)
    reading = asyncio.create_task(scores.get("ada"))
    await acquiring.reached()  # its load has not begun: whoever comes may join it
    table.before = Gate()
    flushing = asyncio.create_task(scores.flush())
    await table.before.reached()
    late = asyncio.create_task(scores.get("ada"))
    await asyncio.sleep(0)
    acquiring.open()
    assert [await reading, await late] == [Score("ada", 1), Score("ada", 1)]
    table.before.open()
    await flushing


@pytest.mark.parametrize("operation", ["put", "increment"])
async def test_from_its_transaction_until_it_is_acknowledged_nobody_reads_what_was_cached_before_a_batch(
    scores: WriteBehind[Score], cached: Cache, make_cache: MakeCache, table: HeldTable, pool: Pool, operation: str
) -> None:
    others = behind(await make_cache(), table)
    await scores.put("ada", Score("ada", 1))
    await scores.flush()
    assert [await points(scores), await points(others)] == [1, 1]  # and it is cached
    await (scores.put("ada", Score("ada", 8)) if operation == "put" else scores.increment("ada", points=7))
    ending = gated(cached).before(EndWrite)
    flushing = asyncio.create_task(scores.flush())
    await ending.reached()  # a process that ended here would leave just this
    assert await stored(pool) == Score("ada", 8)
    assert [await points(others), (await others.get_many(["ada"]))["ada"].points] == [8, 8]
    assert [await points(scores), (await scores.get_many(["ada"]))["ada"].points] == [8, 8]
    ending.open()
    await flushing
    assert [await points(others), await points(scores)] == [8, 8]


async def test_a_transaction_of_which_nobody_knows_whether_it_ended_leaves_its_keys_uncached(
    scores: WriteBehind[Score], cached: Cache, make_cache: MakeCache, table: HeldTable, pool: Pool
) -> None:
    others = behind(await make_cache(), table)
    await scores.put("ada", Score("ada", 1))
    await scores.flush()
    assert await points(others) == 1
    await scores.increment("ada", points=1)
    apply = table.apply

    async def lose_the_answer(batch: Any) -> Any:
        table.apply = apply  # type: ignore[method-assign]
        await apply(batch)
        raise DatabaseUnavailable("no answer to COMMIT")

    table.apply = lose_the_answer  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        await scores.flush()
    assert [await points(others), await points(scores)] == [2, 2]
    await scores.flush()
    assert [await points(others), await points(scores)] == [2, 2]
    assert await stored(pool) == Score("ada", 2)


async def test_no_load_from_before_a_batch_fills_a_cell_after_it(
    scores: WriteBehind[Score], make_cache: MakeCache, table: HeldTable
) -> None:
    await scores.put("ada", Score("ada", 0))
    await scores.flush()
    other = await make_cache()
    others, late = behind(other, table), gated(other).before(Fill)
    reading = asyncio.create_task(others.get("ada"))
    await late.reached()
    await scores.put("ada", Score("ada", 1))
    await scores.flush()
    late.open()
    assert await reading == Score("ada", 0)
    assert [await points(others), await points(scores)] == [1, 1]


async def test_a_flush_cancelled_before_its_cells_are_empty_is_neither_lost_nor_counted_twice(
    scores: WriteBehind[Score], cached: Cache, pool: Pool
) -> None:
    await scores.increment("ada", points=1)
    ending = gated(cached).before(EndWrite)
    flushing = asyncio.create_task(scores.flush())
    await ending.reached()
    flushing.cancel()
    ending.open()  # it ends its write, and then hears of it
    await asyncio.wait([flushing])
    assert flushing.cancelled()
    assert await points(scores) == 1
    await scores.increment("ada", points=1)
    assert await points(scores) == 2
    await scores.flush()
    assert await points(scores) == 2
    assert await stored(pool) == Score("ada", 2)


async def test_a_batch_that_ends_without_redis_is_read_from_the_database_and_its_cells_are_not_served_later(
    make_cache: MakeCache, table: HeldTable, redis_url: str, proxy: Proxy
) -> None:
    cache = await make_cache(url=proxy.url(redis_url), timeout=0.2, on_outage="proceed")
    scores = behind(cache, table)
    await scores.put("ada", Score("ada", 1))
    await scores.flush()
    assert await points(scores) == 1
    await proxy.set(Mode.REFUSE, cut=True)
    await scores.increment("ada", points=1)
    assert await points(scores) == 2
    await scores.flush()
    assert await points(scores) == 2
    await proxy.set(Mode.PASS)

    async def hits() -> bool:
        before = cache.stats.hits
        assert await points(scores) == 2
        return cache.stats.hits > before

    await until(hits, "Redis to serve again")


async def test_without_redis_a_batch_waits_where_no_reader_may_see_what_was_cached_before_it(
    make_cache: MakeCache, table: HeldTable, redis_url: str, proxy: Proxy, pool: Pool
) -> None:
    cache = await make_cache(url=proxy.url(redis_url), timeout=0.2)  # on_outage="refuse"
    scores, others = behind(cache, table), behind(await make_cache(), table)
    await scores.put("ada", Score("ada", 1))
    await scores.flush()
    assert await points(others) == 1
    await proxy.set(Mode.REFUSE, cut=True)
    await scores.increment("ada", points=1)
    with pytest.raises(StoreUnavailable):
        await scores.flush()
    assert [await points(scores), await points(others), await stored(pool)] == [2, 1, Score("ada", 1)]
    await proxy.set(Mode.PASS)

    async def flushed() -> bool:
        try:
            await scores.flush()
        except StoreUnavailable:
            return False
        return True

    await until(flushed, "Redis to answer again")
    assert [await points(scores), await points(others), await stored(pool)] == [2, 2, Score("ada", 2)]


async def test_every_read_has_all_that_its_process_wrote_while_batches_come_and_go(
    make_cache: MakeCache, table: HeldTable, pool: Pool, local: LocalTier | None
) -> None:
    cache = await make_cache(local=local)
    scores = behind(cache, table, flush_every=0.001, partitions=2)
    names = [f"player {number}" for number in range(4)]
    begun, ended = dict.fromkeys(names, 0), dict.fromkeys(names, 0)

    async def write(name: str, times: int) -> None:
        for _ in range(times):
            begun[name] += 1
            await scores.increment(name, points=1)
            ended[name] += 1
            await asyncio.sleep(0)

    async def read(name: str, writing: asyncio.Task[None]) -> int:
        reads = 0
        while not writing.done():
            least = ended[name]
            found = await (scores.get(name) if reads % 3 else one_of_many(name))
            assert least <= (0 if found is None else found.points) <= begun[name]
            reads += 1
        return reads

    async def one_of_many(name: str) -> Score | None:
        return (await scores.get_many(names)).get(name)

    writing = [asyncio.create_task(write(name, 1500)) for name in names]
    reads = await asyncio.gather(*(read(name, task) for name, task in zip(names, writing, strict=True) for _ in "ab"))
    await scores.flush()
    assert min(reads) > 0
    assert scores.flushed.batches > 10
    assert {row["points"] for row in await pool.fetch("SELECT points FROM score")} == {1500}
    assert {name: score.points for name, score in (await scores.get_many(names)).items()} == dict.fromkeys(names, 1500)
