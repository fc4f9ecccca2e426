"""Checks that a value is of a type, as far as that is cheap: its class, and the classes of what a container holds.

msgspec and pydantic write a wrong value without a word, and refuse to read it back: an eternal miss. So the class is
checked before. A subclass is wrong, too, since it would come back as the class that was declared. What the fields of a
model hold is not checked.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from asynccache.codecs.annotations import UNIONS, inner
from asynccache.codecs.shapes import CONTAINERS, fields, model_kind

__all__ = ["Check", "checker", "describe"]

Check = Callable[[Any], bool]

_SHOWN: Final = 3


def checker(type_: Any) -> Check | None:
    """A function that tells whether a value is of this type; None if every value is."""
    exact = _classes(type_)
    if exact is not None:
        return lambda value: type(value) in exact
    type_ = inner(type_)
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    kind = origin or type_
    if kind is Any or kind is object or isinstance(kind, typing.TypeVar):
        return None
    if origin in UNIONS:
        members = [checker(argument) for argument in arguments]
        if any(member is None for member in members):
            return None
        return lambda value: any(member(value) for member in members if member is not None)
    if origin is typing.Literal:
        return lambda value: any(value == one and type(value) is type(one) for one in arguments)
    if kind is UUID:  # asyncpg has its own, which is as good
        return lambda value: isinstance(value, UUID)
    if model_kind(kind) == "typeddict":
        every = fields(kind)
        known, required = {field.name for field in every}, {field.name for field in every if field.required}
        # msgspec leaves out what it does not know when it reads.
        return lambda value: isinstance(value, dict) and required <= value.keys() <= known
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        places = [checker(argument) for argument in arguments]
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(places)
            and all(check is None or check(item) for check, item in zip(places, value, strict=True))
        )
    if kind in CONTAINERS:
        return _container(kind, [argument for argument in arguments if argument is not Ellipsis])
    return (lambda value: isinstance(value, kind)) if isinstance(kind, type) else None


def _classes(type_: Any) -> frozenset[type] | None:
    """The classes of which values are instances, exactly; None if that does not tell."""
    type_ = inner(type_)
    origin = typing.get_origin(type_)
    if origin in UNIONS:
        found = [_classes(argument) for argument in typing.get_args(type_)]
        return None if any(part is None for part in found) else frozenset().union(*(part or () for part in found))
    kind = origin or type_
    if kind is None:
        return frozenset({type(None)})
    if kind is float:
        return frozenset({float, int})
    if not isinstance(kind, type) or kind in {Any, object, UUID} or kind in CONTAINERS or typing.is_typeddict(kind):
        return None
    return frozenset({kind})


def _container(kind: Any, arguments: list[Any]) -> Check:
    """A check of a container's class and of what it holds."""

    def of_kind(value: Any) -> bool:
        return isinstance(value, kind) and not isinstance(value, str | bytes | bytearray)

    every = [_every(argument) for argument in arguments]
    if not any(every):
        return of_kind
    if len(every) == 2:  # a mapping
        keys, values = every
        return lambda value: (
            of_kind(value) and (keys is None or keys(value.keys())) and (values is None or values(value.values()))
        )
    items = every[0]
    return lambda value: of_kind(value) and (items is None or items(value))


def _every(type_: Any) -> Callable[[Iterable[Any]], bool] | None:
    """A function that tells whether all of many values are of this type."""
    exact = _classes(type_)
    if exact is not None:
        return lambda values: exact.issuperset(map(type, values))
    check = checker(type_)
    return None if check is None else (lambda values: all(map(check, values)))


def describe(value: Any) -> str:
    """The type of a value, and those of what it holds, in words; never the value, which may be long or secret."""
    kind = type(value)
    if not isinstance(value, list | tuple | set | frozenset | dict) or not value or hasattr(kind, "_fields"):
        return kind.__qualname__
    names = {type(item).__qualname__ for item in (value.values() if isinstance(value, dict) else value)}
    return f"{kind.__qualname__} of {', '.join(sorted(names)[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
