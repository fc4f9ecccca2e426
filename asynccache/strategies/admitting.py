"""Admission as strategies ask for it: a policy of the user's that may fail, and whose refusals are counted."""

from __future__ import annotations

from typing import Any

from asynccache.admission import Admission, CountsRequests, Occasion
from asynccache.errors import ConfigurationError
from asynccache.events import Counters
from asynccache.supervision import logger

__all__ = ["Admitting", "check_admission"]


class Admitting:
    """An admission policy at work. One that raises refuses: a cache must not be what makes a read or a write fail.

    Args:
        policy: what the user gave.
        counters: counts.
        where: whose values it admits, for the log.
    """

    __slots__ = ("_count", "_counts", "_policy", "_told", "_where")

    def __init__(self, policy: Admission, counters: Counters, where: str) -> None:
        self._policy = policy
        self._counts = policy if isinstance(policy, CountsRequests) else None
        self._count = counters
        self._where = where
        self._told = False

    def requested(self, cell: str, *, peek: bool = False) -> bool:
        """Whether the value of a cell that is about to be loaded may be stored, as far as that can be known before.

        Args:
            cell: its key in Redis.
            peek: only tells; this is not the request itself.
        """
        if self._counts is None:
            return True
        try:
            wanted = bool(self._counts.requested(cell, peek=peek))
        except Exception as error:  # noqa: BLE001 - the user's code
            wanted = self._failed(error)
        self._count.refused += not (wanted or peek)
        return wanted

    def admits(self, cell: str, value: Any, occasion: Occasion) -> bool:
        """Whether a value that is at hand is stored."""
        try:
            admitted = bool(self._policy.admits(cell, value, occasion))
        except Exception as error:  # noqa: BLE001 - the user's code
            admitted = self._failed(error)
        self._count.refused += not admitted
        return admitted

    def admits_put(self, cell: str, value: Any) -> bool:
        """Whether a value that is being written to the database is stored."""
        return self.admits(cell, value, Occasion.PUT)

    def asked_for(self) -> Admitting:
        """The same, for values that somebody wants to be stored before they are requested: as at a refresh, how often
        they were requested does not count."""
        return _AskedFor(self._policy, self._count, self._where)

    def _failed(self, error: Exception) -> bool:
        if not self._told:
            self._told = True
            logger.warning(
                "%s: %r raised, and what it is asked about is not cached: %r", self._where, self._policy, error
            )
        return False

    def __repr__(self) -> str:
        return f"Admitting({self._policy!r})"


class _AskedFor(Admitting):
    __slots__ = ()

    def requested(self, cell: str, *, peek: bool = False) -> bool:
        del cell, peek
        return True

    def admits(self, cell: str, value: Any, occasion: Occasion) -> bool:
        del occasion
        return super().admits(cell, value, Occasion.REFRESH)


def check_admission(where: str, admit: object) -> Admission | None:
    """An admission policy as a user gave it.

    Raises:
        ConfigurationError: it is none.
    """
    if admit is None:
        return None
    if isinstance(admit, type) or not isinstance(admit, Admission):
        raise ConfigurationError(
            f"{where}: admit must be Always(), AfterRequests(2), Predicate(function) or anything with"
            f" `admits(cell, value, occasion)`, not {type(admit).__name__} ({admit!r})"
        )
    return admit
