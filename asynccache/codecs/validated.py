"""The codec of pydantic models, and of containers and unions of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asynccache.codecs.base import Codec, Limits
from asynccache.codecs.checks import checker, describe
from asynccache.codecs.names import Names
from asynccache.codecs.pydantic_models import Adapter
from asynccache.codecs.reading import Reader
from asynccache.codecs.writing import DumpWriter
from asynccache.errors import DecodeError, EncodeError

__all__ = ["PydanticCodec"]


class PydanticCodec(Codec[Any]):
    """Writes what pydantic dumps, and has it validated again.

    Not as JSON, which cannot tell a Decimal or a datetime from text, and has no infinity. What pydantic leaves out
    (excluded, computed and private fields; those of a subclass, where the model's field declares its base) is left out.
    """

    id = 3

    def __init__(self, type_: Any, fingerprint: bytes, limits: Limits, models: Iterable[type] = ()) -> None:
        super().__init__(type_, fingerprint, limits)
        self._adapter = Adapter(type_)
        names = Names(models)
        self._write = DumpWriter(names).write
        self._read = Reader(names).read
        self._check = checker(type_)
        self._proven = False

    def encode(self, value: Any) -> bytes:
        if self._check is not None and not self._check(value):
            raise EncodeError(f"the entry holds {self.type!r}, not {describe(value)}")
        try:
            dumped = self._adapter.dump(value)
        # A serialiser of the user's may raise anything.
        except Exception as error:
            raise EncodeError(f"{describe(value)} cannot be encoded as {self.type!r}: {error}") from error
        payload = self._write(dumped)
        if not self._proven:
            self._prove(payload)
        return payload

    def decode(self, payload: bytes | memoryview) -> Any:
        try:
            return self._adapter.validate(self._read(payload))
        except DecodeError:
            raise
        # A validator of the user's may raise anything.
        except Exception as error:
            raise DecodeError(f"not a {self.type!r}: {error}") from error

    def _prove(self, payload: bytes) -> None:
        """Reads back the first value: a model whose own dump it refuses would be an eternal miss."""
        try:
            self.decode(payload)
        except DecodeError as error:
            raise EncodeError(
                f"{self.type!r} does not validate what it dumps, such as a required field with exclude=True or a"
                f" serializer without its validator: {error}"
            ) from error
        self._proven = True
