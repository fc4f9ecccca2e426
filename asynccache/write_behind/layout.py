"""How buffered writes are kept in Redis, and on their way there.

A record holds all that is to be done to one key:

    base         N only adjusted, P put, R put after a delete, D deleted, A appended
    head         4 bytes length, then what Lua does not read: key value, fingerprint, compressed, encoded value
    adjustments  of numeric columns, after the base (see numbers.py)

An operation is a letter, field, record and readable cell, as `lua/merge.lua` takes it and says.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from asynccache.errors import DecodeError
from asynccache.protocols import Adjustment
from asynccache.write_behind.numbers import pack_column, parse_columns

__all__ = [
    "CELL",
    "NO_CELL",
    "NO_VALUE",
    "EncodedKey",
    "Head",
    "Op",
    "Record",
    "bin_size",
    "head_begin",
    "parse_record",
    "record_of",
    "sized",
]

_SIZE: Final = struct.Struct(">I").pack
CELL: Final = struct.Struct(">IQQ").pack
"""What a readable cell begins with on its way: its size, and how long it is fresh and kept, in milliseconds."""
NO_CELL: Final = bytes(4)


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What Lua does not read of a record."""

    key: bytes
    fingerprint: bytes = b""
    compressed: bool = False
    payload: bytes = b""


EncodedKey: TypeAlias = tuple[str, bytes, bytes]
"""A key's encodings: its field; that as part of an `Op`; and what a `Head` begins with, the key in it."""


def sized(raw: bytes) -> bytes:
    """Bytes with their size before them."""
    return _SIZE(len(raw)) + raw


def bin_size(size: int) -> bytes:
    """What stands before so many bytes in msgpack."""
    if size < 256:
        return b"\xc4%c" % size
    if size < 65_536:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def head_begin(key: bytes) -> bytes:
    """What a `Head` begins with, in msgpack, whatever follows the key."""
    return b"\x94" + bin_size(len(key)) + key


NO_VALUE: Final = msgspec.msgpack.encode(Head(b""))[len(head_begin(b"")) :]
"""What a `Head` ends with that has a key only."""


class Op(NamedTuple):
    """One operation, encoded: nothing can fail any more on the way into the buffer.

    Attributes:
        key: the key value; None for an append, which has no readable cell.
        field: names the record in its partition.
        kind: P put, D delete, I adjusted, A appended.
        raw: field, record and readable value, as `lua/merge.lua` takes it.
    """

    key: Any
    field: str
    kind: str
    raw: bytes

    def record(self) -> bytes:
        """What it becomes where nothing pends for its key."""
        raw = self.raw
        at = 5 + int.from_bytes(raw[1:5], "big")
        return raw[at + 4 : at + 4 + int.from_bytes(raw[at : at + 4], "big")]


@dataclass(frozen=True, slots=True)
class Record:
    """A record, taken apart: base, head, and kind and adjustment by column."""

    base: bytes
    head: bytes
    columns: Mapping[str, tuple[bytes, Adjustment]]

    def pack(self) -> bytes:
        """The record again."""
        columns = b"".join(pack_column(name, kind, adjustment) for name, (kind, adjustment) in self.columns.items())
        return record_of(self.base, self.head) + columns


def parse_record(raw: bytes) -> Record:
    """Takes a record apart.

    Raises:
        DecodeError: it is none.
    """
    base, size = raw[:1], int.from_bytes(raw[1:5], "big")
    if base not in {b"N", b"P", b"R", b"D", b"A"} or len(raw) < 5 + size:
        raise DecodeError(f"a buffered write of the unknown kind {base!r}: it is damaged, or a newer version's")
    return Record(base, raw[5 : 5 + size], parse_columns(raw, 5 + size))


def record_of(base: bytes, head: bytes) -> bytes:
    """A record without adjustments."""
    return base + len(head).to_bytes(4, "big") + head
