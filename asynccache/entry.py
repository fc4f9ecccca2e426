"""What one Redis string holds: the wire format of cells and generations.

A key's cell is empty, or one of

    value     V  version codec flags  fresh_until dead_after  cost id  refresh_token refresh_until  fingerprint
                 tags  payload
    lease     L  token                                     the one reader that may fill the cell
    writing   W  overlapped (token deadline)*              writers in flight

and a tag's or namespace's generation is

    generation  G  microseconds random                     unique: never comes back, even after an eviction
    writing     W  ...                                     as above: somebody is changing what carries this tag

Integers are big-endian; times are milliseconds of the Redis server's clock. Lua reads and writes the same layout
(`stores/lua/_cell.lua`). Anything else under such a key is `Unreadable`: another version's, or not ours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

__all__ = [
    "ABSENT",
    "TOKEN_BYTES",
    "Cell",
    "Lease",
    "NewValue",
    "Unreadable",
    "Value",
    "Writer",
    "Writing",
    "fresh_payload",
    "generation_micros",
    "is_generation",
    "pack_tags",
    "parse_cell",
    "plain_head",
    "plain_tail",
]

VERSION: Final = 1
TOKEN_BYTES: Final = 8
NO_TOKEN: Final = bytes(TOKEN_BYTES)
ABSENT: Final = b""

COMPRESSED: Final = 1
NOT_FOUND: Final = 2

_HEAD = struct.Struct(">cBBB")  # kind, version, codec, flags
_LIFE = struct.Struct(">QQ")  # fresh_until, dead_after: stamped by the server
_REST = struct.Struct(">I8s8sQ8sH")  # cost_us, id, refresh_token, refresh_until, fingerprint, bytes of tags
_VALUE = struct.Struct(">cBBBQQI8s8sQ8sH")
_PLAIN = struct.Struct(">4sQ8xI24x8sH")  # the same: four bytes, fresh_until, cost_us, fingerprint, bytes of tags
_WRITER = struct.Struct(">8sQ")
_GENERATION = struct.Struct(">cQ4s")
HEADER_BYTES: Final = _VALUE.size
GENERATION_BYTES: Final = _GENERATION.size


class Value(msgspec.Struct, frozen=True):
    """A cached value, or a remembered "not found".

    Attributes:
        codec: number of the codec that wrote the payload.
        compressed: whether the payload is compressed.
        not_found: the value is known not to exist; the payload is empty.
        fresh_until: server milliseconds until which it is fresh.
        dead_after: server milliseconds after which it may not be served.
        cost_us: how long its load took, in microseconds.
        id: which fill this is.
        refresh_token: who may replace it without emptying it first; zeros if nobody.
        refresh_until: until when nobody else may try that.
        fingerprint: shape of the model that wrote the payload.
        tags: generation keys and the generation each had before the load.
        payload: the encoded value.
    """

    codec: int
    compressed: bool
    not_found: bool
    fresh_until: int
    dead_after: int
    cost_us: int
    id: bytes
    refresh_token: bytes
    refresh_until: int
    fingerprint: bytes
    tags: tuple[tuple[str, bytes], ...]
    payload: bytes


class Lease(msgspec.Struct, frozen=True):
    """An empty cell that one reader may fill."""

    token: bytes


class Writer(msgspec.Struct, frozen=True):
    """One writer in flight, and the server millisecond after which it no longer counts."""

    token: bytes
    deadline: int


class Writing(msgspec.Struct, frozen=True):
    """A cell whose database row is being changed: reads bypass it, fills are refused."""

    overlapped: bool
    writers: tuple[Writer, ...]

    def pack(self) -> bytes:
        body = b"".join(_WRITER.pack(w.token, w.deadline) for w in self.writers)
        return b"W" + (b"1" if self.overlapped else b"0") + body


class Unreadable(msgspec.Struct, frozen=True):
    """Bytes that this version cannot read; whoever loads replaces them."""


Cell: TypeAlias = Value | Lease | Writing | Unreadable | None


class NewValue(msgspec.Struct, frozen=True):
    """A value on its way into a cell. The server adds the life to its own clock.

    Attributes:
        fresh_ms: how long it is fresh.
        dead_ms: how long it may be served at all; never less than `fresh_ms`.
        payload: the encoded value; the other attributes are those of `Value`.
    """

    payload: bytes
    fresh_ms: int
    dead_ms: int
    id: bytes
    codec: int = 0
    compressed: bool = False
    not_found: bool = False
    cost_us: int = 0
    fingerprint: bytes = NO_TOKEN
    tags: tuple[tuple[str, bytes], ...] = ()

    def head(self) -> bytes:
        """The bytes before the life."""
        flags = (COMPRESSED if self.compressed else 0) | (NOT_FOUND if self.not_found else 0)
        return _HEAD.pack(b"V", VERSION, self.codec, flags)

    def rest(self) -> bytes:
        """The bytes after the life."""
        tags = pack_tags(self.tags)
        cost = min(self.cost_us, 0xFFFFFFFF)
        return _REST.pack(cost, self.id, NO_TOKEN, 0, self.fingerprint, len(tags)) + tags + self.payload

    def pack(self, now_ms: int) -> bytes:
        """The whole cell, as the server makes it at `now_ms`."""
        return self.head() + _LIFE.pack(now_ms + self.fresh_ms, now_ms + self.dead_ms) + self.rest()


def plain_head(codec: int) -> bytes:
    """What a value begins with that is neither compressed nor a "not found"."""
    return _HEAD.pack(b"V", VERSION, codec, 0)


def plain_tail(fingerprint: bytes, tags: Iterable[tuple[str, bytes]]) -> bytes:
    """What stands between the id and the payload of a new value."""
    packed = pack_tags(tags)
    return _REST.pack(0, NO_TOKEN, NO_TOKEN, 0, fingerprint, len(packed))[4 + TOKEN_BYTES :] + packed


def pack_tags(tags: Iterable[tuple[str, bytes]]) -> bytes:
    """Tags and their generations as they stand in a value."""
    return b"".join(_pack_tag(name, generation) for name, generation in tags)


def fresh_payload(raw: bytes, head: bytes, fingerprint: bytes, tags: bytes, now_ms: int, early: float) -> bytes | None:
    """The payload of a value that can be served with no more ado; None for whatever wants a closer look.

    The usual case of `parse_cell` and all that is asked of its result, for less than making an object takes.

    Args:
        raw: the cell.
        head: what it must begin with, see `plain_head`.
        fingerprint: the shape that it must have.
        tags: the tags and generations that it must carry, see `pack_tags`.
        now_ms: the store's clock.
        early: milliseconds before its expiry, for each microsecond of its cost, in which somebody might refresh it.
    """
    if len(raw) < HEADER_BYTES:
        return None
    begin, fresh, cost, shape, size = _PLAIN.unpack_from(raw)
    if begin != head or shape != fingerprint or fresh - now_ms <= cost * early:
        return None
    start = HEADER_BYTES + size
    return raw[start:] if raw[HEADER_BYTES:start] == tags else None


def _pack_tag(name: str, generation: bytes) -> bytes:
    raw = name.encode()
    return len(raw).to_bytes(2, "big") + raw + generation


@lru_cache(maxsize=4096)  # entries of one moment carry the same generations
def _parse_tags(raw: bytes) -> tuple[tuple[str, bytes], ...]:
    tags, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 2], "big")
        name, generation = raw[at + 2 : at + 2 + size], raw[at + 2 + size : at + 2 + size + GENERATION_BYTES]
        at += 2 + size + GENERATION_BYTES
        if at > len(raw):
            raise ValueError("tags cut short")
        tags.append((name.decode(), generation))
    return tuple(tags)


def parse_cell(raw: bytes | None, *, tags: bool = True) -> Cell:
    """Reads what stands under a cell's key; never raises.

    Args:
        raw: the cell.
        tags: whether to read the tags of a value. Steps do without, as the Lua scripts do: a value with damaged tags
            is still a value to them, with an id that a reader can name as `dead`.
    """
    if raw is None:
        return None
    kind = raw[:1]
    if kind == b"V":
        return _parse_value(raw, tags)
    if kind == b"L" and len(raw) == 1 + TOKEN_BYTES:
        return Lease(raw[1:])
    if kind == b"W" and len(raw) >= 2 and (len(raw) - 2) % _WRITER.size == 0:
        return Writing(raw[1:2] == b"1", tuple(Writer(*pair) for pair in _WRITER.iter_unpack(raw[2:])))
    return Unreadable()


def _parse_value(raw: bytes, with_tags: bool) -> Value | Unreadable:
    if len(raw) < HEADER_BYTES or raw[1] != VERSION:
        return Unreadable()
    _, _, codec, flags, fresh, dead, cost, id_, token, until, fingerprint, size = _VALUE.unpack_from(raw)
    start = HEADER_BYTES + size
    if with_tags and start > len(raw):
        return Unreadable()
    try:
        tags = _parse_tags(raw[HEADER_BYTES:start]) if size and with_tags else ()
    except ValueError:
        return Unreadable()
    return Value(
        codec,
        bool(flags & COMPRESSED),
        bool(flags & NOT_FOUND),
        fresh,
        dead,
        cost,
        id_,
        token,
        until,
        fingerprint,
        tags,
        raw[start:],
    )


def with_refresh(raw: bytes, token: bytes, until: int) -> bytes:
    """The same value cell with another refresh lease."""
    at = _HEAD.size + _LIFE.size + 4 + TOKEN_BYTES
    return raw[:at] + token + until.to_bytes(8, "big") + raw[at + 16 :]


def is_generation(raw: bytes | None) -> bool:
    """Whether these bytes are a generation that entries may carry."""
    return raw is not None and len(raw) == GENERATION_BYTES and raw[:1] == b"G"


def generation_micros(raw: bytes) -> int:
    """When a generation began, in microseconds of the server's clock."""
    return int.from_bytes(raw[1:9], "big")


def pack_generation(micros: int, salt: bytes) -> bytes:
    """A generation that began at `micros`; `salt` is four random bytes."""
    return _GENERATION.pack(b"G", micros, salt)
