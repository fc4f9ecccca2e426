"""The plain cache: values under keys of the caller's, without a strategy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast, overload

from asynccache.errors import ConfigurationError
from asynccache.keys import CellKey
from asynccache.policy import Duration, Policy, effective_policy
from asynccache.protocols import KeyValue
from asynccache.steps import Put
from asynccache.strategies.admitting import Admitting
from asynccache.strategies.explaining import Explanation, explain
from asynccache.strategies.filling import new_value
from asynccache.strategies.loading import bind_loader
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.scope import Scope
from asynccache.strategies.tagging import check_tags
from asynccache.strategies.verdicts import Missing, Question, Recipe, storable
from asynccache.strategies.writing import Update
from asynccache.tokens import new_token

__all__ = ["PlainCache"]

T = TypeVar("T")
D = TypeVar("D")

_LOOK: Final = Policy(ttl=1.0)
"""Of a bare look: it needs no TTL, since it stores nothing."""


class PlainCache:
    """The part of a `Cache` that works on keys of the caller's."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._runtime = scope.runtime
        self._any = scope.codec(Any)
        self._admit = scope.admitting("get_or_load")

    @property
    def scope(self) -> Scope:
        """The namespace, for strategies."""
        return self._scope

    @property
    def runtime(self) -> Runtime:
        """The parts, for strategies."""
        return self._runtime

    @overload
    async def get(self, key: KeyValue | CellKey, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    async def get(self, key: KeyValue | CellKey, default: D, *, type: type[T]) -> T | D: ...
    @overload
    async def get(self, key: KeyValue | CellKey, default: object = None, *, type: Any = None) -> Any: ...
    async def get(self, key: KeyValue | CellKey, default: Any = None, *, type: Any = None) -> Any:
        """What is cached under a key.

        Args:
            key: a key value (int, str, UUID, tuple ...), or what a strategy's `key(...)` returned.
            default: returned if nothing is cached.
            type: the type that the value was set with, if it was.

        Returns:
            The value; None also for a remembered "not found".
        """
        self._runtime.check()
        value = await self._runtime.reader.get(self._question(key, type))
        return default if isinstance(value, Missing) else value

    async def get_many(self, keys: Iterable[KeyValue | CellKey], *, type: Any = None) -> dict[Any, Any]:
        """What is cached under many keys, by key; what is not is left out. One call to Redis."""
        self._runtime.check()
        distinct = list(dict.fromkeys(keys))
        values = await self._runtime.reader.get_many([self._question(key, type) for key in distinct])
        return {key: value for key, value in zip(distinct, values, strict=True) if not isinstance(value, Missing)}

    async def get_or_load(
        self,
        key: KeyValue | CellKey,
        load: Callable[..., Awaitable[T]],
        *,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = None,
    ) -> T:
        """What is cached under a key, or else what `load` returns, which is then cached. Concurrent callers share one
        load, in all processes.

        Args:
            key: a key value.
            load: an async function without arguments; with a parameter `ctx` it is told of its chances. It runs in a
                task of its own, in the context (`contextvars`) of the caller who started it, whoever else waits.
            ttl: how long the entry is fresh.
            tags: tags of the entry.
            type: the type to write it as, which `get` must then be told, too; else it is remembered with the value.

        Raises:
            MissingTTL: neither the call nor the cache has a TTL.
            LoadTimeout: loading took longer than the policy allows.
            Whatever `load` raises.
        """
        self._runtime.check()
        if not callable(load):
            raise ConfigurationError(
                f"load must be an async function without arguments, not {load.__class__.__name__} ({load!r})"
            )
        policy = self._policy_for("get_or_load", ttl)
        cell = self._cell(key)
        recipe = self._recipe(type, policy, self._admit)
        question = Question(cell, self._scope.generations(check_tags(tags)), recipe, bind_loader(load))
        # There is a loader, so the answer is never MISSING; None is T's.
        return cast("T", await self._runtime.reader.get(question))

    async def set(
        self,
        key: KeyValue | CellKey,
        value: object,
        *,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = None,
    ) -> None:
        """Caches a value; loads of this key that are under way do not replace it.

        Args:
            key: a key value.
            value: any supported value; None is remembered as "not found".
            ttl: how long the entry is fresh.
            tags: tags of the entry.
            type: the type to write it as; else it is remembered with the value.

        Raises:
            MissingTTL: neither the call nor the cache has a TTL.
            EncodeError, ValueTooLarge: the value cannot be cached.
            StoreUnavailable: Redis did not confirm it.
        """
        await self.set_many({key: value}, ttl=ttl, tags=tags, type=type)

    async def set_many(
        self,
        values: Mapping[Any, object],
        *,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = None,
    ) -> None:
        """Caches many values, in one call to Redis; each by itself is atomic. See `set`."""
        self._runtime.check()
        recipe = self._recipe(type, self._policy_for("set", ttl))
        names = self._scope.generations(check_tags(tags))
        packed = {self._cell(key): None if value is None else recipe.codec.pack(value) for key, value in values.items()}
        if not packed:
            return
        generations = await self._runtime.generations_now(names)
        if not storable(generations):
            # Somebody is changing what carries these tags: what stands there must go, and nothing new may stay.
            await self._runtime.writer.invalidate(list(packed))
            return
        await self._runtime.store.apply_many(
            [
                (cell, Put(new_value(recipe, payload, new_token(), generations, recipe.policy.life_ms())))
                for cell, payload in packed.items()
            ]
        )

    async def delete(self, *keys: KeyValue | CellKey) -> None:
        """Empties entries; no load that began before it returns can store what it read.

        Raises:
            StoreUnavailable: Redis did not confirm it (with `on_outage="refuse"`).
        """
        self._runtime.check()
        await self._runtime.writer.invalidate([self._cell(key) for key in keys])

    delete_many = delete

    async def invalidate_tags(self, *tags: str) -> None:
        """Outdates every entry that carries one of these tags, at a cost that does not depend on their number.

        Raises:
            StoreUnavailable: Redis did not confirm it (with `on_outage="refuse"`).
        """
        self._runtime.check()
        names = check_tags(tags)
        await self._runtime.writer.invalidate((), [self._scope.space.generation(tag) for tag in names])

    async def explain(self, key: KeyValue | CellKey, *, type: Any = None) -> Explanation:
        """What the next read of this key would do, and why. Changes nothing."""
        self._runtime.check()
        return await explain(self._runtime.store, self._question(key, type))

    def updating(self, *keys: KeyValue | CellKey, tags: Iterable[str] = ()) -> Update:
        """Wraps a write of the database: `async with cache.updating("user:42", tags=["users"]): ...`.

        While inside, readers of these keys and tags go to the database; after it, nobody reads anything older from the
        cache, whatever was being loaded meanwhile. If the body raises, the entries are emptied all the same. Inside of
        a transaction opened with `asynccache.postgres.transaction(...)` it ends after the COMMIT.

        Args:
            keys: what the body changes: key values, or what a strategy's `key(...)` returned.
            tags: tags to invalidate.

        Raises:
            StoreUnavailable: Redis cannot be told (with `on_outage="refuse"`); the body has not run.
        """
        self._runtime.check()
        generations = [self._scope.space.generation(tag) for tag in check_tags(tags)]
        return self._runtime.writer.update([self._cell(key) for key in keys], generations, deferred=True)

    # -- inside

    def _cell(self, key: KeyValue | CellKey) -> CellKey:
        return key if isinstance(key, CellKey) else self._scope.space.cell("", key)

    def _codec(self, type_: Any) -> Any:
        return self._any if type_ is None else self._scope.codec(type_)

    def _policy_for(self, where: str, ttl: Duration | None) -> Policy:
        return effective_policy(where, self._scope.policy, ttl=ttl)

    def _question(self, key: KeyValue | CellKey, type_: Any) -> Question[Any]:
        # What a strategy's key admits, only the strategy knows.
        admit = None if isinstance(key, CellKey) else self._admit
        recipe = self._recipe(type_, self._scope.policy or _LOOK, admit)
        return Question(self._cell(key), self._scope.generations(), recipe, None)

    def _recipe(self, type_: Any, policy: Policy, admit: Admitting | None = None) -> Recipe[Any]:
        return Recipe("", self._codec(type_), policy, self._scope.space, admit=admit)
