"""How one buffered write is kept in Redis: what to do, the key value, and the encoded value."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from asynccache.codecs import Codec, Packed, codec_for
from asynccache.errors import DecodeError
from asynccache.protocols import Delete, Put, Write

__all__ = ["Records"]

V = TypeVar("V")

_PUT: Final = "put"
_DELETE: Final = "delete"


class _Record(msgspec.Struct, array_like=True, frozen=True):
    operation: str
    key: bytes
    fingerprint: bytes = b""
    compressed: bool = False
    payload: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class Records(Generic[V]):
    """Writes records of one strategy and reads them back."""

    def __init__(self, codec: Codec[V]) -> None:
        self._codec = codec
        # Key values need no model, but their type must survive: 1 is not "1".
        self._keys: Codec[Any] = codec_for(Any)

    def put(self, key: Any, packed: Packed) -> bytes:
        """The record of a put."""
        return _encode(
            _Record(_PUT, self._keys.pack(key).payload, self._codec.fingerprint, packed.compressed, packed.payload)
        )

    def delete(self, key: Any) -> bytes:
        """The record of a delete."""
        return _encode(_Record(_DELETE, self._keys.pack(key).payload))

    def write(self, record: bytes) -> Write[V]:
        """What a record asks for.

        Raises:
            DecodeError: it is not a record that this version of the model can read.
        """
        try:
            read = _decode(record)
        except msgspec.MsgspecError as error:
            raise DecodeError(f"not a buffered write: {error}") from error
        key = self._keys.unpack(read.key, False)
        if read.operation == _DELETE:
            return Delete(key)
        if read.operation != _PUT:
            raise DecodeError(f"a buffered write of the unknown kind {read.operation!r}: it is a newer version's")
        # Not refused for another fingerprint: an acknowledged write is worth an attempt with the newer model.
        return Put(key, self._codec.unpack(read.payload, read.compressed))

    def value(self, record: bytes) -> V | None:
        """The value that a reader sees; None for a delete."""
        write = self.write(record)
        return write.value if isinstance(write, Put) else None
