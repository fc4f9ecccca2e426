"""What the processes of the history test and the test itself must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asynccache import Policy

ROWS: Final = 6
STRICT: Final = 4
"""Rows below this are only written inside `updating` and `put`."""
PAIR: Final = (0, 1)
TAG: Final = "pair"
LATE: Final = "late pair"
CLIENTS: Final = 6
WRITE_TIMEOUT: Final = 5.0

POLICIES: Final = {
    "row": Policy(ttl=60, lease=1),
    # Short, so that values are refreshed early, and while they are stale.
    "pair": Policy(ttl=0.3, stale=0.3, lease=1, early=3),
}


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    version: int
