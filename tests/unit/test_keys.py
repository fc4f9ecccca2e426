"""Keys: two values never share one, and data never becomes structure."""

import datetime as dt
import enum
import hashlib
import string
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from asyncpg.pgproto import pgproto
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from asynccache.errors import ConfigurationError, InvalidKey
from asynccache.keys import CellKey, KeySpace, check_name, encode_key, encode_part, escape


class Colour(enum.Enum):
    RED = "red"
    BLUE = 1


class Size(enum.IntEnum):
    BIG = 1


class Mood(enum.StrEnum):
    RED = "red"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Outer:
    class Colour(enum.Enum):
        RED = "red"


Dotted = enum.Enum("Outer", {"Colour.RED": "red"})  # type: ignore[misc]  # named like the one in Outer


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
        st.times(),
        st.times(timezones=st.just(dt.UTC)),
        st.integers(10**198, 10**200),
        st.sampled_from([*Colour, *Size, *Mood, *Outer.Colour, *Dotted, *Right, Right(0), Right(3)]),
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=6,
)


hostile = st.text(alphabet="':{}#/%*?[](),~.|\\ \0ab1gw-\ud800é", max_size=30)


def fingerprint(value: Any) -> Any:
    """What must tell two key values apart: type and value, all the way down."""
    if isinstance(value, tuple):
        return (tuple, *map(fingerprint, value))
    if isinstance(value, dt.datetime | dt.time):
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
        (("a", ""), "a"),
        ((), ""),
        ((), ((),)),
        ((), None),
        (("a,b",), ("a", "b")),
        ((("a", "b"), "c"), ("a", ("b", "c"))),
        ("(a,b)", (("a", "b"),)),
        ("~h" + "0" * 32, "a" * 300),
        ("'a", "a"),
        ("A", "a"),
        ("é", "e\u0301"),
        ("\ud800", "\udfff"),
        (-1, "-1"),
        (10**5000, 10**5000 + 1),
        (10**300, f"{10**300}"),
        (dt.time(1), dt.time(1, tzinfo=dt.UTC)),
        (dt.time(0), dt.date(1, 1, 1)),
        (Right.READ | Right.WRITE, Right(0)),
        (Outer.Colour.RED, Colour.RED),
        (Outer.Colour.RED, Dotted["Colour.RED"]),
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


@given(st.datetimes(), st.integers(-23 * 60, 23 * 60), st.integers(-23 * 60, 23 * 60))
def test_equal_instants_in_two_zones_are_one_key(local: dt.datetime, one: int, other: int) -> None:
    here, there = (dt.timezone(dt.timedelta(minutes=offset)) for offset in (one, other))
    first, second = local.replace(tzinfo=here), local.replace(tzinfo=there)
    assert (encode_key(first) == encode_key(second)) == (first == second)
    assert (encode_key(first.timetz()) == encode_key(second.timetz())) == (first.timetz() == second.timetz())
    if 1 < local.year < 9999:
        assert encode_key(first) == encode_key(first.astimezone(there))


def test_instants_beyond_the_years_that_utc_can_write_have_keys_too() -> None:
    zones = [dt.timezone(dt.timedelta(hours=hours)) for hours in (1, 0, -1)]
    edges = [dt.datetime(1, 1, 1, tzinfo=zone) for zone in zones]
    edges += [dt.datetime(9999, 12, 31, 23, 59, tzinfo=zone) for zone in zones]
    assert len({encode_key(edge) for edge in edges}) == 6


def test_an_hour_that_comes_twice_is_two_keys_in_its_zone_and_one_without() -> None:
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    early, late = (dt.datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1))
    assert encode_key(early) != encode_key(late)
    assert encode_key(early.replace(tzinfo=None)) == encode_key(late.replace(tzinfo=None))


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Number(int):
    def __int__(self) -> int:
        return 0


class Pair(NamedTuple):
    left: str
    right: int


class Moment(dt.datetime):
    def isoformat(self, *args: Any, **options: Any) -> str:
        return "now"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text("ada"), "ada"),
        (Text("4 2"), "4 2"),
        (Number(42), 42),
        (Pair("a", 1), ("a", 1)),
        ((Pair("a", 1), 2), (("a", 1), 2)),
        (Moment(2026, 1, 1), dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - naive on purpose
        (pgproto.UUID("12345678-1234-5678-1234-567812345678"), uuid.UUID("12345678-1234-5678-1234-567812345678")),
        (CellKey("shop:user:1"), "shop:user:1"),
    ],
)
def test_a_subclass_is_its_base_whatever_it_overrides(value: Any, plain: Any) -> None:
    assert encode_key(value) == encode_key(plain)


def test_the_encoding_of_each_type_stays_what_it_is() -> None:
    """A release that changes these loses every stored entry; do it on purpose."""
    assert {repr(value): encode_key(value) for value in GOLDEN} == {repr(v): text for v, text in GOLDEN.items()}


GOLDEN: dict[Any, str] = {
    42: "42",
    -7: "-7",
    10**199: f"~i{10**199:x}",
    "ada": "ada",
    "_a.b@c+d=e-f": "_a.b@c+d=e-f",
    "": "'",
    "42": "'42",
    "a b": "'a%20b",
    "é": "'%C3%A9",
    "\ud800": "'%ED%A0%80",
    ":{}#/%*?[](),'~": "'%3A%7B%7D%23%2F%25%2A%3F%5B%5D%28%29%2C%27%7E",
    None: "~none",
    True: "~true",
    b"\x00a": "~x0061",
    uuid.UUID(int=1): "~u00000000000000000000000000000001",
    dt.date(2026, 1, 31): "~d2026-01-31",
    dt.datetime(2026, 1, 31, 12, 30): "~n2026-01-31T12%3A30%3A00",  # noqa: DTZ001 - naive on purpose
    dt.datetime(2026, 1, 31, 12, 30, tzinfo=dt.UTC): "~z2026-01-31T12%3A30%3A00",
    dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))): "~z-3600000000",
    dt.time(12, 30, 0, 5): "~t12%3A30%3A00.000005",
    dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=2))): "~o-3600000000",
    Colour.RED: "~eColour.RED",
    Outer.Colour.RED: "~eOuter.Colour.RED",
    Dotted["Colour.RED"]: "~eOuter.Colour%2ERED",
    Right.READ | Right.WRITE: "~eRight.3",
    (): "()",
    (1,): "(1)",
    ("acme", 7): "acme:7",
    ("a", ("b", 1), ()): "a:(b,1):()",
    "a" * 200: "a" * 200,
    "a" * 201: "~h" + hashlib.blake2b(b"a" * 201, digest_size=16).hexdigest(),
}


@given(parts)
def test_data_forms_no_separator_brace_or_wildcard(value: Any) -> None:
    part = encode_part(value)
    assert part.isascii()
    assert not set(part) & set(":{}#/*?[]\\ \0\n")


@given(st.text(min_size=1, max_size=400))
def test_keys_are_bounded(text: str) -> None:
    assert len(KeySpace(("shop",)).cell("user", text)) <= 220


@pytest.mark.parametrize("value", [1.0, object(), [1], {"a": 1}, {1}, 1j, dt.timedelta(1), Decimal(1), (1, [2])])
def test_other_types_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidKey, match=r"\.(float|object|list|dict|set|complex|timedelta|Decimal) cannot be part of"):
        encode_key(value)


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (1.5, "round it"),
        (Decimal("1.0"), r"str\(value\)"),
        ([1], r"tuple\(value\)"),
        ({1}, r"tuple\(sorted\(value\)\)"),
        (bytearray(), r"bytes\(value\)"),
        (object(), "turn it into one of these"),
        (dt.time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), "has no offset"),
    ],
)
def test_the_message_says_what_to_do_instead(value: Any, fix: str) -> None:
    with pytest.raises(InvalidKey, match=fix):
        encode_key(value)


def test_a_refused_value_is_never_printed() -> None:
    class Secret:
        def __repr__(self) -> str:
            raise AssertionError("asked for its repr")

    with pytest.raises(InvalidKey, match="Secret"):
        encode_key((1, Secret()))


def test_nanoseconds_are_refused_and_not_lost() -> None:
    class Timestamp(dt.datetime):
        nanosecond = 1

    with pytest.raises(InvalidKey, match="nanoseconds"):
        encode_key(Timestamp(2026, 1, 1))


def test_common_keys_are_readable() -> None:
    space = KeySpace(("shop",))
    assert space.cell("user", 42) == "shop:user:42"
    assert space.cell("user", "ada") == "shop:user:ada"
    assert space.cell("user", ("acme", 7)) == "shop:user:acme:7"
    assert space.cell("", "user:42") == "shop::'user%3A42"
    assert space.generation("user:42") == "shop#g:user%3A42"
    assert KeySpace(("shop", "tenant-7")).cell("user", 42) == "shop/tenant-7:user:42"
    assert KeySpace(("shop", "tenant-7")).own_generations() == ("shop#g", "shop/tenant-7#g")


NAMESPACES = [("shop",), ("shop", "score"), ("shop", "g"), ("shop-g",), ("score",), ("shop", "score", "user")]
names = st.sampled_from(["score", "user", "g", "w", "0", "_", "a.b", "a.1", "a"])
tags = st.one_of(hostile, st.sampled_from(["", "user:42", "g", "#g", "score.1"]))


def _made(space: KeySpace, kind: str, name: str, value: Any, partition: int, tag: str) -> tuple[Any, str]:
    """What a key stands for, and the key."""
    match kind:
        case "cell":
            return (kind, name, fingerprint(value)), space.cell(name, value)
        case "plain":
            return (kind, fingerprint(value)), space.cell("", value)
        case "partition":
            return (kind, name, partition, fingerprint(value)), space.partition_cell(name, partition, value)
        case "generation":
            return (kind, tag), space.generation(tag)
        case "own":
            return (kind,), space.own_generations()[-1]
        case _:
            return (kind, name, partition), space.buffer(name, partition, kind)


def _of_namespace(path: tuple[str, ...], *rest: Any) -> tuple[Any, str]:
    thing, key = _made(KeySpace(path), *rest)
    return (path, thing), key


keys = st.builds(
    _of_namespace,
    st.sampled_from(NAMESPACES),
    st.sampled_from(["cell", "plain", "partition", "generation", "own", "pending", "batch"]),
    names,
    parts,
    st.integers(0, 12),
    tags,
)


@settings(max_examples=1000)
@given(st.lists(keys, min_size=2, max_size=12))
def test_keys_of_different_things_never_collide(made: list[tuple[Any, str]]) -> None:
    things: dict[str, Any] = {}
    for thing, key in made:
        assert things.setdefault(key, thing) == thing


@given(st.lists(hostile | st.integers(0, 12) | st.none(), min_size=2, max_size=5).map(tuple), names)
def test_parts_that_look_like_names_stay_parts(value: Any, name: str) -> None:
    space = KeySpace(("shop",))
    assert space.cell(name, value).split(":")[:2] == ["shop", name]
    assert len(space.cell(name, value).split(":")) == 2 + len(value) or "~h" in space.cell(name, value)


@given(parts, names, st.integers(0, 99), tags)
def test_a_hash_tag_never_comes_from_data(value: Any, name: str, partition: int, tag: str) -> None:
    space = KeySpace(("shop", "inner"))
    for key in (space.cell(name, value), space.cell("", value), space.generation(tag), *space.own_generations()):
        assert not set(key) & set("{}")
    for key in (space.partition_cell(name, partition, value), space.buffer(name, partition, "pending")):
        assert key.count("{") == key.count("}") == 1
        assert f"{{{name}.{partition}}}" in key


@given(parts, names, tags)
def test_what_is_tracked_is_cells_and_generations_only(value: Any, name: str, tag: str) -> None:
    prefixes = KeySpace(("shop",)).tracked_prefixes()
    for space in (KeySpace(("shop",)), KeySpace(("shop", "inner"))):
        for key in (space.cell(name, value), space.generation(tag), *space.own_generations()):
            assert key.startswith(prefixes)
    assert not KeySpace(("shop",)).buffer(name, 1, "pending").startswith(prefixes)


@given(parts, st.integers(0, 99))
def test_a_partition_is_in_one_slot_whatever_its_keys_hold(value: Any, partition: int) -> None:
    space = KeySpace(("shop",))
    slots = {
        key_slot(space.partition_cell("score", partition, value).encode()),
        *(key_slot(space.buffer("score", partition, part).encode()) for part in ("pending", "batch", "meta")),
    }
    assert len(slots) == 1


@given(hostile | st.text(), hostile | st.text())
def test_escaped_text_is_injective_and_safe(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)
    assert set(escape(one)) <= set(f"{string.ascii_letters}{string.digits}_.@+=-%")


@pytest.mark.parametrize("path", [(), ("",), ("a/b",), ("shop", "a:b"), ("a{b}",)])
def test_a_namespace_is_made_of_names_only(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="namespace"):
        KeySpace(path)


@pytest.mark.parametrize("name", ["", "a\n", "a b", "a:b", "a/b", "a#b", "-a", ".a", "a" * 101, "é", 1, None, b"a"])
def test_bad_names_are_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="namespace="):
        check_name(name, "namespace")
