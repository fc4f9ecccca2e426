"""What the model explores: states, how many processes there are, and the rules they keep to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple, TypeAlias

from asynccache.steps import Step, Transition, transition

__all__ = ["Bounds", "Change", "Load", "Report", "Rules", "Slot", "State", "StepTo", "Write"]

StepTo: TypeAlias = Callable[[bytes | None, int, Step, int], Transition]


class Load(NamedTuple):
    """A load under way."""

    loaded: bool
    """It has read the database."""
    version: int
    holds: bool
    """The cell still holds its token."""
    carries: int
    """The generation it saw: 1 the one that is still current, 0 another, 2 none (a counter-example's)."""


class Write(NamedTuple):
    """A writer: 0 not begun, 1 begun, 2 the database is changed, 3 crashed with its statement on the way."""

    tag: bool
    through: bool
    at: int
    version: int
    marker: str
    """In the cell: "in time", "late", "lost" (expired or evicted), or none: not begun, or taken away by a step."""
    carries: int


class Change(NamedTuple):
    """A changer: 0 not begun, 1 the database is changed."""

    tag: bool
    at: int
    version: int


class Slot(NamedTuple):
    """The cell, or the generation, apart from what marks in the processes say."""

    kind: str
    version: int = 0
    """V: of the row that it holds."""
    carries: int = 0
    """V: the generation, as a load's."""
    lease: str = ""
    """V: a refresh lease is "running", "expired", or there is none."""
    overlapped: bool = False
    ghosts: int = 0
    """W: markers of crashed writers that are in time."""
    late_ghosts: int = 0


class State(NamedTuple):
    database: int
    acknowledged: int
    cell: Slot
    tag: Slot
    crashes: int
    waiting: tuple[int, ...]
    """Readers that have seen the generation (as `carries`) and are about to take the lease."""
    loads: tuple[Load, ...]
    writers: tuple[Write, ...]
    changers: tuple[Change, ...]


@dataclass(frozen=True)
class Bounds:
    """How much there is to explore."""

    loads: int = 2
    """Under way at a time; there is no bound on how many there are one after another."""
    writers: int = 2
    cache_aside: int = 0
    """How many of the writers store nothing at their end."""
    changers: int = 1
    tag_writers: int = 0
    tag_changers: int = 0
    crashes: int = 1
    """Of writers; loads may crash at any time."""

    @property
    def tags(self) -> bool:
        return self.tag_writers + self.tag_changers > 0

    def __str__(self) -> str:
        parts = f"{self.loads} loads at a time, {self.writers} writers ({self.cache_aside} cache-aside), "
        parts += f"{self.changers} changers, {self.crashes} crashes of writers"
        return parts + f"; tag: {self.tag_writers} writers, {self.tag_changers} changers" * self.tags


@dataclass(frozen=True)
class Rules:
    """What is explored: the protocol as it is, or one that leaves something out."""

    step: StepTo = transition
    writes: Literal["begin, end", "put after", "invalidate after"] = "begin, end"
    late_tags: bool = False
    """Loads learn of their tag at the end; they store if its generation began before they took the lease."""
    late_tags_unchecked: bool = False
    """Late tags, and whatever generation is there at the end will do."""
    missing_is_zero: bool = False
    """A generation that is missing counts as one that is always the same."""
    share_by_token_alone: bool = False
    """A reader joins a load whose token the cell holds, whatever generation that load saw."""
    forget_lost_loads: bool = True
    """Drops loads whose token is gone, if the step "fill" refuses those; the verdict is the same, the states are fewer."""

    def __str__(self) -> str:
        changed = [
            f"{one.name}={getattr(self, one.name)}" for one in fields(self) if getattr(self, one.name) != one.default
        ]
        return ", ".join(changed) or "the protocol"


@dataclass
class Report:
    """What was found."""

    bounds: Bounds
    states: int = 0
    moves: int = 0
    seconds: float = 0.0
    violations: dict[str, State] = field(default_factory=dict)

    def __str__(self) -> str:
        found = ", ".join(sorted(self.violations)) or "holds"
        return f"{self.states:>9,} states {self.moves:>10,} moves {self.seconds:6.1f} s  {found}: {self.bounds}"
