"""What is simulated: a plan in a world; and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from asynccache.errors import ConfigurationError

__all__ = ["STRATEGIES", "Outcome", "Plan", "StrategyName", "World", "check_number"]

StrategyName: TypeAlias = Literal["none", "cache-aside", "read-through", "write-through", "write-behind"]
STRATEGIES: Final[tuple[StrategyName, ...]] = get_args(StrategyName)


def check_number(value: object, name: str, least: float, most: float = float("inf")) -> None:
    """Raises `ConfigurationError` unless the value is a number in this range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(
            f"{name}={value!r} ({type(value).__name__}) must be a number from {least:g}"
            + ("" if most == float("inf") else f" to {most:g}")
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to cache.

    Attributes:
        strategy: its name; "none" asks the database each time.
        ttl: how long an entry is fresh, in seconds.
        stale: how long after that it is served while it is refreshed, in seconds.
        jitter, early: see `Policy`.
        changes: the database tells the cache what others have changed (`PostgresChanges`).
        flush_every, max_batch, partitions: see `WriteBehind`.

    Raises:
        ConfigurationError: a field is out of range.
    """

    strategy: StrategyName
    ttl: float = 0.0
    stale: float = 0.0
    jitter: float = 0.1
    early: float = 1.0
    changes: bool = False
    flush_every: float = 1.0
    max_batch: int = 1000
    partitions: int = 16

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigurationError(f"strategy={self.strategy!r} must be one of {', '.join(STRATEGIES)}")
        check_number(self.ttl, "ttl", 0.0 if self.strategy == "none" else 0.001)
        check_number(self.stale, "stale", 0.0)
        check_number(self.jitter, "jitter", 0.0, 0.9)
        check_number(self.early, "early", 0.0, 1000.0)
        check_number(self.flush_every, "flush_every", 0.001)
        check_number(self.max_batch, "max_batch", 1)
        check_number(self.partitions, "partitions", 1)


@dataclass(frozen=True, slots=True)
class World:
    """What is assumed where the trace does not say it.

    Attributes:
        query_cost: seconds that a load takes.
        write_cost: seconds that a write of the database takes.
        foreign: the share of writes that others make, of whom the cache is not told: other services, scripts, psql.
        changes_lag: seconds until a change is told by the database, where it tells.
        seed: of all that is drawn.

    Raises:
        ConfigurationError: a field is out of range.
    """

    query_cost: float = 0.005
    write_cost: float = 0.005
    foreign: float = 0.0
    changes_lag: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        check_number(self.query_cost, "query_cost", 0.0)
        check_number(self.write_cost, "write_cost", 0.0)
        check_number(self.foreign, "foreign", 0.0, 1.0)
        check_number(self.changes_lag, "changes_lag", 0.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a plan comes to.

    Attributes:
        plan: which one.
        duration: length of the trace, in seconds.
        share: which share of all keys was simulated; rates and entries are scaled up by it.
        reads: how many reads there were.
        hits: how many of them were answered out of the cache, the stale ones included.
        stale_hits: how many of those after their TTL.
        loads: rows that were read from the database.
        writes: writes that this service made.
        foreign: writes that others made.
        rows_written: rows that this service wrote into the database.
        outdated: reads that returned something older than the database.
        oldest: for how long what was read had been outdated at most, in seconds.
        mean_age: the same on average over the outdated reads, in seconds.
        loss_window: for how long an acknowledged write may be in Redis only, in seconds.
        most_pending: most writes that were in Redis only at the same time, those of one key as one.
        entries: most entries that were alive at the same time.
    """

    plan: Plan
    duration: float
    share: float
    reads: int
    hits: int
    stale_hits: int
    loads: int
    writes: int
    foreign: int
    rows_written: int
    outdated: int
    oldest: float
    mean_age: float
    loss_window: float
    most_pending: int
    entries: int

    @property
    def hit_ratio(self) -> float:
        """The share of reads that were answered out of the cache; 0 if there were no reads."""
        return self.hits / self.reads if self.reads else 0.0

    @property
    def outdated_share(self) -> float:
        """The share of reads that returned something older than the database."""
        return self.outdated / self.reads if self.reads else 0.0

    @property
    def reads_per_second(self) -> float:
        """Rows read from the database per second, of all keys."""
        return self._rate(self.loads)

    @property
    def writes_per_second(self) -> float:
        """Rows that this service writes into the database per second, of all keys."""
        return self._rate(self.rows_written)

    @property
    def combined(self) -> float:
        """How many writes become one row written; 1 where each is."""
        return self.writes / self.rows_written if self.rows_written else 1.0

    def _rate(self, count: int) -> float:
        return count / self.duration / self.share if self.duration else 0.0
