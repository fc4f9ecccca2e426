"""Advice: which plans are compared, and by which rules one is recommended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from asynccache.advising.plans import Outcome, Plan, StrategyName, World, check_number
from asynccache.advising.simulation import simulate
from asynccache.advising.traces import Operation, Trace
from asynccache.errors import ConfigurationError

__all__ = ["LADDER", "Advice", "Need", "Verdict", "advise", "plans", "recommend", "spelled"]

LADDER: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 21_600.0, 86_400.0)
"""TTLs that are tried where none are given, in seconds."""

WORTH_IT: Final = 0.2
"""Below this hit ratio a cache costs more than it saves: each miss pays for two calls to Redis and the query."""
MARGIN: Final = 0.01
"""Hit ratios closer than this are as good as each other; the simplest, then the shortest TTL, is taken."""
COMBINES: Final = 2.0
"""Write-behind pays once so many writes become one row."""
BLOAT: Final = 1.5
"""Write-through is not worth so many times the entries if it does not raise the hit ratio."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the application allows.

    Attributes:
        staleness: how far behind the database a read may be at most, in seconds; 0: never; None: it does not matter how
            far, but the less the better.
        loss: for how long an acknowledged write may be in Redis only, in seconds; 0: it must be in the database.
        ttls: TTLs to try, in seconds; empty: those of `LADDER` that the trace is long enough to tell apart.
        stale: the `stale` of the plans that serve entries after their TTL, as a share of the TTL; 0: no such plans.
        flush_every: of write-behind, in seconds.

    Raises:
        ConfigurationError: a field is out of range.
    """

    staleness: float | None = None
    loss: float = 0.0
    ttls: tuple[float, ...] = ()
    stale: float = 0.5
    flush_every: float = 1.0

    def __post_init__(self) -> None:
        if self.staleness is not None:
            check_number(self.staleness, "staleness", 0.0)
        check_number(self.loss, "loss", 0.0)
        for ttl in self.ttls:
            check_number(ttl, "ttl", 0.001)
        check_number(self.stale, "stale", 0.0)
        check_number(self.flush_every, "flush_every", 0.001)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is recommended.

    Attributes:
        outcome: the plan, and what it comes to.
        rule: names the rule that decided: "not-repeated", "write-behind", "impossible", "changes", "ttl",
            "write-through", "invalidate" or "read-only".
        text: the recommendation and its reason, in sentences.
    """

    outcome: Outcome
    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What all plans come to, and which one is recommended."""

    outcomes: tuple[Outcome, ...]
    verdict: Verdict


def advise(
    trace: Trace,
    need: Need | None = None,
    world: World | None = None,
    *,
    progress: Callable[[Iterable[Plan]], Iterable[Plan]] = iter,
) -> Advice:
    """Simulates each plan on a trace, and recommends one.

    Args:
        trace: what is asked.
        need: what the application allows.
        world: what the trace does not say.
        progress: is given the plans, and gives them back one after the other.

    Raises:
        ConfigurationError: the trace has no reads and no writes.
    """
    need, world = need or Need(), world or World()
    if not trace.count(*Operation):
        raise ConfigurationError("the trace has no operations: there is nothing to advise on")
    outcomes: list[Outcome] = []
    for plan in progress(plans(trace, need, world)):
        twin = _twin(plan, outcomes)
        outcomes.append(simulate(trace, plan, world) if twin is None else replace(twin, plan=plan))
    return Advice(tuple(outcomes), recommend(outcomes, need, world))


def plans(trace: Trace, need: Need, world: World) -> list[Plan]:
    """The plans that are worth comparing: each strategy with each TTL, and with `stale`."""
    ttls = need.ttls
    if not ttls:
        allowed = {need.staleness} if need.staleness else set[float]()
        # Beyond the length of the trace TTLs all look alike; the first of them stands for the rest.
        longer = [ttl for ttl in LADDER if ttl > trace.duration][:1]
        ttls = tuple({ttl for ttl in LADDER if ttl <= trace.duration} | set(longer) | allowed)
    writes = trace.count(Operation.PUT, Operation.DELETE, Operation.INCREMENT) > 0
    own = writes and world.foreign < 1
    strategies: list[StrategyName] = ["cache-aside", "read-through"]
    strategies += ["write-through", "write-behind"] if own else []
    found = [Plan("none")]
    for strategy in strategies:
        for changes in (False, True) if world.foreign and writes and strategy == "read-through" else (False,):
            for ttl in sorted(set(ttls)):
                plan = Plan(strategy, ttl, changes=changes, flush_every=need.flush_every)
                found.append(plan)
                if need.stale and strategy in {"read-through", "write-through"}:
                    found.append(replace(plan, stale=ttl * need.stale))
    return found


def _twin(plan: Plan, outcomes: Sequence[Outcome]) -> Outcome | None:
    """Cache-aside and read-through differ in who calls the loader, and in nothing that is simulated."""
    if plan.strategy != "read-through":
        return None
    other = replace(plan, strategy="cache-aside")
    return next((outcome for outcome in outcomes if outcome.plan == other), None)


def recommend(outcomes: Sequence[Outcome], need: Need, world: World) -> Verdict:
    """Applies the rules, the first that fits.

    1. write-behind: the loss window is accepted, and at least `COMBINES` writes become one row.
    2. impossible: others write, and reads must be fresher than any notice of that can be: no cache.
    3. not-repeated: the best allowed plan has no hit ratio of `WORTH_IT`: no cache.
    4. ttl: others write, but a TTL within the allowed staleness is as good as being told of changes.
    5. changes: others write: read-through, and the database tells of changes.
    6. write-through: this service writes, and it does so for keys that are read.
    7. invalidate: this service writes, mostly what is not read: read-through, with `updating` around writes.
    8. read-only: read-through.
    """
    none = next(outcome for outcome in outcomes if outcome.plan.strategy == "none")
    fresh = [outcome for outcome in outcomes if outcome.plan.strategy != "none" and _fresh_enough(outcome, need, world)]
    behind = _best([outcome for outcome in fresh if outcome.plan.strategy == "write-behind"])
    if behind is not None and behind.loss_window <= need.loss and behind.combined >= COMBINES:
        return Verdict(
            behind,
            "write-behind",
            f"Use write-behind with {_ttl(behind.plan)}, flushed every {spelled(behind.plan.flush_every)}:"
            f" {behind.combined:.1f} writes become one row, {behind.writes_per_second:.1f} a second instead of"
            f" {none.writes_per_second:.1f}, and you accept that an acknowledged write is in Redis only for up to"
            f" {spelled(behind.loss_window)}.",
        )
    possible = [outcome for outcome in fresh if outcome.plan.strategy in {"read-through", "write-through"}]
    if not possible:
        return Verdict(
            none,
            "impossible",
            f"Do not cache: others write {world.foreign:.0%} of the changes, and no cache hears of them in less than"
            f" {spelled(min(world.changes_lag, *(o.plan.ttl for o in outcomes if o.plan.ttl)))}, but reads may be at"
            f" most {spelled(need.staleness or 0)} behind the database.",
        )
    best = max(outcome.hit_ratio for outcome in possible)
    if best < WORTH_IT:
        return Verdict(
            none,
            "not-repeated",
            f"Do not cache: reads are rarely repeated before an entry ends, and even the best allowed plan answers"
            f" only {best:.0%} of them; below {WORTH_IT:.0%} a cache costs more than it saves.",
        )
    if none.foreign:
        return _with_foreign_writes(possible, need, world)
    return _with_own_writes(possible)


def _with_foreign_writes(possible: Sequence[Outcome], need: Need, world: World) -> Verdict:
    told = _best([outcome for outcome in possible if outcome.plan.changes])
    by_ttl = _best([o for o in possible if not o.plan.changes and o.plan.strategy == "read-through"])
    if (
        by_ttl is not None
        and need.staleness is not None
        and (told is None or by_ttl.hit_ratio >= told.hit_ratio - MARGIN)
    ):
        return Verdict(
            by_ttl,
            "ttl",
            f"Use read-through with {_ttl(by_ttl.plan)}: others write {world.foreign:.0%} of the changes, and until"
            f" its TTL an entry does not know of them; that is within the {spelled(need.staleness)} you allow, and"
            f" answers {by_ttl.hit_ratio:.0%} of the reads.",
        )
    assert told is not None  # noqa: S101 - where none is fresh enough, nothing was possible
    return Verdict(
        told,
        "changes",
        f"Use read-through with {_ttl(told.plan)} and PostgresChanges: others write {world.foreign:.0%} of the"
        f" changes, and only the database can tell of them, within {spelled(world.changes_lag)}; it answers"
        f" {told.hit_ratio:.0%} of the reads.",
    )


def _with_own_writes(possible: Sequence[Outcome]) -> Verdict:
    through = _best([outcome for outcome in possible if outcome.plan.strategy == "write-through"])
    read = _best([outcome for outcome in possible if outcome.plan.strategy == "read-through"])
    assert read is not None  # noqa: S101 - each strategy has the same TTLs
    if through is None or not through.writes:
        return Verdict(
            read,
            "read-only",
            f"Use read-through with {_ttl(read.plan)}: there are no writes that could outdate an entry, and it"
            f" answers {read.hit_ratio:.0%} of the reads.",
        )
    if through.hit_ratio < read.hit_ratio + MARGIN and through.entries >= BLOAT * read.entries:
        return Verdict(
            read,
            "invalidate",
            f"Use read-through with {_ttl(read.plan)}, and `updating` around writes: no read is outdated, and it"
            f" answers {read.hit_ratio:.0%} of the reads; write-through would keep {through.entries:,} entries"
            f" instead of {read.entries:,}, mostly of what is not read.",
        )
    return Verdict(
        through,
        "write-through",
        f"Use write-through with {_ttl(through.plan)}: this service makes all writes, so that no read is outdated,"
        f" and what it writes is there for the next read; it answers {through.hit_ratio:.0%} of the reads.",
    )


def _fresh_enough(outcome: Outcome, need: Need, world: World) -> bool:
    """Whether what is promised, and not only what was seen, is within the allowed staleness."""
    if need.staleness is None or not outcome.foreign:
        return True
    plan = outcome.plan
    longest = plan.ttl + plan.stale
    return (min(longest, world.changes_lag) if plan.changes else longest) <= need.staleness


def _best(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The highest hit ratio, or what is as good and simpler: without `stale`, and with a shorter TTL."""
    if not outcomes:
        return None
    enough = max(outcome.hit_ratio for outcome in outcomes) - MARGIN
    good = [outcome for outcome in outcomes if outcome.hit_ratio >= enough]
    return min(good, key=lambda outcome: (outcome.plan.stale > 0, outcome.plan.ttl))


def _ttl(plan: Plan) -> str:
    return f"ttl={spelled(plan.ttl)}" + (f" and stale={spelled(plan.stale)}" if plan.stale else "")


def spelled(seconds: float) -> str:
    """A duration as users type it: `5m`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"
