"""What a warming is told, and what it tells: options, progress, and the report."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from asynccache.errors import ConfigurationError
from asynccache.keys import check_name

__all__ = ["Pace", "Settings", "WarmKeys", "WarmOptions", "WarmProgress", "WarmReport"]

WarmKeys: TypeAlias = "Iterable[Any] | AsyncIterable[Any]"
"""The keys to warm; an iterator may be endless."""

MOST_BATCH = 10_000
MOST_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class WarmProgress:
    """How far a warming has come.

    Attributes:
        position: keys of the stream that are done with, those that were skipped to resume included; all before it are.
        loaded: keys that were loaded.
        skipped: keys that were fresh already, or that somebody else was loading or writing.
        missing: keys that were loaded and do not exist.
        failed: keys that could not be loaded, or are no keys.
        total: how many keys there are, if that is known.
        seconds: since the begin.
    """

    position: int
    loaded: int
    skipped: int
    missing: int
    failed: int
    total: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class WarmReport(WarmProgress):
    """What a warming has done.

    Attributes:
        stopped: why it ended before the keys did; None if it came to their end. Then `resume=report.position` goes on.
    """

    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether it came to the end of the keys, and each of them could be loaded."""
        return self.stopped is None and self.failed == 0


class WarmOptions(TypedDict, total=False):
    """How a warming goes about it.

    Attributes:
        concurrency: batches under way at once; of a source that loads one key at a time, loads at once (4).
        rate: most keys loaded a second; None for no bound. Keys that are fresh cost none.
        batch: most keys looked up by one `MGET`, and loaded by one `load_many` (500).
        progress: called with a `WarmProgress` after every batch; True shows a bar (extra `cli`).
        resume: the position in the stream of keys to begin from; or the name of a checkpoint in Redis, where the
            position is kept, so that the next call of that name goes on where this one ended. It is forgotten at the
            end of the keys, and after a week.
        refresh: loads what is fresh, too.
        max_failures: after so many batches in a row that could not be loaded it stops (3).
    """

    concurrency: int
    rate: float | None
    batch: int
    progress: Callable[[WarmProgress], object] | bool | None
    resume: int | str
    refresh: bool
    max_failures: int


@dataclass(frozen=True, slots=True)
class Settings:
    """`WarmOptions`, checked and complete.

    Raises:
        ConfigurationError: one cannot work.
    """

    concurrency: int = 4
    rate: float | None = None
    batch: int = 500
    progress: Callable[[WarmProgress], object] | bool | None = None
    resume: int | str = 0
    refresh: bool = False
    max_failures: int = 3

    def __post_init__(self) -> None:
        for what, count, most in (
            ("concurrency", self.concurrency, MOST_AT_ONCE),
            ("batch", self.batch, MOST_BATCH),
            ("max_failures", self.max_failures, MOST_BATCH),
        ):
            if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= most:
                raise ConfigurationError(f"warm: {what}={count!r} must be an int from 1 to {most:,}")
        rate = self.rate
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e9):
            raise ConfigurationError(f"warm: rate={rate!r} must be keys a second, such as 500, or None")
        if self.progress is not None and not isinstance(self.progress, bool) and not callable(self.progress):
            raise ConfigurationError(
                f"warm: progress must be a function of a WarmProgress, or True, not {type(self.progress).__name__}"
            )
        if isinstance(self.resume, str):
            check_name(self.resume, "warm: resume")
        elif not isinstance(self.resume, int) or isinstance(self.resume, bool) or self.resume < 0:
            raise ConfigurationError(
                f"warm: resume={self.resume!r} must be a position (`report.position`), or the name of a checkpoint"
            )

    @property
    def batch_size(self) -> int:
        """Keys in a batch: no more than a second's worth, so that a low rate is no series of bursts."""
        return self.batch if self.rate is None else max(1, min(self.batch, int(self.rate)))


class Pace:
    """A token bucket: keeps what passes below a rate. Pure: it tells how long to wait, and does not wait.

    In any time of t seconds no more than `rate * t` tokens pass, and one request on top. This is the generic cell rate
    algorithm (ITU-T I.371) in its form of a virtual schedule.

    Args:
        rate: tokens a second; None for no bound.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free = 0.0  # when the tokens taken so far have flown in

    def reserve(self, tokens: int, now: float) -> float:
        """Takes tokens; returns the seconds to wait before they may be used.

        Args:
            tokens: how many.
            now: seconds, on a clock that never goes back.
        """
        if self._rate is None:
            return 0.0
        begin = max(self._free, now)
        self._free = begin + tokens / self._rate
        return begin - now
