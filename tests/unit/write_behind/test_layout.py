"""Heads are put together by hand, for speed: byte for byte what msgspec writes and reads, whatever they hold."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from asynccache.codecs import Packed, codec_for
from asynccache.entry import NewValue, plain_tail
from asynccache.write_behind.layout import Head, Op, parse_record
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows

CODEC = codec_for(str)
RECORDS: Records[str] = Records(CODEC, Rows(str))
KEYS = (0, -1, 200, 2**63 - 1, -(2**63), 2**63, 10**250, "", "a", "é" * 300, "x" * 70_000, ("a", 1), UUID(int=7), None)
SIZES = (0, 1, 31, 32, 255, 256, 65_535, 65_536, 200_000)
TAIL = plain_tail(CODEC.fingerprint, [])


def head_of(op: Op) -> Head:
    raw = parse_record(op.record()).head
    head = msgspec.msgpack.decode(raw, type=Head)
    assert msgspec.msgpack.encode(head) == raw
    return head


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{type(key).__name__}-{str(key)[:12]}")
def test_a_key_of_any_kind_and_size_comes_back(key: Any) -> None:
    packed = CODEC.pack("value")
    for op in (RECORDS.put_op(key, packed, None), RECORDS.cached_put_op(key, packed, TAIL, (1, 2))):
        assert head_of(op) == Head(codec_for(Any).pack(key).payload, CODEC.fingerprint, False, packed.payload)
    assert head_of(RECORDS.delete_op(key)) == Head(codec_for(Any).pack(key).payload)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_value_of_any_size_comes_back(size: int, compressed: bool) -> None:
    packed = Packed(b"v" * size, compressed)
    ops = [RECORDS.put_op(1, packed, None), RECORDS.append_op(packed)]
    if not compressed:
        ops.append(RECORDS.cached_put_op(1, packed, TAIL, (1, 2)))
    for op in ops:
        head = head_of(op)
        assert (head.fingerprint, head.compressed, head.payload) == (CODEC.fingerprint, compressed, packed.payload)


@pytest.mark.parametrize("size", SIZES)
def test_a_put_with_its_cell_is_the_same_on_both_ways(size: int) -> None:
    packed = Packed(b"v" * size, False)
    quick = RECORDS.cached_put_op(1, packed, TAIL, (50_000, 60_000))
    token = quick.raw[len(quick.raw) - size - len(TAIL) - 8 :][:8]
    cell = NewValue(packed.payload, 50_000, 60_000, token, CODEC.id, fingerprint=CODEC.fingerprint)
    assert quick == RECORDS.put_op(1, packed, cell)
