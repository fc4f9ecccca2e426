"""Fingerprints: the same in every process, other ones as soon as a model changes its shape."""

import dataclasses
import enum
import os
import subprocess
import sys
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, Union

import msgspec
import pydantic
import pytest

from asynccache.codecs import codec_for
from asynccache.codecs.fingerprints import fingerprint
from tests.unit.codecs.models import Camel, Node, Order, User

SAME: list[tuple[Any, Any]] = [
    (Optional[int], int | None),  # noqa: UP045 - as it was written before
    (Union[str, int], int | str),  # noqa: UP007 - the same
    (Annotated[int, "note"], int),
    (NewType("Id", int), int),
    (list[Annotated[int, msgspec.Meta(gt=0)]], list[int]),
]


@pytest.mark.parametrize("pair", SAME)
def test_spellings_of_one_type_are_one(pair: tuple[Any, Any]) -> None:
    assert fingerprint(pair[0]) == fingerprint(pair[1])


def _dataclass(*fields: Any, name: str = "Model") -> Any:
    return dataclasses.make_dataclass(name, fields)


def _struct(*fields: Any, **config: Any) -> Any:
    return msgspec.defstruct("Model", fields, **config)


def _enum(**members: Any) -> Any:
    return enum.Enum("Colour", members)


_INNER: Any = _dataclass(("b", int))
_OTHER: Any = _dataclass(("b", str))

DIFFERENT: list[tuple[Any, Any]] = [
    (_dataclass(("a", int)), _dataclass(("a", str))),
    (_dataclass(("a", int)), _dataclass(("b", int))),
    (_dataclass(("a", int)), _dataclass(("a", int), ("b", int))),
    (_dataclass(("a", int)), _dataclass(("a", int, dataclasses.field(default=1)))),
    (_dataclass(("a", int)), _dataclass(("a", int), name="Other")),
    (_dataclass(("a", int), ("b", int)), _dataclass(("b", int), ("a", int))),
    (_dataclass(("a", _dataclass(("b", int)))), _dataclass(("a", _dataclass(("b", str))))),
    (_dataclass(("a", list[_INNER])), _dataclass(("a", list[_OTHER]))),
    (_struct(("a", int)), _struct(("a", int, 1))),
    (_struct(("a", int)), _struct(("a", int), rename="upper")),
    (_struct(("a", int)), _struct(("a", int), tag="x")),
    (_struct(("a", int), tag="x"), _struct(("a", int), tag="y")),
    (_struct(("a", int)), _struct(("a", int), array_like=True)),
    (NamedTuple("P", [("a", int)]), NamedTuple("P", [("a", str)])),
    (TypedDict("R", {"a": int}), TypedDict("R", {"a": int}, total=False)),  # type: ignore[operator]
    (pydantic.create_model("M", a=(int, ...)), pydantic.create_model("M", a=(int, 1))),
    (pydantic.create_model("M", a=(int, ...)), pydantic.create_model("M", a=(str, ...))),
    (_enum(A=1), _enum(A=2)),
    (_enum(A=1), _enum(A=1, B=2)),
    (Literal["a"], Literal["b"]),
    (Literal[1], Literal[True]),
    (list[int], set[int]),
    (tuple[int], tuple[int, ...]),
    (dict[str, int], dict[int, str]),
    (int, int | None),
    (Any, int),
]


@pytest.mark.parametrize("pair", DIFFERENT)
def test_a_change_of_shape_is_another_fingerprint(pair: tuple[Any, Any]) -> None:
    assert fingerprint(pair[0]) != fingerprint(pair[1])


def test_fingerprints_are_eight_bytes_also_of_types_that_hold_themselves() -> None:
    for type_ in (Any, int, User, Node, Order, list[Node]):
        assert len(codec_for(type_).fingerprint) == 8


def test_an_enum_of_odd_values_has_a_fingerprint_that_lasts() -> None:
    def odd() -> Any:
        return _enum(A=object(), B={"x", "y"}, C=(1, 2))

    assert fingerprint(odd()) == fingerprint(odd())


CODE = """
from tests.unit.codecs.models import *
from asynccache.codecs import codec_for
from typing import Any
for type_ in (Any, User, Order, Circle | Square, dict[str, Note], Box[int], Row, Point, Colour, Node | None, set[Mood]):
    print(codec_for(type_).fingerprint.hex())
"""


def test_fingerprints_are_the_same_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(set(outputs.pop().split())) == 11


def test_fingerprints_stay_what_they_are() -> None:
    """A release that changes these turns every stored entry into a miss; do it on purpose."""
    assert fingerprint(Any).hex() == "6f4f086e35077736"
    assert fingerprint(User).hex() == "d02d11410789f5d5"
    assert fingerprint(Camel).hex() == "810c17ca69276cb4"
    assert fingerprint(Order).hex() == "3ea831195926faaf"
