"""Models as rows: the fields of a dataclass, Struct, pydantic model or dict, taken apart and put together."""

from __future__ import annotations

import dataclasses
import operator
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from asynccache.codecs.pydantic_models import is_pydantic
from asynccache.errors import ConfigurationError

__all__ = ["Model", "OpenDict", "model_for"]

V = TypeVar("V")


class Model(ABC, Generic[V]):
    """How values of one type become rows and come back.

    Attributes:
        type: the type.
        name: its name.
        fields: the annotation of each field, by the name of the field, in order.
        to_member: whether the type wants members of an `Enum`, not their values.
    """

    to_member = False

    def __init__(self, type_: Any, fields: dict[str, Any]) -> None:
        self.type = type_
        self.name: str = getattr(type_, "__name__", str(type_))
        self.fields = fields

    @abstractmethod
    def takes(self, value: object) -> bool:
        """Whether this is a value of the type."""

    @abstractmethod
    def take_apart(self, names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
        """A function from a value to its fields of these names; `msgspec.UNSET` for one that it has not."""

    @abstractmethod
    def take(self, name: str) -> Callable[[Any], Any]:
        """A function from a value to its field of this name; `msgspec.UNSET` if it has none."""

    @abstractmethod
    def put_together(self, names: Sequence[str]) -> Callable[[Sequence[Sequence[Any]]], list[V]]:
        """A function from rows of these fields to values; raises whatever the type's library does."""

    def json_dump(self, field: str) -> Callable[[Any], str] | None:  # noqa: ARG002 - for those that have one
        """Makes JSON text of a field, if the type's library has a way of its own."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class _Attributes(Model[V]):
    def takes(self, value: object) -> bool:
        return isinstance(value, self.type)

    def take_apart(self, names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
        if not names:
            return lambda _: ()
        if len(names) == 1:
            get = operator.attrgetter(names[0])
            return lambda value: (get(value),)
        return operator.attrgetter(*names)

    def take(self, name: str) -> Callable[[Any], Any]:
        return operator.attrgetter(name)


class MsgspecModel(_Attributes[V]):
    """A dataclass or a Struct."""

    def __init__(self, type_: Any) -> None:
        hints = _hints(type_)
        if issubclass(type_, msgspec.Struct):
            if type_.__struct_config__.array_like:
                raise ConfigurationError(f"model={type_.__name__} is array_like, and rows have names: take that off")
            self._encoded = {field.name: field.encode_name for field in msgspec.structs.fields(type_)}
        else:
            self._encoded = {field.name: field.name for field in dataclasses.fields(type_) if field.init}
        super().__init__(type_, {name: hints[name] for name in self._encoded})
        _check_msgspec(type_)

    def put_together(self, names: Sequence[str]) -> Callable[[Sequence[Sequence[Any]]], list[V]]:
        return _converter(self.type, [self._encoded[name] for name in names])


class TypedDictModel(Model[V]):
    """A TypedDict."""

    def __init__(self, type_: Any) -> None:
        super().__init__(type_, _hints(type_))
        _check_msgspec(type_)

    def takes(self, value: object) -> bool:
        return isinstance(value, dict)

    def take_apart(self, names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
        return _taker(names)

    def take(self, name: str) -> Callable[[Any], Any]:
        return lambda value: value.get(name, UNSET)

    def put_together(self, names: Sequence[str]) -> Callable[[Sequence[Sequence[Any]]], list[V]]:
        return _converter(self.type, list(names))


class OpenDict(Model[V]):
    """A plain dict, whose fields are the table's columns."""

    def __init__(self) -> None:
        super().__init__(dict, {})

    def takes(self, value: object) -> bool:
        return isinstance(value, dict)

    def take_apart(self, names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
        return _taker(names)

    def take(self, name: str) -> Callable[[Any], Any]:
        return lambda value: value.get(name, UNSET)

    def put_together(self, names: Sequence[str]) -> Callable[[Sequence[Sequence[Any]]], list[V]]:
        return lambda rows: [dict(zip(names, row, strict=True)) for row in rows]  # type: ignore[misc]  # V is dict


class PydanticModel(_Attributes[V]):
    """A pydantic model or dataclass; what it reads is validated."""

    to_member = True

    def __init__(self, type_: Any) -> None:
        from pydantic import TypeAdapter  # noqa: PLC0415 - an extra

        self._adapt: Any = TypeAdapter
        self._adapter: Any = TypeAdapter(type_)
        infos = getattr(type_, "model_fields", None) or type_.__pydantic_fields__
        self._infos = {name: info for name, info in infos.items() if info.init is not False}
        super().__init__(type_, {name: info.annotation for name, info in self._infos.items()})
        self._input = {name: _input_name(name, info) for name, info in self._infos.items()}

    def put_together(self, names: Sequence[str]) -> Callable[[Sequence[Sequence[Any]]], list[V]]:
        inputs = [self._input[name] for name in names]
        validate = self._adapter.validate_python
        return lambda rows: [validate(dict(zip(inputs, row, strict=True))) for row in rows]

    def json_dump(self, field: str) -> Callable[[Any], str] | None:
        info = self._infos[field]
        annotation = typing.Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        dump = self._adapt(annotation).dump_json
        # By alias, since that is what validation takes; `round_trip` leaves out what it does not.
        return lambda value: dump(value, by_alias=True, round_trip=True, warnings="error").decode()


def model_for(type_: Any) -> Model[Any]:
    """How values of `type_` become rows.

    Raises:
        ConfigurationError: it is none of the kinds of model.
    """
    if type_ is dict or typing.get_origin(type_) is dict:
        return OpenDict()
    if typing.is_typeddict(type_):
        return TypedDictModel(type_)
    if isinstance(type_, type):
        if is_pydantic(type_):
            return PydanticModel(type_)
        if dataclasses.is_dataclass(type_) or issubclass(type_, msgspec.Struct):
            return MsgspecModel(type_)
    raise ConfigurationError(
        "model must be a dataclass, msgspec Struct, pydantic model, TypedDict or dict, not"
        f" {getattr(type_, '__name__', type_)!r} ({type(type_).__name__}): the class, not an instance"
    )


def _hints(type_: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(type_, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigurationError(
            f"the annotations of model={type_.__name__} cannot be read: {error}; define the types it names before it,"
            " at the level of the module"
        ) from error


def _check_msgspec(type_: Any) -> None:
    try:
        msgspec.msgpack.Decoder(type_)
    except TypeError as error:
        raise ConfigurationError(f"model={type_.__name__} cannot be read from rows: {error}") from error


def _taker(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: tuple([value.get(name, UNSET) for name in names])


def _converter(type_: Any, names: list[str]) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
    many = list[type_]

    def build(rows: Sequence[Sequence[Any]]) -> list[Any]:
        return msgspec.convert([dict(zip(names, row, strict=True)) for row in rows], many, str_keys=True)

    return build


def _input_name(name: str, info: Any) -> str:
    alias = info.validation_alias
    if isinstance(alias, str):
        return alias
    if alias is None:
        return name
    return next((choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str)), name)
