"""Reads what `writing` wrote. Whatever the bytes are, this makes values, members of enums, and models; nothing else."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec

from asynccache.codecs.names import Names, plan
from asynccache.codecs.pydantic_models import adapter
from asynccache.codecs.shapes import ADDRESSES
from asynccache.codecs.writing import DEEPEST, Kind
from asynccache.errors import DecodeError

__all__ = ["Reader"]

_ADDRESSES: Final = {kind.__name__: kind for kind in ADDRESSES}


class Reader:
    """Reads values of any kind.

    Args:
        names: finds classes by name.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        # One decoder for each level, which knows how deep it is: extensions hold msgpack with extensions.
        self._levels: list[Callable[[Any], Any]] = []
        self._decode = self._level(0)

    def read(self, payload: bytes | memoryview) -> Any:
        """The value.

        Raises:
            DecodeError: not such bytes, or a class that this process has not imported, or one that has changed.
        """
        try:
            return self._decode(payload)
        except DecodeError:
            raise
        # What damaged bytes may raise is up to the class that they name.
        except Exception as error:
            raise DecodeError(f"not a value: {type(error).__name__}: {error}") from error

    def _level(self, depth: int) -> Callable[[Any], Any]:
        if depth > DEEPEST:
            raise DecodeError(f"a value nested deeper than {DEEPEST} levels")
        while len(self._levels) <= depth:
            hook = partial(self._revive, len(self._levels) + 1)
            self._levels.append(msgspec.msgpack.Decoder(ext_hook=hook).decode)
        return self._levels[depth]

    def _revive(self, depth: int, code: int, data: memoryview) -> Any:
        """The value of one extension."""
        if code == Kind.UUID:
            return UUID(bytes=bytes(data))
        if code == Kind.BYTEARRAY:
            return bytearray(data)
        value = self._level(depth)(data)
        match code:
            case Kind.TUPLE:
                return tuple(_items(value))
            case Kind.SET:
                return set(_items(value))
            case Kind.FROZENSET:
                return frozenset(_items(value))
            case Kind.MAP:
                return dict(map(_items, _items(value)))
            case Kind.INT:
                return int(value, 16)
            case Kind.MODEL:
                return self._model(*value)
            case Kind.ENUM:
                return self._member(*value)
            case Kind.DECIMAL:
                return Decimal(_text(value))
            case Kind.DATETIME:
                return dt.datetime.fromisoformat(value[0]).replace(fold=value[1])
            case Kind.DATE:
                return dt.date.fromisoformat(value)
            case Kind.TIME:
                return dt.time.fromisoformat(value[0]).replace(fold=value[1])
            case Kind.TIMEDELTA:
                return dt.timedelta(*value)
            case Kind.ADDRESS:
                return _ADDRESSES[value[0]](_text(value[1]))
            case _:
                raise DecodeError(f"an extension of the unknown kind {code}")

    def _model(self, name: str, body: Any) -> Any:
        kind = self._names.find(name)
        how = plan(kind)
        if how is None:
            raise DecodeError(f"{name:.200} is no model here")
        if how.decode is None:
            return adapter(kind).validate(body)
        if isinstance(body, bytes):
            return how.decode(body)
        return msgspec.convert(body, kind, from_attributes=True)

    def _member(self, name: str, member: str | int) -> enum.Enum:
        kind = self._names.find(name)
        if not issubclass(kind, enum.Enum):
            raise DecodeError(f"{name:.200} is no enum here")
        if isinstance(member, str):
            return kind[member]
        if not issubclass(kind, enum.Flag):
            raise DecodeError(f"{name:.200} is no flag here")
        return kind(member)


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise DecodeError(f"a container that holds {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"{type(value).__name__} instead of text")
    return value
