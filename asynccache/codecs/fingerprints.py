"""Eight bytes that say what shape a type has: the same in every process, other ones when a model changes."""

from __future__ import annotations

import enum
import hashlib
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from asynccache.codecs.annotations import UNIONS, inner
from asynccache.codecs.shapes import fields, model_kind

__all__ = ["fingerprint"]


def fingerprint(type_: Any, called: Mapping[type, str] | None = None) -> bytes:
    """The fingerprint of a type: of its name, fields, their types and whether they have defaults, all the way down.

    It is the first eight bytes of BLAKE2b over a description of these. Values of defaults, constraints, validators and
    the module in which a class stands are not part of it.

    Args:
        type_: the type.
        called: names of classes, where they are not to count as what they are called now.
    """
    return hashlib.blake2b(_describe(type_, (), called or {}).encode(), digest_size=8).digest()


def _describe(type_: Any, inside: tuple[Any, ...], called: Mapping[type, str]) -> str:
    type_ = inner(type_)
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin in UNIONS:  # `X | None` and `Optional[X]`, in any order
        return f"Union[{','.join(sorted(_describe(part, inside, called) for part in arguments))}]"
    if origin is typing.Literal:
        return f"Literal[{','.join(map(_constant, arguments))}]"
    if origin is not None:
        described = ",".join("..." if part is Ellipsis else _describe(part, inside, called) for part in arguments)
        return f"{_describe(origin, inside, called)}[{described}]"
    if type_ is None or type_ is type(None):
        return "None"
    if not isinstance(type_, type):
        return str(type_)
    name = called.get(type_, type_.__qualname__)
    if type_ in inside:
        return f"^{name}"  # recursive: its shape is being described already
    if issubclass(type_, enum.Enum):
        return f"{name}<{','.join(map(_constant, type_))}>"
    if model_kind(type_) is None:
        return name
    inside = (*inside, type_)
    config = type_.__struct_config__ if issubclass(type_, msgspec.Struct) else None
    wire = f"{config.tag_field}={config.tag!r}{'[]' if config.array_like else ''}" if config else ""
    described = ",".join(
        f"{field.name}{'' if field.required else '?'}:{_describe(field.type, inside, called)}"
        for field in fields(type_)
    )
    return f"{name}{wire}{{{described}}}"


def _constant(value: Any) -> str:
    """A constant in words that are the same in every process."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}={_constant(value.value)}"
    # Any other repr may hold an address, or depend on the order of a set.
    return repr(value) if type(value) in {str, int, bool, bytes, float, type(None)} else type(value).__qualname__
