"""Runs contenders one after the other, again and again, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping

from benchmarks.contenders import KEYS, Loads
from benchmarks.model import Context, Operation, Series, sample_row

__all__ = ["latencies", "prepare", "race"]

Setup = Callable[[Context], Awaitable[Operation]]


class NotHitting(Exception):
    """A contender that loads again what it should have cached."""


async def prepare(context: Context, setups: Mapping[str, Setup], *, check: bool = True) -> dict[str, Operation]:
    """Sets contenders up, and checks that each returns the right value; one that cannot run here is left out."""
    ready: dict[str, Operation] = {}
    for name, setup in setups.items():
        try:
            operation = await setup(context)
            if check:
                for turn in range(3):
                    for at in range(KEYS):
                        value = await operation(at)
                    if turn == 0:
                        Loads.count = 0
                if Loads.count:
                    raise NotHitting(f"loads {Loads.count} times when it should hit")  # noqa: TRY301
                fields = value if isinstance(value, dict) else {"id": value.id, "bio": value.bio}
                expected = sample_row(fields["id"])
                if fields["bio"] != expected.bio:
                    raise ValueError(f"returned {value!r}")
        except (ImportError, NotHitting) as error:
            context.failed[name] = str(error)
        else:
            ready[name] = operation
    return ready


async def _run(operation: Operation, callers: int, seconds: float) -> float:
    """Operations per second of so many callers."""
    done = 0
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while True:
            # Looking at the clock every time would measure the clock.
            for _ in range(10):
                await operation(done)
                done += 1
            if time.perf_counter() >= end:
                return

    began = time.perf_counter()
    if callers == 1:
        await caller()
    else:
        await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - began)


async def race(context: Context, contenders: Mapping[str, Operation], *, callers: int) -> list[Series]:
    """Operations per second of each contender, interleaved over the rounds; a first round warms up and is dropped."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(context.rounds + 1):
        for name, operation in contenders.items():
            gc.collect()
            rate = await _run(operation, callers, context.window)
            if turn:
                found[name].append(rate)
    return [Series(name, rates) for name, rates in found.items()]


async def latencies(operation: Operation, callers: int, seconds: float) -> list[float]:
    """Sorted times of single operations, in milliseconds."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < end:
            await operation(len(taken))
            taken.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return sorted(taken)


def percentile(ordered: list[float], share: float) -> float:
    """A percentile of sorted figures."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
