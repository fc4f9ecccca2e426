"""The codec of a type that msgspec knows: dataclasses, Structs, TypedDicts, NamedTuples, built-ins, unions of them."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import msgspec

from asynccache.codecs.base import Codec, Limits
from asynccache.errors import ConfigurationError, DecodeError, EncodeError

__all__ = ["TypedCodec"]


class TypedCodec(Codec[Any]):
    """Writes a value without its type, which both sides know; the most compact and the fastest.

    `encode` checks that the value is an instance of the type, or of one of the types of a union; what it holds is
    checked when it is decoded.
    """

    id = 2

    def __init__(self, type_: Any, fingerprint: bytes, limits: Limits) -> None:
        super().__init__(type_, fingerprint, limits)
        try:
            self._decode = msgspec.msgpack.Decoder(type_).decode
        except TypeError as error:
            raise ConfigurationError(
                f"type={type_!r} cannot be cached: {error}; use a dataclass, msgspec Struct, pydantic model, TypedDict,"
                " NamedTuple, a built-in type, or no type"
            ) from error
        self._encode = msgspec.msgpack.Encoder().encode
        self._instances = _instances(type_)

    def encode(self, value: Any) -> bytes:
        if self._instances is not None and not isinstance(value, self._instances):
            raise EncodeError(f"the entry holds {self.type!r}, not {type(value).__name__} ({value!r:.100})")
        try:
            return self._encode(value)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError, RecursionError) as error:
            raise EncodeError(f"{type(value).__name__} cannot be encoded as {self.type!r}: {error}") from error

    def decode(self, payload: bytes) -> Any:
        try:
            return self._decode(payload)
        # A `__post_init__` of the user's may raise anything.
        except Exception as error:
            raise DecodeError(f"not a {self.type!r}: {error}") from error


def _instances(type_: Any) -> tuple[type, ...] | None:
    """The classes of which values are instances; None if that cannot be told."""
    origin = typing.get_origin(type_)
    if origin is typing.Annotated:
        return _instances(typing.get_args(type_)[0])
    if origin in {typing.Union, types.UnionType}:
        members = [_instances(member) for member in typing.get_args(type_)]
        if any(member is None for member in members):
            return None
        return tuple(kind for member in members for kind in member or ())
    if typing.is_typeddict(origin or type_):
        return (dict,)
    kind = origin or type_
    if kind is float:
        return (float, int)
    return (kind,) if isinstance(kind, type) else None


def is_model(type_: Any) -> bool:
    """Whether a class has fields that msgspec knows."""
    return isinstance(type_, type) and (dataclasses.is_dataclass(type_) or issubclass(type_, msgspec.Struct))
