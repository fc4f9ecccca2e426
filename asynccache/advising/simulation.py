"""The simulator: a trace against one plan, on a virtual clock.

It does what the read and write paths do (`strategies/reading.py`, `writing.py`, `write_behind.py`):

- a miss loads once: who asks for the key meanwhile shares the load, and is counted as a miss, as `Stats` counts it;
- a TTL begins when the load is stored, and is shortened by jitter; XFetch refreshes early, `stale` serves late;
- a write or an invalidation takes the right to store away from loads that are under way;
- while a write is under way reads go to the database and store nothing; of overlapping writes nothing is stored;
- write-through stores the row that it wrote; write-behind stores it at once, and writes the rows of a partition
  together `flush_every` after its first one; what is deleted is "not found", which is not stored.

What it leaves out: evictions (Redis is taken to have room), outages, the local tier (which answers only what Redis has,
too), tags and versions. A key is taken to exist, unless its deletion or the read itself says otherwise.
"""

from __future__ import annotations

import math
import random
from heapq import heappop, heappush
from typing import Final, NamedTuple

from asynccache.advising.plans import Outcome, Plan, World
from asynccache.advising.traces import Operation, Trace
from asynccache.stampede.early_refresh import LARGEST_DRAW

__all__ = ["simulate"]

_NEVER: Final = math.inf


def simulate(trace: Trace, plan: Plan, world: World | None = None) -> Outcome:
    """Runs a trace against a plan.

    Args:
        trace: what is asked.
        plan: how it is cached.
        world: what the trace does not say. Costs that it has win.

    Returns:
        What it comes to; the same for the same arguments.
    """
    return _Simulation(trace, plan, world or World()).run()


class _Refresh(NamedTuple):
    """A load behind a value that is served meanwhile."""

    ready: float
    fresh: float
    took: float
    outdated: float


class _Simulation:
    """The state of all keys, in lists by their number.

    Of a key: `ready` is when its value is stored (before that it is being loaded), `fresh` until when it is fresh,
    `dead` until when it may be served (0: there is none), `outdated` since when the database has something newer,
    `written` until when a write is under way, `took` how long the value took to load (0: it was written).
    """

    def __init__(self, trace: Trace, plan: Plan, world: World) -> None:
        count = trace.key_count
        self._trace = trace
        self._plan = plan
        self._world = world
        self._ready = [0.0] * count
        self._fresh = [0.0] * count
        self._dead = [0.0] * count
        self._outdated = [_NEVER] * count
        self._written = [0.0] * count
        self._took = [0.0] * count
        self._gone: set[int] = set()
        self._refreshing: dict[int, _Refresh] = {}
        self._draw = random.Random(world.seed).random  # noqa: S311 - spreads load
        self._whose = random.Random(world.seed + 1).random  # noqa: S311 - the same writes in every plan
        self._load_cost = trace.mean_cost(Operation.GET, Operation.GET_NOTHING)
        self._write_cost = trace.mean_cost(Operation.PUT, Operation.DELETE)
        self._pending: list[set[int]] = [set() for _ in range(plan.partitions)]
        self._due: list[tuple[float, int]] = []
        self._pending_keys = self._since_flush = self._most_pending = 0
        self._alive = bytearray(count)
        self._ends: list[tuple[float, int]] = []
        self._entries = self._most_entries = 0
        self._reads = self._hits = self._stale_hits = self._loads = 0
        self._writes = self._foreign = self._rows = 0
        self._late = 0
        self._late_sum = self._late_most = 0.0

    def run(self) -> Outcome:
        trace, plan = self._trace, self._plan
        cached, behind = plan.strategy != "none", plan.strategy == "write-behind"
        get, nothing = Operation.GET, Operation.GET_NOTHING
        for now, operation, key, cost in zip(trace.times, trace.operations, trace.keys, trace.costs, strict=True):
            if behind and self._due and now >= self._due[0][0]:
                self._flush(now)
            if operation in {get, nothing}:
                self._reads += 1
                if cached:
                    self._read(now, key, cost, exists=operation == get)
                else:
                    self._loads += 1
            else:
                self._change(now, Operation(operation), key, cost)
        self._flush(_NEVER)
        return Outcome(
            plan=plan,
            duration=trace.duration,
            share=trace.share,
            reads=self._reads,
            hits=self._hits,
            stale_hits=self._stale_hits,
            loads=self._loads,
            writes=self._writes,
            foreign=self._foreign,
            rows_written=self._rows,
            outdated=self._late,
            oldest=self._late_most,
            mean_age=self._late_sum / self._late if self._late else 0.0,
            loss_window=plan.flush_every if behind and self._writes else 0.0,
            most_pending=round(self._most_pending / trace.share),
            entries=round(self._most_entries / trace.share),
        )

    # -- reading

    def _read(self, now: float, key: int, cost: float, *, exists: bool) -> None:
        if self._refreshing and key in self._refreshing:
            self._refreshed(now, key)
        if self._written[key] > now:
            self._loads += 1
            return
        if self._dead[key] <= now:
            self._miss(now, key, cost, exists=exists)
            return
        if self._ready[key] > now:
            return  # shares the load
        self._hits += 1
        outdated = self._outdated[key]
        if outdated <= now:
            age = now - outdated
            self._late += 1
            self._late_sum += age
            self._late_most = max(self._late_most, age)
        remaining = self._fresh[key] - now
        if remaining <= 0:
            self._stale_hits += 1
        elif not self._early(remaining, self._took[key]):
            return
        if key not in self._refreshing:
            took = self._loading(cost)
            self._loads += 1
            self._refreshing[key] = _Refresh(now + took, now + took + self._life(), took, _NEVER)

    def _early(self, remaining: float, cost: float) -> bool:
        """XFetch, as `stampede/early_refresh.py` has it."""
        reach = cost * self._plan.early
        return remaining <= reach * LARGEST_DRAW and -reach * math.log(1.0 - self._draw()) >= remaining

    def _miss(self, now: float, key: int, cost: float, *, exists: bool) -> None:
        self._refreshing.pop(key, None)  # what it brings is not stored: the value that it was to replace is gone
        took = self._loading(cost)
        if exists and key not in self._gone:
            self._loads += 1
            self._store(now, key, now + took, took=took)
        elif self._ready[key] <= now:  # else it shares the load of nothing
            self._loads += 1
            self._ready[key] = now + took

    def _refreshed(self, now: float, key: int) -> None:
        refresh = self._refreshing[key]
        if refresh.ready <= now:
            del self._refreshing[key]
            self._store(refresh.ready, key, refresh.ready, took=refresh.took, fresh=refresh.fresh)
            if refresh.outdated < _NEVER:
                self._outdate(key, refresh.outdated)

    def _loading(self, cost: float) -> float:
        if cost == cost:  # noqa: PLR0124 - NaN is not equal to itself
            return cost
        return self._world.query_cost if self._load_cost is None else self._load_cost

    def _life(self) -> float:
        return self._plan.ttl * (1.0 - self._plan.jitter * self._draw())

    # -- cells

    def _store(self, now: float, key: int, ready: float, *, took: float = 0.0, fresh: float | None = None) -> None:
        self._ready[key] = ready
        self._took[key] = took
        self._fresh[key] = until = ready + self._life() if fresh is None else fresh
        self._dead[key] = dead = until + self._plan.stale
        self._outdated[key] = _NEVER
        ends = self._ends
        while ends and ends[0][0] <= now:
            end, ended = heappop(ends)
            if self._alive[ended] and self._dead[ended] <= end:
                self._alive[ended] = 0
                self._entries -= 1
        heappush(ends, (dead, key))
        if not self._alive[key]:
            self._alive[key] = 1
            self._entries += 1
            self._most_entries = max(self._most_entries, self._entries)

    def _empty(self, key: int) -> None:
        """Takes the value away, and the right to store from whoever is loading it."""
        self._dead[key] = self._ready[key] = 0.0
        self._refreshing.pop(key, None)
        if self._alive[key]:
            self._alive[key] = 0
            self._entries -= 1

    def _outdate(self, key: int, since: float) -> None:
        """The database has had something newer since then, of which the cache is not told, or only by the database."""
        if self._outdated[key] == _NEVER:
            self._outdated[key] = since
        if self._plan.changes:
            self._dead[key] = min(self._dead[key], since + self._world.changes_lag)
            heappush(self._ends, (self._dead[key], key))

    # -- writing

    def _change(self, now: float, operation: Operation, key: int, cost: float) -> None:
        if self._refreshing and key in self._refreshing:
            self._refreshed(now, key)
        if operation is Operation.INVALIDATE:
            self._empty(key)
            return
        if operation is Operation.DELETE:
            self._gone.add(key)
        else:
            self._gone.discard(key)
        if self._world.foreign and self._whose() < self._world.foreign:
            self._foreign += 1
            self._change_by_others(now, key)
            return
        self._writes += 1
        strategy = self._plan.strategy
        if strategy == "write-behind":
            self._buffer(now, operation, key)
            return
        self._rows += 1
        if strategy == "none":
            return
        alone = self._written[key] <= now
        end = now + self._writing(cost)
        self._written[key] = max(self._written[key], end)
        self._empty(key)
        if alone and strategy == "write-through" and operation is not Operation.DELETE:
            self._store(now, key, end)

    def _change_by_others(self, now: float, key: int) -> None:
        if self._dead[key] > now:
            self._outdate(key, now)
        refresh = self._refreshing.get(key)
        if refresh is not None and refresh.outdated == _NEVER:
            self._refreshing[key] = refresh._replace(outdated=now)

    def _writing(self, cost: float) -> float:
        if cost == cost:  # noqa: PLR0124 - NaN is not equal to itself
            return cost
        return self._world.write_cost if self._write_cost is None else self._write_cost

    def _buffer(self, now: float, operation: Operation, key: int) -> None:
        self._empty(key)
        if operation is Operation.PUT:
            self._store(now, key, now)
        number = key % self._plan.partitions
        pending = self._pending[number]
        if not pending:
            heappush(self._due, (now + self._plan.flush_every, number))
        if key not in pending:
            pending.add(key)
            self._pending_keys += 1
            self._most_pending = max(self._most_pending, self._pending_keys)
        self._since_flush += 1
        if self._since_flush >= self._plan.max_batch * self._trace.share:
            self._flush(_NEVER)

    def _flush(self, now: float) -> None:
        """Writes the partitions that are due."""
        while self._due and self._due[0][0] <= now:
            _, number = heappop(self._due)
            pending = self._pending[number]
            self._rows += len(pending)
            self._pending_keys -= len(pending)
            pending.clear()
        if now == _NEVER:
            self._since_flush = 0
