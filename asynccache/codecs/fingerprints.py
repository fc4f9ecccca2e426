"""Eight bytes that say what shape a type has: the same in every process, other ones when a model changes."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import typing
from typing import Any

import msgspec

__all__ = ["fingerprint"]


def fingerprint(type_: Any) -> bytes:
    """The fingerprint of a type: of its name, fields, their types and whether they have defaults, all the way down."""
    return hashlib.blake2b(_describe(type_, ()).encode(), digest_size=8).digest()


def _describe(type_: Any, inside: tuple[Any, ...]) -> str:
    if any(type_ is outer for outer in inside):
        return f"^{getattr(type_, '__qualname__', type_)}"  # recursive: its shape is being described already
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is not None:
        if origin is typing.Annotated:
            # Constraints decide what is valid, not how it is written.
            return _describe(arguments[0], inside)
        name = getattr(origin, "__qualname__", str(origin))
        parts = [repr(part) if origin is typing.Literal else _describe(part, inside) for part in arguments]
        if name in {"Union", "UnionType"}:
            name, parts = "Union", sorted(parts)
        return f"{name}[{','.join(parts)}]" + (_fields(origin, inside) if isinstance(origin, type) else "")
    if not isinstance(type_, type):
        return str(type_)
    if issubclass(type_, enum.Enum):
        members = ",".join(f"{member.name}={member.value!r}" for member in type_)
        return f"{type_.__qualname__}<{members}>"
    return type_.__qualname__ + _fields(type_, inside)


def _fields(type_: type, inside: tuple[Any, ...]) -> str:
    """`{name: type, ...}` of a model; nothing for other types."""
    inside = (*inside, type_)
    found: list[tuple[str, Any, bool]] = []
    if issubclass(type_, msgspec.Struct):
        found = [(field.encode_name, field.type, field.required) for field in msgspec.structs.fields(type_)]
        extra = f"{type_.__struct_config__.tag!r}{type_.__struct_config__.array_like}"
    elif dataclasses.is_dataclass(type_):
        hints = typing.get_type_hints(type_, include_extras=True)
        none = dataclasses.MISSING
        found = [
            (field.name, hints[field.name], field.default is none and field.default_factory is none)
            for field in dataclasses.fields(type_)
        ]
        extra = ""
    elif issubclass(type_, tuple) and hasattr(type_, "_fields"):
        hints = typing.get_type_hints(type_, include_extras=True)
        defaults = getattr(type_, "_field_defaults", {})
        found = [(name, hints.get(name, Any), name not in defaults) for name in type_._fields]
        extra = ""
    elif typing.is_typeddict(type_):
        hints = typing.get_type_hints(type_, include_extras=False)
        required = type_.__required_keys__  # type: ignore[attr-defined]  # of every TypedDict
        found = [(name, hint, name in required) for name, hint in sorted(hints.items())]
        extra = ""
    elif hasattr(type_, "model_fields") and hasattr(type_, "__pydantic_core_schema__"):
        found = [(name, field.annotation, field.is_required()) for name, field in type_.model_fields.items()]
        extra = ""
    else:
        return ""
    described = ",".join(f"{name}{'' if needed else '?'}:{_describe(hint, inside)}" for name, hint, needed in found)
    return f"{extra}{{{described}}}"
