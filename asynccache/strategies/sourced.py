"""What strategies share that can load by themselves: they can be warmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, Unpack

from asynccache.errors import ConfigurationError
from asynccache.strategies.base import Strategy
from asynccache.strategies.loading import Load
from asynccache.strategies.sources import Loading, StreamsKeys
from asynccache.strategies.verdicts import Question
from asynccache.strategies.warm_reports import Settings, WarmKeys, WarmOptions
from asynccache.strategies.warming import Warming

__all__ = ["Sourced"]

V = TypeVar("V")


class Sourced(Strategy[V]):
    """A strategy with a source. Not used by itself."""

    _loading: Loading[V]

    def warm(self, keys: WarmKeys, **options: Unpack[WarmOptions]) -> Warming[V]:
        """Loads what is not fresh of these keys: `report = await users.warm(ids, rate=1000)`.

        It reads as everybody does, so it never replaces newer data, and never repeats a load that another process has
        begun. It stops, with a report, where Redis does not answer, or where loading fails again and again.

        Args:
            keys: an iterable of key values, or an async one; it may be endless, and is never read far ahead.
            options: `concurrency`, `rate`, `batch`, `progress`, `resume`, `refresh`, `max_failures`; see `WarmOptions`.

        Returns:
            What is awaited for a `WarmReport`; its `stop()` ends it early.

        Raises:
            ConfigurationError: an argument cannot work.
            MissingExtra: `progress=True` without the extra `cli`.
        """
        return self._warming(keys, Settings(**options), owned=False)

    def warm_query(self, query: str, /, *args: Any, **options: Unpack[WarmOptions]) -> Warming[V]:
        """Warms the keys that a query of the source's database returns, in its order:
        `await users.warm_query("SELECT id FROM users ORDER BY seen DESC LIMIT $1", 10_000)`.

        The keys are streamed through a cursor, over one connection of the source, which is held until the end.

        Args:
            query: returns the key columns, in the key's order, and no others.
            args: for `$1`, `$2` and so on.
            options: as for `warm`. To resume, the query has to return the keys in the same order again.

        Raises:
            ConfigurationError: the source cannot stream keys, as a `PostgresTable` can.
            DatabaseUnavailable, SchemaMismatch: the query failed (raised where the warming is awaited).
        """
        source = next((part for part in self._parts if isinstance(part, StreamsKeys)), None)
        if source is None:
            raise ConfigurationError(
                f"{self!r}: warm_query needs a source that can stream keys, as a PostgresTable can: pass the keys of"
                " this source to warm(), which takes an async iterator, too"
            )
        return self._warming(source.stream_keys(query, *args), Settings(**options), owned=True)

    def warm_hot(self, top: int = 1000, **options: Unpack[WarmOptions]) -> Warming[V]:
        """Warms the keys that were asked for most, hottest first (with `Cache(hot_keys=HotKeys())`): as all processes
        have counted them, or this one where Redis has nothing.

        Args:
            top: how many at most.
            options: as for `warm`.

        Raises:
            ConfigurationError: the cache does not count requests, or another argument cannot work.
        """
        return self._warming(self._hot_keys(top), Settings(**options), owned=True)

    def _warming(self, keys: WarmKeys, settings: Settings, *, owned: bool) -> Warming[V]:
        async def ask(key: Any, watch: Callable[[Load[V]], Load[V]]) -> Question[V]:
            return await self._ask(key, watch(self._loading.loader(key)))

        return Warming(
            self._scope,
            self._name,
            keys,
            ask,
            self._prepare,
            settings,
            crowd=self._loading.crowd,
            awaited=self._version.awaited,
            owned=owned,
        )
