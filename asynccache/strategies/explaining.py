"""What the next read of a key would do, and why."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asynccache.entry import Cell, Value, Writing, is_generation, parse_cell
from asynccache.errors import StoreUnavailable
from asynccache.events import MissReason
from asynccache.stores.base import Store
from asynccache.strategies.verdicts import Hit, MissingGenerations, Question, judge

__all__ = ["Explanation", "NextRead", "Reason", "TagState", "explain"]


class NextRead(enum.Enum):
    """What the next read would do; a closed list."""

    SERVE = "serve the cached value"
    SERVE_AND_REFRESH = "serve the cached value, and refresh it in the background"
    WAIT = "wait for the reader that is loading it"
    LOAD = "load it, and store what was loaded"
    BYPASS = "load it, and store nothing"
    SERVE_PENDING = "serve the write that waits in this process"


class Reason(enum.Enum):
    """Why; a closed list. The misses are those of `MissReason`, REFUSED, and PENDING with BYPASS."""

    FRESH = "the value is within its TTL"
    NOT_FOUND = "it is remembered that it does not exist"
    STALE = "the value is past its TTL, but within its stale window"
    STALE_REFRESHING = "the value is past its TTL, within its stale window, and being refreshed (or was tried just now)"
    EMPTY = "nothing is stored: never loaded, expired, evicted or invalidated"
    LEASED = "nothing is stored, and a reader holds the right to fill it"
    WRITING = "a writer is in flight"
    EXPIRED = "the value is past its TTL and its stale window"
    OUTDATED = "a tag or the namespace was invalidated after the value was loaded"
    UNREADABLE = "the stored bytes are not a value of this type"
    UNAVAILABLE = "Redis does not answer, or the circuit to it is open"
    REFUSED = "nothing can be served, and the admission policy of this process would not have it stored"
    PENDING = "a write of this process is on its way to the database (durability='memory')"


class TagState(enum.Enum):
    """How a tag's generation relates to the entry that carries it."""

    CURRENT = "current"
    OUTDATED = "invalidated after the value was loaded"
    WRITING = "being changed by a writer"
    MISSING = "not known to Redis"
    ABSENT = "not carried by the entry"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the next read of a key would do, and why.

    Attributes:
        key: the cell's key in Redis.
        next: what the read would do.
        reason: why.
        cell: what stands there: "value", "lease", "writing", "unreadable", or None.
        fresh_for: seconds until the value is past its TTL; negative after it; None without a value.
        served_for: seconds until it may not be served at all; None without a value.
        load_cost: seconds that its load took; None without a value.
        writers: writers in flight.
        tags: the generations that it depends on, by key.
    """

    key: str
    next: NextRead
    reason: Reason
    cell: str | None = None
    fresh_for: float | None = None
    served_for: float | None = None
    load_cost: float | None = None
    writers: int = 0
    tags: Mapping[str, TagState] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.key}: the next read would {self.next.value}, because {self.reason.value}"]
        if self.fresh_for is not None and self.served_for is not None:
            lines.append(f"  fresh for {self.fresh_for:.1f} s, served for {self.served_for:.1f} s more")
        if self.load_cost is not None:
            lines.append(f"  its load took {self.load_cost * 1000:.1f} ms")
        if self.writers:
            lines.append(f"  {self.writers} writer(s) in flight")
        lines += [f"  {name}: {state.value}" for name, state in self.tags.items()]
        return "\n".join(lines)


async def explain(store: Store, question: Question[Any]) -> Explanation:
    """Reads the cell as the next read would, and says what that would do. Changes nothing."""
    key = question.key
    try:
        found = await store.read((key, *question.generations))
        generations = dict(zip(question.generations, found[1:], strict=True))
        cell = parse_cell(found[0])
        extra = [name for name, _ in cell.tags if name not in generations] if isinstance(cell, Value) else []
        more = dict(zip(extra, await store.read(extra), strict=True)) if extra else {}
    except StoreUnavailable:
        return Explanation(key, NextRead.BYPASS, Reason.UNAVAILABLE)
    now = store.now_ms()
    verdict = judge(found[0], {**more, **generations}, question.recipe, now)
    assert not isinstance(verdict, MissingGenerations)  # noqa: S101 - all were read
    if isinstance(verdict, Hit):
        step, reason = _of_hit(verdict, now)
    else:
        reason = Reason[verdict.reason.name]
        step = {MissReason.LEASED: NextRead.WAIT, MissReason.WRITING: NextRead.BYPASS}.get(
            verdict.reason, NextRead.LOAD
        )
        if step is NextRead.LOAD and any(raw is not None and not is_generation(raw) for raw in generations.values()):
            step, reason = NextRead.BYPASS, Reason.WRITING
        admit = question.recipe.admit
        if step is NextRead.LOAD and admit is not None and not admit.requested(key, peek=True):
            step, reason = NextRead.BYPASS, Reason.REFUSED
    value = cell if isinstance(cell, Value) else None
    return Explanation(
        key,
        step,
        reason,
        cell=None if cell is None else type(cell).__name__.lower(),
        fresh_for=None if value is None else (value.fresh_until - now) / 1000,
        served_for=None if value is None else (value.dead_after - now) / 1000,
        load_cost=None if value is None else value.cost_us / 1e6,
        writers=len(cell.writers) if isinstance(cell, Writing) else 0,
        tags=_tags(cell, {**generations, **more}),
    )


def _of_hit(hit: Hit[Any], now: int) -> tuple[NextRead, Reason]:
    if hit.entry.not_found:
        return NextRead.SERVE, Reason.NOT_FOUND
    if not hit.stale:
        return NextRead.SERVE, Reason.FRESH
    if hit.entry.refresh_until > now:
        return NextRead.SERVE, Reason.STALE_REFRESHING
    return NextRead.SERVE_AND_REFRESH, Reason.STALE


def _tags(cell: Cell, generations: Mapping[str, bytes | None]) -> dict[str, TagState]:
    carried = dict(cell.tags) if isinstance(cell, Value) else {}
    states = {}
    for name, raw in generations.items():
        if raw is None:
            states[name] = TagState.MISSING
        elif not is_generation(raw):
            states[name] = TagState.WRITING
        elif isinstance(cell, Value) and name not in carried:
            states[name] = TagState.ABSENT
        else:
            same = not isinstance(cell, Value) or carried[name] == raw
            states[name] = TagState.CURRENT if same else TagState.OUTDATED
    return states
