"""The codec of values whose type is not known, or says too little: each value is written with what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from asynccache.codecs.base import Codec, Limits, as_array
from asynccache.codecs.checks import checker, describe
from asynccache.codecs.names import Names
from asynccache.codecs.reading import Reader
from asynccache.codecs.writing import Writer
from asynccache.errors import DecodeError, EncodeError

__all__ = ["UntypedCodec"]


class UntypedCodec(Codec[Any]):
    """Writes what a value is with the value.

    Built-in types, datetimes, Decimal, UUID, IP addresses, enums and models come back as what they were. A class is
    restored only if the reading process has imported it already; its fields are validated. Nothing is ever imported or
    called for the data's sake, and no other class is ever made from it.

    Args:
        type_: what values must be, as far as it says.
        fingerprint: of the type.
        limits: sizes.
        models: classes that are found whatever modules are loaded.
    """

    id = 1

    def __init__(self, type_: Any, fingerprint: bytes, limits: Limits, models: Iterable[type] = ()) -> None:
        super().__init__(type_, fingerprint, limits)
        names = Names(models)
        self._write = Writer(names).write
        self._read = Reader(names).read
        self._check = checker(type_)

    def encode(self, value: Any) -> bytes:
        if self._check is not None and not self._check(value):
            raise EncodeError(f"the entry holds {self.type!r}, not {describe(value)}")
        return self._write(value)

    def decode(self, payload: bytes | memoryview) -> Any:
        value = self._read(payload)
        if self._check is not None and not self._check(value):
            raise DecodeError(f"{describe(value)} instead of {self.type!r}")
        return value

    def decode_all(self, payloads: Sequence[bytes]) -> list[Any]:
        try:
            values = self._read(as_array(payloads)) if all(payloads) else None
        except DecodeError:  # which one it is, and why, shows below
            values = None
        if values is None or (self._check is not None and not all(map(self._check, values))):
            return super().decode_all(payloads)
        return values  # type: ignore[no-any-return]  # of an array
