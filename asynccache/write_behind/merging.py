"""How an operation is merged into the record that pends for its key: what `lua/merge.lua` does, in Python."""

from __future__ import annotations

import decimal

from asynccache.protocols import Adjustment
from asynccache.write_behind.numbers import EXACT, FLOAT, WIDE, pack_column, parse_columns
from asynccache.write_behind.records import Op, Record, parse_record

__all__ = ["merge"]


def merge(old: bytes | None, op: Op) -> bytes | None:
    """The record after `op`; None if a number would leave the range in which it is exact."""
    if op.kind == "I":
        return _adjusted(Record(b"N", op.head, {}) if old is None else parse_record(old), op.adjustments)
    base = op.kind.encode()
    if op.kind == "P" and old is not None and old[:1] in {b"D", b"R"}:
        base = b"R"
    return Record(base, op.head, {}).pack()


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
