"""The codec of a type that msgspec knows: dataclasses, Structs, TypedDicts, NamedTuples, built-ins, unions of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from asynccache.codecs.base import Codec, Limits, Packed, as_array
from asynccache.codecs.checks import checker, describe
from asynccache.errors import DecodeError, EncodeError

__all__ = ["TypedCodec"]

_new = tuple.__new__
"""Makes a named tuple in half the time."""


class TypedCodec(Codec[Any]):
    """Writes a value without its type, which both sides know; the most compact and the fastest.

    `encode` checks the class of the value, and of what a container holds; what is in the fields of a model is checked
    when it is decoded, and an instance of a subclass there comes back as the class that the field declares. An aware
    datetime comes back as the same instant in UTC, and a tuple in a field declared as a `Sequence` as a list.

    Raises:
        TypeError: a type that msgspec does not support.
    """

    id = 2

    def __init__(self, type_: Any, fingerprint: bytes, limits: Limits) -> None:
        super().__init__(type_, fingerprint, limits)
        self._decode = msgspec.msgpack.Decoder(type_).decode
        self._decode_array = msgspec.msgpack.Decoder(list[type_]).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._check = checker(type_)

    def encode(self, value: Any) -> bytes:
        if self._check is not None and not self._check(value):
            raise EncodeError(f"the entry holds {self.type!r}, not {describe(value)}")
        try:
            return self._encode(value)
        # An attribute that is not set, an int above 64 bits, a value that holds itself, a lone surrogate.
        except Exception as error:
            raise EncodeError(f"{describe(value)} cannot be encoded as {self.type!r}: {error}") from error

    def pack(self, value: Any) -> Packed:
        # The usual case without three frames; whatever is the matter is found there.
        if self._check is None or self._check(value):
            try:
                payload = self._encode(value)
            except Exception:  # noqa: BLE001 - `encode` says what it is
                return super().pack(value)
            if len(payload) <= self._plain_size:
                return _new(Packed, (payload, False))
        return super().pack(value)

    def decode(self, payload: bytes | memoryview) -> Any:
        try:
            return self._decode(payload)
        # A `__post_init__` of the user's may raise anything.
        except Exception as error:
            raise DecodeError(f"not a {self.type!r}: {error}") from error

    @property
    def plain_decode(self) -> Callable[[bytes], Any]:
        return self._decode

    def decode_all(self, payloads: Sequence[bytes]) -> list[Any]:
        if all(payloads):
            try:
                return self._decode_array(as_array(payloads))
            except Exception:  # noqa: BLE001 - which one it is, and why, shows below
                return super().decode_all(payloads)
        return super().decode_all(payloads)
