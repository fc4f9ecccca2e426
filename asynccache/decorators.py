"""Caches the results of async functions and methods by their arguments.

The key is compiled when the function is decorated, so that a call builds it without looking at the signature again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.functions import Claims, FunctionEntry, FunctionOptions
from asynccache.keys import CellKey
from asynccache.stores.local import is_alive
from asynccache.strategies.explaining import Explanation
from asynccache.strategies.scope import Scope
from asynccache.strategies.verdicts import UNSURE
from asynccache.templates import compile_around

__all__ = [
    "BoundCachedMethod",
    "Cached",
    "CachedFunction",
    "CachedMethod",
    "CachedMethodDescriptor",
    "Decorators",
]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
_HANDLES: Final = ("key", "key_now", "invalidate", "bump", "refresh", "explain")
S_contra = TypeVar("S_contra", contravariant=True)


class CachedFunction(Protocol[P, R_co]):
    """A decorated function: call it as before, or address the entry of a call."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """The cached result, or else the function's, which is then cached."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> CellKey:
        """The key in Redis of this call's entry."""
        ...

    async def key_now(self, *args: P.args, **kwargs: P.kwargs) -> CellKey:
        """The same as `key`, also where the version has to be awaited."""
        ...

    @property
    def outdated_by(self) -> tuple[str, ...]:
        """Generations in Redis each of which outdates the entries of all calls: first the namespace's."""
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Empties this call's entry; no load that began before it returns can store what it read."""
        ...

    async def bump(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Begins a new version of this call's entry (with `version=VersionCounter()`)."""
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

    def __init__(self, scope: Scope) -> None:
        self._claims = Claims(scope)

    def cached(self, **options: Unpack[FunctionOptions]) -> Cached:
        """Caches the results of an async function by its arguments.

        Args:
            ttl: how long an entry is fresh; over the policy's, over the cache's.
            key: a template such as `"user:{user_id}"`, whose fields are parameters or attributes of them; without it
                the function's module and name and all its arguments. It names the same cells as a strategy called
                `user` does, so that either may invalidate what the other has stored.
            tags: tags of the entries: templates like `key`; or a function of the call's arguments, or of these and the
                result, which it is given last.
            policy: how entries live and are loaded.
            version: a part of the key that a change raises: a value; a template, as `"{user.updated_at}"`; a coroutine
                function of the arguments, awaited before each read; or a `VersionCounter()`, which `bump` raises.
            upgrade: how results of older models are read: `[Upgrade(UserV1, convert)]`; else they are misses.
            admit: which results are stored: `AfterRequests(2)`, `Predicate(...)`; over the cache's.
            max_value_bytes: largest encoded result that is stored; over the cache's.
            type: what results are; taken from the return annotation if there is one. A result of None is "not found",
                which is cached only with `negative_ttl`.

        Raises:
            MissingTTL: there is no TTL here nor in the cache.
            ConfigurationError: not an async function, or a template that does not fit its parameters.
        """
        if callable(options.get("ttl")):
            raise ConfigurationError("cached wants its arguments in parentheses: @cache.cached(ttl='5m')")

        def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> CachedFunction[P, R]:
            entry: FunctionEntry[R] = FunctionEntry(self._claims, function, **options)
            return _function(entry, function)

        return decorate

    def cached_method(self, *, shared: bool, **options: Unpack[FunctionOptions]) -> CachedMethod:
        """Caches the results of an async method by its arguments.

        Two instances must not get each other's results: `key` names what tells them apart, as in
        `"orders:{self.tenant}:{order_id}"`; or `shared=True` says that all instances give the same results.

        Args:
            options: as for `cached`.
            shared: all instances share their entries.

        Raises:
            ConfigurationError: neither `key` with a field of `self` nor `shared=True`; or as for `cached`.
        """

        def decorate(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> CachedMethodDescriptor[S, P, R]:
            first = next(iter(inspect.signature(method).parameters), None)
            if first is None:
                raise ConfigurationError(f"{method.__qualname__} has no self: use `cached` for functions")
            key = options.get("key")
            if not shared and (key is None or f"{{{first}." not in key):
                raise ConfigurationError(
                    f"{method.__qualname__}: instances would share entries; name what tells them apart in the key,"
                    f" such as key='orders:{{{first}.tenant}}:{{order_id}}', or pass shared=True"
                )
            entry: FunctionEntry[R] = FunctionEntry(self._claims, method, skip=(first,), **options)
            return cast("CachedMethodDescriptor[S, P, R]", _Method(entry, method))

        return decorate


# What `FunctionEntry.call` does on a hit, without its frames, its question, and whatever else a hit can do without.
_HIT_IN_REDIS: Final = """\
async def wrapper{head}:
    if not $runtime.usable:
        raise $runtime.refusal()
    $since = $moment()
    $cell = {key}
    try:
        $found = await $cells.read(($cell, *$names))
    except $StoreUnavailable:
        $found = None
    else:
        $value = $quick($recipe, $names, $found)
        if $value is not $UNSURE:
            return $value
    return await $go_on($question({args}, {kwargs}), $found, $since)
"""

# The same for a hit in the local tier: this is the path that has to cost nothing.
_LOCAL_HIT: Final = """\
async def wrapper{head}:
    $kept = $entries.peek({key})
    if (
        $kept is not None
        and $kept.deadline > $monotonic()
        and (not $kept.marks or $is_alive($kept))
        and ($kept.generations is $names or $kept.generations == $names)
        and ($kept.fingerprint is $fingerprint or $kept.fingerprint == $fingerprint)
    ):
        $counters.local_hits += 1
        if $kept.payload is None:
            return $kept.value
        if $kept.compressed:
            return $unpack($kept.payload, True)
        try:
            return $plain_decode($kept.payload)
        except Exception:
            return $decode($kept.payload)  # which says what is the matter
    $check()
    return await $get($question({args}, {kwargs}))
"""


def _function(entry: FunctionEntry[R], function: Callable[P, Coroutine[Any, Any, R]]) -> CachedFunction[P, R]:
    runtime, question, recipe = entry.runtime, entry.question, entry.recipe
    reader = runtime.reader
    entries, names = reader.entries, entry.fixed
    if names is None or not reader.direct:

        @functools.wraps(function)
        async def through_entry(*args: Any, **kwargs: Any) -> R:
            return await entry.call(*args, **kwargs)

        wrapper: Any = through_entry
    else:
        name = f"<asynccache {function.__module__}.{function.__qualname__}>"
        made = partial(compile_around, entry.build, entry.signature, name=name)
        codec = recipe.codec
        if entries is None:
            wrapper = made(
                source=_HIT_IN_REDIS,
                runtime=runtime,
                moment=reader.moment,
                cells=reader.cells,
                names=names,
                recipe=recipe,
                quick=reader.looker.quick,
                UNSURE=UNSURE,
                StoreUnavailable=StoreUnavailable,
                go_on=reader.go_on,
                question=question,
            )
        else:
            wrapper = made(
                source=_LOCAL_HIT,
                entries=entries,
                monotonic=entries.monotonic,
                is_alive=is_alive,
                names=names,
                fingerprint=codec.fingerprint,
                counters=runtime.counters,
                unpack=codec.unpack,
                plain_decode=codec.plain_decode,
                decode=codec.decode,
                check=runtime.check,
                get=reader.get,
                question=question,
            )
        functools.update_wrapper(wrapper, function)

    for name in (*_HANDLES, "outdated_by"):
        setattr(wrapper, name, getattr(entry, name))
    return cast("CachedFunction[P, R]", wrapper)


class _Method(Generic[S, R]):
    """A descriptor: each access makes a coroutine function bound to the instance, with its handles bound, too."""

    def __init__(self, entry: FunctionEntry[R], method: Callable[..., Coroutine[Any, Any, R]]) -> None:
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
        bound.outdated_by = entry.outdated_by  # type: ignore[attr-defined]  # a function takes any
        return bound
