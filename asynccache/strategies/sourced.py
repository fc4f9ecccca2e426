"""What strategies share that can load by themselves: they can be warmed."""

from __future__ import annotations

from typing import Any, TypeVar, Unpack

from asynccache.errors import ConfigurationError
from asynccache.strategies.base import Strategy
from asynccache.strategies.sources import Loading, StreamsKeys
from asynccache.strategies.warm_reports import WarmKeys, WarmOptions
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
        return self._warm(keys, options)

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
        return self._warm(source.stream_keys(query, *args), options, owned=True)

    def warm_hot(self, top: int = 1000, **options: Unpack[WarmOptions]) -> Warming[V]:
        """Warms the keys that were asked for most, hottest first (with `Cache(hot_keys=HotKeys())`): as all processes
        have counted them, or this one where Redis has nothing.

        Args:
            top: how many at most.
            options: as for `warm`.

        Raises:
            ConfigurationError: the cache does not count requests, or another argument cannot work.
        """
        return self._warm(self._hot_keys(top), options, owned=True)

    def _warm(self, keys: WarmKeys, options: WarmOptions, *, owned: bool = False) -> Warming[V]:
        return self._warming(keys, self._loading.loader, options, owned=owned, crowd=self._loading.crowd)
