"""The map under the local tier: a kept library's W-TinyLFU, with a doorkeeper before it once it is full.

TinyLFU compares how often the newcomer and the entry that would leave were asked for, by a sketch of few recent
requests; on a long tail most newcomers are seen in it once, by chance, and push out what is asked for more often. The
paper's remedy is a doorkeeper, which nobody passes who has not been there before. moka has none, so it stands here, on
the way of misses only: a hit does not know of it. What it brings is measured by `python -m benchmarks --scenario
hit-ratio`.

Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on Storage 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from asynccache.errors import MissingExtra

__all__ = ["AdmittingMap", "Doorkeeper"]

_SPAN: Final = 4
"""Distinct newcomers that are remembered, in multiples of the room: a shorter memory lets fewer of the popular in, a
longer one more of the chance encounters."""

_ROOM: Final = 4
"""Places for each newcomer remembered: a key is taken for another's with 1 - exp(-1/4) at most in each half, and then
let in at once, as all are without a doorkeeper."""


class Doorkeeper:
    """Remembers which keys came before, in a fixed amount of memory: a Bloom filter with one hash, in two halves.

    Args:
        span: distinct keys that a half remembers; so a key is remembered for at least as many others, and for at most
            twice as many.
    """

    __slots__ = ("_mask", "_older", "_seen", "_span", "_younger")

    def __init__(self, span: int) -> None:
        self._span = span
        width = 1 << (span * _ROOM - 1).bit_length()
        self._mask = width - 1
        self._younger = bytearray(width)
        self._older = bytearray(width)
        self._seen = 0

    def knows(self, key: object) -> bool:
        """Whether a key was here before; it is remembered from now on."""
        place = hash(key) & self._mask
        if self._younger[place]:
            return True
        if self._seen >= self._span:
            self._older, self._younger = self._younger, bytearray(self._mask + 1)
            self._seen = 0
        self._seen += 1
        self._younger[place] = 1
        return bool(self._older[place])

    def __repr__(self) -> str:
        return f"Doorkeeper(span={self._span}, seen={self._seen})"


class AdmittingMap:
    """A bounded map that keeps what is asked for often.

    Args:
        most: most entries.
        most_bytes: most bytes of all entries together; None bounds their number alone.
        size: bytes of a value and its key; asked only if `most_bytes` is set.

    Attributes:
        get: the value of a key, or None; moka's own, since it is most of a hit.

    Raises:
        MissingExtra: the extra `local` is not installed.
    """

    __slots__ = ("_door", "_map", "_most", "_room", "_weight", "get")

    get: Callable[[Any], Any]
    _weight: Callable[[Any], int] | None

    def __init__(self, most: int, most_bytes: int | None = None, size: Callable[[Any], int] | None = None) -> None:
        try:
            from moka_py import Moka  # noqa: PLC0415 - an extra
        except ModuleNotFoundError:
            raise MissingExtra("local= needs the package moka-py: pip install 'asynccache[local]'") from None
        self._most = most
        self._door: Doorkeeper | None = None
        if most_bytes is None or size is None:
            self._room, self._weight = most, None
            self._map: Any = Moka(most)
        else:
            # An entry weighs its bytes, and at least its share of them: so both bounds hold.
            share = max(1, most_bytes // most)

            def weight(value: Any) -> int:
                return max(share, size(value))

            self._room, self._weight = most_bytes, weight
            self._map = Moka(most_bytes, weigher=lambda _, value: weight(value))
        self.get = self._map.get

    def set(self, key: Any, value: Any) -> None:
        """Puts a value in, unless there is no room and the key has not been here before."""
        weight = 1 if self._weight is None else self._weight(value)
        if self._map.weighted_size() + weight > self._room:
            if self._door is None:
                self._door = Doorkeeper(self._most * _SPAN)
            if not self._door.knows(key):
                return
        self._map.set(key, value)

    def remove(self, key: Any) -> None:
        """Takes a key out; nothing happens if it is not there."""
        self._map.remove(key)

    def __len__(self) -> int:
        self._map.run_pending_tasks()
        return int(self._map.count())

    def __repr__(self) -> str:
        return f"AdmittingMap(most={self._most}, entries={len(self)})"
