"""How values become bytes: typed where the type is known, self-describing where it is not."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from asynccache.codecs.base import Codec, Limits, Packed
from asynccache.codecs.compression import check_compression
from asynccache.codecs.fingerprints import fingerprint
from asynccache.codecs.pydantic_models import PydanticCodec, is_pydantic
from asynccache.codecs.typed import TypedCodec
from asynccache.codecs.untyped import UntypedCodec, contains_any
from asynccache.errors import ConfigurationError

__all__ = ["Codec", "Packed", "codec_for"]


def codec_for(
    type_: Any = Any,
    *,
    max_value_bytes: int = 8 * 1024 * 1024,
    compress_above: int | None = None,
    max_decompressed_bytes: int = 64 * 1024 * 1024,
) -> Codec[Any]:
    """The codec for values of one type.

    Args:
        type_: a dataclass, msgspec Struct, pydantic model, TypedDict, NamedTuple, any type msgspec knows, or a union or
            container of them; `Any` for values that say themselves what they are.
        max_value_bytes: largest payload.
        compress_above: compresses payloads above so many bytes; None does not.
        max_decompressed_bytes: what a compressed payload may grow to when it is read.

    Raises:
        ConfigurationError: the type cannot be cached.
        MissingExtra: `compress_above` without the extra `compress`.
    """
    if compress_above is not None:
        if not isinstance(compress_above, int) or compress_above < 0:
            raise ConfigurationError(f"compress_above={compress_above!r} must be a number of bytes, or None")
        check_compression()
    limits = Limits(max_value_bytes, compress_above, max_decompressed_bytes)
    try:
        return _codec(type_, limits)
    except TypeError:  # a type that cannot be hashed, such as Annotated[..., []]
        return _make(type_, limits)


def _make(type_: Any, limits: Limits) -> Codec[Any]:
    try:
        shape = fingerprint(type_)
    except NameError as error:
        raise ConfigurationError(f"type={type_!r} refers to a name that is not defined here: {error}") from error
    if is_pydantic(type_):
        return PydanticCodec(type_, shape, limits)
    if contains_any(type_):
        return UntypedCodec(type_, shape, limits)
    return TypedCodec(type_, shape, limits)


_codec = lru_cache(maxsize=1024)(_make)
