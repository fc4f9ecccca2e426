"""Adding to one exact column has a shorter way, and the result, to the byte, of the longer one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from asynccache.codecs import codec_for
from asynccache.write_behind import merging
from asynccache.write_behind.layout import Op, parse_record
from asynccache.write_behind.merging import merge
from asynccache.write_behind.records import Records
from asynccache.write_behind.rows import Rows


@dataclass
class Account:
    """Columns of equal length, and two floats whose bytes are as many as those of one exact number and its name."""

    id: int = 0
    coins: int = 0
    money: Decimal = Decimal(0)
    ratio: float = 0.0
    speed: float = 0.0


RECORDS: Records[Account] = Records(codec_for(Account), Rows(Account, key=("id",)))

AMOUNTS: list[dict[str, Any]] = [
    *({"coins": amount} for amount in (0, 1, -1, 10**9 - 1, 10**9, -(10**9), 10**18, -(10**18), 10**24 - 1, -(10**24))),
    *({"money": Decimal(amount)} for amount in ("1", "-1", "0.999999999", "-0.000000001", "1e23", "-0.5")),
    *({"money": most} for most in (Decimal("999999999999999999999999.999999999"), Decimal("-1e24"))),
    {"ratio": 0.5},
    {"ratio": 0.5, "speed": 0.25},
    {"coins": 1, "money": Decimal("0.5")},
    {"money": Decimal("0.5"), "coins": 1},
]
OPS: list[Op] = [
    *(RECORDS.increment_op(1, amounts) for amounts in AMOUNTS),
    *(RECORDS.maximum_op(1, amounts) for amounts in AMOUNTS[::4]),
    *(RECORDS.minimum_op(1, amounts) for amounts in AMOUNTS[::5]),
]
BEFORE: dict[str, list[Op]] = {
    "nothing": [],
    "a put": [RECORDS.put_op(1, codec_for(Account).pack(Account(1, 2)), None)],
    "a delete": [RECORDS.delete_op(1)],
}


@pytest.mark.parametrize("before", BEFORE)
def test_one_column_is_added_to_as_many_are(before: str) -> None:
    shorter = 0
    for first, second in itertools.product(OPS, OPS):
        record: bytes | None = None
        for op in (*BEFORE[before], first):
            record = merge(record, op)
        if record is None:
            continue
        more = second.record()
        more = more[5 + int.from_bytes(more[1:5], "big") :]
        expected = merging._adjusted(parse_record(record), more)
        assert merge(record, second) == expected
        shorter += len(parse_record(record).columns) == 1 and expected is not None
    assert shorter > 100
