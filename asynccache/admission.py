"""Which values are worth their place in Redis: `admit=` of a cache, namespace, strategy or decorated function."""

from __future__ import annotations

import enum
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import ConfigurationError
from asynccache.frequency import MOST, RequestCounts
from asynccache.policy import Duration, seconds

__all__ = [
    "Admission",
    "AdmissionPolicy",
    "AfterRequests",
    "Always",
    "CountsRequests",
    "Occasion",
    "Predicate",
]

_MOST_KEYS: Final = 10_000_000


class Occasion(enum.Enum):
    """Why there is a value that might be stored; a closed list."""

    LOAD = "load"
    """It was missing, and has been loaded."""
    REFRESH = "refresh"
    """It was loaded to replace an older value, or because a refresh was asked for."""
    PUT = "put"
    """It is being written to the database."""


@runtime_checkable
class Admission(Protocol):
    """Which values are worth their place in Redis. One that raises refuses."""

    def admits(self, cell: str, value: Any, occasion: Occasion, /) -> bool:
        """Whether a value is stored; asked once for each value that has been loaded or is put, if it could be stored.

        Args:
            cell: its key in Redis.
            value: the value; None for "not found".
            occasion: how it came.
        """
        ...


@runtime_checkable
class CountsRequests(Admission, Protocol):
    """An admission that may know before a load that nothing will be stored."""

    def requested(self, cell: str, /, *, peek: bool = False) -> bool:
        """Told of each load of a missing value before it begins. If it says no, the value is loaded without a lease,
        and is not stored; `admits` is not asked.

        Args:
            cell: the key in Redis.
            peek: only asks what the answer to a request would be; this is none.
        """
        ...


class AdmissionPolicy(ABC):
    """An admission policy that combines with others: `A & B` stores what both admit, `A | B` what either does."""

    @abstractmethod
    def admits(self, cell: str, value: Any, occasion: Occasion, /) -> bool:
        """See `Admission`."""

    def __and__(self, other: Admission) -> AdmissionPolicy:
        return _Both(self, other)

    def __or__(self, other: Admission) -> AdmissionPolicy:
        return _Either(self, other)


class Always(AdmissionPolicy):
    """Stores everything: for a strategy of a cache whose `admit` is something else."""

    def admits(self, _cell: str, _value: Any, _occasion: Occasion, /) -> bool:
        return True

    def __repr__(self) -> str:
        return "Always()"


class AfterRequests(AdmissionPolicy):
    """Stores a value once its key has been asked for `n` times within a window: what is read once stays out of Redis.

    A request is a read that finds nothing to serve; callers that share a load are one request. The first `n - 1`
    requests load without a lease, and leave nothing at all in Redis. Counts are this process's own, and approximate in
    one direction: a key may be stored too early (fewer than one of 100 at its first request, with `capacity` keys), and
    is never stored too late. A value that is stored is refreshed as long as it is asked for. A put is no request: it
    stores its value if the key was asked for `n` times, and else only writes it.

    Args:
        n: requests, this one included, from 2 to 255.
        within: the window. A request counts for at least so long, and at most twice as long. Choose it no shorter than
            the TTL: else a popular value that expires costs `n` loads.
        capacity: distinct keys that this process is asked for in a window, up to 10,000,000; takes from 32 to 64 bytes
            for each. If there are more, requests are forgotten sooner.
        clock: reads time.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self, n: int, within: Duration = "10m", *, capacity: int = 100_000, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        _check(n, "n", 2, MOST, "Always() stores at the first request")
        _check(capacity, "capacity", 1, _MOST_KEYS, "it is the number of distinct keys asked for within the window")
        self._n = n
        self._within = seconds(within, "within", least=0.001, zero=False)
        self._counts = RequestCounts(self._within, capacity)
        self._monotonic = clock.monotonic

    def requested(self, cell: str, /, *, peek: bool = False) -> bool:
        now = self._monotonic()
        return (self._counts.count(cell, now) + 1 if peek else self._counts.add(cell, now)) >= self._n

    def admits(self, cell: str, _value: Any, occasion: Occasion, /) -> bool:
        # A refresh is of a value that was admitted, and is asked for: hits are not counted, so its count may be gone.
        return occasion is Occasion.REFRESH or self._counts.count(cell, self._monotonic()) >= self._n

    def __repr__(self) -> str:
        return f"AfterRequests({self._n}, within={self._within:g})"


class Predicate(AdmissionPolicy):
    """Stores the values that a function of yours picks: `Predicate(lambda user: not user.is_guest)`.

    "Not found" is not asked about: `negative_ttl` says whether it is remembered. What depends on the key, or on the
    arguments of a call, is for the loader to say: `current_load().skip()`. A function that raises refuses the value; it
    is served all the same, and the error is logged once.

    Args:
        function: a plain function of the value, which tells whether to store it; asked at each load, refresh and put.
            If a refresh is refused, the older value leaves the cache, too, since it is no longer true.

    Raises:
        ConfigurationError: not a plain function of one argument.
    """

    def __init__(self, function: Callable[[Any], object]) -> None:
        name = getattr(function, "__name__", repr(function))
        if not callable(function):
            raise ConfigurationError(f"Predicate: function must be callable, not {type(function).__name__} ({name})")
        if any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None)))):  # noqa: B004 - asks its kind
            raise ConfigurationError(f"Predicate: function must be a plain function, not a coroutine function ({name})")
        try:
            signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):  # a builtin
            signature = None
        if signature is not None:
            try:
                signature.bind(None)
            except TypeError as error:
                raise ConfigurationError(
                    f"Predicate: function must take the value, and nothing else ({name}{signature}); what depends on"
                    " the key or the arguments is for the loader to say: current_load().skip()"
                ) from error
        self._function = function
        self._name = name

    def admits(self, _cell: str, value: Any, _occasion: Occasion, /) -> bool:
        if value is None:
            return True
        found = self._function(value)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise ConfigurationError(f"Predicate: {self._name} must return a bool, not an awaitable")
        return bool(found)

    def __repr__(self) -> str:
        return f"Predicate({self._name})"


class _Pair(AdmissionPolicy, ABC):
    def __init__(self, *sides: Any) -> None:
        for side in sides:
            if isinstance(side, type) or not isinstance(side, Admission):
                raise ConfigurationError(
                    f"an admission policy combines with another one, such as AfterRequests(2), not with {side!r}"
                )
        self._sides: tuple[Admission, ...] = sides
        self._counting = [side for side in sides if isinstance(side, CountsRequests)]

    def _asked(self, cell: str, peek: bool) -> list[bool]:
        return [side.requested(cell, peek=peek) for side in self._counting]  # each of them counts


class _Both(_Pair):
    def requested(self, cell: str, /, *, peek: bool = False) -> bool:
        return all(self._asked(cell, peek))

    def admits(self, cell: str, value: Any, occasion: Occasion, /) -> bool:
        return all(side.admits(cell, value, occasion) for side in self._sides)

    def __repr__(self) -> str:
        return "({!r} & {!r})".format(*self._sides)


class _Either(_Pair):
    def requested(self, cell: str, /, *, peek: bool = False) -> bool:
        asked = self._asked(cell, peek)
        return any(asked) or len(asked) < len(self._sides)  # the others wait for the value

    def admits(self, cell: str, value: Any, occasion: Occasion, /) -> bool:
        return any(side.admits(cell, value, occasion) for side in self._sides)

    def __repr__(self) -> str:
        return "({!r} | {!r})".format(*self._sides)


def _check(value: object, name: str, least: int, most: int, hint: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(
            f"AfterRequests: {name}={value!r} ({type(value).__name__}) must be an int from {least} to {most:,}; {hint}"
        )
