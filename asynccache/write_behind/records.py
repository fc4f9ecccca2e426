"""The operations of one strategy, encoded on their way into the buffer, and read when they come out of it.

`layout.py` says how they look. `lua/merge.lua` merges an operation into the record that pends for its key; `merging.py`
says the same in Python.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

import msgspec

from asynccache.codecs import Codec, Packed, codec_for
from asynccache.codecs.base import as_array
from asynccache.codecs.upgrades import Upgrader
from asynccache.entry import NewValue, plain_head
from asynccache.errors import ConfigurationError, DecodeError, EncodeError
from asynccache.keys import encode_key
from asynccache.protocols import Adjust, Adjustment, Append, Delete, Halves, Number, Put, Puts, Write
from asynccache.tokens import new_token
from asynccache.write_behind.layout import (
    CELL,
    NO_CELL,
    NO_VALUE,
    EncodedKey,
    Head,
    Op,
    Record,
    bin_size,
    head_begin,
    parse_record,
    record_of,
    sized,
)
from asynccache.write_behind.numbers import (
    CEILING,
    EXACT,
    FLOAT,
    FLOOR,
    amount,
    column_head,
    pack_number,
)
from asynccache.write_behind.rows import Rows

__all__ = ["Records"]

V = TypeVar("V")

_KEPT_KEYS: Final = 10_000
"""Keys whose encoding is remembered: counters are written again and again."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode
_decode_any = msgspec.msgpack.Decoder().decode
_SIZES_OF_PUT: Final = struct.Struct(">IcI").pack
_NO_COST: Final = bytes(4)
_INT64: Final = 2**63
_new = tuple.__new__  # makes a named tuple in half the time


class Records(Generic[V]):
    """Encodes the operations of one strategy, and reads records back.

    Args:
        codec: of the values.
        rows: knows the numeric columns and the defaults; without it nothing can be adjusted but rows of a model whose
            fields all have defaults.
        upgrades: readers of what older models have written, by codec and fingerprint.
    """

    def __init__(
        self,
        codec: Codec[V],
        rows: Rows[V] | None = None,
        upgrades: Mapping[tuple[int, bytes], Upgrader[V]] | None = None,
    ) -> None:
        self._codec = codec
        self._upgraders: dict[bytes, list[Upgrader[V]]] = {}
        for (_, shape), upgrader in (upgrades or {}).items():
            self._upgraders.setdefault(shape, []).append(upgrader)
        self._rows: Rows[V] = Rows(codec.type) if rows is None else rows
        self._cell_head = plain_head(codec.id) + _NO_COST
        self._plain = bin_size(len(codec.fingerprint)) + codec.fingerprint + b"\xc2"  # not compressed
        self._plain_of = [self._plain + bin_size(size) for size in range(256)]
        self._compressed = self._plain[:-1] + b"\xc3"
        # Key values need no model, but their type must survive: 1 is not "1".
        self._keys: Codec[Any] = codec_for(Any)
        self._columns: dict[tuple[str, int], tuple[type, bytes, bytes]] = {}
        self._known: dict[type, dict[Any, EncodedKey]] = {int: {}, str: {}}

    def put_op(self, key: Any, packed: Packed, readable: NewValue | None) -> Op:
        """Replaces the row; `readable` goes into the cell, which is emptied without."""
        field, part, begin = self._key(key)
        record = sized(record_of(b"P", self._head_with(begin, packed)))
        if readable is None:
            cell = NO_CELL
        else:
            rest = readable.head() + readable.rest()
            cell = CELL(16 + len(rest), readable.fresh_ms, readable.dead_ms) + rest
        return Op(key, field, "P", b"P%b%b%b" % (part, record, cell))

    def cached_put_op(self, key: Any, packed: Packed, tail: bytes, life: tuple[int, int]) -> Op:
        """Replaces the row, and what is cached of it.

        Args:
            key: the key value.
            packed: the value.
            tail: see `plain_tail`.
            life: how long the cached value is fresh, and may be served at all, in milliseconds.
        """
        if packed.compressed:
            raise ValueError("its head is another one: use `put_op`")
        (field, part, begin), payload = self._key(key), packed.payload
        size = len(payload)
        value = self._plain_of[size] if size < 256 else self._plain + bin_size(size)
        head = len(begin) + len(value) + size
        raw = b"".join(
            (
                b"P",
                part,
                _SIZES_OF_PUT(head + 5, b"P", head),
                begin,
                value,
                payload,
                CELL(32 + len(tail) + size, *life),
                self._cell_head,
                new_token(),
                tail,
                payload,
            )
        )
        return _new(Op, (key, field, "P", raw))

    def delete_op(self, key: Any) -> Op:
        """Removes the row."""
        field, part, begin = self._key(key)
        record = sized(record_of(b"D", begin + NO_VALUE))
        return Op(key, field, "D", b"D%b%b%b" % (part, record, NO_CELL))

    def append_op(self, packed: Packed) -> Op:
        """Adds a row that has no key yet."""
        field, head = uuid4().hex, self._head_with(self._key(None)[2], packed)
        raw = b"A%b%b%b" % (sized(field.encode()), sized(record_of(b"A", head)), NO_CELL)
        return Op(None, field, "A", raw)

    def increment_op(self, key: Any, columns: Mapping[str, Number]) -> Op:
        """Adds to columns.

        Raises:
            ConfigurationError: no such column, not a number of its type, or more than can be buffered exactly.
        """
        return self._adjust_op(key, columns, 0)

    def maximum_op(self, key: Any, columns: Mapping[str, Number]) -> Op:
        """Raises columns to at least these numbers. Errors as for `increment_op`."""
        return self._adjust_op(key, columns, FLOOR)

    def minimum_op(self, key: Any, columns: Mapping[str, Number]) -> Op:
        """Lowers columns to at most these numbers. Errors as for `increment_op`."""
        return self._adjust_op(key, columns, CEILING)

    def _adjust_op(self, key: Any, columns: Mapping[str, Number], flags: int) -> Op:
        if not columns:
            raise ConfigurationError("no column is named: write such as increment(key, points=1)")
        field, part, begin = self._key(key)
        packed = b""
        for column, value in columns.items():
            known_column = self._columns.get((column, flags))
            if known_column is None:
                known_column = self._column(column, flags, key)
            type_, kind, before = known_column
            packed += before + pack_number(kind, amount(column, value, type_))
        record = sized(record_of(b"N", begin + NO_VALUE) + packed)
        return _new(Op, (key, field, "I", b"I%b%b%b" % (part, record, NO_CELL)))

    def _column(self, column: str, flags: int, key: Any) -> tuple[type, bytes, bytes]:
        """Type and kind of a column, and what stands before its number: with bounds, nothing is added."""
        type_ = self._rows.number(column, key)
        kind = FLOAT if type_ is float else EXACT
        before = column_head(column, kind, flags) + (pack_number(kind, 0) if flags else b"")
        self._columns[column, flags] = found = (type_, kind, before)
        return found

    def _key(self, key: Any) -> EncodedKey:
        known = self._known.get(type(key))
        if known is not None and (found := known.get(key)) is not None:
            return found
        if type(key) is int and -_INT64 <= key < _INT64:
            field, packed = str(key), _encode(key)  # as `encode_key` and the codec write it
        else:
            field, packed = encode_key(key), self._keys.pack(key).payload
        found = (field, sized(field.encode()), head_begin(packed))
        if known is not None:
            if len(known) >= _KEPT_KEYS:
                known.clear()
            known[key] = found
        return found

    def _head_with(self, begin: bytes, packed: Packed) -> bytes:
        payload = packed.payload
        return begin + (self._compressed if packed.compressed else self._plain) + bin_size(len(payload)) + payload

    def writes(self, records: Sequence[bytes]) -> Sequence[Write[V]]:
        """What many records ask the database for, in their order. Where all are plain puts of this version of the
        model, they are read column by column, at a fifth of the cost.

        Raises:
            DecodeError: one is not a record that this version of the model can read.
        """
        return self._columns_of(records) or [self.write(record) for record in records]

    def _columns_of(self, records: Sequence[bytes]) -> Puts[V] | None:
        """None for whatever must be looked at one by one, so that it is found there what is the matter."""
        # Heads of four parts: as one flat array, they are read without an object for each.
        if {record[:1] + record[5:6] for record in records} != {b"P\x94"}:
            return None
        parts = [record[6:] for record in records]
        if [len(part) + 1 for part in parts] != [int.from_bytes(record[1:5], "big") for record in records]:
            return None  # there are adjustments
        try:
            flat = _decode_any(as_array(parts, 4 * len(parts)))
            keys, fingerprints, compressed, payloads = (flat[at::4] for at in range(4))
            if {*fingerprints} != {self._codec.fingerprint} or any(compressed) or fingerprints[0] in self._upgraders:
                return None
            return Puts(self._keys.decode_all(keys), self._codec.decode_all(payloads))
        except (msgspec.MsgspecError, DecodeError, TypeError):  # the last where a part is of another type
            return None

    def write(self, record: bytes) -> Write[V]:
        """What a record asks the database for.

        Raises:
            DecodeError: it is not a record that this version of the model can read.
        """
        base, size = record[:1], int.from_bytes(record[1:5], "big")
        if base == b"P" and len(record) == 5 + size:  # the usual one, without what only the others need
            head = self._head(record[5:])
            return Put(self._keys.unpack(head.key, False), self._value(head))
        base, key, head, columns = self._read(record)
        if base == b"A":
            return Append(self._value(head))
        if base == b"N":
            default = self._default(key)
            row = self._rows.adjusted(default, key, columns)
            return Adjust(key, columns, row, self._rows.numbers(key, columns))
        value = self._based(base, key, head, columns)
        if value is None:
            return Delete(key)
        return Put(key, value, anew=base != b"P")

    def halves(self, record: bytes) -> Halves[V] | None:
        """A record with adjustments as what it was without them, and they; None if it is not both."""
        try:
            parsed = parse_record(record)
            if parsed.base == b"N" or not parsed.columns:
                return None
            head = head_begin(self._head(parsed.head).key) + NO_VALUE
            rest = Record(b"N", head, parsed.columns).pack()
            return Halves(self.write(record_of(parsed.base, parsed.head)), self.write(rest), rest)
        except DecodeError:  # no defaults any more, for a row to adjust
            return None

    def needs_below(self, record: bytes | None) -> bool:
        """Whether what a reader sees depends on what is below the record: the frozen batch, or the database."""
        return record is None or record[:1] == b"N"

    def fold(self, below: V | None, record: bytes | None) -> V | None:
        """What a reader sees: the record on top of what is below it.

        Raises:
            DecodeError: it is not a record that this version of the model can read.
        """
        if record is None:
            return below
        base, key, head, columns = self._read(record)
        if base == b"N":
            return self._rows.adjusted(self._default(key) if below is None else below, key, columns)
        return self._based(base, key, head, columns)

    def _based(self, base: bytes, key: Any, head: Head, columns: Mapping[str, Adjustment]) -> V | None:
        if base != b"D":
            value = self._value(head)
        elif columns:
            value = self._default(key)
        else:
            return None
        return self._rows.adjusted(value, key, columns) if columns else value

    def _value(self, head: Head) -> V:
        failed: DecodeError | None = None
        for upgrader in self._upgraders.get(head.fingerprint, ()):
            try:
                return upgrader(head.payload, head.compressed)[0]
            except (DecodeError, EncodeError) as error:
                failed = DecodeError(f"a buffered write of an older model: {error}")
                failed.__cause__ = error
        if failed is not None:
            raise failed
        # Not refused for another fingerprint: an acknowledged write is worth an attempt with the newer model.
        return self._codec.unpack(head.payload, head.compressed)

    def _default(self, key: Any) -> V:
        try:
            return self._rows.default(key)
        except ConfigurationError as error:
            raise DecodeError(f"a buffered adjustment of a row that does not exist: {error}") from error

    def _head(self, raw: bytes) -> Head:
        try:
            return _decode(raw)
        except msgspec.MsgspecError as error:
            raise DecodeError(f"not a buffered write: {error}") from error

    def _read(self, record: bytes) -> tuple[bytes, Any, Head, dict[str, Adjustment]]:
        parsed = parse_record(record)
        head = self._head(parsed.head)
        key = self._keys.unpack(head.key, False)
        return parsed.base, key, head, {name: adjustment for name, (_, adjustment) in parsed.columns.items()}
