"""The rows of a model, as far as buffered adjustments need them: numeric columns, defaults, and a changed copy."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import msgspec

from asynccache.codecs.annotations import UNIONS, inner
from asynccache.codecs.pydantic_models import is_model
from asynccache.errors import ConfigurationError, DecodeError
from asynccache.protocols import Adjustment
from asynccache.write_behind.numbers import WIDE

__all__ = ["Rows"]

V = TypeVar("V")
_NUMBERS: Final = (int, Decimal, float)


class Rows(Generic[V]):
    """Reads and changes the numbers in values of one type.

    Args:
        type_: a dataclass, Struct, pydantic model or TypedDict; dict or Any for plain dicts.
        defaults: what a row is that does not exist yet: a function from the key value to a complete row, a mapping
            from field to value for the fields that have no default in the model, or such a row itself.
        key: the fields that hold the key value, in order; they need no default.
    """

    def __init__(
        self,
        type_: Any,
        defaults: Callable[[Any], V] | Mapping[str, Any] | V | None = None,
        *,
        key: Sequence[str] = (),
    ) -> None:
        self._type = type_
        self._defaults = defaults
        self._key = tuple(key)
        self._is_dict = not isinstance(type_, type) or issubclass(type_, dict) or typing.is_typeddict(type_)
        self._annotations: dict[str, Any] | None = None
        self._numbers: dict[str, type] = {}

    def number(self, column: str, key: Any) -> type:
        """int, Decimal or float: what a column holds.

        Args:
            column: the field.
            key: any key value, to make a row of defaults for.

        Raises:
            ConfigurationError: there is no such column, or it holds something else.
        """
        found = self._numbers.get(column)
        if found is None:
            found = self._numbers[column] = self._find_number(column, key)
        return found

    def _find_number(self, column: str, key: Any) -> type:
        default = self.get(self.default(key), column)
        if self._annotations is None:
            hints = typing.get_type_hints(self._type, include_extras=True) if isinstance(self._type, type) else {}
            self._annotations = hints if self._type is not dict else {}
        annotation = inner(self._annotations.get(column, type(default)))
        if typing.get_origin(annotation) in UNIONS:
            rest = [part for part in map(inner, typing.get_args(annotation)) if part is not type(None)]
            annotation = rest[0] if len(rest) == 1 else type(default)
        if annotation not in _NUMBERS:
            raise ConfigurationError(
                f"{column!r} of {self._name} holds {getattr(annotation, '__name__', annotation)}, which cannot be"
                " adjusted: only int, Decimal and float can"
            )
        if isinstance(default, bool) or not isinstance(default, _NUMBERS):
            raise ConfigurationError(
                f"{column!r} of {self._name} has the default {default!r}, to which nothing can be added:"
                f" give defaults= a number for it, such as {annotation(0)!r}"
            )
        return typing.cast("type", annotation)

    @property
    def _name(self) -> str:
        return getattr(self._type, "__name__", str(self._type))

    def default(self, key: Any) -> V:
        """The row of a key that does not exist yet.

        Raises:
            ConfigurationError: a field has neither a default in the model nor one in `defaults`.
        """
        defaults = self._defaults
        if isinstance(defaults, Mapping) or defaults is None:
            values = copy.deepcopy(dict(defaults or {}))  # a list in it is for one row
            values.update(zip(self._key, key if isinstance(key, tuple) else (key,), strict=False))
            if self._is_dict:
                return typing.cast("V", values)
            try:
                return typing.cast("V", self._type(**values))
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"a row of {self._name} that does not exist yet cannot be made ({error}): give its fields defaults,"
                    " or pass defaults= with the missing ones, or a function from the key to a row"
                ) from error
        if callable(defaults) and not inspect.isclass(defaults) and not isinstance(defaults, self._class):
            return defaults(key)
        return typing.cast("V", copy.deepcopy(defaults))

    @property
    def _class(self) -> type:
        return dict if self._is_dict else self._type

    def get(self, row: V, column: str) -> Any:
        """What a column of a row holds; None if it has no such column."""
        return row.get(column) if isinstance(row, dict) else getattr(row, column, None)

    def adjusted(self, row: V, key: Any, columns: Mapping[str, Adjustment]) -> V:
        """A copy of a row with its columns adjusted; None in a column counts as its default.

        Raises:
            DecodeError: the model no longer has a column.
        """
        changes = {}
        for column, adjustment in columns.items():
            try:
                kind = self.number(column, key)
            except ConfigurationError as error:
                raise DecodeError(f"a buffered adjustment that no longer fits: {error}") from error
            old = self.get(row, column)
            if old is None:
                old = self.get(self.default(key), column)
            changes[column] = _adjust(kind, adjustment, old)
        return typing.cast("V", _replaced(row, changes))

    def numbers(self, key: Any, columns: Mapping[str, Adjustment]) -> dict[str, Any]:
        """The defaults of these columns."""
        row = self.default(key)
        return {column: self.get(row, column) for column in columns}


def _adjust(kind: type, adjustment: Adjustment, old: Any) -> Any:
    if kind is float:
        parts = (adjustment.add, adjustment.floor, adjustment.ceiling)
        add, floor, ceiling = (None if part is None else float(part) for part in parts)
        return Adjustment(add or 0.0, floor, ceiling)(float(old))
    if kind is int:
        return int(adjustment(old))
    with decimal.localcontext(WIDE):  # the application's may round
        return Decimal(adjustment(old))


def _replaced(row: Any, changes: Mapping[str, Any]) -> Any:
    if isinstance(row, dict):
        return {**row, **changes}
    if isinstance(row, msgspec.Struct):
        return msgspec.structs.replace(row, **changes)
    if is_model(type(row)):
        return row.model_copy(update=changes)
    if isinstance(row, tuple) and hasattr(row, "_replace"):
        return row._replace(**changes)
    if dataclasses.is_dataclass(row):
        twin = copy.copy(row)
        for name, value in changes.items():
            object.__setattr__(twin, name, value)  # also of a frozen one, and of fields that __init__ does not take
        return twin
    raise DecodeError(f"a value of type {type(row).__qualname__} has no columns that can be adjusted")
