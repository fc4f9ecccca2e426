"""How an operation is merged into the record that pends for its key: what `lua/merge.lua` does, in Python."""

from __future__ import annotations

import decimal

from asynccache.protocols import Adjustment
from asynccache.write_behind.layout import Op, Record, parse_record
from asynccache.write_behind.numbers import EXACT, FLOAT, NUMBER, WIDE, add_exact, pack_column, parse_columns

__all__ = ["merge"]


def merge(old: bytes | None, op: Op) -> bytes | None:
    """The record after `op`; None if a number would leave the range in which it is exact."""
    record = op.record()
    if op.kind == "I":
        if old is None:
            return record
        more = record[5 + int.from_bytes(record[1:5], "big") :]
        begin, head = 5 + int.from_bytes(old[1:5], "big"), len(more) - NUMBER
        # One exact column, to which is only added, and the same one before: its number is all that changes.
        plain = more[head - 2 : head] == EXACT + b"\0" and more[0] == head - 3
        if plain and len(old) - begin == len(more) and old[begin : begin + head] == more[:head]:
            added = add_exact(old, more, begin + head, head)
            return None if added is None else old[: begin + head] + added
        return _adjusted(parse_record(old), more)
    if op.kind == "P" and old is not None and old[:1] in {b"D", b"R"}:
        return b"R" + record[1:]
    return record


def _adjusted(old: Record, more: bytes) -> bytes | None:
    columns = dict(old.columns)
    try:
        with decimal.localcontext(WIDE):
            for name, (kind, adjustment) in parse_columns(more).items():
                if name in columns:
                    old_kind, before = columns[name]
                    if old_kind != kind:
                        kind, before, adjustment = FLOAT, _floats(before), _floats(adjustment)  # noqa: PLW2901
                    columns[name] = (kind, before.then(adjustment))
                else:
                    columns[name] = (kind, adjustment)
                if kind == EXACT:
                    pack_column(name, *columns[name])  # raises if a number does not fit
        return Record(old.base, old.head, columns).pack()
    except ValueError:  # of an exact one, or a float that became infinite: no Adjustment
        return None


def _floats(adjustment: Adjustment) -> Adjustment:
    add, floor, ceiling = adjustment.add, adjustment.floor, adjustment.ceiling
    return Adjustment(float(add), None if floor is None else float(floor), None if ceiling is None else float(ceiling))
