"""The codec of pydantic models, and of containers of them; pydantic is imported only if the type is one of its own."""

from __future__ import annotations

import types
import typing
from typing import Any

from asynccache.codecs.base import Codec, Limits
from asynccache.errors import ConfigurationError, DecodeError, EncodeError

__all__ = ["PydanticCodec", "is_pydantic"]


def is_pydantic(type_: Any) -> bool:
    """Whether a type is a pydantic model or dataclass, or has one among its arguments."""
    # Without an import of pydantic: who has such a class has imported it.
    if isinstance(type_, type) and "__pydantic_core_schema__" in vars(type_):
        return True
    return any(is_pydantic(argument) for argument in typing.get_args(type_))


class PydanticCodec(Codec[Any]):
    """Writes JSON as pydantic does, and validates what it reads."""

    id = 3

    def __init__(self, type_: Any, fingerprint: bytes, limits: Limits) -> None:
        super().__init__(type_, fingerprint, limits)
        from pydantic import PydanticSchemaGenerationError, TypeAdapter  # noqa: PLC0415 - an extra

        try:
            self._adapter: Any = TypeAdapter(type_)
        except PydanticSchemaGenerationError as error:
            raise ConfigurationError(f"type={type_!r} cannot be cached: {error}") from error
        origin: Any = typing.get_origin(type_) or type_
        self._instance = origin if isinstance(origin, type) and origin is not types.UnionType else None

    def encode(self, value: Any) -> bytes:
        if self._instance is not None and not isinstance(value, self._instance):
            raise EncodeError(f"the entry holds {self.type!r}, not {type(value).__name__} ({value!r:.100})")
        try:
            # By field name, whatever aliases there are, and with unset fields told apart from set ones.
            payload: bytes = self._adapter.dump_json(value, round_trip=True, warnings="error")
        except Exception as error:
            raise EncodeError(f"{type(value).__name__} cannot be encoded as {self.type!r}: {error}") from error
        return payload

    def decode(self, payload: bytes) -> Any:
        try:
            return self._adapter.validate_json(payload)
        # A validator of the user's may raise anything.
        except Exception as error:
            raise DecodeError(f"not a {self.type!r}: {error}") from error
