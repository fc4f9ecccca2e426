"""One model of each kind, and values of every kind that can be cached."""

import datetime as dt
import enum
import ipaddress
from collections import namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic
from hypothesis import strategies as st

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    TEXT = "1"
    NUMBER = 1


class Level(enum.IntEnum):
    LOW = 1


class Mood(enum.StrEnum):
    GOOD = "good"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int = 0


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - also those without types


class Address(msgspec.Struct, frozen=True):
    city: str
    at: Point


@dataclass
class User:
    id: int
    name: str
    balance: Decimal = Decimal(0)
    tags: set[str] = field(default_factory=set)
    born: dt.date | None = None
    address: Address | None = None
    favourite: Colour = Colour.RED


@dataclass(frozen=True)
class Note:
    """Holds what its types do not tell."""

    text: str
    extra: Any = None
    more: dict[str, Any] = field(default_factory=dict)


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float
    scale: Right = Right.READ


class Camel(msgspec.Struct, rename="camel", tag="camel"):
    first_name: str
    any_thing: Any = None


class Array(msgspec.Struct, array_like=True, tag=True):
    first: int
    other: Any = None


class Box(msgspec.Struct, Generic[T]):
    item: T


class Row(TypedDict):
    id: int
    seen: NotRequired[dt.datetime]


class OpenRow(TypedDict):
    id: int
    data: Any


class Node(msgspec.Struct):
    value: int
    next: "Node | None" = None


class Inner(pydantic.BaseModel):
    price: Decimal
    colour: Colour = Colour.RED


class Order(pydantic.BaseModel):
    order_id: int = pydantic.Field(alias="orderId", validation_alias="ORDER", serialization_alias="order")
    lines: list[Inner] = []
    at: dt.datetime | str | None = None
    weight: float | None = None
    raw: bytes = b""
    by_place: dict[tuple[int, int], Inner] = {}
    secret_note: str = pydantic.Field(default="", exclude=True)

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def count(self) -> int:
        return len(self.lines)


@dataclass
class Holder:
    """A model of one kind within one of another."""

    inner: Inner
    address: ipaddress.IPv4Address | None = None


def order(number: int = 1, **more: Any) -> Order:
    return Order.model_validate({"ORDER": number, **more})


_zones = st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(
    lambda offset: dt.timezone(dt.timedelta(minutes=offset // dt.timedelta(minutes=1)))
)
_points = st.builds(Point, st.integers(-5, 5), st.integers(-5, 5))
_hashable: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=_zones),
    st.times(),
    st.times(timezones=_zones),
    st.timedeltas(),
    st.ip_addresses(),
    st.sampled_from([*Colour, *Mixed, *Level, *Mood, *Right, Right.READ | Right.WRITE, Right(0)]),
    _points,
    st.builds(Address, st.text(max_size=5), _points),
)


def _keys(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3))


hashable = st.recursive(_hashable, _keys, max_leaves=4)

users = st.builds(
    User,
    st.integers(-(2**63), 2**63),
    st.text(max_size=10),
    st.decimals(allow_nan=False),
    st.sets(st.text(max_size=3), max_size=3),
    st.dates() | st.none(),
    st.none() | st.builds(Address, st.text(max_size=5), _points),
    st.sampled_from(Colour),
)

orders = st.builds(
    lambda number, prices, at, weight, raw: order(
        number,
        lines=[Inner(price=price) for price in prices],
        at=at,
        weight=weight,
        raw=raw,
        by_place={(number, at): Inner(price=price) for at, price in enumerate(prices)},
    ),
    st.integers(),
    st.lists(st.decimals(allow_nan=False, allow_infinity=False), max_size=3),
    st.none() | st.datetimes() | st.text(max_size=30) | st.just("2026-01-01T00:00:00"),
    st.none() | st.floats(allow_nan=False),
    st.binary(max_size=10),
)

values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(hashable, st.binary(max_size=5).map(bytearray), users, orders, st.builds(Circle, st.floats(0, 9))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.builds(Note, st.text(max_size=5), inner, st.dictionaries(st.text(max_size=3), inner, max_size=2)),
        st.builds(Camel, st.text(max_size=5), inner),
        st.builds(Array, st.integers(-9, 9), inner),
        st.builds(Box, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(key, other_key) and same(one[key], other[other_key])
            for key, other_key in zip(sorted(one, key=_order), sorted(other, key=_order), strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return bool(one == other) and all(map(same, sorted(one, key=_order), sorted(other, key=_order)))
    if isinstance(one, dt.datetime | dt.time):
        return bool(one.isoformat() == other.isoformat() and one.fold == other.fold)
    if isinstance(one, Note):
        return same((one.text, one.extra, one.more), (other.text, other.extra, other.more))
    if isinstance(one, Camel | Array | Box):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    return bool(one == other)


def _order(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"frozenset{sorted(map(_order, value))}"
    if isinstance(value, tuple):
        return f"{type(value).__name__}{[_order(item) for item in value]}"
    return f"{type(value).__name__}{value!r}"


def everything() -> dict[str, Any]:
    """One value that holds one of each kind."""
    return {
        "plain": [None, True, 1, -1.5, "text", b"bytes", 2**100],
        "sets": (1, {2, 3}, frozenset({"a"}), bytearray(b"x")),
        "exact": [Decimal("1.10"), UUID(int=7), ipaddress.ip_address("::1"), dt.timedelta(1, 2, 3)],
        "times": [dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), dt.date(2026, 1, 2), dt.time(1, 2)],
        "enums": [Colour.RED, Right.READ | Right.WRITE, Level.LOW],
        "keys": {1: "int", (1, "a"): "tuple", None: "none"},
        "models": [User(1, "ada"), Note("n", {1}), Circle(1.0), Camel("c", (1,)), Array(1), Point(1, 2), Pair(1, "2")],
        "pydantic": order(3, lines=[Inner(price=Decimal(1))]),
    }
