"""What a type is made of: the classes and fields in an annotation, all the way down."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import ipaddress
import typing
from collections import abc
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from asynccache.codecs.annotations import UNIONS, inner
from asynccache.codecs.pydantic_models import is_model

__all__ = ["Field", "Model", "Parts", "fields", "model_kind", "parts"]

_ABSTRACT: Final = frozenset(
    {abc.Collection, abc.Sequence, abc.MutableSequence, abc.Mapping, abc.MutableMapping, abc.Set, abc.MutableSet}
)
CONTAINERS: Final = _ABSTRACT | {list, dict, tuple, set, frozenset}
_LEAVES: Final = frozenset(
    {
        *(type(None), bool, int, float, str, bytes, bytearray),
        *(dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID, msgspec.UnsetType),
    }
)
ADDRESSES: Final = frozenset(
    {
        *(ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network),
        *(ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
    }
)

Model = typing.Literal["struct", "dataclass", "namedtuple", "typeddict", "pydantic"]


class Field(NamedTuple):
    """One field of a model: its name on the wire, its type, and whether it has no default."""

    name: str
    type: Any
    required: bool


class Parts(NamedTuple):
    """What occurs in a type.

    Attributes:
        models: classes with fields.
        open: whether the type leaves open what some values are: `Any`, `object`, a bare or an abstract container, a
            free type variable; or has a pydantic model or IP address, of which msgspec knows nothing.
        enums: enums, flags among them.
        unknown: classes that no codec can write.
    """

    models: frozenset[type]
    open: bool
    enums: tuple[type[enum.Enum], ...]
    unknown: tuple[Any, ...]


def model_kind(kind: Any) -> Model | None:
    """Which kind of model a class is; None if it is none."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, msgspec.Struct):
        return "struct"
    if is_model(kind):
        return "pydantic"
    if dataclasses.is_dataclass(kind):
        return "dataclass"
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return "namedtuple"
    return "typeddict" if typing.is_typeddict(kind) else None


def fields(kind: Any) -> list[Field]:
    """The fields of a model, in the order of its definition.

    Raises:
        NameError: an annotation names what is not defined where the model is.
    """
    match model_kind(kind):
        case "struct":
            return [Field(item.encode_name, item.type, item.required) for item in msgspec.structs.fields(kind)]
        case "dataclass":
            hints, none = typing.get_type_hints(kind, include_extras=True), dataclasses.MISSING
            return [
                Field(item.name, hints[item.name], item.default is none and item.default_factory is none)
                for item in dataclasses.fields(kind)
            ]
        case "namedtuple":
            hints, defaults = typing.get_type_hints(kind, include_extras=True), getattr(kind, "_field_defaults", {})
            return [Field(name, hints.get(name, Any), name not in defaults) for name in kind._fields]
        case "typeddict":
            hints, required = typing.get_type_hints(kind, include_extras=True), kind.__required_keys__
            return [Field(name, hint, name in required) for name, hint in sorted(hints.items())]
        case "pydantic":
            return [Field(name, item.annotation, item.is_required()) for name, item in kind.model_fields.items()]
        case _:
            return []


def parts(type_: Any) -> Parts:
    """Everything that occurs in a type."""
    models: set[type] = set()
    is_open = False
    enums: list[type[enum.Enum]] = []
    unknown: list[Any] = []
    for part, free in _walk(type_, set()):
        if model_kind(part) is not None:
            models.add(part)
            is_open = is_open or is_model(part)
        elif part is Any or part is object or part in CONTAINERS or part in ADDRESSES:
            is_open = True
        elif isinstance(part, typing.TypeVar):
            is_open = is_open or free
        elif isinstance(part, type) and issubclass(part, enum.Enum):
            enums.append(part)
        elif part not in _LEAVES:
            unknown.append(part)
    return Parts(frozenset(models), is_open, tuple(enums), tuple(unknown))


def _walk(type_: Any, seen: set[Any], *, free: bool = True, nested: bool = False) -> abc.Iterator[tuple[Any, bool]]:
    """Yields the leaves and models in a type, and whether type variables are free there."""
    type_ = inner(type_)
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal or type_ is None:
        return
    if origin is not None and arguments:
        for argument in arguments:
            if argument is not Ellipsis:
                yield from _walk(argument, seen, free=free, nested=nested)
        if origin in _ABSTRACT and not nested:  # a tuple is a Sequence and must not come back as a list
            yield origin, free
        if origin in UNIONS or origin in CONTAINERS:
            return
        free = False  # the arguments stand for them
    kind = origin or type_
    if (kind, free, nested) in seen:
        return
    seen.add((kind, free, nested))
    yield kind, free
    if not is_model(kind):  # which knows its own fields
        for field in fields(kind):
            yield from _walk(field.type, seen, free=free, nested=True)
