"""How far a flusher is: what it has done, which partitions fail, and when those are tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from asynccache.clock import Clock
from asynccache.errors import Unavailable
from asynccache.protocols import Applied
from asynccache.supervision import backoff, logger

__all__ = ["FlusherStats", "Progress"]

_OUTAGE_BACKOFF: Final = (0.1, 10.0)
"""First and longest wait, in seconds, after an error that goes away by itself."""
_FAULT_BACKOFF: Final = (5.0, 300.0)
"""The same after one that somebody has to see to: a record that cannot be decoded, a table that is not there."""


@dataclass(frozen=True, slots=True)
class FlusherStats:
    """What one process has flushed.

    Attributes:
        batches: batches that this process applied.
        again: batches that the database had already.
        writes: writes in the batches that it applied; those of one key were combined before.
        row_updates: of these, what the database took.
        rejected: of these, what it refused; they are in the dead letters.
        failures: failed attempts.
        failing: partitions that fail now, with type and text of the error.
        last_error: type and text of the last error; None if there was none.
        lag: seconds since the oldest write that pends in this process's partitions, at the last look.
        owned: the partitions of which this process takes care.
        paused: whether it waits for `resume`.
    """

    batches: int = 0
    again: int = 0
    writes: int = 0
    row_updates: int = 0
    rejected: int = 0
    failures: int = 0
    failing: dict[int, str] = field(default_factory=dict)
    last_error: str | None = None
    lag: float = 0.0
    owned: tuple[int, ...] = ()
    paused: bool = False


@dataclass(frozen=True, slots=True)
class _Trouble:
    failures: int
    retry_at: float
    error: str


class Progress:
    """Counts what one flusher does, and remembers which partitions fail.

    Args:
        name: of the flusher, for logs.
        clock: reads time.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._batches = self._again = self._writes = self._rejected = self._failures = 0
        self._troubles: dict[int, _Trouble] = {}
        self._store_error: str | None = None
        self._last_error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing fails now."""
        return not self._troubles and self._store_error is None

    def stats(self, *, owned: tuple[int, ...], lag: float, paused: bool) -> FlusherStats:
        """All of it, with what the flusher knows."""
        return FlusherStats(
            batches=self._batches,
            again=self._again,
            writes=self._writes,
            row_updates=self._writes - self._rejected,
            rejected=self._rejected,
            failures=self._failures,
            failing={number: trouble.error for number, trouble in sorted(self._troubles.items())},
            last_error=self._last_error,
            lag=lag,
            owned=owned,
            paused=paused,
        )

    def applied(self, writes: int, applied: Applied[Any]) -> None:
        """A batch of so many writes is in the database."""
        if applied.again:
            self._again += 1
            return
        self._batches += 1
        self._writes += writes
        self._rejected += len(applied.rejected)

    def succeeded(self, number: int) -> None:
        """A partition does not fail any more."""
        if self._troubles.pop(number, None) is not None:
            logger.info("%s: partition %d is flushed again", self._name, number)

    def failed(self, number: int, error: Exception) -> None:
        """A partition failed: sets when it is tried again."""
        before = self._troubles.get(number)
        failures = before.failures + 1 if before else 1
        passing = isinstance(error, Unavailable)
        wait = backoff(failures, *(_OUTAGE_BACKOFF if passing else _FAULT_BACKOFF))
        text = self._note(error)
        self._troubles[number] = _Trouble(failures, self._clock.monotonic() + wait, text)
        if failures == 1:
            # The first of a row; an error that nobody expects with its traceback.
            trace = None if passing else error
            logger.warning("%s: partition %d: %s; again in %.1f s", self._name, number, text, wait, exc_info=trace)

    def store_failed(self, error: Exception) -> None:
        """Redis did not say what pends."""
        self._store_error = self._note(error)

    def store_answered(self) -> None:
        """Redis says what pends."""
        self._store_error = None

    def keep_only(self, owned: Callable[[int], bool]) -> None:
        """Forgets the troubles of partitions that are others' now."""
        for number in [number for number in self._troubles if not owned(number)]:
            del self._troubles[number]

    def wait(self, number: int) -> float:
        """Seconds until a partition that failed is tried again; 0 if it may be now."""
        trouble = self._troubles.get(number)
        return 0.0 if trouble is None else max(0.0, trouble.retry_at - self._clock.monotonic())

    def _note(self, error: Exception) -> str:
        self._failures += 1
        self._last_error = f"{type(error).__name__}: {error}"
        return self._last_error
