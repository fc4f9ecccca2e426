"""How long an entry lives and how it is loaded: durations and the frozen `Policy`."""

from __future__ import annotations

import datetime as dt
import math
import random
import re
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from asynccache.errors import ConfigurationError, MissingTTL

__all__ = ["Duration", "Policy", "effective_policy", "seconds"]

Duration: TypeAlias = float | str | dt.timedelta
"""Seconds, a `timedelta`, or text such as `"250ms"`, `"5m"`, `"1h30m"`."""

MAX_SECONDS = 10 * 365 * 86_400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_TEXT = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+")
_TERM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")


def seconds(value: Duration, name: str, *, least: float = 0.0, zero: bool = True) -> float:
    """Reads a duration.

    Args:
        value: seconds, a `timedelta`, or text such as `"5m"` (units ms, s, m, h, d, w, which may be combined).
        name: the argument's name, for the message.
        least: the smallest value allowed, in seconds.
        zero: whether 0 is allowed, whatever `least` says.

    Returns:
        The duration in seconds.

    Raises:
        ConfigurationError: not a duration, negative, not finite, too small, or above ten years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | dt.timedelta):
        raise ConfigurationError(
            f"{name} must be seconds, a timedelta or text such as '5m', not {type(value).__name__} ({value!r})"
        )
    if isinstance(value, dt.timedelta):
        result = value.total_seconds()
    elif isinstance(value, str):
        text = value.strip().lower()
        if not _TEXT.fullmatch(text):
            raise ConfigurationError(
                f"{name}={value!r} is not a duration: write a number and a unit (ms, s, m, h, d, w), such as '5m'"
            )
        result = sum(float(number) * _UNITS[unit] for number, unit in _TERM.findall(text))
    else:
        # An int may be beyond what a float holds; no duration is.
        result = float(max(-MAX_SECONDS, min(value, 2 * MAX_SECONDS))) if isinstance(value, int) else value
    if zero and result == 0:
        return 0.0
    if not math.isfinite(result) or result < least or result <= 0:
        bound = f"at least {least:g} s" if least else "above 0"
        raise ConfigurationError(f"{name}={value!r} must be {'0 or ' if zero else ''}{bound}")
    if result > MAX_SECONDS:
        raise ConfigurationError(f"{name}={value!r} is above ten years; pass a TTL that data can outlive")
    return result


@dataclass(frozen=True, slots=True)
class Policy:
    """How long entries live and how they are loaded. Frozen; use `dataclasses.replace` for a variant.

    Attributes:
        ttl: how long an entry is fresh (a duration; `None` takes the strategy's or the cache's).
        jitter: share of the TTL (0 to 0.9) by which each entry's life is randomly shortened, so that entries do not
            expire together.
        early: XFetch beta; the probability of a refresh before expiry grows with the measured load time. 0 turns it
            off. Vattani, Chierichetti, Lowenstein: "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
        stale: how long after its TTL an entry may still be served: while one caller refreshes it, or when loading
            fails.
        negative_ttl: how long "not found" (`None`) is remembered; 0 does not cache it.
        load_timeout: the longest a load may take; with a stale entry at hand that is served, else `LoadTimeout`.
        lease: how long one loader may hold the right to fill a key before another may try. A load that is still
            running keeps its lease alive; this bounds what a crash can block.

    Raises:
        ConfigurationError: a field is out of range.
    """

    ttl: Duration | None = None
    jitter: float = 0.1
    early: float = 1.0
    stale: Duration = 0.0
    negative_ttl: Duration = 0.0
    load_timeout: Duration | None = None
    lease: Duration = 10.0

    def __post_init__(self) -> None:
        def put(name: str, value: float | None) -> None:
            object.__setattr__(self, name, value)

        if self.ttl is not None:
            put("ttl", seconds(self.ttl, "ttl", least=0.001, zero=False))
        put("jitter", _number(self.jitter, "jitter", 0.0, 0.9))
        put("early", _number(self.early, "early", 0.0, 1000.0))
        put("stale", seconds(self.stale, "stale", least=0.001))
        put("negative_ttl", seconds(self.negative_ttl, "negative_ttl", least=0.001))
        if self.load_timeout is not None:
            put("load_timeout", seconds(self.load_timeout, "load_timeout", least=0.001, zero=False))
        put("lease", seconds(self.lease, "lease", least=0.05, zero=False))

    def with_ttl(self, ttl: Duration | None) -> Policy:
        """The same policy with another TTL; `None` leaves it."""
        return self if ttl is None else replace(self, ttl=ttl)

    @property
    def ttl_seconds(self) -> float:
        """The TTL in seconds; 0 if there is none."""
        return float(self.ttl or 0.0)  # type: ignore[arg-type]  # normalised when made

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return int(float(self.lease) * 1000)  # type: ignore[arg-type]  # normalised when made

    @property
    def timeout_seconds(self) -> float | None:
        """The longest a load may take, in seconds; None if it may take any time."""
        return None if self.load_timeout is None else float(self.load_timeout)  # type: ignore[arg-type]  # the same

    def life_ms(self, *, found: bool = True, ttl: float | None = None) -> tuple[int, int]:
        """Draws one entry's life.

        Args:
            found: whether the entry holds a value; "not found" lives for `negative_ttl` and is never stale.
            ttl: overrides the TTL, in seconds.

        Returns:
            Milliseconds until it is no longer fresh, and until it is gone. Both are 0 where nothing may be stored.
        """
        # Durations are seconds by now: they were normalised when this was made.
        base: float = ttl or (self.ttl or 0.0 if found else self.negative_ttl)  # type: ignore[assignment]
        if base <= 0:
            return 0, 0
        fresh = int(base * 1000 * (1.0 - self.jitter * random.random())) or 1  # noqa: S311 - spreads load
        return fresh, fresh + int(self.stale * 1000) if found else fresh  # type: ignore[arg-type]


def _number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(
            f"{name}={value!r} ({type(value).__name__}) must be a number from {least:g} to {most:g}"
        )
    return float(value)


def effective_policy(where: str, *layers: Policy | None, ttl: Duration | None = None) -> Policy:
    """The first policy given, with the first TTL found: `ttl`, then each layer's.

    Args:
        where: what the policy is for, for the message.
        layers: policies from the most to the least specific.
        ttl: a TTL that overrides them all.

    Raises:
        MissingTTL: no layer has one.
    """
    given = [layer for layer in layers if layer is not None]
    policy = given[0] if given else Policy()
    found = ttl if ttl is not None else next((layer.ttl for layer in given if layer.ttl is not None), None)
    if found is None:
        raise MissingTTL(f"{where} has no TTL: pass ttl= here, to the strategy, or to Cache(...), e.g. ttl='5m'")
    return policy.with_ttl(found)
