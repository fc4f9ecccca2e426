"""A batch of records is read as its records are, one by one, or fails as they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.codecs import Packed, codec_for
from asynccache.errors import DecodeError
from asynccache.protocols import Put, Puts
from asynccache.write_behind.layout import Op
from asynccache.write_behind.merging import merge
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows


@dataclass
class Score:
    id: int
    points: int = 0


@dataclass
class Older:
    id: int


@dataclass
class Newer:
    id: int
    points: int = 0
    rank: str = "none"


RECORDS: Records[Any] = Records(codec_for(Score), Rows(Score, key=("id",)))
KEYS = st.one_of(
    st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.text(max_size=2)), st.just(UUID(int=7))
)


def put(key: Any, points: int = 1, type_: Any = Score) -> Op:
    records: Records[Any] = Records(codec_for(type_), Rows(type_, key=("id",)))
    value = type_(1) if type_ is Older else type_(1, points)
    return records.put_op(key, codec_for(type_).pack(value), None)


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    records = []
    others = draw(st.booleans())
    for key in draw(st.lists(KEYS, min_size=1, max_size=6)):
        kind = draw(st.sampled_from(["put", "deleted", "anew", "adjusted", "older", "newer"])) if others else "put"
        record = merge(None, put(key, draw(st.integers(0, 2**40))))
        if kind == "deleted":
            record = merge(record, RECORDS.delete_op(key))
        elif kind == "anew":
            record = merge(merge(None, RECORDS.delete_op(key)), put(key))
        elif kind == "adjusted":
            record = merge(record, RECORDS.increment_op(key, {"points": 5}))
        elif kind != "put":
            record = put(key, type_=Older if kind == "older" else Newer).record()
        assert record is not None
        records.append(record)
    return records


@given(batches())
def test_many_records_are_read_as_each_of_them_is(records: list[bytes]) -> None:
    assert list(RECORDS.writes(records)) == [RECORDS.write(record) for record in records]


def test_plain_puts_are_read_by_column() -> None:
    writes = RECORDS.writes([put(key, key).record() for key in range(3)])
    assert isinstance(writes, Puts)
    assert list(writes) == [Put(key, Score(1, key)) for key in range(3)]


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x01\x02"])
def test_one_record_that_cannot_be_read_is_not_read_as_another_ones(damage: bytes) -> None:
    bad = RECORDS.put_op(2, Packed(damage, False), None).record()
    with pytest.raises(DecodeError):
        RECORDS.writes([put(1).record(), bad, put(3).record()])


def test_an_older_models_record_is_upgraded_among_those_of_this_one() -> None:
    upgrades: Any = {(2, codec_for(Older).fingerprint): lambda *_: (Score(1, 77), Packed(b"", False))}
    records: Records[Any] = Records(codec_for(Score), Rows(Score, key=("id",)), upgrades)
    writes = records.writes([put(1).record(), put(2, type_=Older).record()])
    assert list(writes) == [Put(1, Score(1, 1)), Put(2, Score(1, 77))]


def test_what_says_that_it_is_compressed_is_not_read_as_it_is() -> None:
    wrong = RECORDS.put_op(2, Packed(codec_for(Score).encode(Score(2)), True), None).record()
    with pytest.raises(DecodeError):
        RECORDS.writes([put(1).record(), wrong])


def test_what_one_record_lacks_is_not_taken_from_another() -> None:
    good = put(1).record()
    with pytest.raises(DecodeError):
        RECORDS.writes([good + put(2).record()[6:], b"P\x00\x00\x00\x01\x94"])


def test_a_compressed_value_is_read() -> None:
    packer = codec_for(str, compress_above=10)
    records: Records[str] = Records(packer)
    many = [records.put_op(key, packer.pack("x" * 10**key), None).record() for key in (1, 3)]
    assert list(records.writes(many)) == [Put(1, "x" * 10), Put(3, "x" * 1000)]


def damaged_head(*parts: object) -> bytes:
    head = msgspec.msgpack.encode(parts)
    return b"P" + len(head).to_bytes(4, "big") + head


@pytest.mark.parametrize(
    "damaged",
    [
        damaged_head(5, RECORDS._codec.fingerprint, False, b"\x80"),
        damaged_head(b"\x05", RECORDS._codec.fingerprint, False, 5),
        damaged_head(b"\x05", [], False, b"\x80"),
        damaged_head(b"\x05", RECORDS._codec.fingerprint, 7, b"\x80"),
        damaged_head(b"\x05", RECORDS._codec.fingerprint),
        damaged_head(b"\x05", RECORDS._codec.fingerprint, False, b"\x80")[:-1] + b"\xc1\xc1",
    ],
)
def test_a_damaged_head_is_a_damaged_record_among_good_ones(damaged: bytes) -> None:
    with pytest.raises(DecodeError):
        RECORDS.writes([put(1).record(), damaged, put(3).record()])


@pytest.mark.parametrize("damaged", [b"", b"P", b"P\x00\x00\x00\x09abc", b"Z\x00\x00\x00\x00"])
def test_what_is_no_record_is_said_to_be_none(damaged: bytes) -> None:
    with pytest.raises(DecodeError):
        RECORDS.writes([put(1).record(), damaged])


@given(st.lists(st.one_of(st.integers(), st.text(), st.tuples(st.integers()), st.sets(st.integers()), st.none())))
def test_values_without_a_type_are_decoded_together_as_they_are_alone(values: list[Any]) -> None:
    codec = codec_for(Any)
    payloads = [codec.encode(value) for value in values]
    assert codec.decode_all(payloads) == [codec.decode(payload) for payload in payloads]
