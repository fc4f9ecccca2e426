"""How values become bytes: typed where the type is known, self-describing where it is not."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from asynccache.codecs.base import Codec, Limits, Packed
from asynccache.codecs.compression import check_compression
from asynccache.codecs.fingerprints import fingerprint
from asynccache.codecs.names import plan
from asynccache.codecs.pydantic_models import is_pydantic
from asynccache.codecs.shapes import Parts, parts
from asynccache.codecs.typed import TypedCodec
from asynccache.codecs.untyped import UntypedCodec
from asynccache.codecs.validated import PydanticCodec
from asynccache.errors import ConfigurationError, EncodeError

__all__ = ["Codec", "Packed", "codec_for"]

_USE: Final = "use a dataclass, msgspec Struct, pydantic model, TypedDict, NamedTuple, a built-in type, or no type"


def codec_for(
    type_: Any = Any,
    *,
    max_value_bytes: int = 8 * 1024 * 1024,
    compress_above: int | None = None,
    max_decompressed_bytes: int = 64 * 1024 * 1024,
) -> Codec[Any]:
    """The codec for values of one type; the same one for the same arguments.

    A type that says what its values are gets a typed codec (msgspec), one of pydantic models has them validated by
    pydantic, and one that leaves something open (`Any`, a bare `dict`, a field of either kind) an untyped codec, which
    writes of each value what it is.

    Args:
        type_: a dataclass, msgspec Struct, pydantic model, TypedDict, NamedTuple, built-in type, enum, or a union or
            container of them; `Any` for values of any of these types.
        max_value_bytes: largest payload, in bytes.
        compress_above: compresses payloads above so many bytes; None does not.
        max_decompressed_bytes: what a compressed payload may grow to when it is read, in bytes.

    Raises:
        ConfigurationError: the type cannot be cached, or a size is not a number of bytes.
        MissingExtra: `compress_above` without the extra `compress`.
    """
    _check_size("max_value_bytes", max_value_bytes, least=1)
    _check_size("max_decompressed_bytes", max_decompressed_bytes, least=1)
    if compress_above is not None:
        _check_size("compress_above", compress_above, least=0)
        check_compression()
    limits = Limits(max_value_bytes, compress_above, max_decompressed_bytes)
    try:
        hash(type_)
    except TypeError:  # such as Annotated[..., []]
        return _make(type_, limits)
    return _cached(type_, limits)


def _check_size(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r} ({type(value).__name__}) must be a number of bytes from {least}")


def _make(type_: Any, limits: Limits) -> Codec[Any]:
    try:
        found, shape = parts(type_), fingerprint(type_)
    except NameError as error:
        raise ConfigurationError(f"type={type_!r} refers to a name that is not defined here: {error}") from error
    if is_pydantic(type_):
        return PydanticCodec(type_, shape, limits, found.models)
    if found.unknown:
        unknown = found.unknown[0]
        raise ConfigurationError(f"type={type_!r} cannot be cached, because of {_called(unknown)}: {_USE}")
    if found.open:
        return _untyped(type_, shape, limits, found)
    try:
        return TypedCodec(type_, shape, limits)
    except TypeError as error:
        # Without their names msgspec cannot tell some members of a union apart; with them anyone can.
        try:
            return _untyped(type_, shape, limits, found)
        except ConfigurationError:
            raise ConfigurationError(f"type={type_!r} cannot be cached: {error}; {_USE}") from error


def _untyped(type_: Any, shape: bytes, limits: Limits, found: Parts) -> UntypedCodec:
    try:
        for model in found.models:
            plan(model)
    except EncodeError as error:
        raise ConfigurationError(f"type={type_!r} cannot be cached: {error}") from error
    return UntypedCodec(type_, shape, limits, (*found.models, *found.enums))


def _called(unknown: Any) -> str:
    return f"the class {unknown.__qualname__}" if isinstance(unknown, type) else f"{unknown!r:.100}"


_cached = lru_cache(maxsize=1024)(_make)
