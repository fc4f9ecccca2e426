"""How a loader is called, and what it may say about its result."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

from asynccache.policy import Duration, seconds

__all__ = ["Load", "LoadContext", "bind_loader", "current_load", "tagged"]

V = TypeVar("V")


class LoadContext:
    """What a loader may say about the value it is about to return.

    A loader with a parameter named `ctx` is given it; any other code below a load, such as a decorated function, asks
    `current_load()`.

    Attributes:
        key: the key in Redis.
        refresh: an older value is at hand and is being served meanwhile.
        crowded: other keys are being loaded at the same time, so that a query may be worth sharing.
    """

    __slots__ = ("_negative_ttl", "_stored", "_tags", "_ttl", "crowded", "key", "refresh")

    def __init__(self, key: str, *, refresh: bool = False, crowded: bool = False) -> None:
        self.crowded = crowded
        self.key = key
        self.refresh = refresh
        self._stored = True
        self._ttl: float | None = None
        self._negative_ttl: float | None = None
        self._tags: tuple[str, ...] = ()

    def skip(self) -> None:
        """Serves the value and does not store it."""
        self._stored = False

    def ttl(self, ttl: Duration) -> None:
        """Gives this value a TTL of its own."""
        self._ttl = seconds(ttl, "ttl", least=0.001, zero=False)

    def not_found(self, ttl: Duration) -> None:
        """Remembers "not found" for this long, if the loader returns None."""
        self._negative_ttl = seconds(ttl, "ttl", least=0.001, zero=False)

    def tags(self, tags: Iterable[str]) -> None:
        """Adds tags known only from the value. If one of them is invalidated during the load, it is not stored."""
        names = (tags,) if isinstance(tags, str) else tuple(tags)
        self._tags = (*self._tags, *names)

    @property
    def stored(self) -> bool:
        """Whether the value may be stored."""
        return self._stored

    @property
    def own_ttl(self) -> float | None:
        """The TTL given to this value, in seconds."""
        return self._ttl

    @property
    def own_negative_ttl(self) -> float | None:
        """How long "not found" is remembered, in seconds, if the loader said so."""
        return self._negative_ttl

    @property
    def late_tags(self) -> tuple[str, ...]:
        """Tags added by the loader."""
        return self._tags

    def __repr__(self) -> str:
        return f"LoadContext({self.key!r}, refresh={self.refresh})"


Load: TypeAlias = Callable[[LoadContext], Awaitable[V | None]]
"""A loader as the read path calls it."""

_current: ContextVar[LoadContext | None] = ContextVar("asynccache_load", default=None)


def current_load() -> LoadContext | None:
    """The load that this code runs in; None outside of one."""
    return _current.get()


class loading:  # noqa: N801 - used like a function; a generator would cost every load more than its other steps
    """Makes `context` the current load: `with loading(context):`."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: LoadContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _current.set(self._context)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def bind_loader(load: Callable[..., Awaitable[V | None]], *args: Any) -> Load[V]:
    """Makes a loader of a user's function and its arguments; hands it the context if it has a parameter `ctx`."""

    def bound(context: LoadContext) -> Awaitable[V | None]:
        # Looked up here and not when bound: a hit never needs to know.
        return load(*args, ctx=context) if _takes_context(load) else load(*args)

    return bound


def tagged(late: Callable[..., Iterable[str]], key: Any, load: Load[V]) -> Load[V]:
    """A loader whose value says which tags it has: `late(value, key)`."""

    async def loaded(context: LoadContext) -> V | None:
        value = await load(context)
        if value is not None:
            context.tags(late(value, key))
        return value

    return loaded


def _takes_context(load: Callable[..., Any]) -> bool:
    try:
        return "ctx" in inspect.signature(load).parameters
    except (TypeError, ValueError):  # a builtin
        return False
