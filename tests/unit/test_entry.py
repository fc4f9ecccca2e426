"""The wire format: what is packed is read back, and no bytes are an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.entry import (
    GENERATION_BYTES,
    HEADER_BYTES,
    NO_TOKEN,
    Lease,
    NewValue,
    Unreadable,
    Value,
    Writer,
    Writing,
    generation_micros,
    is_generation,
    pack_generation,
    parse_cell,
    with_refresh,
)

U64 = st.integers(0, 2**63 - 1)
TOKEN = st.binary(min_size=8, max_size=8)
GENERATION = st.builds(pack_generation, U64, st.binary(min_size=4, max_size=4))
TAGS = st.lists(st.tuples(st.text(max_size=20), GENERATION), max_size=5).map(tuple)
LIFE = st.integers(0, 10 * 365 * 86_400_000)
NEW_VALUES = st.builds(
    NewValue,
    payload=st.binary(max_size=100),
    fresh_ms=LIFE,
    dead_ms=LIFE,
    id=TOKEN,
    codec=st.integers(0, 255),
    compressed=st.booleans(),
    not_found=st.booleans(),
    cost_us=st.integers(0, 2**50),
    fingerprint=TOKEN,
    tags=TAGS,
)


@given(new=NEW_VALUES, now=st.integers(0, 2**45))
def test_a_value_is_read_back_as_it_was_written(new: NewValue, now: int) -> None:
    assert parse_cell(new.pack(now)) == Value(
        codec=new.codec,
        compressed=new.compressed,
        not_found=new.not_found,
        fresh_until=now + new.fresh_ms,
        dead_after=now + new.dead_ms,
        cost_us=min(new.cost_us, 2**32 - 1),
        id=new.id,
        refresh_token=NO_TOKEN,
        refresh_until=0,
        fingerprint=new.fingerprint,
        tags=new.tags,
        payload=new.payload,
    )


@given(new=NEW_VALUES, now=st.integers(0, 2**45), token=TOKEN, until=U64)
def test_a_refresh_lease_changes_nothing_else(new: NewValue, now: int, token: bytes, until: int) -> None:
    raw = new.pack(now)
    before, after = parse_cell(raw), parse_cell(with_refresh(raw, token, until))
    assert isinstance(before, Value)
    assert isinstance(after, Value)
    assert (after.refresh_token, after.refresh_until) == (token, until)
    assert parse_cell(with_refresh(with_refresh(raw, token, until), NO_TOKEN, 0)) == before


@given(new=NEW_VALUES, now=st.integers(0, 2**45))
def test_what_the_server_puts_together_is_what_is_packed(new: NewValue, now: int) -> None:
    life = (now + new.fresh_ms).to_bytes(8, "big") + (now + new.dead_ms).to_bytes(8, "big")
    assert new.head() + life + new.rest() == new.pack(now)


@given(TOKEN)
def test_a_lease_is_read_back(token: bytes) -> None:
    assert parse_cell(b"L" + token) == Lease(token)


@given(st.booleans(), st.lists(st.builds(Writer, TOKEN, U64), max_size=5))
def test_writers_in_flight_are_read_back(overlapped: bool, writers: list[Writer]) -> None:
    cell = Writing(overlapped, tuple(writers))
    assert parse_cell(cell.pack()) == cell


@given(U64, st.binary(min_size=4, max_size=4))
def test_a_generation_is_read_back_and_is_no_cell(micros: int, salt: bytes) -> None:
    raw = pack_generation(micros, salt)
    assert len(raw) == GENERATION_BYTES
    assert is_generation(raw)
    assert generation_micros(raw) == micros
    assert parse_cell(raw) == Unreadable()


def test_nothing_is_an_empty_cell() -> None:
    assert parse_cell(None) is None


@given(st.one_of(st.binary(max_size=200), st.builds(bytes.__add__, st.sampled_from([b"V\x01", b"L", b"W0", b"W1", b"G"]), st.binary(max_size=200))))  # fmt: skip
def test_no_bytes_are_an_error(raw: bytes) -> None:
    parse_cell(raw)
    parse_cell(raw, tags=False)
    is_generation(raw)


@given(new=NEW_VALUES, cut=st.integers(0, 1000))
def test_a_value_cut_short_is_unreadable_or_has_a_shorter_payload(new: NewValue, cut: int) -> None:
    raw = new.pack(0)
    short = raw[: len(raw) - 1 - cut % len(raw)]
    found = parse_cell(short)
    if len(short) < len(raw) - len(new.payload):
        assert found == Unreadable()
    else:
        assert isinstance(found, Value)
        assert new.payload.startswith(found.payload)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_unreadable(version: int) -> None:
    raw = NewValue(b"x", 1, 1, b"12345678").pack(0)
    assert parse_cell(raw[:1] + bytes([version]) + raw[2:]) == Unreadable()


@pytest.mark.parametrize(
    "tags",
    [b"\x00", b"\x00\x05ab", b"\x00\x02ab" + bytes(12), b"\xff\xff", b"\x00\x02\xff\xfe" + bytes(13)],
    ids=["half a length", "name cut short", "generation cut short", "length beyond the end", "name not UTF-8"],
)
def test_damaged_tags_make_a_value_unreadable_but_for_its_id(tags: bytes) -> None:
    whole = NewValue(b"", 1, 1, b"12345678").pack(0)
    raw = whole[: HEADER_BYTES - 2] + len(tags).to_bytes(2, "big") + tags
    assert parse_cell(raw) == Unreadable()
    head = parse_cell(raw, tags=False)
    assert isinstance(head, Value)
    assert head.id == b"12345678"
    assert raw[24:32] == head.id


@pytest.mark.parametrize("raw", [None, b"", b"G", b"G" * 12, b"G" * 14, b"V" + b"G" * 12])
def test_other_bytes_are_no_generation(raw: bytes | None) -> None:
    assert not is_generation(raw)
