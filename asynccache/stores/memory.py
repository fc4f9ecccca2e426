"""A store in this process: for tests, for tools, and for a service without Redis. Nothing outlives it."""

from __future__ import annotations

from collections.abc import Sequence

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.entry import parse_cell
from asynccache.steps import Reply, Step, transition

__all__ = ["MemoryStore"]


class MemoryStore:
    """Cells in a dict, changed by the reference transitions.

    Args:
        max_entries: how many cells it may hold; beyond that the oldest written goes, as an eviction in Redis would.
        clock: reads time.
    """

    def __init__(self, *, max_entries: int = 100_000, clock: Clock = SYSTEM_CLOCK) -> None:
        self._cells: dict[str, tuple[bytes, int]] = {}
        self._max_entries = max_entries
        self._clock = clock

    async def open(self) -> None:
        """Nothing to connect to."""

    async def aclose(self) -> None:
        """Forgets everything."""
        self._cells.clear()

    def now_ms(self) -> int:
        return self._clock.wall_ms()

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        now = self.now_ms()
        return [self._get(key, now)[0] for key in keys]

    async def apply(self, key: str, step: Step) -> Reply:
        now = self.now_ms()
        cell, expires = self._get(key, now)
        after = transition(cell, expires, step, now)
        # Written anew, it is the youngest: dicts keep the order of insertion.
        self._cells.pop(key, None)
        if after.cell is not None:
            self._cells[key] = (after.cell, after.expires_ms)
            if len(self._cells) > self._max_entries:
                del self._cells[next(iter(self._cells))]
        return after.reply

    def expect_company(self) -> None:
        """Changes nothing: steps are carried out at once."""

    async def apply_many(self, steps: Sequence[tuple[str, Step]]) -> list[Reply]:
        return [await self.apply(key, step) for key, step in steps]

    def _get(self, key: str, now: int) -> tuple[bytes | None, int]:
        cell, expires = self._cells.get(key, (None, 0))
        if cell is not None and expires <= now:
            del self._cells[key]
            return None, 0
        return cell, expires

    def __repr__(self) -> str:
        kinds: dict[str, int] = {}
        for cell, _ in self._cells.values():
            kind = type(parse_cell(cell)).__name__.lower()
            kinds[kind] = kinds.get(kind, 0) + 1
        return f"MemoryStore({', '.join(f'{kind}={n}' for kind, n in sorted(kinds.items())) or 'empty'})"
