"""The ways of one strategy's operations to Redis, side by side.

A lane has one pipeline in flight (`lane.py` says why). So that Redis merges what one has sent while this process packs
what the next will send, there are two. Each partition belongs to one lane, so that the operations of a key go one after
the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from asynccache.supervision import gather
from asynccache.write_behind.lane import Lane, Placed, Written

__all__ = ["Lanes"]


class Lanes:
    """Takes operations of concurrent callers to Redis.

    Args:
        make: makes a lane, with a writer's id of its own.
        count: how many.
    """

    def __init__(self, make: Callable[[], Lane], count: int) -> None:
        self._lanes = tuple([make() for _ in range(count)])
        self._count = count

    @property
    def waiting(self) -> int:
        """Operations that were not sent yet."""
        return sum(lane.waiting for lane in self._lanes)

    def forgettable(self) -> list[str]:
        """See `Lane.forgettable`."""
        return [key for lane in self._lanes for key in lane.forgettable()]

    def open(self) -> None:
        """Lets operations in, again after `aclose`."""
        for lane in self._lanes:
            lane.open()

    def of(self, partition: int) -> Lane:
        """The lane of a partition."""
        return self._lanes[partition % self._count]

    async def submit(self, ops: Sequence[Placed]) -> list[Written]:
        """Has operations merged; returns what became of each, in order.

        Raises:
            StoreUnavailable: no answer, or a refusal; some may have been merged.
        """
        shares: list[list[int]] = [[] for _ in self._lanes]
        for at, (partition, _, _) in enumerate(ops):
            shares[partition % self._count].append(at)
        asked = [(lane, share) for lane, share in zip(self._lanes, shares, strict=True) if share]
        if len(asked) <= 1:
            return await asked[0][0].submit(ops) if asked else []
        # To the end of all of them: what is left of a call that has raised would be merged behind its caller's back.
        answers = await asyncio.gather(
            *(lane.submit([ops[at] for at in share]) for lane, share in asked), return_exceptions=True
        )
        became: dict[int, Written] = {}
        for (_, share), answer in zip(asked, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            became.update(zip(share, answer, strict=True))
        return [became[at] for at in range(len(ops))]

    async def aclose(self) -> None:
        """Refuses what comes, and answers everybody; see `Lane.aclose`."""
        await gather(lane.aclose() for lane in self._lanes)

    def __repr__(self) -> str:
        return f"Lanes({', '.join(map(repr, self._lanes))})"
