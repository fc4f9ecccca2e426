"""Keys: two values never share one, and data never becomes structure."""

import datetime as dt
import enum
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from asynccache.errors import ConfigurationError, InvalidKey
from asynccache.keys import KeySpace, check_name, encode_key, encode_part, escape


class Colour(enum.Enum):
    RED = "red"
    BLUE = 1


class Size(enum.IntEnum):
    BIG = 1


class Mood(enum.StrEnum):
    RED = "red"


parts: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.integers(),
        st.text(),
        st.text(alphabet="':{}#/%*?[](),~|\\ \0ab1-\ud800é"),
        st.binary(max_size=12),
        st.booleans(),
        st.none(),
        st.uuids(),
        st.dates(),
        st.datetimes(),
        st.datetimes(timezones=st.just(dt.UTC)),
        st.sampled_from([*Colour, *Size, *Mood]),
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=6,
)


def fingerprint(value: Any) -> Any:
    """What must tell two key values apart: type and value, all the way down."""
    if isinstance(value, tuple):
        return (tuple, *map(fingerprint, value))
    if isinstance(value, dt.datetime):
        return (type(value), value.tzinfo is None, value.isoformat())
    return (type(value), value)


@given(parts, parts)
def test_distinct_values_never_share_a_key(a: Any, b: Any) -> None:
    assert (encode_key(a) == encode_key(b)) == (fingerprint(a) == fingerprint(b))


@pytest.mark.parametrize(
    "pair",
    [
        (1, "1"),
        (None, ""),
        (None, "none"),
        (True, 1),
        (True, "true"),
        ("~true", True),
        (("a:b", "c"), ("a", "b:c")),
        (("a", "b"), "a:b"),
        ((1,), 1),
        (((1, 2), 3), (1, (2, 3))),
        (((1, 2),), (1, 2)),
        (b"a", "a"),
        (b"", ""),
        (Colour.RED, "red"),
        (Colour.RED, Mood.RED),
        (Size.BIG, 1),
        (dt.date(2026, 1, 1), "2026-01-01"),
        (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),  # noqa: DTZ001 - naive on purpose
        (uuid.UUID(int=1), uuid.UUID(int=1).hex),
        ("%3A", ":"),
        ("a" * 300, "a" * 301),
    ],
)
def test_look_alikes_are_told_apart(pair: tuple[Any, Any]) -> None:
    assert encode_key(pair[0]) != encode_key(pair[1])


def test_equal_instants_in_two_zones_are_one_key() -> None:
    noon = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
    assert encode_key(noon) == encode_key(noon.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))))


@given(parts)
def test_data_forms_no_separator_brace_or_wildcard(value: Any) -> None:
    part = encode_part(value)
    assert part.isascii()
    assert not set(part) & set(":{}#/*?[]\\ \0\n")


@given(st.text(min_size=1, max_size=400))
def test_keys_are_bounded(text: str) -> None:
    assert len(KeySpace(("shop",)).cell("user", text)) <= 220


@pytest.mark.parametrize("value", [1.0, object(), [1], {"a": 1}, {1}, 1j, dt.timedelta(1), dt.time(1), (1, [2])])
def test_other_types_are_refused_by_name(value: Any) -> None:
    with pytest.raises(
        InvalidKey, match=r"(float|object|list|dict|set|complex|timedelta|time) .*cannot be part of a key"
    ):
        encode_key(value)


def test_common_keys_are_readable() -> None:
    space = KeySpace(("shop",))
    assert space.cell("user", 42) == "shop:user:42"
    assert space.cell("user", "ada") == "shop:user:ada"
    assert space.cell("user", ("acme", 7)) == "shop:user:acme:7"
    assert space.cell("", "user:42") == "shop::'user%3A42"
    assert space.generation("user:42") == "shop#g:user%3A42"
    assert KeySpace(("shop", "tenant-7")).cell("user", 42) == "shop/tenant-7:user:42"
    assert KeySpace(("shop", "tenant-7")).own_generations() == ("shop#g", "shop/tenant-7#g")


@given(parts, st.integers(0, 99), st.text())
def test_cells_generations_and_buffers_never_collide(value: Any, partition: int, tag: str) -> None:
    space, inner = KeySpace(("shop",)), KeySpace(("shop", "score"))
    names = [
        space.cell("score", value),
        space.cell("", value),
        space.partition_cell("score", partition, value),
        space.generation(tag),
        *space.own_generations(),
        space.buffer("score", partition, "pending"),
        inner.cell("score", value),
        inner.cell("", value),
        inner.generation(tag),
        inner.own_generations()[-1],
        inner.buffer("score", partition, "pending"),
    ]
    assert len(set(names)) == len(names)


@given(parts, st.integers(0, 99))
def test_a_partition_is_in_one_slot_whatever_its_keys_hold(value: Any, partition: int) -> None:
    space = KeySpace(("shop",))
    slots = {
        key_slot(space.partition_cell("score", partition, value).encode()),
        *(key_slot(space.buffer("score", partition, part).encode()) for part in ("pending", "batch", "meta")),
    }
    assert len(slots) == 1


@given(st.text())
def test_escaped_text_is_injective_and_safe(text: str) -> None:
    assert set(escape(text)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@+=-%")


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "a#b", "-a", ".a", "a" * 101, "é", 1, None, b"a"])
def test_bad_names_are_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="namespace="):
        check_name(name, "namespace")
