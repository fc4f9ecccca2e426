"""Workloads: a trace made of a few numbers."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Final

from asynccache.advising.plans import check_number
from asynccache.advising.traces import Operation, Trace, TraceBuilder
from asynccache.errors import ConfigurationError

__all__ = ["Workload"]

_OPERATIONS: Final = 500_000
_LONGEST: Final = 3600.0
_MOST: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Reads and writes that come independently of each other (a Poisson process), of keys by a Zipf distribution.

    Attributes:
        reads, writes: how many a second.
        keys: how many keys there are.
        skew: exponent of the distribution: the key of rank n is asked for in proportion to 1 / n ** skew; 0: all alike.
        duration: in seconds; None takes as long as 500,000 operations need, an hour at most.
        seed: the same trace for the same seed.

    Raises:
        ConfigurationError: a field is out of range.
    """

    reads: float
    writes: float = 0.0
    keys: int = 100_000
    skew: float = 0.9
    duration: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        check_number(self.reads, "reads", 0.0)
        check_number(self.writes, "writes", 0.0)
        check_number(self.keys, "keys", 1, 50_000_000)
        check_number(self.skew, "skew", 0.0, 10.0)
        if not isinstance(self.keys, int):
            raise ConfigurationError(f"keys={self.keys!r} must be an int")
        if self.reads + self.writes <= 0:
            raise ConfigurationError("reads and writes are both 0: there is nothing to cache")
        if self.duration is not None:
            check_number(self.duration, "duration", 0.001)
            if self.duration * (self.reads + self.writes) > _MOST:
                raise ConfigurationError(
                    f"duration={self.duration:g} s would be more than {_MOST:,} operations: shorten it, or lower the"
                    " rates and the number of keys alike"
                )

    def trace(self) -> Trace:
        """The operations."""
        rate = self.reads + self.writes
        duration = min(_LONGEST, _OPERATIONS / rate) if self.duration is None else self.duration
        rng = random.Random(self.seed)  # noqa: S311 - a workload, no secret
        weights = list(itertools.accumulate(1.0 / rank**self.skew for rank in range(1, self.keys + 1)))
        population = range(self.keys)
        builder = TraceBuilder()
        written = self.writes / rate
        now = rng.expovariate(rate)
        while now < duration:
            for key in rng.choices(population, cum_weights=weights, k=10_000):
                builder.add(now, Operation.PUT if rng.random() < written else Operation.GET, str(key))
                now += rng.expovariate(rate)
                if now >= duration:
                    break
        return builder.build()
