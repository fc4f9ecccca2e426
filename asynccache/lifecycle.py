"""A cache's life as frameworks drive it, and its health as they ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from asynccache.events import ChangesHealth
from asynccache.stores.guarded import CircuitState
from asynccache.strategies.runtime import BufferHealth, RuntimeState
from asynccache.supervision import ServiceHealth

__all__ = ["CacheHealth", "Lifespan", "Opened"]


@dataclass(frozen=True, slots=True)
class CacheHealth:
    """How a cache is.

    Attributes:
        state: whether it is open.
        circuit: whether calls reach Redis; None for a cache without it.
        owed: invalidations that wait for Redis to come back.
        services: the background services of this process.
        write_behind: the write-behind strategies.
        changes: the listeners to a database's changes.
    """

    state: str
    circuit: CircuitState | None
    owed: int
    services: tuple[ServiceHealth, ...]
    write_behind: tuple[BufferHealth, ...] = ()
    changes: tuple[ChangesHealth, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is open, Redis answers, no service has failed, what is written behind is flushed, and changes of
        the database are heard of."""
        return (
            self.state == RuntimeState.OPEN.value
            and self.circuit in {None, CircuitState.CLOSED}
            and all(service.ok for service in self.services)
            and all(buffer.ok for buffer in self.write_behind)
            and all(listener.ok for listener in self.changes)
        )


class Opened(Protocol):
    """What can be opened and closed."""

    async def startup(self) -> None:
        """Opens it."""
        ...

    async def shutdown(self) -> None:
        """Closes it."""
        ...


class Lifespan:
    """One opening of a cache: an async context manager, and, for aiohttp, an async iterator of one item."""

    def __init__(self, cache: Opened) -> None:
        self._cache = cache
        self._begun = False

    async def __aenter__(self) -> Mapping[str, Any]:
        await self._cache.startup()
        return {"cache": self._cache}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cache.shutdown()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        if self._begun:
            await self._cache.shutdown()
            raise StopAsyncIteration
        self._begun = True
        return await self.__aenter__()
