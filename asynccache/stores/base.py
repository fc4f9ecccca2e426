"""What the strategies need from a store of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from asynccache.steps import Reply, Step

__all__ = ["Store"]


class Store(Protocol):
    """Cells under keys, changed only by the steps of the key protocol.

    Every method raises `StoreUnavailable` when the store does not answer in its bounded time; a step may then have been
    carried out or not. Steps are safe to repeat. A store makes no guarantee between different keys.
    """

    async def open(self) -> None:
        """Connects and checks; `StoreUnavailable` if that fails."""
        ...

    async def aclose(self) -> None:
        """Gives back what `open` took."""
        ...

    def now_ms(self) -> int:
        """The store's clock, as near as this process knows it, in milliseconds since the epoch."""
        ...

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """What stands under each key, in order."""
        ...

    async def apply(self, key: str, step: Step) -> Reply:
        """Carries out one step, atomically."""
        ...

    def expect_company(self) -> None:
        """Tells that many callers are about to apply steps, which may share a call. A hint; may do nothing."""
        ...

    async def apply_many(self, steps: Sequence[tuple[str, Step]]) -> Sequence[Reply]:
        """Carries out steps on several keys; each is atomic, together they are not."""
        ...
