"""The only module that reads time.

Everything else takes a `Clock`, so that tests and simulations can pass their own.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "ManualClock"]


class Clock(Protocol):
    """Two readings of time: one to measure with, one to compare with other machines."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        ...


class _SystemClock:
    __slots__ = ()

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def wall_ms() -> int:
        return time.time_ns() // 1_000_000

    def __repr__(self) -> str:
        return "SYSTEM_CLOCK"


class ManualClock:
    """A clock that stands still until it is told to move.

    Args:
        start: the first reading, in seconds since the epoch.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        return self._now

    def wall_ms(self) -> int:
        return int(self._now * 1000)

    def advance(self, seconds: float) -> None:
        """Moves both readings forward by `seconds`."""
        self._now += seconds

    def __repr__(self) -> str:
        return f"ManualClock({self._now})"


SYSTEM_CLOCK: Clock = _SystemClock()
