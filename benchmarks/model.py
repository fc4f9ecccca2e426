"""What a scenario is, and what it finds."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import msgspec

__all__ = ["Context", "Finding", "Operation", "Row", "Scenario", "Series", "Target", "sample_row"]

Operation = Callable[[int], Awaitable[Any]]
"""One operation of a contender, told its running number."""


class Row(msgspec.Struct):
    """About 300 bytes, six fields: what the scenarios cache."""

    id: int
    name: str
    email: str
    bio: str
    points: int
    ratio: float


def sample_row(key: int) -> Row:
    """The row of a key."""
    return Row(key, f"user {key}", f"user.{key}@example.com", "x" * 200, key * 7, key / 3)


@dataclass(frozen=True, slots=True)
class Series:
    """One contender's figure in each round."""

    name: str
    rounds: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance between the smallest and the largest, as a share of the median."""
        return (max(self.rounds) - min(self.rounds)) / 2 / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on our figure, as a ratio to another contender's, or as it is (`against` None)."""

    text: str
    at_least: float | None = None
    at_most: float | None = None
    against: str | None = None

    def judge(self, ours: Series, others: dict[str, Series]) -> tuple[float, bool] | None:
        """The ratio and whether it is within the bound; None if the other contender is missing."""
        value = ours.median
        if self.against is not None:
            other = others.get(self.against)
            if other is None or not other.median:
                return None
            value /= other.median
        met = (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)
        return value, met


@dataclass(slots=True)
class Finding:
    """What one scenario found.

    Attributes:
        name, title, unit: of the scenario; `unit` of every figure.
        series: each contender's figures, ours first.
        targets: text, value, and whether it is met.
        notes: what else is worth saying.
        curves: for plots: by contender, pairs of x and y.
        curve_axes: names of x and y.
        beside: the same series on other event loops, by the loop's name.
    """

    name: str
    title: str
    unit: str
    series: list[Series]
    targets: list[tuple[str, float, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    curve_axes: tuple[str, str] = ("", "")
    beside: dict[str, list[Series]] = field(default_factory=dict)

    def judge(self, *targets: Target) -> None:
        """Judges our series, the first, by the targets."""
        others = {series.name: series for series in self.series[1:]}
        for target in targets:
            verdict = target.judge(self.series[0], others)
            if verdict is None:
                self.notes.append(f"not judged, {target.against} is missing: {target.text}")
            else:
                self.targets.append((target.text, *verdict))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(slots=True)
class Context:
    """What scenarios are given.

    Attributes:
        redis_url, database_url: servers.
        quick: shorter windows, fewer rounds.
        stack: closes what contenders opened.
        failed: contenders that could not be set up, and why.
    """

    redis_url: str
    database_url: str
    quick: bool
    stack: AsyncExitStack
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How often each contender runs."""
        return 3 if self.quick else 7

    @property
    def window(self) -> float:
        """How long each run takes, in seconds."""
        return 0.15 if self.quick else 0.5


class Scenario(Protocol):
    """One file of `scenarios/`: has a `NAME`, and runs; `USES_LOOP = False` if the event loop does not matter."""

    NAME: str

    async def run(self, context: Context) -> Finding:
        """Runs it."""
        ...
