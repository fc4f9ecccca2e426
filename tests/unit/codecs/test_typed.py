"""Values of a declared type: they come back as what went in, and other values are refused when they are written."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional, TypeVar
from uuid import UUID

import msgspec
import pytest
from asyncpg.pgproto import pgproto
from hypothesis import given

from asynccache.codecs import Codec, codec_for
from asynccache.codecs.typed import TypedCodec
from asynccache.codecs.untyped import UntypedCodec
from asynccache.errors import ConfigurationError, DecodeError, EncodeError, ValueTooLarge
from tests.unit.codecs.models import (
    Address,
    Array,
    Box,
    Camel,
    Circle,
    Colour,
    Level,
    Mixed,
    Mood,
    Node,
    Note,
    OpenRow,
    Pair,
    Point,
    Right,
    Row,
    Square,
    User,
    same,
    users,
)

Id = NewType("Id", int)
T = TypeVar("T")

TYPED: list[tuple[Any, Any]] = [
    (int, 1),
    (float, 1.5),
    (str, "a"),
    (bytes, b"a"),
    (bool, True),
    (type(None), None),
    (Id, 1),
    (Annotated[int, msgspec.Meta(ge=0)], 1),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=1)),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    (dt.datetime, dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - naive on purpose
    (dt.date, dt.date(2026, 1, 1)),
    (dt.time, dt.time(1, 2)),
    (dt.timedelta, dt.timedelta(1, 2, 3)),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Mood, Mood.GOOD),
    (Right, Right.READ | Right.WRITE),
    (Literal["a", 1], "a"),
    (int | str | None, "a"),
    (list[int], [1, 2]),
    (set[int], {1}),
    (frozenset[Point], frozenset({Point(1, 2)})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (dict[tuple[int, int], Decimal], {(1, 2): Decimal(1)}),
    (User, User(1, "ada", Decimal(2), {"x"}, dt.date(2026, 1, 1), Address("c", Point(1, 2)), Colour.BLUE)),
    (list[User], [User(1, "ada")]),
    (Optional[User], User(1, "ada")),  # noqa: UP045 - also as it was written before
    (User | None, None),
    (dict[str, User], {"a": User(1, "ada")}),
    (Circle | Square, Square(1.0, Right.WRITE)),
    (list[Circle | Square], [Square(1.0), Circle(2.0)]),
    (Point, Point(1, 2)),
    (Row, {"id": 1}),
    (Row, {"id": 1, "seen": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}),
    (Box[int], Box(1)),
    (Node, Node(1, Node(2))),
]

OPEN: list[tuple[Any, Any]] = [
    (Any, (1,)),
    (object, {1}),
    (dict, {"a": (1,), 1: {2}}),
    (list, [(1,), {2}]),
    (tuple, (1, (2,))),
    (dict[str, Any], {"a": (1, dt.date(2026, 1, 1))}),
    (dict[str, object], {"a": Decimal(1)}),
    (list[Any] | None, [(1,)]),
    (Sequence[int], (1, 2)),
    (Sequence[int], [1, 2]),
    (Mapping[str, int], {"a": 1}),
    (Note, Note("a", extra=(1, Decimal(2)), more={"d": dt.date(2026, 1, 1), "u": User(1, "b")})),
    (list[Note], [Note("a", extra={1})]),
    (Camel, Camel("ada", {(1, 2)})),
    (Array, Array(1, (2,))),
    (Camel | Array, Array(1, (2,))),
    (Box, Box((1,))),
    (Pair, Pair((1,), {2})),
    (OpenRow, {"id": 1, "data": (1,)}),
    # msgspec cannot tell these apart
    (User | Note, User(1, "ada")),
    (dt.datetime | str, "2026-01-01T00:00:00"),
    (dt.datetime | str, dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - naive on purpose
    (bytes | str, b"a"),
    (UUID | str | None, UUID(int=1)),
    (Mixed, Mixed.NUMBER),
    (list[int] | tuple[int, ...], (1, 2)),
]


def _codec(type_: Any) -> Codec[Any]:
    return codec_for(type_)


@pytest.mark.parametrize(("type_", "value"), [*TYPED, *OPEN])
def test_a_value_comes_back_as_what_it_was(type_: Any, value: Any) -> None:
    codec = _codec(type_)
    assert same(codec.unpack(*codec.pack(value)), value)
    assert codec.type == type_


@pytest.mark.parametrize("type_", [type_ for type_, _ in TYPED])
def test_a_type_that_says_everything_is_written_without_names(type_: Any) -> None:
    assert isinstance(_codec(type_), TypedCodec)


@pytest.mark.parametrize("type_", [type_ for type_, _ in OPEN])
def test_a_type_that_leaves_something_open_is_written_with_what_it_is(type_: Any) -> None:
    assert isinstance(_codec(type_), UntypedCodec)


@given(users)
def test_users_come_back(user: User) -> None:
    codec = _codec(User)
    assert same(codec.unpack(*codec.pack(user)), user)


class Admin(User):
    pass


class Wide(Circle):
    width: float = 1.0


WRONG: list[tuple[Any, Any]] = [
    (User, {"id": 1, "name": "ada"}),
    (User, Admin(1, "ada")),
    (User, None),
    (User, User),
    (Circle, Wide(1.0)),
    (Circle, Square(1.0)),
    (Circle | Square, {"type": "Circle"}),
    (User | None, 1),
    (list[User], [{"id": 1, "name": "ada"}]),
    (list[User], (User(1, "ada"),)),
    (list[User], User(1, "ada")),
    (list[User | None], [1]),
    (dict[str, User], {"a": 1}),
    (dict[str, User], {1: User(1, "ada")}),
    (dict[str, list[int]], {"a": ["b"]}),
    (tuple[int, str], (1,)),
    (tuple[int, str], ("a", 1)),
    (tuple[int, ...], (1, "a")),
    (set[int], [1]),
    (frozenset[int], {1}),
    (int, True),
    (int, "1"),
    (int, 1.0),
    (str, b"a"),
    (str, Mood.GOOD),
    (dt.date, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    (dt.datetime, "2026-01-01"),
    (Literal["a", 1], True),
    (Literal["a", 1], "b"),
    (Colour, "red"),
    (Row, {"seen": None}),
    (Row, {"id": 1, "more": 2}),
    (Row, [1]),
    (Sequence[int], "12"),
    (Sequence[int], ["a"]),
    (dict, [1]),
    (Note, {"text": "a"}),
    (User | Note, 1),
    (UUID, "00000000-0000-0000-0000-000000000000"),
]


@pytest.mark.parametrize(("type_", "value"), WRONG)
def test_a_value_of_another_type_is_refused_when_it_is_written(type_: Any, value: Any) -> None:
    with pytest.raises(EncodeError, match=r"the entry holds .*, not "):
        _codec(type_).pack(value)


def test_the_message_names_both_types_and_no_data() -> None:
    with pytest.raises(EncodeError) as caught:
        _codec(list[User]).pack([{"password": "secret"}])
    assert "User" in str(caught.value)
    assert "list of dict" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [User(2**70, "a"), User(1, "\ud800"), User(object(), "a")])  # type: ignore[arg-type]
def test_a_value_that_msgspec_cannot_write_is_refused(value: User) -> None:
    with pytest.raises(EncodeError, match="User"):
        _codec(User).pack(value)


def test_uuids_of_asyncpg_are_uuids() -> None:
    text = "12345678-1234-5678-1234-567812345678"
    for type_, value in ((UUID, pgproto.UUID(text)), (list[UUID], [pgproto.UUID(text)])):
        codec = _codec(type_)
        assert codec.unpack(*codec.pack(value)) == value


def test_a_subclass_of_a_container_comes_back_as_the_container() -> None:
    class Rows(list[int]):
        pass

    assert type(_codec(list[int]).unpack(*_codec(list[int]).pack(Rows([1])))) is list


@pytest.mark.parametrize(("type_", "value"), TYPED)
@pytest.mark.parametrize("other", [User, list[User], Circle, Row, int, dict[str, int], Node, Note])
def test_bytes_of_another_type_are_never_a_value_of_this_one(type_: Any, value: Any, other: Any) -> None:
    codec = _codec(other)
    try:
        read = codec.decode(_codec(type_).encode(value))
    except DecodeError:
        return
    assert same(codec.decode(codec.encode(read)), read)  # what it accepts is a value of its own type


class Plain:
    pass


@dataclass
class HoldsPlain:
    plain: Plain


@dataclass
class HoldsUnion:
    value: dt.datetime | str


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (Plain, "the class Plain"),
        (list[Plain], "the class Plain"),
        (HoldsPlain, "the class Plain"),
        (complex, "the class complex"),
        (HoldsUnion, "str-like"),
        ("User", "User"),
        (1, "1"),
    ],
)
def test_a_type_that_cannot_be_cached_is_refused_when_it_is_declared(type_: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        codec_for(type_)


def test_an_annotation_that_names_nothing_is_refused_when_it_is_declared() -> None:
    @dataclass
    class Broken:
        other: "Nowhere"  # type: ignore[name-defined]  # noqa: F821 - that is the case

    with pytest.raises(ConfigurationError, match="Nowhere"):
        codec_for(Broken)


@pytest.mark.parametrize(
    "sizes",
    [{"max_value_bytes": 0}, {"max_value_bytes": "1"}, {"compress_above": -1}, {"max_decompressed_bytes": True}],
)
def test_sizes_are_numbers_of_bytes(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(sizes))):
        codec_for(int, **sizes)


def test_a_codec_is_made_once() -> None:
    assert codec_for(User) is codec_for(User)
    assert codec_for(User) is not codec_for(User, max_value_bytes=10)
    assert "User" in repr(codec_for(User))
    assert codec_for(Annotated[int, []]).unpack(*codec_for(Annotated[int, []]).pack(1)) == 1


def test_a_value_above_the_limit_never_leaves() -> None:
    codec = codec_for(str, max_value_bytes=100)
    assert codec.unpack(*codec.pack("x" * 98)) == "x" * 98
    with pytest.raises(ValueTooLarge, match=r"takes 101 bytes, above max_value_bytes=100"):
        codec.pack("x" * 99)
