"""Damaged payloads: cut, flipped, made up. A reader sees a miss, never another error, and never half a value."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.codecs import Codec, codec_for
from asynccache.errors import DecodeError
from tests.unit.codecs.models import (
    Array,
    Camel,
    Circle,
    Holder,
    Inner,
    Note,
    Order,
    Row,
    Square,
    User,
    everything,
    order,
    orders,
    users,
    values,
)

SAMPLES: list[tuple[Any, Any]] = [
    (Any, everything()),
    (User, User(1, "ada", Decimal(2), {"x", "y"})),
    (list[User], [User(1, "ada"), User(2, "bob")]),
    (Circle | Square, Square(2.0)),
    (Row, {"id": 1}),
    (Order, order(7, lines=[Inner(price=Decimal("1.5"))], raw=b"abc", weight=2.0)),
    (list[Inner], [Inner(price=Decimal(1))] * 3),
    (Note, Note("a", extra=(1, {2}), more={"b": Decimal(3)})),
    (Camel, Camel("a", {1: 2})),
    (Array, Array(1, (2,))),
    (Holder, Holder(Inner(price=Decimal(1)))),
    (dict[str, Any], everything()),
]


@pytest.mark.parametrize(("type_", "value"), SAMPLES)
def test_a_payload_cut_anywhere_is_refused(type_: Any, value: Any) -> None:
    codec = codec_for(type_)
    payload = codec.encode(value)
    for end in range(len(payload)):
        with pytest.raises(DecodeError):
            codec.decode(payload[:end])
    for more in (b"\x00", b"\xc0", payload):
        with pytest.raises(DecodeError):
            codec.decode(payload + more)


@pytest.mark.parametrize(("type_", "value"), SAMPLES)
def test_a_payload_with_a_flipped_bit_is_a_value_of_its_type_or_refused(type_: Any, value: Any) -> None:
    codec = codec_for(type_)
    payload = codec.encode(value)
    for at in range(len(payload) * 8):
        damaged = bytearray(payload)
        damaged[at // 8] ^= 1 << at % 8
        _read(codec, bytes(damaged))


def _read(codec: Codec[Any], payload: bytes) -> None:
    try:
        found = codec.decode(payload)
    except DecodeError:
        return
    # A value of the type can be written again, and comes back as the same type.
    assert type(codec.decode(codec.encode(found))) is type(found)


@pytest.mark.parametrize("type_", [type_ for type_, _ in SAMPLES])
@given(payload=st.binary(max_size=200))
def test_made_up_bytes_are_a_value_of_the_type_or_refused(type_: Any, payload: bytes) -> None:
    _read(codec_for(type_), payload)


@pytest.mark.parametrize("type_", [type_ for type_, _ in SAMPLES])
@given(value=st.one_of(values, users, orders), cut=st.integers(0, 200), patch=st.binary(max_size=8))
def test_values_with_a_patch_are_values_or_refused(type_: Any, value: Any, cut: int, patch: bytes) -> None:
    payload = codec_for().encode(value)
    _read(codec_for(type_), payload)
    _read(codec_for(type_), payload[:cut] + patch + payload[cut + len(patch) :])


@pytest.mark.parametrize(("type_", "value"), SAMPLES)
@pytest.mark.parametrize("other", [type_ for type_, _ in SAMPLES])
def test_bytes_of_another_type_are_refused_or_a_value_of_this_one(type_: Any, value: Any, other: Any) -> None:
    _read(codec_for(other), codec_for(type_).encode(value))
