"""Write-behind: puts and increments beside direct SQL, and the flush of a full buffer beside bare unnest batches."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import asyncpg
import hiredis
from redis.asyncio import Redis

from asynccache import Cache, StoreUnavailable, WriteBehind, embedded
from asynccache.codecs import codec_for
from asynccache.entry import plain_tail
from asynccache.postgres import PostgresTable
from asynccache.stores.scripts import Call
from asynccache.strategies.write_behind import PARTITIONS
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.layout import Op
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows
from benchmarks.model import Context, Finding, Series, Target
from benchmarks.scenarios.memory import resident_bytes
from benchmarks.timing import race

NAME = "write-behind"
_CALLERS = 64
_HOT = 1000
_BATCH = 5000
_SYNCS = 200
_UPSERT = "INSERT INTO bench_scores VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET points = EXCLUDED.points"
_UNNEST = (
    "INSERT INTO bench_scores SELECT * FROM unnest($1::bigint[], $2::bigint[])"
    " ON CONFLICT (id) DO UPDATE SET points = EXCLUDED.points"
)


_Bare: TypeAlias = Callable[[float], Awaitable[float]]
_PLACE = b"9999999999"
"""Where the number of a call stands that was packed before it had one."""


@dataclass(slots=True)
class Score:
    """A row of `bench_scores`."""

    id: int
    points: int = 0


async def run(context: Context) -> Finding:
    database_url = context.database_url
    notes = []
    if not os.environ.get("DATABASE_URL"):
        # Not the throwaway server, which does not wait for the disk.
        folder = context.stack.enter_context(TemporaryDirectory(prefix="asynccache-bench-"))
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - once; as root, the server runs as another user
        server = await context.stack.enter_async_context(embedded.postgres_server(Path(folder) / "postgres"))
        database_url = server.url
        waits = await asyncio.to_thread(_sync_seconds, Path(folder))
        notes.append(
            f"a direct upsert waits until the disk says that it has it: {waits * 1e6:,.0f} µs here (median of {_SYNCS}"
            " calls of fsync)"
        )
    pool = await context.stack.enter_async_context(asyncpg.create_pool(database_url, min_size=10, max_size=10))
    await pool.execute("DROP TABLE IF EXISTS bench_scores, asynccache_batch, asynccache_dead_letter")
    await pool.execute("CREATE TABLE bench_scores (id bigint PRIMARY KEY, points bigint NOT NULL)")
    cache = Cache(context.redis_url, namespace=f"bench-behind-{time.time_ns()}", ttl=60, background=False)
    await context.stack.enter_async_context(cache)
    table = PostgresTable(pool, "bench_scores", key="id", model=Score)
    scores = WriteBehind(cache, "score", sink=table, max_batch=_BATCH, max_pending=10_000_000)
    await scores.put(0, Score(0))

    finding = Finding(NAME, f"Write-behind, {_CALLERS} callers", "operations/s", [])
    puts = await race(
        context,
        {
            "asynccache put": lambda at: scores.put(at, Score(at, at)),
            "direct upsert, one connection": await _alone(pool, context),
            "direct upsert, a pool of 10": lambda at: pool.execute(_UPSERT, at, at),
        },
        callers=_CALLERS,
    )
    await scores.flush()
    increments = await race(
        context, {"asynccache increment": lambda at: scores.increment(at % _HOT, points=1)}, callers=_CALLERS
    )
    records: Records[Score] = Records(codec_for(Score), Rows(Score, key=("id",)))
    tail = plain_tail(codec_for(Score).fingerprint, ())
    bare_script, _ = await _bare(context, cache, "bare", lambda at: records.increment_op(at, {"points": 1}))
    increments.append(Series("bare batched script", [await bare_script(context.window) for _ in range(context.rounds)]))
    bare_puts, packed_puts = await _bare(
        context,
        cache,
        "bare puts",
        lambda at: records.cached_put_op(at, codec_for(Score).pack(Score(at, at)), tail, (60_000, 60_000)),
    )
    for name, bare in (("bare batched script of puts", bare_puts), ("the same, packed beforehand", packed_puts)):
        puts.append(Series(name, [await bare(context.window) for _ in range(context.rounds)]))
    await scores.flush()
    usual = WriteBehind(cache, "usual", sink=table, max_pending=10_000_000)
    flushes, updates, grown = await _flush(context, scores, usual, pool)
    finding.series = [*puts, *increments, *flushes]
    finding.notes.extend(notes)
    others = {series.name: series for series in finding.series}
    bare_increments = others["bare batched script"].median
    alone = others["direct upsert, one connection"].median
    finding.notes.append(
        f"the script of puts alone, by one client that waits for each {_CALLERS}, is"
        f" {others['bare batched script of puts'].median / alone:.1f} x one connection;"
        f" {others['the same, packed beforehand'].median / alone:.1f} x if it has nothing else to do, so that is what"
        " Redis can do"
    )
    for ours, target in (
        (puts[0], Target("put: at least 15 x one connection", at_least=15, against="direct upsert, one connection")),
        (puts[0], Target("put: at least 4 x a pool of 10", at_least=4, against="direct upsert, a pool of 10")),
        (
            increments[0],
            Target("increment: at least 50,000/s", at_least=50_000)
            if bare_increments >= 100_000
            else Target("increment: at least 0.5 x the bare script", at_least=0.5, against="bare batched script"),
        ),
        (flushes[0], Target("flush: at least 0.6 x bare unnest", at_least=0.6, against="bare unnest batches")),
    ):
        verdict = target.judge(ours, others)
        if verdict is not None:
            finding.targets.append((target.text, *verdict))
    finding.targets.append(
        (
            f"rows updated for {updates[0]:,} increments of {_HOT:,} keys: at most 5,000",
            float(updates[1]),
            updates[1] <= 5000,
        )
    )
    finding.targets.append(("flush: at most 150 MiB above idle", grown, grown <= 150))
    await pool.execute("DROP TABLE bench_scores, asynccache_batch")
    return finding


def _sync_seconds(folder: Path) -> float:
    """How long a disk takes to say that it has a page."""
    taken = []
    with (folder / "page").open("wb", buffering=0) as file:
        file.write(bytes(2**20))
        os.fsync(file)
        for at in range(_SYNCS):
            began = time.perf_counter()
            file.seek(at * 4096)
            file.write(bytes(4096))
            os.fsync(file)
            taken.append(time.perf_counter() - began)
    return sorted(taken)[_SYNCS // 2]


async def _alone(pool: Any, context: Context) -> Any:
    connection = await context.stack.enter_async_context(pool.acquire())
    turn = asyncio.Lock()

    async def upsert(at: int) -> None:
        async with turn:  # one statement at a time is what a connection does
            await connection.execute(_UPSERT, at, at)

    return upsert


async def _bare(context: Context, cache: Cache, name: str, make: Callable[[int], Op]) -> tuple[_Bare, _Bare]:
    """Operations per second of the script alone: the calls that a tick of all callers makes, again and again; by
    redis-py, and by a client that only sends bytes and reads replies."""
    client = await context.stack.enter_async_context(Redis.from_url(context.redis_url))
    captured: list[Call] = []

    async def capture(calls: Sequence[Call]) -> tuple[Sequence[Any], int]:
        captured.extend(calls)
        raise StoreUnavailable("taken down, and not sent")

    store: Any = cache.runtime.store
    buffer = Buffer(store, cache.scope.space, name, partitions=PARTITIONS, max_pending=10_000, send=capture)
    await buffer.open()
    ticks = []
    for begin in range(0, _HOT - _CALLERS, _CALLERS):
        with suppress(StoreUnavailable):
            await buffer.apply([make(at) for at in range(begin, begin + _CALLERS)])
        ticks.append(list(captured))
        captured.clear()
    sha = await client.script_load(ticks[0][0].script.source)
    sequence = 0

    async def bare(seconds: float) -> float:
        nonlocal sequence
        done, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            sequence += 1
            pipeline = client.pipeline(transaction=False)
            for call in ticks[sequence % len(ticks)]:
                pipeline.evalsha(sha, len(call.keys), *call.keys, sequence, *call.args[1:])
            await pipeline.execute()
            done += _CALLERS
        return done / (time.perf_counter() - began)

    packed = [
        [
            hiredis.pack_command(("EVALSHA", sha, len(call.keys), *call.keys, _PLACE, *call.args[1:]))  # type: ignore[arg-type]  # any sequence of them
            for call in calls
        ]
        for calls in ticks
    ]
    connections: Any = client.connection_pool
    connection = await connections.get_connection()
    context.stack.push_async_callback(connections.release, connection)

    async def sent(seconds: float) -> float:
        nonlocal sequence
        done, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            sequence += 1
            commands = packed[sequence % len(packed)]
            number = b"%010d" % sequence
            await connection.send_packed_command([command.replace(_PLACE, number, 1) for command in commands])
            replies = [await connection.read_response() for _ in commands]
            assert {*b"".join(verdicts for reply in replies for verdicts, _ in reply)} == {ord("1")}
            done += _CALLERS
        return done / (time.perf_counter() - began)

    return bare, sent


async def _flush(
    context: Context, scores: WriteBehind[Score], usual: WriteBehind[Score], pool: Any
) -> tuple[list[Series], tuple[int, int], float]:
    count = 100_000 if context.quick else 1_000_000
    await _fill(usual, count, pool)
    usually = await _flushed(usual, count, pool)
    await _fill(scores, count, pool)
    idle = resident_bytes()
    peak = idle

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, resident_bytes())
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    ours = await _flushed(scores, count, pool)
    watching.cancel()
    await pool.execute("TRUNCATE bench_scores")
    # In no order, as they come out of a buffer: the index costs the same.
    keys = random.Random(1).sample(range(count), count)
    began = time.perf_counter()
    async with pool.acquire() as connection:
        for begin in range(0, count, _BATCH):
            part = sorted(keys[begin : begin + _BATCH])
            await connection.execute(_UNNEST, part, part)
    bare = count / (time.perf_counter() - began)
    before = scores.flushed.row_updates
    increments = count
    for begin in range(0, increments, 10_000):
        await asyncio.gather(*(scores.increment(at % _HOT, points=1) for at in range(begin, begin + 10_000)))
        if begin % 250_000 == 0:
            await scores.flush()
    await scores.flush()
    rows = scores.flushed.row_updates - before
    series = [
        Series(f"asynccache flush, rows/s, {_BATCH:,} a batch", [ours]),
        Series("bare unnest batches", [bare]),
        Series("the flush with 1,000 a batch, as by default", [usually]),
    ]
    return series, (increments, rows), (peak - idle) / 2**20


async def _fill(scores: WriteBehind[Score], count: int, pool: Any) -> None:
    await pool.execute("TRUNCATE bench_scores")
    for begin in range(0, count, 10_000):
        await scores.put_many({at: Score(at, at) for at in range(begin, begin + 10_000)})


async def _flushed(scores: WriteBehind[Score], count: int, pool: Any) -> float:
    """Rows a second of one flush of all that pends."""
    began = time.perf_counter()
    await scores.flush()
    rate = count / (time.perf_counter() - began)
    assert await pool.fetchval("SELECT count(*) FROM bench_scores") == count
    return rate
