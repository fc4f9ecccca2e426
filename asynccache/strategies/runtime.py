"""The parts of one open cache, wired once and handed to its strategies."""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from weakref import WeakSet

from asynccache.clock import Clock
from asynccache.errors import CacheNotOpen, ConfigurationError, StoreUnavailable
from asynccache.events import ChangesHealth, Counters
from asynccache.hot_keys.lists import HotKeyLists
from asynccache.observability.recording import Recorder
from asynccache.protocols import Resource
from asynccache.steps import Ensure
from asynccache.stores.base import Store
from asynccache.stores.guarded import GuardedStore
from asynccache.strategies.reading import Reader
from asynccache.strategies.writing import Writer
from asynccache.supervision import Service, Supervisor
from asynccache.tokens import new_salt

__all__ = ["BufferHealth", "Closable", "Named", "Runtime", "RuntimeState"]


class RuntimeState(enum.Enum):
    """Whether the cache may be used."""

    NEW = "not open yet"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class BufferHealth:
    """How one write-behind strategy is, as far as this process knows.

    Attributes:
        name: the strategy.
        ok: whether nothing fails now: flushes, Redis' settings, and Redis' data.
        lag: age in seconds of the oldest write that waits in this process's partitions, at its last look.
        dead_letters: how many there are, as counted within the last half minute; None if they were not counted yet.
        losses: how often Redis was found to have lost its data.
        problem: why writes are refused, or the last error of a flush that fails; None if nothing fails.
    """

    name: str
    ok: bool
    lag: float
    dead_letters: int | None
    losses: int
    problem: str | None


class Closable(Protocol):
    """A strategy with something to finish before the cache closes."""

    async def aclose(self) -> None:
        """Finishes it."""
        ...


class Named(Protocol):
    """A strategy, as far as all are alike."""

    @property
    def name(self) -> str:
        """Its name, as it stands in keys."""
        ...

    @property
    def origin(self) -> str:
        """Its name after those of the namespaces around it."""
        ...


class Runtime:
    """What strategies of all namespaces work with.

    Attributes:
        store: holds cells.
        reader: reads them.
        writer: changes them.
        counters: counts.
        clock: reads time.
        supervisor: runs services.
        usable: whether the cache is open, and was opened in this process.
        background: whether this process runs services such as flushers; may be changed before the cache is opened.
        running: what has to end at once when the cache closes, before the sources that it uses.
        hot_keys: counts which keys are asked for; None if nobody wants to know.
        recorder: records what the cache is asked for; None if nothing does.
    """

    def __init__(
        self,
        *,
        store: Store,
        reader: Reader,
        writer: Writer,
        counters: Counters,
        clock: Clock,
        supervisor: Supervisor,
        background: bool,
        hot_keys: HotKeyLists | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.store = store
        self.reader = reader
        self.writer = writer
        self.counters = counters
        self.clock = clock
        self.supervisor = supervisor
        self.background = background
        self.recorder = recorder
        self.state = RuntimeState.NEW
        self.usable = False
        _at_fork(self)
        self._resources: list[Resource] = []
        self._adopted: list[object] = []
        self._opening: dict[int, asyncio.Lock] = {}
        self.reports: list[Callable[[], BufferHealth]] = []
        self.running: set[Closable] = set()
        self.listeners: list[Callable[[], ChangesHealth]] = []
        self._services: list[tuple[Service, bool]] = []
        self._closables: list[Closable] = []
        self._strategies: WeakSet[Named] = WeakSet()
        self.hot_keys = hot_keys
        if hot_keys is not None:
            self.serve(hot_keys, always=True)
            self.on_close(hot_keys)
        if recorder is not None:
            self.adopt(recorder)
            self.serve(recorder, always=True)

    async def generations_now(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """What the generations are; missing ones are made. All None without the store."""
        try:
            found = dict(zip(keys, await self.store.read(keys), strict=True))
            absent = [key for key, raw in found.items() if raw is None]
            if absent:
                made = await self.store.apply_many([(key, Ensure(new_salt())) for key in absent])
                found.update(zip(absent, (reply.cell for reply in made), strict=True))
        except StoreUnavailable:
            self.counters.store_failures += 1
            return dict.fromkeys(keys)
        return found

    # -- life

    def check(self) -> None:
        """Raises `CacheNotOpen` unless the cache may be used here and now."""
        if not self.usable:
            raise self.refusal()

    def refusal(self) -> CacheNotOpen:
        """Why the cache may not be used."""
        if self.state is RuntimeState.OPEN:
            return CacheNotOpen(
                "this cache was opened in a parent process: connections do not survive a fork; open it in the child"
            )
        return CacheNotOpen(f"the cache is {self.state.value}: use it inside `async with cache:` or its lifespan")

    async def start(self, *, services: bool = True, parts: bool = True) -> None:
        """Opens the store and what was added before.

        Args:
            services: starts background services.
            parts: opens sources and sinks, too.
        """
        await self.store.open()
        self.state = RuntimeState.OPEN
        self.usable = True
        if parts:
            await self.use_adopted()
        for service, always in self._services:
            if services and (always or self.background):
                self.supervisor.start(service)

    async def stop(self) -> None:
        """Finishes strategies, stops services, and gives back what was opened; goes on after a failure and raises the
        first at the end."""
        self.state = RuntimeState.CLOSING
        self.usable = False
        errors: list[Exception] = []

        async def attempt(parts: Sequence[Any]) -> None:
            for part in parts:
                try:
                    await part.aclose()
                except Exception as error:  # noqa: BLE001 - raised at the end
                    errors.append(error)

        try:
            await attempt((*self.running, *self._closables))
            await attempt((self.supervisor, self.reader, self.writer, *reversed(self._resources), self.store))
        finally:
            self._resources.clear()
            self.state = RuntimeState.CLOSED
        if errors:
            raise errors[0]

    def adopt(self, *parts: object) -> None:
        """Opens these sources and sinks with the cache; what comes after that is opened at its first use."""
        self._adopted += [part for part in parts if all(part is not known for known in self._adopted)]

    @property
    def adopted(self) -> tuple[object, ...]:
        """What is opened with the cache."""
        return tuple(self._adopted)

    async def use_adopted(self) -> None:
        """Opens what was adopted."""
        await self.use(*self._adopted)

    async def use(self, *parts: object) -> None:
        """Opens sources and sinks that have a life of their own, each once; they are closed with the cache."""
        for part in parts:
            if not isinstance(part, Resource):
                continue
            async with self._opening.setdefault(id(part), asyncio.Lock()):
                if any(part is resource for resource in self._resources):
                    continue
                await part.open()
                self._resources.append(part)

    def serve(self, service: Service, *, always: bool = False) -> None:
        """Runs a service while the cache is open, if this process runs services, or `always`."""
        if any(service.name == other.name for other in self.services):
            raise ConfigurationError(
                f"there is a {service.name!r} already: give each write-behind strategy, and each source of changes,"
                " its own name, and warm a strategy once at the start"
            )
        self._services.append((service, always))
        if self.state is RuntimeState.OPEN and (always or self.background):
            self.supervisor.start(service)

    @property
    def services(self) -> tuple[Service, ...]:
        """All services that were ever offered, those included that this process does not run."""
        return tuple(service for service, _ in self._services)

    def register(self, strategy: Named) -> None:
        """Lets a strategy be found by its name, as long as it lives."""
        self._strategies.add(strategy)

    @property
    def strategies(self) -> tuple[Named, ...]:
        """The strategies that are in use, by name."""
        return tuple(sorted(self._strategies, key=lambda strategy: strategy.origin))

    def on_close(self, closable: Closable) -> None:
        """Finishes this before the cache closes."""
        self._closables.append(closable)

    @property
    def guard(self) -> GuardedStore | None:
        """The store's circuit breaker, if it is one that has it."""
        return self.store if isinstance(self.store, GuardedStore) else None


_made: Final[WeakSet[Runtime]] = WeakSet()


def _at_fork(runtime: Runtime) -> None:
    """Closes the door in a forked child: connections do not survive a fork."""
    if not _made:
        os.register_at_fork(after_in_child=_in_child)
    _made.add(runtime)


def _in_child() -> None:
    for runtime in list(_made):
        runtime.usable = False
