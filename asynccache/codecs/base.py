"""What a codec is: how values of one type become bytes and come back as what they were."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from asynccache.codecs.compression import compress, decompress
from asynccache.errors import ValueTooLarge

__all__ = ["Codec", "Limits", "Packed", "as_array"]

V = TypeVar("V")


def as_array(items: Sequence[bytes], size: int | None = None) -> bytes:
    """Values in msgpack as one array in msgpack; `size` is how many there are, if an item holds several."""
    return b"\xdd" + (len(items) if size is None else size).to_bytes(4, "big") + b"".join(items)


class Packed(NamedTuple):
    """An encoded value, and whether it is compressed."""

    payload: bytes
    compressed: bool


class Limits(NamedTuple):
    """Sizes in bytes: of a payload; from which it is compressed, if at all; and of what it may decompress to."""

    max_value_bytes: int
    compress_above: int | None
    max_decompressed_bytes: int


class Codec(ABC, Generic[V]):
    """Encodes values of one type.

    Attributes:
        id: number of the format on the wire, from 0 to 255.
        type: what values are.
        fingerprint: eight bytes that change with the shape of the type, the same in every process.
    """

    id: int

    def __init__(self, type_: Any, fingerprint: bytes, limits: Limits) -> None:
        self.type = type_
        self.fingerprint = fingerprint
        self._limits = limits
        above = limits.max_value_bytes if limits.compress_above is None else limits.compress_above
        self._plain_size = min(above, limits.max_value_bytes)

    @abstractmethod
    def encode(self, value: V) -> bytes:
        """The value as bytes.

        Raises:
            EncodeError: it is not of this type, or holds what cannot be encoded.
        """

    @abstractmethod
    def decode(self, payload: bytes | memoryview) -> V:
        """The value again.

        Raises:
            DecodeError: bytes that are not a value of this type.
        """

    @property
    def plain_decode(self) -> Callable[[bytes], V]:
        """`decode` with a frame less, where there is such a thing; what it raises may be anything."""
        return self.decode

    def decode_all(self, payloads: Sequence[bytes]) -> list[V]:
        """Many values that `encode` wrote, in their order; for most types faster than one by one.

        Raises:
            DecodeError: one of them is not a value of this type.
        """
        return [self.decode(payload) for payload in payloads]

    def pack(self, value: V) -> Packed:
        """Encodes a value for the wire, compressed if it is large and that makes it smaller.

        Raises:
            EncodeError: it is not of this type, or holds what cannot be encoded.
            ValueTooLarge: it is above `max_value_bytes`, or above what `unpack` would decompress.
        """
        payload = self.encode(value)
        if len(payload) <= self._plain_size:
            return Packed(payload, False)
        limits = self._limits
        size, compressed = len(payload), False
        if limits.compress_above is not None and limits.compress_above < size <= limits.max_decompressed_bytes:
            smaller = compress(payload)
            if len(smaller) < size:
                payload, compressed = smaller, True
        if len(payload) > limits.max_value_bytes:
            raise ValueTooLarge(
                f"a value of type {type(value).__qualname__} takes {len(payload):,} bytes, above max_value_bytes="
                f"{limits.max_value_bytes:,}: cache less of it, raise the limit, or set compress_above"
            )
        return Packed(payload, compressed)

    def unpack(self, payload: bytes | memoryview, compressed: bool) -> V:
        """Decodes what `pack` made, whatever this codec's own `compress_above` is.

        Raises:
            DecodeError: bytes that are not a value of this type, or need the extra `compress`.
        """
        if compressed:
            payload = decompress(payload, self._limits.max_decompressed_bytes)
        return self.decode(payload)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.type!r})"
