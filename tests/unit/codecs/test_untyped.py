"""Values without a declared type: they come back as what they were, or writing them fails."""

import datetime as dt
import enum
import inspect
import sys
import types
import zoneinfo
from collections import OrderedDict
from dataclasses import InitVar, dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from asyncpg.pgproto import pgproto
from hypothesis import given
from hypothesis import strategies as st

from asynccache.codecs import codec_for
from asynccache.codecs.writing import DEEPEST
from asynccache.errors import DecodeError, EncodeError
from tests.unit.codecs.models import Box, Circle, Colour, Note, Right, User, everything, same, values

codec = codec_for()


@given(values)
def test_values_come_back_as_what_they_were(value: Any) -> None:
    assert same(codec.unpack(*codec.pack(value)), value)


def test_one_of_everything_comes_back() -> None:
    assert same(codec.decode(codec.encode(everything())), everything())


@given(values)
def test_a_view_of_memory_is_read_like_bytes(value: Any) -> None:
    assert same(codec.decode(memoryview(codec.encode(value))), value)


def test_a_zone_keeps_its_offset_and_its_fold() -> None:
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    for fold in (0, 1):
        twice = dt.datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold)
        again = codec.decode(codec.encode(twice))
        assert again.isoformat() == twice.isoformat()
        assert again.fold == fold


@pytest.mark.parametrize("nan", [float("nan"), Decimal("NaN"), Decimal("sNaN"), Decimal("-0.00"), -0.0, float("-inf")])
def test_odd_numbers_come_back(nan: Any) -> None:
    assert repr(codec.decode(codec.encode(nan))) == repr(nan)


def test_uuids_of_asyncpg_are_uuids() -> None:
    text = "12345678-1234-5678-1234-567812345678"
    assert codec.decode(codec.encode(pgproto.UUID(text))) == UUID(text)
    assert codec.decode(codec.encode([{"id": pgproto.UUID(text)}])) == [{"id": UUID(text)}]


class Plain:
    pass


class Text(str):
    __slots__ = ()


@dataclass
class Initialised:
    value: int
    other: InitVar[int]


@dataclass
class Flagged:
    right: Right
    anything: Any


def _endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _nested(depth: int, wrap: Any = lambda inner: [inner]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Plain(), r"test_untyped\.Plain cannot be cached: use a dataclass"),
        ({"a": [1, {"b": Plain()}]}, r"Plain cannot be cached.*\(at \['a'\]\[1\]\['b'\]\)"),
        (Note("x", extra=(1, Plain())), r"\(at \.extra\[1\]\)"),
        ({Plain(): 1}, r"\(at \[key\]\)"),
        (Text("x"), r"Text cannot be cached.*such as str\(\.\.\.\)"),
        (OrderedDict(a=1), r"OrderedDict cannot be cached.*such as dict\(\.\.\.\)"),
        (1j, "complex cannot be cached"),
        (print, "cannot be cached"),
        (Plain, "type cannot be cached"),
        (["a", "\ud800"], r"lone surrogate.*\(at \[1\]\)"),
        (_endless(), "holds itself"),
        (_nested(DEEPEST + 1), "deeper than 100"),
        (dt.time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), "has no offset"),
        (Initialised(1, 2), "InitVar"),
        (Flagged(Right.READ, 1), "flag Right"),
        (memoryview(b"x"), "memoryview cannot be cached"),
    ],
)
def test_what_could_not_be_read_again_is_refused_when_it_is_written(value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        codec.pack(value)


def test_a_class_that_nobody_could_find_is_refused_when_it_is_written() -> None:
    @dataclass
    class Local:
        id: int

    class Shade(enum.Enum):
        DARK = 1

    for value in (Local(1), [Shade.DARK]):
        with pytest.raises(EncodeError, match="is not found by this name"):
            codec.pack(value)


def test_a_local_class_that_is_declared_is_found() -> None:
    @dataclass
    class Local:
        extra: Any

    for type_, value in ((Local, Local((1, 2))), (dict[str, Local], {"a": Local({1})})):
        declared = codec_for(type_)
        assert declared.unpack(*declared.pack(value)) == value


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {1: inner}])
def test_the_deepest_value_that_is_written_is_read(wrap: Any) -> None:
    value = _nested(DEEPEST, wrap)
    assert same(codec.decode(codec.encode(value)), value)


def test_the_deepest_model_that_is_written_is_read() -> None:
    value = _nested(DEEPEST - 1, lambda inner: Note("", inner))  # whose empty dict is a level, too
    assert same(codec.decode(codec.encode(value)), value)


def test_a_value_is_written_with_little_stack_left_or_refused() -> None:
    def dive(levels: int) -> None:
        if levels:
            dive(levels - 1)
        else:
            codec.pack(_nested(DEEPEST))

    used = len(inspect.stack(0))
    with pytest.raises(EncodeError, match="stack"):
        dive(sys.getrecursionlimit() - used - 40)


def _module(source: str) -> types.ModuleType:
    module = types.ModuleType("shop_models_of_a_test")
    sys.modules[module.__name__] = module
    exec(source, module.__dict__)
    return module


SOURCE = """
from dataclasses import dataclass
import enum, os
@dataclass
class User:
    id: int
    name: str
class Colour(enum.Enum):
    RED = 1
def __getattr__(name):
    raise AssertionError("asked for " + name)
"""


def test_classes_are_never_imported_and_never_asked_for() -> None:
    module = _module(SOURCE)
    try:
        user, red = codec.encode(module.User(1, "ada")), codec.encode(module.Colour.RED)
        assert codec.decode(user) == module.User(1, "ada")
        del module.User  # the module's own __getattr__ would be asked now
        del module.Colour
        for payload in (user, red):
            with pytest.raises(DecodeError, match="not a class that this process has imported"):
                codec.decode(payload)
    finally:
        del sys.modules[module.__name__]
    for payload in (user, red):
        with pytest.raises(DecodeError, match="not a class that this process has imported"):
            codec.decode(payload)
    assert module.__name__ not in sys.modules


def test_a_model_that_has_changed_is_validated() -> None:
    module = _module(SOURCE)
    try:
        payload = codec.encode(module.User(1, "ada"))
        _module(SOURCE.replace("name: str", "name: str\n    email: str"))
        with pytest.raises(DecodeError, match="email"):
            codec.decode(payload)
        _module(SOURCE.replace("name: str", "name: int"))
        with pytest.raises(DecodeError, match="int"):
            codec.decode(payload)
        _module(SOURCE.replace("id: int", "id: object"))  # by name, where it was by msgspec
        assert codec.decode(payload).name == "ada"
    finally:
        del sys.modules["shop_models_of_a_test"]


def _extension(code: int, value: Any) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, msgspec.msgpack.encode(value)))


@pytest.mark.parametrize(
    "payload",
    [
        _extension(7, ["builtins:eval", {"source": "1"}]),
        _extension(7, ["os:system", ["true"]]),
        _extension(7, ["builtins:dict", {}]),
        _extension(7, ["subprocess:Popen", {"args": "true"}]),
        _extension(7, ["sys:modules", {}]),
        _extension(7, [f"{User.__module__}:User", {"id": "not an int", "name": "x"}]),
        _extension(7, [f"{User.__module__}:User", b"\x80"]),
        _extension(7, [f"{User.__module__}:User"]),
        _extension(7, [1, 2]),
        _extension(8, [f"{User.__module__}:User", "id"]),
        _extension(8, [f"{User.__module__}:Colour", "GREEN"]),
        _extension(8, [f"{User.__module__}:Colour", 1]),
        _extension(8, [f"{User.__module__}:Colour", "__class__"]),
        _extension(8, ["builtins:list", "id"]),
        _extension(8, [f"{Box.__module__}:Box", "id"]),
        _extension(1, "text"),
        _extension(1, {"a": 1}),
        _extension(2, [[1]]),
        _extension(5, [["key"]]),
        _extension(5, ["ab"]),
        _extension(6, "x"),
        _extension(9, [0, [1], 0]),
        _extension(9, "x"),
        _extension(11, ["2026-01-01T00:00:00", 7]),
        _extension(14, [10**12]),
        _extension(15, ["IPv4Address", 1]),
        _extension(15, ["os", "x"]),
        _extension(99, []),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(10, b"short")),
        b"",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 100_000,
    ],
)
def test_made_up_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode(payload)


def test_extensions_nested_without_end_are_refused_before_the_stack_is() -> None:
    payload = msgspec.msgpack.encode(1)
    for _ in range(DEEPEST + 2):
        payload = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"\x91" + payload))
    with pytest.raises(DecodeError, match="deeper"):
        codec.decode(payload)


@given(st.lists(st.integers(-(2**70), 2**70)))
def test_large_ints_come_back_wherever_they_are(numbers: list[int]) -> None:
    for value in (numbers, {"a": numbers}, dict(zip(map(str, numbers), numbers, strict=True)), tuple(numbers)):
        assert codec.decode(codec.encode(value)) == value


def test_ints_longer_than_python_prints_come_back() -> None:
    assert codec.decode(codec.encode(10**6000)) == 10**6000


def test_the_codes_on_the_wire_stay_what_they_are() -> None:
    """Entries of an older version must not be read as something else."""
    kinds = [
        (1,),
        {1},
        frozenset([1]),
        bytearray(b"1"),
        {1: 1},
        2**64,
        Circle(1.0),
        Colour.RED,
        Decimal(1),
        UUID(int=1),
    ]
    kinds += [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1), dt.time(1), dt.timedelta(1)]
    assert [_code(codec.encode(kind)) for kind in kinds] == list(range(1, 15))


def _code(payload: bytes) -> int:
    return int(msgspec.msgpack.decode(payload).code)
