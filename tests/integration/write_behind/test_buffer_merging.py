"""Random sequences of operations, across freezes: the scripts, the buffer in memory and a plain table agree."""

from __future__ import annotations

import asyncio
import operator
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from asynccache.codecs import Packed, codec_for
from asynccache.entry import NewValue, Value, parse_cell, plain_tail
from asynccache.errors import StoreUnavailable
from asynccache.keys import KeySpace
from asynccache.protocols import Adjust, Append, Delete, Put
from asynccache.stores.redis import RedisStore
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.lane import Outcome, Written
from asynccache.write_behind.layout import Op, parse_record
from asynccache.write_behind.memory_buffer import MemoryBuffer
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows

INT64 = 2**63 - 1


@dataclass(frozen=True)
class Score:
    name: str = "new"
    points: int = 0
    money: Decimal = Decimal(0)
    weight: float = 0.0


CODEC = codec_for(Score)
RECORDS = Records(CODEC, Rows(Score))


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_url)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture(params=[1000, 2, 0], ids="spread above {}".format)
def spread_above(request: pytest.FixtureRequest) -> int:
    """How many keys pend in one hash: all of them, two, or none."""
    return int(request.param)


def some_number(dice: random.Random, column: str) -> Any:
    if column == "points":
        return dice.choice([0, 1, -1, dice.randint(-1000, 1000), INT64 // 4, -INT64 // 4, 10**9, -(10**9)])
    if column == "money":
        digits = dice.choice([10, 10**9 + 1, 10**21])
        return Decimal(dice.randint(-digits, digits)).scaleb(-dice.randint(0, 9))
    # Sums of these are exact in doubles, so that their order does not matter.
    return dice.randint(-1000, 1000) / 8


SQL: dict[str, Callable[[Any, Any], Any]] = {"increment": operator.add, "maximum": max, "minimum": min}


class Table:
    """What SQL would have: rows, and whether what the model does not know was reset."""

    def __init__(self) -> None:
        self.rows: dict[Any, Score] = {}

    def do(self, kind: str, key: Any, given: Any) -> None:
        if kind == "put":
            self.rows[key] = given
        elif kind == "delete":
            self.rows.pop(key, None)
        else:
            row = self.rows.get(key, Score())
            changes = {}
            for column, number in given.items():
                old = getattr(row, column)
                changes[column] = SQL[kind](old, number)
            self.rows[key] = Score(**{**vars(row), **changes})

    def flush(self, writes: list[Any]) -> None:
        for write in writes:
            match write:
                case Put(key, value):
                    self.rows[key] = value
                case Delete(key):
                    self.rows.pop(key, None)
                case Adjust(key, columns, row):
                    old = self.rows.get(key)
                    if old is None:
                        self.rows[key] = row
                        continue
                    changes = {name: adjust(getattr(old, name)) for name, adjust in columns.items()}
                    self.rows[key] = Score(**{**vars(old), **changes})
                case _:
                    raise AssertionError(write)


def operation(kind: str, key: Any, given: Any) -> Op:
    if kind == "put":
        return RECORDS.put_op(key, CODEC.pack(given), None)
    if kind == "delete":
        return RECORDS.delete_op(key)
    make = {"increment": RECORDS.increment_op, "maximum": RECORDS.maximum_op, "minimum": RECORDS.minimum_op}[kind]
    return make(key, given)


@pytest.mark.parametrize("seed", range(8))
async def test_any_sequence_of_operations_gives_what_sql_would(
    store: RedisStore, namespace: str, spread_above: int, seed: int
) -> None:
    dice = random.Random(seed)
    space = KeySpace((namespace,))
    redis = Buffer(store, space, "score", partitions=2, max_pending=1000, spread_above=spread_above)
    memory = MemoryBuffer(space, "score", partitions=2, max_pending=1000)
    expected, database = Table(), Table()
    keys: list[Any] = ["ada", 7, ("eve", 1)]
    in_flight: dict[int, tuple[UUID, UUID]] = {}
    with localcontext(Context(prec=100)):
        for _ in range(60):
            ops = []
            for _ in range(dice.randint(1, 6)):
                kind, key = dice.choice(["put", "delete", *["increment", "maximum", "minimum"] * 2]), dice.choice(keys)
                given: Any = None
                if kind == "put":
                    given = Score("put", *(some_number(dice, column) for column in ("points", "money", "weight")))
                elif kind != "delete":
                    columns = dice.sample(["points", "money", "weight"], dice.randint(1, 3))
                    given = {column: some_number(dice, column) for column in columns}
                ops.append(operation(kind, key, given))
                expected.do(kind, key, given)
            for buffer in (redis, memory):
                assert {written.outcome for written in await buffer.apply(ops)} == {Outcome.ACCEPTED}
            number = dice.randrange(2)
            step = dice.random()
            if step < 0.3 and number not in in_flight:
                frozen, twin = await redis.freeze(number, 1000), await memory.freeze(number, 1000)
                assert (frozen is None) == (twin is None)
                if frozen is not None and twin is not None:
                    assert _parsed(frozen.records) == _parsed(twin.records)
                    in_flight[number] = (frozen.id, twin.id)
            elif step < 0.6 and number in in_flight:
                frozen = await redis.freeze(number, 1000)
                assert frozen is not None
                database.flush([RECORDS.write(record) for record in frozen.records.values()])
                await redis.ack(number, in_flight[number][0])
                await memory.ack(number, in_flight.pop(number)[1])
            for buffer in (redis, memory):
                found = await buffer.lookup(keys)
                for key in keys:
                    above, below, _, _ = found[key]
                    value = RECORDS.fold(RECORDS.fold(database.rows.get(key), below), above)
                    assert value == expected.rows.get(key)


def _parsed(records: Any) -> dict[bytes, Any]:
    return {field: parse_record(record) for field, record in records.items()}


async def test_a_put_after_a_delete_is_a_new_row_and_one_after_a_put_is_not(
    store: RedisStore, namespace: str, spread_above: int
) -> None:
    buffer = Buffer(store, KeySpace((namespace,)), "score", partitions=1, max_pending=10, spread_above=spread_above)
    put = CODEC.pack(Score("x"))
    await buffer.apply([RECORDS.delete_op(1), RECORDS.put_op(1, put, None), RECORDS.put_op(1, put, None)])
    await buffer.apply([RECORDS.put_op(2, put, None), RECORDS.put_op(2, put, None)])
    await buffer.apply([RECORDS.delete_op(3), RECORDS.increment_op(3, {"points": 2})])
    frozen = await buffer.freeze(0, 10)
    assert frozen is not None
    writes = {
        write.key: write for write in map(RECORDS.write, frozen.records.values()) if not isinstance(write, Append)
    }
    assert writes[1] == Put(1, Score("x"), anew=True)
    assert writes[2] == Put(2, Score("x"))
    assert writes[3] == Put(3, Score(points=2), anew=True)


async def test_appended_rows_keep_apart_whatever_they_hold(
    store: RedisStore, namespace: str, spread_above: int
) -> None:
    buffer = Buffer(store, KeySpace((namespace,)), "score", partitions=4, max_pending=100, spread_above=spread_above)
    packed = CODEC.pack(Score("same"))
    await buffer.apply([RECORDS.append_op(packed) for _ in range(20)])
    rows = []
    for number in range(4):
        frozen = await buffer.freeze(number, 100)
        rows += [RECORDS.write(record) for record in frozen.records.values()] if frozen else []
    assert rows == [Append(Score("same"))] * 20


async def test_a_sum_that_would_lose_digits_is_refused_and_changes_nothing(
    store: RedisStore, namespace: str, spread_above: int
) -> None:
    space = KeySpace((namespace,))
    for buffer in (
        Buffer(store, space, "score", partitions=1, max_pending=10, spread_above=spread_above),
        MemoryBuffer(space, "score", partitions=1, max_pending=10),
    ):
        most = Decimal("999999999999999999999999.999999999")
        ops = [RECORDS.increment_op("a", {"money": amount}) for amount in (most, Decimal("0.000000001"), Decimal(-1))]
        assert [written.outcome for written in await buffer.apply(ops)] == [
            Outcome.ACCEPTED,
            Outcome.OUT_OF_RANGE,
            Outcome.ACCEPTED,
        ]
        record = (await buffer.lookup(["a"]))["a"].pending
        value = RECORDS.fold(None, record)
        assert value is not None
        assert value.money == Decimal("999999999999999999999998.999999999")
        huge = [RECORDS.increment_op("b", {"weight": 1.7e308}) for _ in range(2)]
        assert [w.outcome for w in await buffer.apply(huge)] == [Outcome.ACCEPTED, Outcome.OUT_OF_RANGE]


async def test_a_put_is_readable_at_once_and_any_other_write_empties_the_cell(
    store: RedisStore, namespace: str, spread_above: int
) -> None:
    buffer = Buffer(store, KeySpace((namespace,)), "score", partitions=1, max_pending=10, spread_above=spread_above)
    packed = CODEC.pack(Score("x"))
    readable = NewValue(packed.payload, 60_000, 60_000, b"12345678")
    for after in (RECORDS.delete_op(1), RECORDS.increment_op(1, {"points": 1}), RECORDS.put_op(1, packed, None)):
        await buffer.apply([RECORDS.put_op(1, packed, readable)])
        (cell,) = await store.read([buffer.cell(1)])
        assert cell is not None
        assert cell.endswith(packed.payload)
        await buffer.apply([after])
        assert list(await store.read([buffer.cell(1)])) == [None]
        # In one call, too: the last one counts.
        await buffer.apply([after, RECORDS.put_op(1, packed, readable)])
        assert list(await store.read([buffer.cell(1)])) != [None]
        await buffer.apply([RECORDS.put_op(1, packed, readable), after])
        assert list(await store.read([buffer.cell(1)])) == [None]


async def test_a_full_buffer_refuses_new_keys_and_takes_those_it_has(
    store: RedisStore, namespace: str, spread_above: int
) -> None:
    space = KeySpace((namespace,))
    for buffer in (
        Buffer(store, space, "score", partitions=1, max_pending=2, spread_above=spread_above),
        MemoryBuffer(space, "score", partitions=1, max_pending=2),
    ):
        ops = [RECORDS.increment_op(key, {"points": 1}) for key in ("a", "b", "c", "a")]
        assert [written.outcome for written in await buffer.apply(ops)] == [
            Outcome.ACCEPTED,
            Outcome.ACCEPTED,
            Outcome.FULL,
            Outcome.ACCEPTED,
        ]
        assert (await buffer.status(0)).pending == 2


@pytest.mark.parametrize("size", [1, 5000])
async def test_a_batch_is_no_larger_than_asked_and_the_rest_still_pends(
    store: RedisStore, namespace: str, spread_above: int, size: int
) -> None:
    space = KeySpace((namespace,))
    for buffer in (
        Buffer(store, space, "score", partitions=1, max_pending=10_000, spread_above=spread_above),
        MemoryBuffer(space, "score", partitions=1, max_pending=10_000),
    ):
        packed = CODEC.pack(Score("x" * 1000))
        await buffer.apply([RECORDS.put_op(key, packed, None) for key in range(2500)])
        frozen = await buffer.freeze(0, 2000, size)
        assert frozen is not None
        # Less, where not even the smallest hash of those that are left fits into it, too.
        fits = max(1, size // 1100)
        assert (1 if spread_above < fits else fits) <= len(frozen.records) <= fits
        status = await buffer.status(0)
        assert status.pending + status.in_batch == 2500
        again = await buffer.freeze(0, 2000, size)
        assert again == frozen
        await buffer.ack(0, frozen.id)
        everything = await buffer.freeze(0, 10_000)
        assert everything is not None
        assert len(everything.records) == 2500 - len(frozen.records)
        assert not everything.records.keys() & frozen.records.keys()


async def test_a_partition_that_refuses_leaves_those_that_share_its_command_alone(
    store: RedisStore, redis: Redis, namespace: str
) -> None:
    buffer = Buffer(store, KeySpace((namespace,)), "score", partitions=4, max_pending=100)
    broken = buffer.partition_of(0)
    await redis.set(buffer._partitions[broken].pending, "no hash")
    ops = {key: RECORDS.increment_op(key, {"points": 1}) for key in range(40)}
    results = await asyncio.gather(*(buffer.apply_one(op) for op in ops.values()), return_exceptions=True)
    for key, result in zip(ops, results, strict=True):
        if buffer.partition_of(key) == broken:
            assert isinstance(result, StoreUnavailable)
            assert "WRONGTYPE" in str(result)
        else:
            assert isinstance(result, Written)
            assert result.outcome is Outcome.ACCEPTED
    taken = [key for key in ops if buffer.partition_of(key) != broken]
    found = await buffer.lookup(taken)
    assert {RECORDS.fold(None, found[key].pending) for key in taken} == {Score(points=1)}


@pytest.mark.parametrize("together", [True, False])
async def test_more_writes_than_share_a_command_are_each_merged_once(
    store: RedisStore, namespace: str, together: bool
) -> None:
    buffer = Buffer(store, KeySpace((namespace,)), "score", partitions=8, max_pending=1000, together=together)
    ops = [RECORDS.increment_op(key % 500, {"points": 1}) for key in range(1500)]
    singles = asyncio.gather(*map(buffer.apply_one, ops))
    written = [*await buffer.apply(ops), *await singles]
    assert {one.outcome for one in written} == {Outcome.ACCEPTED}
    found = await buffer.lookup(range(500))
    assert {RECORDS.fold(None, buffered.pending) for buffered in found.values()} == {Score(points=6)}


@pytest.mark.parametrize("generations", [[], [("shop#g", b"G" + bytes(12)), ("shop#g:x", b"G" + bytes(12))]])
async def test_the_cell_of_a_put_is_what_any_other_writer_of_cells_makes(
    store: RedisStore, namespace: str, generations: list[tuple[str, bytes]]
) -> None:
    buffer = Buffer(store, KeySpace((namespace,)), "score", partitions=1, max_pending=10)
    packed = CODEC.pack(Score("x"))
    tail = plain_tail(CODEC.fingerprint, generations)
    await buffer.apply([RECORDS.cached_put_op(1, packed, tail, (50_000, 60_000))])
    (raw,) = await store.read([buffer.cell(1)])
    value = parse_cell(raw)
    assert isinstance(value, Value)
    new = NewValue(
        packed.payload, 50_000, 60_000, value.id, CODEC.id, False, False, 0, CODEC.fingerprint, (*generations,)
    )
    assert raw == new.pack(value.fresh_until - 50_000)
    assert any(value.id)
    record = (await buffer.lookup([1]))[1].pending
    assert record == RECORDS.put_op(1, packed, None).record()
    with pytest.raises(ValueError, match="use `put_op`"):
        RECORDS.cached_put_op(1, Packed(packed.payload, True), tail, (1, 1))
