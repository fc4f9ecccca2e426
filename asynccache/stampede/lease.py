"""Callers who wait for another process to fill a key.

The lease lives in the cell (`steps.py`): one reader of all processes holds it, loads and fills; the others look again
when the key has changed. They learn of it by `wake` where changes are pushed, and by a short randomised backoff else.
What bounds their wait is not here: a holder that crashed loses its lease when it expires, and the cell is then empty.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

__all__ = ["WaitingRoom"]

_FIRST: Final = 0.002
_CAP: Final = 0.025


class WaitingRoom:
    """Waits for keys to change; all callers of a key share one timer.

    Args:
        first: longest wait before the first look, in seconds; each further one is half as long again.
        cap: longest wait, in seconds.
    """

    def __init__(self, *, first: float = _FIRST, cap: float = _CAP) -> None:
        self._first = first
        self._cap = cap
        self._waiting: dict[str, tuple[asyncio.TimerHandle, list[asyncio.Future[None]]]] = {}

    async def wait(self, key: str, attempt: int) -> None:
        """Returns when the key may have changed.

        Args:
            key: the key.
            attempt: how many times this caller has waited for it before.
        """
        loop = asyncio.get_running_loop()
        if key not in self._waiting:
            longest = min(self._cap, self._first * 1.5 ** min(attempt, 30))
            delay = longest * (0.5 + 0.5 * random.random())  # noqa: S311 - spreads load
            self._waiting[key] = (loop.call_later(delay, self.wake, key), [])
        future: asyncio.Future[None] = loop.create_future()
        waiting = self._waiting[key][1]
        waiting.append(future)
        try:
            await future
        finally:
            if not future.done() or future.cancelled():
                waiting.remove(future)
                if not waiting and self._waiting.get(key, (None, None))[1] is waiting:
                    self._waiting.pop(key)[0].cancel()

    def wake(self, key: str) -> None:
        """Lets those who wait for this key look again."""
        timer, waiting = self._waiting.pop(key, (None, []))
        if timer is not None:
            timer.cancel()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def __len__(self) -> int:
        return len(self._waiting)
