"""What a user says about hot keys, and what is told of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from asynccache.errors import ConfigurationError
from asynccache.policy import Duration, seconds

__all__ = ["HotKey", "HotKeys"]

MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class HotKeys:
    """How the most requested keys are found: `Cache(..., hot_keys=HotKeys())`. Frozen.

    Attributes:
        capacity: keys that each process watches for each strategy, from 10 to 1,000,000; four times as many are kept
            in Redis. A key with more than 1/capacity of the requests is never overlooked.
        half_life: after this time a request counts half (a duration).
        share_every: how often each process adds what it has counted to the list in Redis (a duration).

    Raises:
        ConfigurationError: a field is out of range.
    """

    capacity: int = 1000
    half_life: Duration = "10m"
    share_every: Duration = "30s"

    def __post_init__(self) -> None:
        count = self.capacity
        if not isinstance(count, int) or isinstance(count, bool) or not 10 <= count <= MOST:
            raise ConfigurationError(f"HotKeys: capacity={count!r} must be an int from 10 to {MOST:,}")
        for name, least in (("half_life", 1), ("share_every", 0.1)):
            object.__setattr__(self, name, seconds(getattr(self, name), f"HotKeys: {name}", least=least, zero=False))

    @property
    def half_life_seconds(self) -> float:
        """The half-life in seconds."""
        return float(self.half_life)  # type: ignore[arg-type]  # normalised when made

    @property
    def share_seconds(self) -> float:
        """Seconds between two shares."""
        return float(self.share_every)  # type: ignore[arg-type]  # normalised when made


@dataclass(frozen=True, slots=True)
class HotKey:
    """One key that is requested often.

    Attributes:
        key: the key value, as it was asked for.
        weight: its requests, each counting half for every half-life of its age.
        rate: requests a second that would keep it at this weight: `weight * ln 2 / half_life`.
    """

    key: Any
    weight: float
    rate: float

    @classmethod
    def of(cls, key: Any, weight: float, half_life: float) -> HotKey:
        """A key of this weight, with a half-life in seconds."""
        return cls(key, weight, weight * math.log(2) / half_life)
