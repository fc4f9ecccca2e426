"""Caches the results of async functions and methods by their arguments.

The key is compiled when the function is decorated, so that a call builds it without looking at the signature again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from asynccache.errors import ConfigurationError
from asynccache.events import Counters
from asynccache.keys import CellKey
from asynccache.policy import Duration, Policy
from asynccache.stores.local import LocalEntries, is_alive
from asynccache.strategies.base import check_tags
from asynccache.strategies.explaining import Explanation, explain
from asynccache.strategies.loading import LoadContext
from asynccache.strategies.reading import Missing, Question
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.sources import returned_type
from asynccache.strategies.verdicts import Recipe
from asynccache.templates import compile_template, compile_templates, default_template

__all__ = ["BoundCachedMethod", "Cached", "CachedFunction", "CachedMethod", "CachedMethodDescriptor", "Decorators"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
_HANDLES: Final = ("key", "invalidate", "refresh", "explain")
S_contra = TypeVar("S_contra", contravariant=True)


class CachedFunction(Protocol[P, R_co]):
    """A decorated function: call it as before, or address the entry of a call."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """The cached result, or else the function's, which is then cached."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> CellKey:
        """The key in Redis of this call's entry."""
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Empties this call's entry; no load that began before it returns can store what it read."""
        ...

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Calls the function now, whatever is cached."""
        ...

    async def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """What the next such call would do, and why. Changes nothing."""
        ...


class Cached(Protocol):
    """The decorator that `Cache.cached` makes."""

    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CachedFunction[P, R]:
        """Decorates one function."""
        ...


class BoundCachedMethod(CachedFunction[P, R_co], Protocol[P, R_co]):
    """A decorated method of one instance."""


class CachedMethodDescriptor(Protocol[S_contra, P, R_co]):
    """A decorated method, as it stands in its class."""

    @overload
    def __get__(self, instance: None, owner: type[S_contra], /) -> CachedFunction[Concatenate[S_contra, P], R]: ...
    @overload
    def __get__(self, instance: S_contra, owner: type[S_contra] | None = None, /) -> BoundCachedMethod[P, R_co]: ...


class CachedMethod(Protocol):
    """The decorator that `Cache.cached_method` makes."""

    def __call__(
        self, method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /
    ) -> CachedMethodDescriptor[S, P, R]:
        """Decorates one method."""
        ...


class Decorators:
    """Makes the decorators of one cache."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._templates: dict[str, str] = {}

    def cached(
        self, *, ttl: Duration | None, key: str | None, tags: Sequence[str], policy: Policy | None, type: Any
    ) -> Cached:
        """Caches the results of an async function by its arguments.

        Args:
            ttl: how long an entry is fresh; over the policy's, over the cache's.
            key: a template such as `"user:{user_id}"`, whose fields are parameters or attributes of them; without it
                the function's module and name and all its arguments. It names the same cells as a strategy called
                `user` does, so that either may invalidate what the other has stored.
            tags: tags of the entries; templates like `key`.
            policy: how entries live and are loaded.
            type: what results are; taken from the return annotation if there is one. A result of None is "not found",
                which is cached only with `negative_ttl`.

        Raises:
            MissingTTL: there is no TTL here nor in the cache.
            ConfigurationError: not an async function, or a template that does not fit its parameters.
        """
        if callable(ttl):
            raise ConfigurationError("cached wants its arguments in parentheses: @cache.cached(ttl='5m')")

        def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> CachedFunction[P, R]:
            entry: _Entry[R] = _Entry(self, function, ttl=ttl, key=key, tags=tags, policy=policy, type=type)
            return _function(entry, function)

        return decorate

    def cached_method(
        self,
        *,
        ttl: Duration | None,
        key: str | None,
        tags: Sequence[str],
        policy: Policy | None,
        type: Any,
        shared: bool,
    ) -> CachedMethod:
        """Caches the results of an async method by its arguments.

        Two instances must not get each other's results: `key` names what tells them apart, as in
        `"orders:{self.tenant}:{order_id}"`; or `shared=True` says that all instances give the same results.

        Args:
            ttl, key, tags, policy, type: as for `cached`.
            shared: all instances share their entries.

        Raises:
            ConfigurationError: neither `key` with a field of `self` nor `shared=True`; or as for `cached`.
        """

        def decorate(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> CachedMethodDescriptor[S, P, R]:
            first = next(iter(inspect.signature(method).parameters), None)
            if first is None:
                raise ConfigurationError(f"{method.__qualname__} has no self: use `cached` for functions")
            if not shared and (key is None or f"{{{first}." not in key):
                raise ConfigurationError(
                    f"{method.__qualname__}: instances would share entries; name what tells them apart in the key,"
                    f" such as key='orders:{{{first}.tenant}}:{{order_id}}', or pass shared=True"
                )
            entry: _Entry[R] = _Entry(
                self, method, ttl=ttl, key=key, tags=tags, policy=policy, type=type, skip=(first,)
            )
            return cast("CachedMethodDescriptor[S, P, R]", _Method(entry, method))

        return decorate

    def claim(self, template: str, function: Callable[..., Any]) -> None:
        """Refuses a template that another function has: they would read each other's results."""
        name = f"{function.__module__}.{function.__qualname__}"
        owner = self._templates.setdefault(template, name)
        if owner != name:
            raise ConfigurationError(f"key={template!r} of {name} is the key of {owner}, too: give each its own")

    @property
    def runtime(self) -> Runtime:
        """The cache's parts."""
        return self._runtime


class _Entry(Generic[R]):
    """How the calls of one function are cached."""

    def __init__(
        self,
        decorators: Decorators,
        function: Callable[..., Coroutine[Any, Any, R]],
        *,
        ttl: Duration | None,
        key: str | None,
        tags: Sequence[str],
        policy: Policy | None,
        type: Any,
        skip: tuple[str, ...] = (),
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"cached needs an `async def` function, not {function!r}")
        name = function.__qualname__
        runtime = decorators.runtime
        signature = inspect.signature(function)
        if key is None:
            self.build = default_template(function, signature, skip=skip, prefix=runtime.space.cells)
        else:
            self.build = compile_template(key, signature, prefix=runtime.space.cells)
            decorators.claim(key, function)
        self._function = function
        self._runtime = runtime
        names = check_tags(tags, f"{name}: tags")
        self.fixed = None if any("{" in tag for tag in names) else runtime.generations(names)
        self._tags = compile_templates(names, signature)
        self.recipe: Recipe[R] = Recipe(
            name,
            runtime.codec(_type_of(function) if type is None else type),
            runtime.policy(f"cached function {name}", policy, ttl),
        )

    def key(self, *args: Any, **kwargs: Any) -> CellKey:
        return CellKey(self.build(*args, **kwargs))

    async def call(self, *args: Any, **kwargs: Any) -> R:
        self._runtime.check()
        # There is a loader, so the answer is never MISSING; None is R's.
        return cast("R", await self._runtime.reader.get(self.question(args, kwargs)))

    @property
    def check(self) -> Callable[[], None]:
        return self._runtime.check

    @property
    def read(self) -> Callable[[Question[R]], Coroutine[Any, Any, R | Missing | None]]:
        return self._runtime.reader.get

    @property
    def entries(self) -> LocalEntries | None:
        return self._runtime.reader.entries

    @property
    def counters(self) -> Counters:
        return self._runtime.counters

    async def invalidate(self, *args: Any, **kwargs: Any) -> None:
        self._runtime.check()
        await self._runtime.writer.invalidate([self.key(*args, **kwargs)])

    async def refresh(self, *args: Any, **kwargs: Any) -> R:
        self._runtime.check()
        return cast("R", await self._runtime.reader.refresh(self.question(args, kwargs)))

    async def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        self._runtime.check()
        return await explain(self._runtime.store, self.question(args, kwargs))

    def question(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Question[R]:
        function = self._function

        def load(_: LoadContext) -> Coroutine[Any, Any, R]:
            return function(*args, **kwargs)

        fixed = self.fixed
        generations = self._runtime.generations(self._tags(*args, **kwargs)) if fixed is None else fixed
        return Question(self.build(*args, **kwargs), generations, self.recipe, load)


def _type_of(function: Callable[..., Any]) -> Any:
    found = returned_type(function)
    return Any if found is None else found


def _function(entry: _Entry[R], function: Callable[P, Coroutine[Any, Any, R]]) -> CachedFunction[P, R]:
    entries, check, read, question = entry.entries, entry.check, entry.read, entry.question
    if entries is None or entry.fixed is None:

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> R:
            check()
            return cast("R", await read(question(args, kwargs)))

    else:
        # What the call below would do on a local hit, without its frames: this is the path that has to cost nothing.
        build, generations, codec, counters = entry.build, entry.fixed, entry.recipe.codec, entry.counters
        fingerprint, decode, unpack, monotonic = codec.fingerprint, codec.decode, codec.unpack, entries.monotonic

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> R:
            kept = entries.peek(build(*args, **kwargs))
            if (
                kept is not None
                and kept.deadline > monotonic()
                and (not kept.marks or is_alive(kept))
                and (kept.generations is generations or kept.generations == generations)
                and (kept.fingerprint is fingerprint or kept.fingerprint == fingerprint)
            ):
                counters.hits += 1
                counters.local_hits += 1
                value: R
                if kept.payload is None:
                    value = kept.value
                else:
                    value = unpack(kept.payload, True) if kept.compressed else decode(kept.payload)
                return value
            check()
            return cast("R", await read(question(args, kwargs)))

    for name in _HANDLES:
        setattr(wrapper, name, getattr(entry, name))
    return cast("CachedFunction[P, R]", wrapper)


class _Method(Generic[S, R]):
    """A descriptor: each access makes a coroutine function bound to the instance, with its handles bound, too."""

    def __init__(self, entry: _Entry[R], method: Callable[..., Coroutine[Any, Any, R]]) -> None:
        self._entry = entry
        self._unbound = _function(entry, method)
        functools.update_wrapper(self, method)  # type: ignore[arg-type]  # it is called through __get__

    def __get__(self, instance: S | None, owner: type[S] | None = None) -> Any:
        if instance is None:
            return self._unbound
        entry = self._entry

        @functools.wraps(self._unbound)
        async def bound(*args: Any, **kwargs: Any) -> R:
            return await entry.call(instance, *args, **kwargs)

        for name in _HANDLES:
            setattr(bound, name, functools.partial(getattr(entry, name), instance))
        return bound
