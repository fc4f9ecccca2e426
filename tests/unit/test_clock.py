"""Time: the system's readings go forward, a manual clock only when told."""

from __future__ import annotations

import time

from asynccache.clock import SYSTEM_CLOCK, ManualClock


def test_the_system_clock_reads_the_systems_clocks() -> None:
    before = time.monotonic()
    assert before <= SYSTEM_CLOCK.monotonic() <= time.monotonic()
    before_ms = time.time_ns() // 1_000_000
    assert before_ms <= SYSTEM_CLOCK.wall_ms() <= time.time_ns() // 1_000_000
    assert repr(SYSTEM_CLOCK) == "SYSTEM_CLOCK"


def test_a_manual_clock_stands_still_until_it_is_advanced() -> None:
    clock = ManualClock(100.0)
    assert (clock.monotonic(), clock.wall_ms()) == (100.0, 100_000)
    assert (clock.monotonic(), clock.wall_ms()) == (100.0, 100_000)
    clock.advance(0.25)
    assert (clock.monotonic(), clock.wall_ms()) == (100.25, 100_250)
    assert repr(clock) == "ManualClock(100.25)"
