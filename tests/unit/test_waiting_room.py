"""Callers who wait for a key to change: woken together, by a push or by time, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from asynccache.clock import SYSTEM_CLOCK
from asynccache.stampede.lease import WaitingRoom
from tests.support.gates import until

HOUR = 3600.0


async def _waiting(room: WaitingRoom, key: str, count: int = 1) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(room.wait(key, 0)) for _ in range(count)]
    await until(lambda: key in room._waiting and len(room._waiting[key][1]) >= count)
    return tasks


async def test_a_wake_reaches_all_who_wait_for_the_key_and_nobody_else() -> None:
    room = WaitingRoom(first=HOUR, cap=HOUR)
    mine, others = await _waiting(room, "a", 3), await _waiting(room, "b")
    room.wake("a")
    await asyncio.gather(*mine)
    assert not others[0].done()
    assert len(room) == 1
    room.wake("b")
    await asyncio.gather(*others)
    assert len(room) == 0


async def test_without_a_push_time_wakes_all_at_once() -> None:
    room = WaitingRoom(first=0.002, cap=0.002)
    began = SYSTEM_CLOCK.monotonic()
    await asyncio.gather(*(room.wait("a", 0) for _ in range(5)))
    assert SYSTEM_CLOCK.monotonic() - began >= 0.0005
    assert len(room) == 0


async def test_a_wake_for_nobody_is_nothing() -> None:
    room = WaitingRoom()
    room.wake("a")
    assert len(room) == 0


async def test_a_cancelled_waiter_leaves_the_others() -> None:
    room = WaitingRoom(first=HOUR, cap=HOUR)
    first, second = await _waiting(room, "a", 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()
    assert not second.done()
    room.wake("a")
    await second


async def test_the_last_cancelled_waiter_takes_the_timer_along() -> None:
    room = WaitingRoom(first=HOUR, cap=HOUR)
    tasks = await _waiting(room, "a", 3)
    timer = room._waiting["a"][0]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(room) == 0
    assert timer.cancelled()


async def test_a_waiter_cancelled_while_being_woken_harms_no_newcomer() -> None:
    room = WaitingRoom(first=HOUR, cap=HOUR)
    (old,) = await _waiting(room, "a")
    room.wake("a")
    old.cancel()
    (new,) = await _waiting(room, "a")
    await asyncio.gather(old, return_exceptions=True)
    assert len(room) == 1
    assert not new.done()
    room.wake("a")
    await new


async def test_waits_grow_up_to_a_cap_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = random.Random(7)
    monkeypatch.setattr(random, "random", seeded.random)
    room = WaitingRoom(first=HOUR, cap=10 * HOUR)
    loop = asyncio.get_running_loop()

    async def delay(attempt: int) -> float:
        task = asyncio.create_task(room.wait("a", attempt))
        await until(lambda: len(room) == 1)
        left = room._waiting["a"][0].when() - loop.time()
        room.wake("a")
        await task
        return left / HOUR

    for attempt, longest in ((0, 1.0), (1, 1.5), (2, 2.25), (5, 7.59375), (6, 10.0), (10_000, 10.0)):
        drawn = [await delay(attempt) for _ in range(20)]
        assert longest / 2 - 0.001 <= min(drawn) < max(drawn) <= longest
        assert len(set(drawn)) > 15
