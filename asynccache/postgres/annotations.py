"""What a model's annotation says about the column it wants: which types fit it, and which `Enum` it means."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import types
import typing
import uuid
from decimal import Decimal
from typing import Any

import msgspec

from asynccache.postgres.catalog import Family, Type

__all__ = ["enum_of", "fits", "innermost", "members", "shown"]

_SCALARS: tuple[tuple[type, frozenset[Family]], ...] = (
    # In this order: a bool is an int, a datetime is a date.
    (bool, frozenset({Family.BOOLEAN})),
    (int, frozenset({Family.INTEGER, Family.NUMERIC})),
    (float, frozenset({Family.FLOAT, Family.NUMERIC})),
    (Decimal, frozenset({Family.NUMERIC})),
    (str, frozenset({Family.TEXT, Family.ENUM, Family.OTHER})),
    (bytes, frozenset({Family.BYTES})),
    (bytearray, frozenset({Family.BYTES})),
    (dt.datetime, frozenset({Family.TIMESTAMPTZ, Family.TIMESTAMP})),
    (dt.date, frozenset({Family.DATE})),
    (dt.time, frozenset({Family.TIME})),
    (dt.timedelta, frozenset({Family.INTERVAL})),
    (uuid.UUID, frozenset({Family.UUID})),
)
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set, collections.abc.Collection)
_WRAPPERS = {
    getattr(typing, name)
    for name in ("Annotated", "Required", "NotRequired", "ReadOnly", "Final")
    if hasattr(typing, name)
}


def members(annotation: Any) -> list[Any]:
    """The types an annotation allows, without wrappers and without None."""
    while True:
        if typing.get_origin(annotation) in _WRAPPERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            break
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [found for member in typing.get_args(annotation) for found in members(member)]
    if typing.get_origin(annotation) is typing.Literal:
        return [type(value) for value in typing.get_args(annotation) if value is not None]
    return [] if annotation in {None, type(None), msgspec.UnsetType} else [annotation]


def enum_of(annotation: Any) -> type[enum.Enum] | None:
    """The `Enum` an annotation names, if any."""
    return next(
        (member for member in members(annotation) if isinstance(member, type) and issubclass(member, enum.Enum)), None
    )


def _item_of(annotation: Any) -> Any:
    """What a list of this annotation holds; Any if it does not say."""
    for member in members(annotation):
        arguments = typing.get_args(member)
        if _is_list(member) and arguments:
            return arguments[0]
    return Any


def innermost(annotation: Any) -> Any:
    """What a list of lists of this annotation holds in the end."""
    # An array of PostgreSQL has any number of dimensions, and says so nowhere.
    item = _item_of(annotation)
    return next((innermost(member) for member in members(item) if _is_list(member)), item)


def fits(annotation: Any, type_: Type) -> bool:
    """Whether values of a column can be this; True where that cannot be told."""
    allowed = members(annotation)
    return not allowed or any(_fits(member, type_) for member in allowed)


def _fits(member: Any, type_: Type) -> bool:
    if type_.family is Family.JSON:
        return True
    if _is_list(member):
        return type_.element is not None and fits(innermost(member), type_.element)
    if typing.get_origin(member) in {dict, collections.abc.Mapping} or not isinstance(member, type):
        return typing.get_origin(member) is None
    if issubclass(member, enum.Enum):
        return _enum_fits(member, type_)
    for scalar, families in _SCALARS:
        if issubclass(member, scalar):
            return type_.family in families
    return not (
        issubclass(member, dict | msgspec.Struct)
        or dataclasses.is_dataclass(member)
        or typing.is_typeddict(member)
        or "__pydantic_core_schema__" in vars(member)
    )


def _enum_fits(member: type[enum.Enum], type_: Type) -> bool:
    if type_.family is Family.ENUM:
        names, values = {item.name for item in member}, {item.value for item in member}
        return not (names - set(type_.labels) and values - set(type_.labels))
    return all(_fits(type(item.value), type_) for item in member)


def _is_list(member: Any) -> bool:
    return (typing.get_origin(member) or member) in _LISTS


def shown(annotation: Any) -> str:
    """An annotation for a message."""
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
