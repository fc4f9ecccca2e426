"""Warming when a cache opens: in the background, or before it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.policy import Duration, seconds
from asynccache.strategies.cache_aside import CacheAside
from asynccache.strategies.sourced import Sourced
from asynccache.strategies.warm_reports import Settings, WarmKeys, WarmReport
from asynccache.strategies.warming import CLOSED, Warming
from asynccache.supervision import logger

__all__ = ["AtStart", "warm_at_start"]


class AtStart:
    """A service that warms one strategy, and is done.

    Where Redis or the database does not answer, it fails and is started again, with growing waits, from the position
    that it has reached.

    Args:
        name: the strategy, for health reports.
        make: makes a warming from a position.
        patience: how long the cache is not ready until it is done, in seconds; None does not hold it up.
    """

    def __init__(self, name: str, make: Callable[[int], Warming[Any]], patience: float | None) -> None:
        self.name = f"warming:{name}"
        self.report: WarmReport | None = None
        self._make = make
        self._patience = patience
        self._position = 0
        self._ended = asyncio.Event()  # for good or for the first time badly

    async def run(self, alive: Callable[[], None]) -> None:
        """Warms; returns when there is no more to do.

        Raises:
            StoreUnavailable: a server does not answer.
        """
        alive()
        self.report = None
        warming = self._make(self._position)
        try:
            report = await warming
            self._position = report.position
            if report.stopped == CLOSED:
                return
            if report.stopped is not None:
                raise StoreUnavailable(f"{self.name}: {report.stopped}")
            self.report = report
            self._position = 0  # of the next start, if the cache is opened again
        finally:
            self._ended.set()
        log = logger.info if report.complete else logger.warning
        log("%s: %d loaded, %d fresh, %d failed", self.name, report.loaded, report.skipped, report.failed)

    async def before_ready(self) -> None:
        """Waits until it is done, if the cache is to wait for it: no longer than agreed, nor after it has failed."""
        if self._patience is None:
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._ended.wait()
        except TimeoutError:
            logger.warning("%s: not done within %g s; it goes on in the background", self.name, self._patience)
        else:
            if self.report is None:
                logger.warning("%s: failed; the cache opens without it", self.name)

    def reset(self) -> None:
        """Before the cache is opened, maybe again."""
        self._ended.clear()

    def __repr__(self) -> str:
        return f"AtStart({self.name!r})"


def warm_at_start(
    strategy: Any,
    *,
    keys: WarmKeys | Callable[[], WarmKeys] | None,
    query: str | None,
    hot: int | None,
    load: Callable[..., Any] | None,
    before_ready: bool,
    timeout: Duration,
    options: dict[str, Any],
) -> AtStart:
    """Makes the service; see `Cache.warm_at_start`.

    Raises:
        ConfigurationError: the arguments do not go together.
    """
    if not isinstance(strategy, Sourced | CacheAside):
        raise ConfigurationError(f"warm_at_start: strategy must be a strategy of this cache, not {strategy!r:.100}")
    where = f"warm_at_start({strategy.name!r})"
    if sum(one is not None for one in (keys, query, hot)) != 1:
        raise ConfigurationError(f"{where}: say what: one of keys=, query= and hot=")
    if isinstance(strategy, CacheAside) != (load is not None):
        raise ConfigurationError(f"{where}: load= is for CacheAside, which has no source, and for no other")
    if query is not None and load is not None:
        raise ConfigurationError(f"{where}: query= needs a source; pass keys=table.stream_keys instead")
    if isinstance(keys, Iterator | AsyncIterator):
        raise ConfigurationError(f"{where}: keys={keys!r} can be read only once: pass a function that returns it")
    if "resume" in options or "progress" in options:
        raise ConfigurationError(f"{where}: resume= and progress= are for warm(); a restart goes on by itself")

    def make(position: int) -> Warming[Any]:
        # What is hot may be another list by now; its keys that were warmed are fresh.
        given = {**options, "resume": 0 if hot is not None else position}
        if load is not None:
            given["load"] = load
        target: Any = strategy
        if query is not None:
            return _made(target.warm_query(query, **given))
        if hot is not None:
            return _made(target.warm_hot(top=hot, **given))
        return _made(target.warm(keys() if callable(keys) else keys, **given))

    # What cannot work shows here.
    if callable(keys):
        Settings(**options)
    else:
        make(0)
    patience = seconds(timeout, "timeout", least=0.001, zero=False) if before_ready else None
    return AtStart(strategy.origin, make, patience)


def _made(warming: Any) -> Warming[Any]:
    made: Warming[Any] = warming
    return made
