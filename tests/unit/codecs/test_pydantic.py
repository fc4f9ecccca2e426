"""Pydantic models come back as pydantic restores them, types included."""

import datetime as dt
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given

from asynccache.codecs import codec_for
from asynccache.codecs.untyped import UntypedCodec
from asynccache.codecs.validated import PydanticCodec
from asynccache.errors import ConfigurationError, DecodeError, EncodeError
from tests.unit.codecs.models import Address, Colour, Holder, Inner, Order, Point, order, orders

T = TypeVar("T")


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, frozen=True, extra="allow")

    id: UUID
    at: dt.datetime
    colour: Colour
    parts: tuple[int, ...]
    inner: Inner


class Everyday(pydantic.BaseModel):
    url: pydantic.HttpUrl = pydantic.HttpUrl("http://example.org/")
    path: PurePosixPath = PurePosixPath("/a")
    _private: int = pydantic.PrivateAttr(default=1)


class Numbers(pydantic.RootModel[list[Decimal]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    price: Decimal
    names: list[str] = pydantic.Field(default_factory=list)


strict = Strict(
    id=UUID(int=1),
    at=dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    colour=Colour.BLUE,
    parts=(1, 2),
    inner=Inner(price=Decimal("1.10")),
    more={"a": (1,)},  # type: ignore[call-arg]  # extra="allow"
)


@given(orders)
def test_orders_come_back(value: Order) -> None:
    codec = codec_for(Order)
    again = codec.unpack(*codec.pack(value))
    assert again == value
    assert type(again.at) is type(value.at)
    assert isinstance(codec, PydanticCodec)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Inner, Inner(price=Decimal("1.10"), colour=Colour.BLUE)),
        (list[Inner], [Inner(price=Decimal(1))]),
        (dict[str, Inner], {"a": Inner(price=Decimal(1))}),
        (Inner | None, None),
        (Inner | None, Inner(price=Decimal(1))),
        (Inner | Strict, strict),
        (Strict, strict),
        (Page[Inner], Page[Inner](items=[Inner(price=Decimal(1))])),
        (Everyday, Everyday()),
        (Numbers, Numbers([Decimal("1.10")])),
        (Checked, Checked(Decimal(1), ["a"])),
        (Order, order(1, weight=float("inf"), raw=b"\xff\x00", at="2026-01-01T00:00:00")),
    ],
)
def test_a_value_comes_back_as_what_it_was(type_: Any, value: Any) -> None:
    codec = codec_for(type_)
    assert isinstance(codec, PydanticCodec)
    again = codec.unpack(*codec.pack(value))
    assert again == value
    assert repr(again) == repr(value)


@pytest.mark.parametrize("value", [strict, [strict], Everyday(), order(7), Holder(Inner(price=Decimal(1)))])
def test_a_model_comes_back_without_a_declared_type(value: Any) -> None:
    codec = codec_for()
    again = codec.unpack(*codec.pack(value))
    assert again == value
    assert type(again) is type(value)


@dataclass
class Wrapper:
    inner: Inner


class Wrapped(msgspec.Struct):
    inners: list[Inner]


@pytest.mark.parametrize("value", [Wrapper(Inner(price=Decimal("1.10"))), Wrapped([Inner(price=Decimal(1))])])
def test_a_model_in_a_model_of_another_kind_comes_back(value: Any) -> None:
    for codec in (codec_for(type(value)), codec_for()):
        assert isinstance(codec, UntypedCodec)
        assert codec.unpack(*codec.pack(value)) == value


def test_excluded_and_private_fields_are_left_out_as_pydantic_does() -> None:
    codec = codec_for(Order)
    assert codec.unpack(*codec.pack(order(1, secret_note="x"))).secret_note == ""
    assert b"x-secret" not in codec.pack(order(1, secret_note="x-secret")).payload


def test_a_local_enum_goes_by_its_value() -> None:
    import enum

    class Shade(enum.Enum):
        DARK = "dark"

    class Paint(pydantic.BaseModel):
        shade: Shade

    codec = codec_for(Paint)
    assert codec.unpack(*codec.pack(Paint(shade=Shade.DARK))) == Paint(shade=Shade.DARK)


class Sub(Inner):
    more: int = 1


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Inner, {"price": 1}),
        (Inner, strict),
        (Inner, Sub(price=Decimal(1))),
        (list[Inner], [strict]),
        (list[Inner], Inner(price=Decimal(1))),
        (Inner | None, 1),
        (Inner, Point(1)),
    ],
)
def test_a_value_of_another_type_is_refused_when_it_is_written(type_: Any, value: Any) -> None:
    with pytest.raises(EncodeError, match=r"the entry holds .*, not "):
        codec_for(type_).pack(value)


def test_a_secret_is_refused_and_not_stored_as_asterisks() -> None:
    class Login(pydantic.BaseModel):
        password: pydantic.SecretStr

    with pytest.raises(EncodeError, match="SecretStr cannot be cached"):
        codec_for(Login).pack(Login(password=pydantic.SecretStr("x")))


def test_a_model_that_refuses_its_own_dump_is_an_error_and_no_eternal_miss() -> None:
    class Hidden(pydantic.BaseModel):
        id: int = pydantic.Field(exclude=True)

    with pytest.raises(EncodeError, match="does not validate what it dumps"):
        codec_for(Hidden).pack(Hidden(id=1))


def test_a_wrong_field_is_found_by_pydantic() -> None:
    with pytest.raises(EncodeError, match="price"):
        codec_for(Inner).pack(Inner.model_construct(price="not a price"))


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\x81\xa5price\xa1x", b"\xc0", b"{}", b'{"price": 1}'])
def test_other_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        codec_for(Inner).decode(payload)


def test_whatever_a_validator_raises_is_a_decode_error() -> None:
    class Angry(pydantic.BaseModel):
        id: int

        @pydantic.model_validator(mode="after")
        def check(self) -> "Angry":
            if self.id == 2:
                raise RuntimeError("no")
            return self

    codec = codec_for(Angry)
    payload = codec.encode(Angry(id=1))
    with pytest.raises(DecodeError, match="no"):
        codec.decode(payload.replace(b"\x01", b"\x02"))


def test_a_struct_in_a_union_with_a_model_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ConfigurationError, match="cannot be cached"):
        codec_for(Inner | Address)


def test_without_pydantic_everything_else_works() -> None:
    code = """
import sys
sys.modules["pydantic"] = None
from dataclasses import dataclass
from typing import Any
from asynccache.codecs import codec_for
@dataclass
class User:
    id: int
    extra: Any = None
for type_ in (Any, User, list[User], dict[str, Any]):
    value = {Any: (1,), User: User(1, {2})}.get(type_, [User(1)] if type_ == list[User] else {"a": User(2)})
    codec = codec_for(type_)
    assert codec.unpack(*codec.pack(value)) == value, type_
assert "pydantic_core" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
