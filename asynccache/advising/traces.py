"""Traces: what was asked of a cache, and when, in arrays of a few bytes an operation."""

from __future__ import annotations

import enum
import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from asynccache.errors import ConfigurationError

__all__ = ["Operation", "Trace", "TraceBuilder"]

_MOST_KEYS: Final = 2**32 - 1
_LATE: Final = 100_000
"""So many operations back one is put into its place at once, since traces are written in the order in which operations
end. Beyond that all are sorted at the end, which takes objects for each."""


class Operation(enum.IntEnum):
    """What was done to a key."""

    GET = 0
    PUT = 1
    DELETE = 2
    INVALIDATE = 3
    """The entry was emptied, because the database had been changed by other means."""
    INCREMENT = 4
    GET_NOTHING = 5
    """A read of what does not exist."""


class Trace:
    """Operations in the order of their time; keys are numbers from 0 on.

    Attributes:
        times: seconds since the first operation.
        operations: of `Operation`.
        keys: which key.
        costs: seconds that the load or the write took; NaN where there was none, or nobody knows.
        key_count: how many keys there are.
        share: which share of all keys is in it.
        torn: the last line was half a line, which was left out.
    """

    def __init__(
        self,
        times: Sequence[float],
        operations: Sequence[int],
        keys: Sequence[int],
        costs: Sequence[float],
        *,
        key_count: int,
        share: float = 1.0,
        torn: bool = False,
    ) -> None:
        self.times = times
        self.operations = operations
        self.keys = keys
        self.costs = costs
        self.key_count = key_count
        self.share = share
        self.torn = torn

    def __len__(self) -> int:
        return len(self.times)

    @property
    def duration(self) -> float:
        """Seconds from the first operation to the last."""
        return self.times[-1] if self.times else 0.0

    def count(self, *operations: Operation) -> int:
        """How many of these operations there are."""
        return sum(self.operations.count(one) for one in operations)

    def mean_cost(self, *operations: Operation) -> float | None:
        """The mean known cost of these operations in seconds; None if none is known."""
        total, count = 0.0, 0
        for operation, cost in zip(self.operations, self.costs, strict=True):
            if cost == cost and operation in operations:  # noqa: PLR0124 - NaN is not equal to itself
                total += cost
                count += 1
        return total / count if count else None

    def __repr__(self) -> str:
        return f"Trace({len(self)} operations on {self.key_count} keys in {self.duration:g} s)"


class TraceBuilder:
    """Collects operations into a trace: about 17 bytes each, and each key's name once, until `build`.

    Args:
        share: which share of all keys is collected.
    """

    def __init__(self, *, share: float = 1.0) -> None:
        self._share = share
        self._times = array("d")
        self._operations = bytearray()
        self._keys = array("I")
        self._costs = array("f")
        self._numbers: dict[str, int] = {}
        self._sorted = True
        self.torn = False

    def add(self, at: float, operation: Operation, key: str, cost: float | None = None) -> None:
        """Adds one operation, in any order.

        Args:
            at: when it began, in seconds from any start.
            operation: what was done.
            key: to which key.
            cost: how long its load or write took, in seconds; None if there was none, or nobody knows.

        Raises:
            ConfigurationError: a time or a cost that is none.
        """
        if not math.isfinite(at):
            raise ConfigurationError(f"the time {at!r} is not a number of seconds")
        if cost is not None and not (math.isfinite(cost) and cost >= 0):
            raise ConfigurationError(f"the cost {cost!r} is not a number of seconds from 0 on")
        number = self._numbers.setdefault(key, len(self._numbers))
        if number > _MOST_KEYS:
            raise ConfigurationError(f"more than {_MOST_KEYS} keys: take a sample of them")
        cost = math.nan if cost is None else cost
        place = len(self._times)
        if place and at < self._times[-1] and self._sorted:
            place = bisect_right(self._times, at)
            self._sorted = len(self._times) - place <= _LATE
        if place == len(self._times) or not self._sorted:
            self._times.append(at)
            self._operations.append(operation)
            self._keys.append(number)
            self._costs.append(cost)
            return
        self._times.insert(place, at)
        self._operations.insert(place, operation)
        self._keys.insert(place, number)
        self._costs.insert(place, cost)

    def __len__(self) -> int:
        return len(self._times)

    def build(self) -> Trace:
        """The trace, sorted by time, its first operation at 0; this object is empty afterwards."""
        times, operations, keys, costs = self._times, self._operations, self._keys, self._costs
        if not self._sorted:
            order = sorted(range(len(times)), key=times.__getitem__)
            times = array("d", map(times.__getitem__, order))
            operations = bytearray(map(operations.__getitem__, order))
            keys = array("I", map(keys.__getitem__, order))
            costs = array("f", map(costs.__getitem__, order))
        if times:
            start = times[0]
            for at, time in enumerate(times):
                times[at] = time - start
        found = Trace(times, operations, keys, costs, key_count=len(self._numbers), share=self._share, torn=self.torn)
        self.__init__(share=self._share)  # type: ignore[misc]  # back to the beginning
        return found

    def __repr__(self) -> str:
        return f"TraceBuilder({len(self)} operations)"
