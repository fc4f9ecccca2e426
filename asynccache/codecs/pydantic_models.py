"""Pydantic models as plain data, and back; pydantic is imported only if a type is one of its own."""

from __future__ import annotations

import importlib
import typing
from functools import lru_cache
from typing import Any, Final

from asynccache.codecs.annotations import inner
from asynccache.errors import ConfigurationError

__all__ = ["Adapter", "adapter", "is_model", "is_pydantic"]

_FIRST_BY_NAME: Final = (2, 11)


def is_model(kind: Any) -> bool:
    """Whether a class is a pydantic model."""
    # Without an import of pydantic: who has such a class has imported it.
    return isinstance(kind, type) and "__pydantic_core_schema__" in vars(kind) and hasattr(kind, "model_validate")


def is_pydantic(type_: Any) -> bool:
    """Whether a type is a pydantic model or dataclass, or has one among its arguments."""
    type_ = inner(type_)
    if isinstance(type_, type) and "__pydantic_core_schema__" in vars(type_):
        return True
    return any(map(is_pydantic, typing.get_args(type_)))


class Adapter:
    """Dumps and validates values of one type.

    Raises:
        ConfigurationError: pydantic has no schema for the type.
    """

    def __init__(self, type_: Any) -> None:
        pydantic: Any = importlib.import_module("pydantic")  # an extra
        try:
            made = pydantic.TypeAdapter(type_)
        except pydantic.errors.PydanticUserError as error:
            raise ConfigurationError(f"type={type_!r} cannot be cached: {error}") from error
        self._dump = made.dump_python
        self._validate = made.validate_python
        # Fields go by their own names: an alias to validate may be another one than that to serialise. Before 2.11
        # validation knows no names but aliases.
        by_name = tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) >= _FIRST_BY_NAME
        self._by_alias = not by_name
        self._options: dict[str, Any] = {"by_alias": False, "by_name": True} if by_name else {}

    def dump(self, value: Any) -> Any:
        """The value as pydantic dumps it to be validated again: without computed and excluded fields."""
        return self._dump(value, round_trip=True, warnings="error", by_alias=self._by_alias)

    def validate(self, data: Any) -> Any:
        """The value again."""
        return self._validate(data, **self._options)


@lru_cache(maxsize=4096)
def adapter(model: type) -> Adapter:
    """The adapter of a pydantic model."""
    return Adapter(model)
