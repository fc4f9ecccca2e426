"""The cache of an application, found by `module:attribute`."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asynccache.cache import Cache
from asynccache.errors import ConfigurationError
from asynccache.strategies.base import Strategy
from asynccache.write_behind.flusher import Flusher

__all__ = ["background_work", "find_cache", "find_strategies", "flushers", "inspecting", "using"]


def find_cache(where: str, folder: Path) -> Callable[[], Awaitable[Cache]]:
    """Imports an application's module; what comes back makes its cache, on the event loop that will use it.

    Args:
        where: `module:attribute`; the attribute is a `Cache`, or a function (async or not) that returns one.
        folder: where modules are looked for first.

    Raises:
        ConfigurationError: there is no such module or attribute, or importing it failed.
    """
    module, colon, path = where.partition(":")
    if not (module and colon and path):
        raise ConfigurationError(f"{where!r} must be module:attribute, such as shop.main:cache")
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigurationError(f"{where!r}: importing {module} failed: {error}") from error
        raise ConfigurationError(f"{where!r}: there is no module {error.name!r} in {folder.resolve()}") from error
    except Exception as error:
        text = f"{where!r}: importing {module} failed: {type(error).__name__}: {error}"
        raise ConfigurationError(text) from error
    try:
        found = functools.reduce(getattr, path.split("."), found)
    except AttributeError as error:
        raise ConfigurationError(f"{where!r}: {error}") from error
    return functools.partial(_make, where, found)


async def _make(where: str, found: Any) -> Cache:
    if not isinstance(found, Cache) and callable(found):
        try:
            found = found()
            if inspect.isawaitable(found):
                found = await found
        except Exception as error:
            raise ConfigurationError(f"{where!r}: calling it failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, Cache):
        raise ConfigurationError(f"{where!r} must be a Cache, or a function that returns one, not {found!r:.100}")
    return found


def flushers(cache: Cache, name: str | None = None) -> list[Flusher[Any]]:
    """The flushers of a cache's write-behind strategies, or of the one of this name.

    Raises:
        ConfigurationError: there is none.
    """
    found = [service for service in cache.runtime.services if isinstance(service, Flusher)]
    chosen = [flusher for flusher in found if name is None or flusher.origin == name]
    if not chosen:
        names = ", ".join(flusher.origin for flusher in found) or "none"
        wanted = "strategy" if name is None else f"strategy {name!r}"
        raise ConfigurationError(f"{cache!r} has no write-behind {wanted}; it has: {names}")
    return chosen


def background_work(cache: Cache) -> list[Flusher[Any]]:
    """The flushers of a cache, of which there may be none if it has something else to do in the background.

    Raises:
        ConfigurationError: it has nothing to do there.
    """
    if any(isinstance(service, Flusher) for service in cache.runtime.services) or not cache.runtime.listeners:
        return flushers(cache)
    return []


def find_strategies(cache: Cache, name: str | None = None) -> list[Strategy[Any]]:
    """The strategies of a cache, or those of this name: `user`, or `tenant-7/user` in a namespace.

    Raises:
        ConfigurationError: there is none.
    """
    found = [one for one in cache.runtime.strategies if isinstance(one, Strategy)]
    chosen = [one for one in found if name is None or one.origin == name]
    if not chosen:
        names = ", ".join(dict.fromkeys(one.origin for one in found)) or "none"
        wanted = "strategy" if name is None else f"strategy {name!r}"
        raise ConfigurationError(f"{cache!r} has no {wanted}; it has: {names}")
    return chosen


@asynccontextmanager
async def using(cache: Cache, *, parts: bool = True) -> AsyncIterator[None]:
    """Opens the cache without any service, so that nothing happens but what the command does.

    Args:
        cache: the cache.
        parts: opens sources and sinks, too.

    Raises:
        StoreUnavailable, DatabaseUnavailable: a server does not answer.
    """
    runtime = cache.runtime
    runtime.background = False
    try:
        await runtime.start(services=False, parts=parts)
        yield
    finally:
        await runtime.stop()


@asynccontextmanager
async def inspecting(cache: Cache) -> AsyncIterator[None]:
    """Opens what leads to Redis and nothing else: no service, and no database, which may be what is down.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    runtime = cache.runtime
    runtime.background = False
    try:
        await runtime.store.open()
        yield
    finally:
        await runtime.stop()
