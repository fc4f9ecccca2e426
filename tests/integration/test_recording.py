"""`record=`: what a cache is asked for is in the file, and recording never harms who asks."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asynccache import (
    Cache,
    CacheAside,
    ConfigurationError,
    LocalTier,
    ReadThrough,
    Recorder,
    WriteBehind,
    WriteThrough,
)
from asynccache.clock import ManualClock
from asynccache.postgres import PostgresTable
from asynccache.strategies.reading import Reader
from asynccache.strategies.writing import Writer
from tests.support.caches import MakeCache
from tests.support.gates import Gate


@dataclass
class Score:
    id: int
    points: int = 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


@pytest.fixture
async def table(pool: asyncpg.Pool[Any]) -> PostgresTable[Score]:
    await pool.execute("CREATE TABLE scores (id bigint PRIMARY KEY, points bigint NOT NULL)")
    await pool.execute("INSERT INTO scores SELECT n, n FROM generate_series(1, 10) AS n")
    return PostgresTable(pool, "scores", key="id", model=Score)


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def operations(path: Path) -> list[tuple[str, str, bool]]:
    """What was done to the last part of which key, and whether it has a cost."""
    return [(line["op"], line["key"].rsplit(":", 1)[1], "cost" in line) for line in recorded(path)]


def size(path: Path) -> int:
    return path.stat().st_size


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def load(key: Any) -> str:
    return f"value of {key}"


async def test_reads_are_recorded_with_the_cost_of_their_load(make_cache: MakeCache, path: Path) -> None:
    cache = await make_cache(record=str(path))
    users = CacheAside(cache, "user", type=str)
    await users.get(1, load=load)
    await users.get(1, load=load)
    await users.get_many([1, 2], load=load)
    await cache.get("nothing")
    await cache.shutdown()
    expected = [("get", "1", True), ("get", "1", False), ("get", "1", False), ("get", "2", True)]
    assert operations(path) == [*expected, ("get", "nothing", False)]
    lines = recorded(path)
    assert lines[0]["key"] == users.key(1)
    assert 0 <= lines[0]["cost"] < 60
    assert abs(lines[0]["t"] - asyncio.get_running_loop().time()) > 1e6, "seconds since the epoch"


@pytest.mark.parametrize("local", [None, LocalTier()], ids=["redis", "local"])
async def test_calls_of_decorated_functions_are_recorded_local_hits_included(
    make_cache: MakeCache, path: Path, local: LocalTier | None
) -> None:
    cache = await make_cache(record=path, local=local)

    @cache.cached(key="user:{key}")
    async def user(key: int) -> str:
        return str(key)

    class Users:
        @cache.cached_method(key="of:{key}", shared=True)
        async def of(self, key: int) -> str:
            return str(key)

    while not cache.stats.hits or (local and not cache.stats.local_hits):
        await user(1)
    reads = cache.stats.hits + cache.stats.misses
    await Users().of(7)
    await cache.shutdown()
    assert len(operations(path)) == reads + 1
    assert operations(path)[-2:] == [("get", "1", False), ("get", "7", True)]


async def test_writes_are_recorded_as_what_they_are(
    make_cache: MakeCache, path: Path, table: PostgresTable[Score]
) -> None:
    cache = await make_cache(record=path)
    through = WriteThrough(cache, "through", source=table)
    behind = WriteBehind(cache, "behind", sink=table, unsafe="allow", flush_every=60)
    await through.put(1, Score(1, 5))
    await through.delete(1)
    await through.invalidate(2)
    with pytest.raises(ValueError, match="not today"):
        async with cache.updating(through.key(3)):
            raise ValueError("not today")
    async with cache.updating("plain"):
        pass
    await cache.set("plain", 1, ttl=5)  # changes no database
    await behind.put(4, Score(4, 1))
    await behind.increment(5, points=1)
    await behind.delete(4)
    await behind.get(5)
    await cache.shutdown()
    assert operations(path) == [
        ("put", "1", True),
        ("delete", "1", True),
        ("invalidate", "2", False),
        ("invalidate", "3", True),
        ("put", "plain", True),
        ("put", "4", False),
        ("increment", "5", False),
        ("delete", "4", False),
        ("get", "5", True),
    ]
    keys = {line["op"]: line["key"] for line in recorded(path)}
    assert keys["increment"] == keys["get"], "a key's reads and writes have one name"


async def test_reads_that_fail_or_are_cancelled_are_recorded_too(make_cache: MakeCache, path: Path) -> None:
    cache = await make_cache(record=path)
    gate = Gate()

    async def fail(_: int) -> str:
        raise ValueError("no")

    async def hang(_: int) -> str:
        await gate.stop()
        return ""

    users = CacheAside(cache, "user", type=str)
    with pytest.raises(ValueError, match="no"):
        await users.get(1, load=fail)
    reading = asyncio.ensure_future(users.get(2, load=hang))
    await gate.reached()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await cache.shutdown()
    assert operations(path) == [("get", "1", False), ("get", "2", False)]


async def test_what_does_not_exist_is_told_apart(make_cache: MakeCache, path: Path) -> None:
    async def find(key: int) -> str | None:
        return "it" if key == 1 else None

    cache = await make_cache(record=path)
    users = CacheAside(cache, "user", type=str)
    await users.get(1, load=find)
    await users.get(2, load=find)
    await users.get_many([1, 3], load=find)
    await cache.get("no load tells of this one")
    await cache.shutdown()
    assert [line.get("missing", False) for line in recorded(path)] == [False, True, False, True, False]


async def test_a_sample_has_the_whole_history_of_some_keys(make_cache: MakeCache, path: Path) -> None:
    cache = await make_cache(record=Recorder(path, sample=0.3))
    for _ in range(3):
        await cache.get_many(range(200))
    await cache.shutdown()
    seen = [key for _, key, _ in operations(path)]
    assert 30 < len(set(seen)) < 90
    assert all(seen.count(key) == 3 for key in set(seen))


async def test_hashed_keys_tell_nothing_and_are_the_same_under_the_same_secret(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    found = []
    for name, secret in (("a", b"same secret"), ("b", b"same secret"), ("c", True)):
        async with await make_cache(record=Recorder(tmp_path / name, hash_keys=secret)) as cache:
            await cache.get("ada@example.com")
            await cache.get("ada@example.com")
            await cache.get("bob@example.com")
        await cache.shutdown()
        keys = [line["key"] for line in recorded(tmp_path / name)]
        assert keys[0] == keys[1] != keys[2]
        assert not any("example" in key for key in keys)
        found.append(keys)
    assert found[0] == found[1]
    assert found[0] != found[2]


async def test_recording_stops_before_the_file_is_too_large(
    make_cache: MakeCache, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(path, max_bytes=1000)
    cache = await make_cache(record=recorder)
    for number in range(100):
        await cache.get(number)
    await recorder.flush()
    assert recorder.stats.stopped == "max_bytes=1000 is reached"
    await cache.get(1)
    await cache.shutdown()
    assert 900 < size(path) <= 1000
    assert len(recorded(path)) == recorder.stats.written
    assert recorder.stats.written + recorder.stats.dropped == 101
    assert caplog.text.count("records nothing any more") == 1


async def test_a_full_disk_stops_the_recording_and_not_the_requests(make_cache: MakeCache) -> None:
    recorder = Recorder("/dev/full")
    cache = await make_cache(record=recorder)
    await cache.set("a", 1)
    assert await cache.get("a") == 1
    await recorder.flush()
    assert await cache.get("a") == 1
    assert recorder.stats.stopped is not None
    assert "No space left" in recorder.stats.stopped
    assert recorder.stats.dropped == 2
    assert all(service.ok for service in cache.health().services)


async def test_what_cannot_be_written_in_time_is_dropped_and_counted(path: Path) -> None:
    recorder = Recorder(path)
    recorder.record("get", "before it is open", 0)
    await recorder.open()
    for number in range(50_010):
        recorder.record("get", str(number), recorder.now())
    await recorder.aclose()
    assert (recorder.stats.written, recorder.stats.dropped) == (50_000, 11)


async def test_a_cancelled_flush_loses_and_repeats_nothing(path: Path) -> None:
    recorder = Recorder(path)
    await recorder.open()
    for number in range(20_000):
        recorder.record("get", str(number), recorder.now())
    service = asyncio.ensure_future(recorder.run(lambda: None))
    while recorder._waiting:
        await asyncio.sleep(0)
    service.cancel()
    with pytest.raises(asyncio.CancelledError):
        await service
    await recorder.aclose()
    assert [line["key"] for line in recorded(path)] == [str(number) for number in range(20_000)]


async def test_the_service_writes_without_being_asked(make_cache: MakeCache, path: Path) -> None:
    recorder = Recorder(path)
    cache = await make_cache(record=recorder)
    await cache.get("a")
    async with asyncio.timeout(20):
        while not recorder.stats.written:
            await asyncio.sleep(0.01)
    assert len(recorded(path)) == 1


async def test_a_file_is_appended_to_by_the_next_opening_and_by_another_cache(
    make_cache: MakeCache, path: Path
) -> None:
    one, other = await make_cache(record=path), await make_cache(record=path)
    await one.get("a")
    await other.get("b")
    await one.shutdown()
    await one.startup()
    await one.get("c")
    await one.shutdown()
    await other.shutdown()
    assert sorted(key for _, key, _ in operations(path)) == ["a", "b", "c"]
    assert mode(path) == 0o600, "others may not read what users ask for"


async def test_a_recorder_of_two_caches_records_until_the_last_is_closed(make_cache: MakeCache, path: Path) -> None:
    recorder = Recorder(path)
    one, other = await make_cache(record=recorder), await make_cache(record=recorder)
    await one.get("a")
    await one.shutdown()
    await other.get("b")
    await other.shutdown()
    recorder.record("get", "after the end", 0)
    assert [key for _, key, _ in operations(path)] == ["a", "b"]
    assert (recorder.stats.written, recorder.stats.dropped) == (2, 1)


def test_a_cache_that_is_opened_again_on_another_loop_goes_on_recording(path: Path) -> None:
    recorder = Recorder(path)
    cache = Cache("memory://", namespace="shop", ttl=60, record=recorder)

    async def serve(key: int) -> None:
        async with cache:
            await cache.get(key)
            await asyncio.gather(recorder.flush(), recorder.flush())  # one waits for the other
            before = size(path)
            await cache.get(key)
            async with asyncio.timeout(20):
                while size(path) == before:
                    await asyncio.sleep(0.01)
            assert all(service.ok for service in cache.health().services)

    asyncio.run(serve(1))
    asyncio.run(serve(2))
    assert [key for _, key, _ in operations(path)] == ["1", "1", "2", "2"]


async def test_a_write_is_recorded_for_as_long_as_its_marks_stand(make_cache: MakeCache, path: Path) -> None:
    clock = ManualClock()
    cache = await make_cache(record=Recorder(path, clock=clock))
    store = cache.runtime.store
    apply = store.apply

    async def slow(key: str, step: Any) -> Any:
        clock.advance(1.0)  # on the way there
        return await apply(key, step)

    store.apply = slow  # type: ignore[method-assign]  # the time that it takes is what is tested
    async with cache.updating("a"):
        clock.advance(5.0)
    await cache.shutdown()
    (line,) = recorded(path)
    assert line["cost"] == 6.0, "and not the second before the marks were there"


async def test_times_are_those_of_the_clock(redis_url: str, namespace: str, path: Path) -> None:
    clock = ManualClock(1_000_000.0)
    recorder = Recorder(path, clock=clock)
    await recorder.open()
    recorder.record("get", "a", recorder.now())
    clock.advance(2.5)
    recorder.record("put", "a", recorder.now(), 0.25)
    await recorder.aclose()
    assert recorded(path) == [
        {"t": 1_000_000.0, "op": "get", "key": "a"},
        {"t": 1_000_002.5, "op": "put", "key": "a", "cost": 0.25},
    ]


async def test_a_file_that_cannot_be_written_is_told_when_the_cache_opens(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    cache = Cache(redis_url, namespace=namespace, record=tmp_path / "no folder" / "trace.jsonl")
    with pytest.raises(ConfigurationError, match=r"cannot be written: .*No such file"):
        await cache.startup()


def test_without_record_nothing_records(redis_url: str, namespace: str) -> None:
    cache = Cache(redis_url, namespace=namespace)
    assert cache.runtime.recorder is None
    assert type(cache.runtime.reader) is Reader
    assert type(cache.runtime.writer) is Writer
    assert cache.runtime.reader.direct


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Recorder(""), "path=''"),
        (lambda: Recorder(7), "path=7"),  # type: ignore[arg-type]
        (lambda: Recorder("t", sample=0), "sample=0"),
        (lambda: Recorder("t", sample=True), "sample=True"),
        (lambda: Recorder("t", max_bytes=0), "max_bytes=0"),
        (lambda: Recorder("t", hash_keys=b"short"), "hash_keys"),
        (lambda: Cache("memory://", namespace="n", record=7), "record must be a path"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_by_name(make: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        make()


async def test_a_cache_in_memory_records_too(path: Path) -> None:
    async with Cache("memory://", namespace="n", ttl=5, record=path) as cache:
        await ReadThrough(cache, "user", source=load).get(1)
    assert operations(path) == [("get", "1", True)]
