"""`durability="memory"` beside the rest of the library: loads, options, recording, closing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import (
    Cache,
    CacheNotOpen,
    ConfigurationError,
    HotKeys,
    LoadCancelled,
    LoadTimeout,
    NextRead,
    Policy,
    Reason,
    RecursiveLoad,
    WriteBehind,
)
from asynccache.strategies.loading import LoadContext
from asynccache.strategies.sources import Loading
from tests.integration.write_behind.scores import HeldTable, Score, behind, points
from tests.support.caches import MakeCache
from tests.support.gates import Gate

Pool: TypeAlias = "asyncpg.Pool[Any]"


@pytest.mark.parametrize("many", [False, True], ids=["put", "put_many"])
async def test_a_loop_of_writes_leaves_the_flusher_and_everybody_else_their_turns(
    cached: Cache, table: HeldTable, many: bool
) -> None:
    scores = behind(cached, table, flush_every=0.01)
    await scores.put("0", Score("0"))  # opens all
    turns, writing = 0, True

    async def other() -> None:
        nonlocal turns
        while writing:
            turns += 1
            await asyncio.sleep(0)

    watching = asyncio.create_task(other())
    players = {str(at): Score(str(at)) for at in range(2000)}
    if many:
        await scores.put_many(players)
    else:
        for player, score in players.items():
            await scores.put(player, score)
    writing = False
    await watching
    assert turns >= 30
    await scores.flush()
    assert len(await scores.get_many(players)) == 2000


async def test_what_callers_do_to_a_value_that_waits_is_not_what_others_read(scores: WriteBehind[Score]) -> None:
    mine = Score("ada", 1)
    await scores.put("ada", mine)
    mine.points = 2
    found = await scores.get("ada")
    assert found is not None
    found.points = 3
    assert await points(scores) == 1


async def test_explain_says_what_the_next_read_does(
    scores: WriteBehind[Score], cached: Cache, table: HeldTable
) -> None:
    async def explained() -> tuple[NextRead, Reason]:
        explanation = await scores.explain("ada")
        assert explanation.key == scores.key("ada")
        return explanation.next, explanation.reason

    assert await explained() == (NextRead.LOAD, Reason.EMPTY)
    await scores.increment("ada", points=1)
    assert await explained() == (NextRead.LOAD, Reason.EMPTY)
    table.before = Gate()
    flushing = asyncio.create_task(scores.flush())
    await table.before.reached()
    assert await explained() == (NextRead.BYPASS, Reason.PENDING)
    before = cached.stats
    assert await points(scores) == 1
    assert (await scores.get_many(["ada"]))["ada"].points == 1
    after = cached.stats
    assert [after.bypasses - before.bypasses, after.loads - before.loads, after.misses - before.misses] == [2, 2, 2]
    await scores.put("ada", Score("ada", 2))
    assert await explained() == (NextRead.SERVE_PENDING, Reason.PENDING)
    assert await points(scores) == 2
    assert cached.stats.local_hits - after.local_hits == 1
    table.before.open()
    await flushing
    await scores.flush()
    assert await points(scores) == 2
    assert await explained() == (NextRead.SERVE, Reason.FRESH)


async def test_reads_of_what_waits_are_recorded_and_counted_as_others(
    redis_url: str, namespace: str, table: HeldTable, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    async with Cache(redis_url, namespace=namespace, ttl=60, record=path, hot_keys=HotKeys()) as cache:
        scores = behind(cache, table)
        await scores.put("ada", Score("ada", 1))
        await scores.get("ada")
        await scores.get_many(["ada", "eve"])
        await scores.increment("eve", points=1)
        table.before = Gate()
        flushing = asyncio.create_task(scores.flush())
        await table.before.reached()
        await scores.get("eve")
        await scores.refresh("eve")
        await scores.put("ada", Score("ada", 2))
        await scores.refresh("ada")
        table.before.open()
        await flushing
        await scores.flush()
        assert cache.stats.writes == 3  # not again when they are flushed
        assert {hot.key: round(hot.weight) for hot in await scores.hot()} == {"ada": 2, "eve": 2}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["op"] for line in lines if line["op"][:3] != "get") == ["increment", "put", "put"]
    reads = [(line["key"].rsplit(":", 1)[1], "cost" in line) for line in lines if line["op"].startswith("get")]
    assert sorted(reads) == [("ada", False), ("ada", False), ("eve", True), ("eve", True)]


async def test_a_closed_cache_does_not_answer_from_what_waits(redis_url: str, namespace: str, table: HeldTable) -> None:
    async with Cache(redis_url, namespace=namespace, ttl=60) as cache:
        scores = behind(cache, table, drain=0)
        scores.pause()
        await scores.put("ada", Score("ada", 1))
    for read in (scores.get("ada"), scores.get_many(["ada"]), scores.refresh("ada"), scores.explain("ada")):
        with pytest.raises(CacheNotOpen):
            await read


class Frozen:
    """A key with a number in a batch that waits for the database, so that each read asks the database for it.

    Attributes:
        queries: how often it did.
        held: if set, holds these queries.
    """

    def __init__(self, table: HeldTable) -> None:
        self.table = table
        self.queries = 0
        self.held: Gate | None = None
        self._load = table.load_exact
        table.load_exact = self._look  # type: ignore[method-assign]

    async def _look(self, keys: Any, batch_ids: Any) -> Any:
        self.queries += 1
        if self.held is not None:
            await self.held.stop()
        return await self._load(keys, batch_ids)


@asynccontextmanager
async def frozen(scores: WriteBehind[Score], table: HeldTable) -> AsyncIterator[Frozen]:
    await scores.increment("ada", points=1)
    table.before = Gate()
    flushing = asyncio.create_task(scores.flush())
    await table.before.reached()
    yield Frozen(table)
    table.before.open()
    await asyncio.wait([flushing])


async def test_all_who_read_a_number_in_a_batch_at_once_share_one_query(
    scores: WriteBehind[Score], table: HeldTable
) -> None:
    async with frozen(scores, table) as world:
        found = await asyncio.gather(*(scores.get("ada") for _ in range(50)))
        assert found == [Score("ada", 1)] * 50
        assert len({id(score) for score in found}) == 50
        assert world.queries == 1


async def test_a_query_for_a_number_in_a_batch_is_bounded_and_ends_with_the_cache(
    redis_url: str, namespace: str, table: HeldTable
) -> None:
    async with Cache(redis_url, namespace=namespace, ttl=60) as cache:
        scores = behind(cache, table, policy=Policy(ttl=60, load_timeout=0.05), drain=0)
        patient = behind(cache, table, drain=0, name="patient")
        async with frozen(scores, table) as world:
            world.held = Gate()
            with pytest.raises(LoadTimeout):
                await scores.get("ada")
        async with frozen(patient, table) as world:
            world.held = Gate()
            reading = asyncio.create_task(patient.get("ada"))
            await world.held.reached()
            await cache.shutdown()
            with pytest.raises(LoadCancelled):
                await reading


async def test_a_loader_that_asks_for_its_own_key_is_told_so(cached: Cache, table: HeldTable) -> None:
    class Asking(HeldTable):
        async def load_exact(self, keys: Any, batch_ids: Any) -> Any:
            return {key: await asking.get(key) for key in keys}, frozenset()

    asking = behind(cached, Asking(table._connections.pool(), "score", key="player", model=Score))
    async with frozen(asking, asking._sink):  # type: ignore[arg-type]
        with pytest.raises(RecursiveLoad):
            await asking.get("ada")


async def test_keys_that_are_equal_in_python_are_asked_for_once(cached: Cache) -> None:
    class Sink:
        async def apply(self, batch: Any, /) -> Any:
            raise AssertionError("nothing is flushed here")

    values: WriteBehind[str] = WriteBehind(cached, "v", sink=Sink(), type=str, durability="memory", drain=0)
    values.pause()
    await values.put(1, "one")
    assert await values.get_many([1, True]) == {1: "one"}


async def test_a_process_that_only_writes_does_not_say_that_what_it_cannot_load_does_not_exist(
    make_cache: MakeCache, table: HeldTable
) -> None:
    class Sink:
        async def apply(self, batch: Any, /) -> Any:
            return await table.apply(batch)

    policy = Policy(ttl=60, negative_ttl=60)
    writing, reading = await make_cache(policy=policy), await make_cache(policy=policy)
    writer = behind(writing, table, sink=Sink(), type=Score)
    others = behind(reading, table)
    await others.put("eve", Score("eve"))
    await others.flush()
    await writer.put("ada", Score("ada", 1))
    assert await points(writer) == 1
    await writer.flush()
    assert [await points(writer), await points(others), await points(writer)] == [None, 1, 1]
    await writer.warm(["bob"])
    assert await writing.get(writer.key("bob"), "nothing") == "nothing"


async def test_what_a_put_cannot_mean_is_refused_as_where_it_is_cached(cached: Cache, table: HeldTable) -> None:
    scores = behind(cached, table)
    for ttl in (-1, "x"):
        with pytest.raises(ConfigurationError, match="ttl"):
            await scores.put("ada", Score("ada"), ttl=ttl)
        with pytest.raises(ConfigurationError, match="ttl"):
            await scores.put_many({"ada": Score("ada")}, ttl=ttl)

    def tags(key: str, score: Score) -> list[str]:
        raise KeyError(key)

    tagged = behind(cached, table, name="tagged", tags=tags)
    with pytest.raises(KeyError):
        await tagged.put("ada", Score("ada"))
    with pytest.raises(KeyError):
        await tagged.put_many({"ada": Score("ada")})
    assert [await scores.get("ada"), (await tagged.pending())[0].pending] == [None, 0]


async def test_a_loop_of_reads_that_are_answered_here_leaves_the_flusher_its_turn(
    cached: Cache, table: HeldTable
) -> None:
    scores = behind(cached, table, flush_every=0.01)
    await scores.put("ada", Score("ada", 1))
    async with asyncio.timeout(10):
        while not scores.flushed.batches:
            await scores.get_many(["ada"])
    await scores.put("ada", Score("ada", 2))
    async with asyncio.timeout(10):
        while scores.flushed.batches < 2:
            await scores.get("ada")


async def test_callers_who_share_a_query_for_one_key_do_not_share_the_row() -> None:
    async def load_many(keys: list[str]) -> dict[str, Score]:
        return {key: Score(key) for key in [*keys, "unasked"]}

    loading: Loading[Score] = Loading(load_many)
    loading.expect_company()
    one, two, other = await asyncio.gather(*(loading.loader(key)(LoadContext(key)) for key in ("ada", "ada", "eve")))
    assert one == two == Score("ada")
    assert one is not two
    assert other == Score("eve")
    await loading.aclose()
