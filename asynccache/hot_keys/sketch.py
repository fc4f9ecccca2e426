"""The most requested keys of one process, in bounded memory. Pure: no I/O, and the clock is passed in.

Space-Saving: as many counters as it may keep; a key that has none takes over the smallest one, with its count, which is
then how far the new count may be too high. Every key with more than 1/capacity of all requests has a counter, and no
count is too high by more than that. Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k Elements
in Data Streams", ICDT 2005.

Requests lose half of their weight in each half-life. Instead of shrinking old counts, new requests weigh more, by 2 to
the power of the half-lives that have passed, so that a request costs one addition. Cormode, Shkapenyuk, Srivastava, Xu:
"Forward Decay: A Practical Time Decay Model for Streaming Systems", ICDE 2009.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import Any, Final, NamedTuple

from asynccache.clock import Clock
from asynccache.keys import encode_key

__all__ = ["Counted", "Share", "Sketch"]

_STEPS: Final = 64
"""Into how many steps of equal weight a half-life is divided: what a request weighs is at most 1.1% too low."""
_MOST_HALF_LIVES: Final = 64
"""After how many the counters are scaled down, long before a float ends."""
_FORGOTTEN: Final = 2.0**-10
"""Weight below which a key is not worth telling of."""


class Counted(NamedTuple):
    """A key, its weight, and by how much that may be too high."""

    key: Any
    weight: float
    error: float


class Share(NamedTuple):
    """What this process has seen of one key: its weight since the last share, and altogether."""

    key: Any
    since: float
    total: float


class _Counter:
    __slots__ = ("error", "key", "name", "shared", "weight")

    def __init__(self, name: Any, key: Any, weight: float, error: float) -> None:
        self.name = name
        self.key = key
        self.weight = weight
        self.error = error
        self.shared = 0.0  # of what was seen, as much as has been shared

    @property
    def seen(self) -> float:
        return self.weight - self.error


class Sketch:
    """Counts requests by key.

    Args:
        capacity: most keys that are counted.
        half_life: seconds in which a request loses half of its weight.
        clock: reads time.
    """

    def __init__(self, capacity: int, half_life: float, clock: Clock) -> None:
        self._capacity = capacity
        self._half_life = half_life
        self._clock = clock
        self._counters: dict[Any, _Counter] = {}
        # Each counter once, under a weight that it had; weights only grow, so the least is found by looking again.
        self._heap: list[tuple[float, int, _Counter]] = []
        self._made = count()
        self._landmark = clock.monotonic()
        self._unit = 1.0
        self._next = self._landmark + half_life / _STEPS

    def __len__(self) -> int:
        return len(self._counters)

    def count(self, key: Any) -> None:
        """Counts one request.

        Raises:
            InvalidKey: the value cannot be part of a key.
        """
        kind = type(key)
        # 1, True and 1.0 are equal to a dict, and are different keys.
        name = key if kind is int or kind is str else (encode_key(key),)
        if self._clock.monotonic() >= self._next:
            self._advance()
        counter = self._counters.get(name)
        if counter is not None:
            counter.weight += self._unit
        else:
            self._watch(name, key)

    def top(self, most: int) -> list[Counted]:
        """The keys of the largest weight, heaviest first."""
        now = self._weight_now()
        found = heapq.nlargest(most, self._counters.values(), key=lambda counter: counter.weight)
        return [Counted(one.key, one.weight / now, one.error / now) for one in found if one.weight / now >= _FORGOTTEN]

    def share(self) -> list[Share]:
        """What has been seen of every key; counts as shared from now on.

        Without what a key took over from another: a key that is rare and has just come would look like a hot one.
        """
        now = self._weight_now()
        shares = []
        for counter in self._counters.values():
            seen = counter.seen
            if seen / now >= _FORGOTTEN:
                shares.append(Share(counter.key, (seen - counter.shared) / now, seen / now))
                counter.shared = seen
        return shares

    def _watch(self, name: Any, key: Any) -> None:
        if len(self._counters) < self._capacity:
            counter = _Counter(name, key, self._unit, 0.0)
            heapq.heappush(self._heap, (counter.weight, next(self._made), counter))
        else:
            least = self._least()
            del self._counters[least.name]
            counter = _Counter(name, key, least.weight + self._unit, least.weight)
            heapq.heapreplace(self._heap, (counter.weight, next(self._made), counter))
        self._counters[name] = counter

    def _least(self) -> _Counter:
        heap = self._heap
        while heap[0][0] != heap[0][2].weight:
            _, made, counter = heap[0]
            heapq.heapreplace(heap, (counter.weight, made, counter))
        return heap[0][2]

    def _advance(self) -> None:
        now = self._clock.monotonic()
        half_lives = (now - self._landmark) / self._half_life
        if half_lives >= _MOST_HALF_LIVES:
            whole = math.floor(half_lives)
            for counter in self._counters.values():
                counter.weight = math.ldexp(counter.weight, -whole)
                counter.error = math.ldexp(counter.error, -whole)
                counter.shared = math.ldexp(counter.shared, -whole)
            self._heap = [(counter.weight, made, counter) for _, made, counter in self._heap]
            heapq.heapify(self._heap)
            self._landmark += whole * self._half_life
            half_lives -= whole
        self._unit = 2.0**half_lives
        self._next = now + self._half_life / _STEPS

    def _weight_now(self) -> float:
        """What a request weighs at this very moment."""
        self._advance()
        return self._unit

    def __repr__(self) -> str:
        return f"Sketch(keys={len(self)} of {self._capacity}, half_life={self._half_life:g} s)"
