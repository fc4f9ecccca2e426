"""Annotations without what changes nothing on the wire."""

from __future__ import annotations

import types
import typing
from typing import Any, Final

__all__ = ["UNIONS", "inner"]

UNIONS: Final = frozenset({typing.Union, types.UnionType})
_WRAPPERS: Final = frozenset(
    {typing.Annotated, typing.Required, typing.NotRequired, typing.Final, getattr(typing, "ReadOnly", typing.Final)}
)


def inner(type_: Any) -> Any:
    """The type without what changes nothing on the wire: `Annotated`, `NewType`, `type X = ...`, `Required`."""
    while True:
        if typing.get_origin(type_) in _WRAPPERS:
            type_ = typing.get_args(type_)[0]
        elif isinstance(type_, typing.NewType):
            type_ = type_.__supertype__
        elif type(type_).__name__ == "TypeAliasType":
            type_ = type_.__value__
        else:
            return type_
