"""How often each of many keys was asked for of late, in a fixed amount of memory. Pure: no I/O, no time of its own.

A count-min sketch (Cormode and Muthukrishnan, "An Improved Data Stream Summary", J. Algorithms 2005) of four rows with
conservative update (Estan and Varghese, "New Directions in Traffic Measurement", SIGCOMM 2002): keys may share
counters, so that a count may come out too high, and never too low. A sketch instead of a map of keys, since the keys
that are asked for once are the many: the reason why TinyLFU has one, and a doorkeeper in front of it (Einziger,
Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on Storage 2017).

It forgets by halves: requests are counted in the younger one, a key's count is the sum of both, and after each window
the younger becomes the older. So a request counts for at least one window, and for at most two.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MOST", "RequestCounts"]

MOST: Final = 255
"""Counters stop there."""

_ROWS: Final = 4
_ROOM: Final = 4
"""Counters in a row for each key of the capacity. In a full half another key has a key's counter in one row with
1 - exp(-1/4) at most, and in all four with 0.24%: so of 200 keys asked for once, one counts as asked for twice."""


class RequestCounts:
    """Counts requests by key.

    Args:
        window: seconds for which a request counts at least.
        capacity: distinct keys that are expected within a window. Above that, windows become shorter instead of counts
            too high: of a flood of keys that are asked for once, none may pass for a popular one.
    """

    __slots__ = ("_began", "_capacity", "_keys", "_mask", "_older", "_width", "_window", "_younger")

    def __init__(self, window: float, capacity: int) -> None:
        self._window = window
        self._capacity = capacity
        self._width = 1 << (capacity * _ROOM - 1).bit_length()
        self._mask = self._width - 1
        self._younger = bytearray(_ROWS * self._width)
        self._older = bytearray(_ROWS * self._width)
        self._began: float | None = None
        self._keys = 0

    def add(self, key: str, now: float) -> int:
        """Counts one request, and returns the count with it: at least how often it was, within the last window.

        Args:
            key: what was asked for.
            now: seconds on a clock that never goes back.
        """
        self._forget(now)
        places = self._places(key)
        counters = self._younger
        least = min([counters[place] for place in places])
        if least == 0:
            if self._keys >= self._capacity:
                self._turn(now)
                counters = self._younger
            self._keys += 1
        if least < MOST:
            for place in places:
                counters[place] = max(counters[place], least + 1)
        return self._sum(places)

    def count(self, key: str, now: float) -> int:
        """The count of a key as it is."""
        self._forget(now)
        return self._sum(self._places(key))

    @property
    def nbytes(self) -> int:
        """The memory of the counters, in bytes."""
        return len(self._younger) + len(self._older)

    def _places(self, key: str) -> list[int]:
        # Two halves of one hash give one place in each row: Kirsch and Mitzenmacher, "Less Hashing, Same Performance:
        # Building a Better Bloom Filter", ESA 2006. Python's is keyed anew in each process, so that nobody can choose
        # keys that share their counters.
        first = hash(key)
        step = (first >> 32) | 1
        return [((first + row * step) & self._mask) + row * self._width for row in range(_ROWS)]

    def _sum(self, places: list[int]) -> int:
        younger, older = self._younger, self._older
        return min([younger[place] for place in places]) + min([older[place] for place in places])

    def _forget(self, now: float) -> None:
        if self._began is None:
            self._began = now
        windows = int((now - self._began) / self._window)
        if windows < 1:
            return
        # Windows follow each other without a gap: else what was counted just before one would count for longer.
        start = self._began + windows * self._window
        if windows > 1:
            self._turn(start)
        self._turn(start)

    def _turn(self, now: float) -> None:
        self._older, self._younger = self._younger, bytearray(len(self._younger))
        self._began, self._keys = now, 0

    def __repr__(self) -> str:
        return f"RequestCounts(window={self._window:g}, capacity={self._capacity}, {self.nbytes:,} bytes)"
