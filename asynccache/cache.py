"""What users hold: one cache, wired from its parts, with a life that any framework can drive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.decorators import Cached, CachedMethod, Decorators
from asynccache.errors import ConfigurationError
from asynccache.events import Counters, Stats
from asynccache.keys import CellKey, KeySpace, check_name
from asynccache.lifecycle import CacheHealth, Lifespan
from asynccache.policy import Duration, Policy, effective_policy, seconds
from asynccache.protocols import KeyValue
from asynccache.steps import Put
from asynccache.stores.base import Store
from asynccache.stores.guarded import GuardedStore
from asynccache.stores.memory import MemoryStore
from asynccache.stores.redis import RedisClient, RedisStore
from asynccache.strategies.base import check_tags
from asynccache.strategies.explaining import Explanation, explain
from asynccache.strategies.filling import new_value
from asynccache.strategies.loading import bind_loader
from asynccache.strategies.reading import Missing, Question, Reader
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.verdicts import Recipe, storable
from asynccache.strategies.writing import OnOutage, Update, Writer
from asynccache.supervision import Supervisor, TaskOwner, finish
from asynccache.tokens import new_token

__all__ = ["Cache"]

T = TypeVar("T")
D = TypeVar("D")


class Cache:
    """A cache in Redis for the values of one application. Building it does no I/O.

    Args:
        redis: a URL (`redis://`, `rediss://`, `unix://`), or a `redis.asyncio` client, which is never closed here; or
            `memory://` for a cache in this process, without write-behind.
        namespace: begins every key; letters, digits, `_`, `-` and `.`.
        ttl: how long entries are fresh where neither the call nor the strategy says so.
        policy: how entries live and are loaded where the strategy does not say so.
        on_outage: what a write does when Redis cannot be told of it. "refuse" raises before the database is touched;
            "proceed" goes on, and what it touched is invalidated before this process serves anything from the cache
            again. Other processes may read the old value meanwhile.
        write_timeout: the longest a write may take; what a crashed writer was changing is not cached for so long.
        timeout: the longest any call to Redis may take; then the loader is asked.
        max_connections: of the client made for a URL.
        max_concurrent_loads: most loads at once that no lease bounds (without Redis, during writes).
        keep_loads: lets a load go on after its last caller was cancelled.
        max_value_bytes: largest encoded value.
        compress_above: compresses encoded values above so many bytes (extra `compress`); None does not.
        background: runs services such as the flushers of write-behind in this process.
        clock: reads time.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        redis: str | RedisClient,
        *,
        namespace: str,
        ttl: Duration | None = None,
        policy: Policy | None = None,
        on_outage: OnOutage = "refuse",
        write_timeout: Duration = 30.0,
        timeout: Duration = 1.0,
        max_connections: int = 16,
        max_concurrent_loads: int = 64,
        keep_loads: bool = False,
        max_value_bytes: int = 8 * 1024 * 1024,
        compress_above: int | None = None,
        background: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if on_outage not in {"refuse", "proceed"}:
            raise ConfigurationError(f"on_outage={on_outage!r} must be 'refuse' or 'proceed'")
        for what, count in (
            ("max_connections", max_connections),
            ("max_concurrent_loads", max_concurrent_loads),
            ("max_value_bytes", max_value_bytes),
        ):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ConfigurationError(f"{what}={count!r} must be a positive int")
        space = KeySpace((check_name(namespace, "namespace"),))
        if ttl is not None or policy is not None:
            policy = (policy or Policy()).with_ttl(ttl)
        counters = Counters()
        store: Store
        if isinstance(redis, str) and redis.startswith("memory:"):
            store = MemoryStore(clock=clock)
        else:
            limit = seconds(timeout, "timeout", least=0.001, zero=False)
            inner = RedisStore(redis, timeout=limit, max_connections=max_connections, clock=clock)
            store = GuardedStore(inner, everything=space.own_generations()[0])
        self._runtime = Runtime(
            space=space,
            store=store,
            reader=Reader(
                store, space, counters, max_concurrent_loads=max_concurrent_loads, keep_loads=keep_loads, clock=clock
            ),
            writer=Writer(
                store,
                counters,
                on_outage=on_outage,
                write_timeout=seconds(write_timeout, "write_timeout", least=0.05, zero=False),
            ),
            counters=counters,
            clock=clock,
            supervisor=Supervisor(),
            policy=policy,
            max_value_bytes=max_value_bytes,
            compress_above=compress_above,
            background=background,
        )
        self._namespace = namespace
        self._policy = policy
        self._any = self._runtime.codec(Any)
        self._decorators = Decorators(self._runtime)
        self._entered = 0
        self._life = asyncio.Lock()
        self._owner = TaskOwner("life")

    # -- life

    @property
    def runtime(self) -> Runtime:
        """The parts, for strategies."""
        return self._runtime

    async def startup(self, _: object = None, /) -> None:
        """Opens the cache: connects, checks sources, starts background services. May be called again to no effect;
        each call wants a `shutdown`. Takes and ignores one argument, as hooks of task queues pass it.

        Raises:
            StoreUnavailable, DatabaseUnavailable: a server does not answer.
            SchemaMismatch: a model and its table disagree.
        """
        async with self._life:
            if self._entered == 0:
                try:
                    await self._runtime.start()
                except BaseException:
                    await finish(self._owner, self._runtime.stop())
                    raise
            self._entered += 1

    async def shutdown(self, _: object = None, /) -> None:
        """Closes the cache: flushes what write-behind holds, stops services, closes what it opened."""
        async with self._life:
            if self._entered == 0:
                return
            self._entered -= 1
            if self._entered == 0:
                await finish(self._owner, self._runtime.stop())

    async def __aenter__(self) -> Self:
        await self.startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    def lifespan(self, app: object = None, *_: object, **__: object) -> Lifespan:
        """The cache's life in the form that frameworks take: `FastAPI(lifespan=cache.lifespan)`, likewise Starlette,
        Litestar and FastStream, and an entry of aiohttp's `cleanup_ctx`. Yields the framework's state: a mapping with
        the cache under "cache"."""
        del app
        return Lifespan(self)

    def health(self) -> CacheHealth:
        """How the cache is; does no I/O."""
        guard = self._runtime.guard
        return CacheHealth(
            self._runtime.state.value,
            guard.state if guard else None,
            guard.owed if guard else 0,
            self._runtime.supervisor.health(),
        )

    @property
    def stats(self) -> Stats:
        """What this process has counted since the cache was made."""
        return self._runtime.counters.snapshot()

    # -- the plain cache

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
            load: an async function without arguments; with a parameter `ctx` it is told of its chances.
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
        question = Question(
            self._cell(key),
            self._runtime.generations(check_tags(tags)),
            Recipe("", self._codec(type), policy),
            bind_loader(load),
        )
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
        recipe: Recipe[Any] = Recipe("", self._codec(type), self._policy_for("set", ttl))
        names = self._runtime.generations(check_tags(tags))
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
        await self._runtime.writer.invalidate((), [self._runtime.space.generation(tag) for tag in names])

    async def explain(self, key: KeyValue | CellKey, *, type: Any = None) -> Explanation:
        """What the next read of this key would do, and why. Changes nothing."""
        self._runtime.check()
        return await explain(self._runtime.store, self._question(key, type))

    def updating(self, *keys: KeyValue | CellKey, tags: Iterable[str] = ()) -> Update:
        """Wraps a write of the database: `async with cache.updating("user:42", tags=["users"]): ...`.

        While inside, readers of these keys and tags go to the database; after it, nobody reads anything older from the
        cache, whatever was being loaded meanwhile. If the body raises, the entries are emptied all the same.

        Args:
            keys: what the body changes: key values, or what a strategy's `key(...)` returned.
            tags: tags to invalidate.

        Raises:
            StoreUnavailable: Redis cannot be told (with `on_outage="refuse"`); the body has not run.
        """
        self._runtime.check()
        generations = [self._runtime.space.generation(tag) for tag in check_tags(tags)]
        return self._runtime.writer.update([self._cell(key) for key in keys], generations)

    # -- decorators

    def cached(
        self,
        *,
        ttl: Duration | None = None,
        key: str | None = None,
        tags: Sequence[str] = (),
        policy: Policy | None = None,
        type: Any = None,
    ) -> Cached:
        """Caches the results of an async function by its arguments; see `decorators.Decorators.cached`."""
        return self._decorators.cached(ttl=ttl, key=key, tags=tags, policy=policy, type=type)

    def cached_method(
        self,
        *,
        ttl: Duration | None = None,
        key: str | None = None,
        tags: Sequence[str] = (),
        policy: Policy | None = None,
        type: Any = None,
        shared: bool = False,
    ) -> CachedMethod:
        """Caches the results of an async method; see `decorators.Decorators.cached_method`."""
        return self._decorators.cached_method(ttl=ttl, key=key, tags=tags, policy=policy, type=type, shared=shared)

    # -- inside

    def _cell(self, key: KeyValue | CellKey) -> CellKey:
        return key if isinstance(key, CellKey) else self._runtime.space.cell("", key)

    def _codec(self, type_: Any) -> Any:
        return self._any if type_ is None else self._runtime.codec(type_)

    def _policy_for(self, where: str, ttl: Duration | None) -> Policy:
        return effective_policy(where, self._policy, ttl=ttl)

    def _question(self, key: KeyValue | CellKey, type_: Any) -> Question[Any]:
        # A bare look needs no TTL: it stores nothing.
        recipe: Recipe[Any] = Recipe("", self._codec(type_), self._policy or _LOOK)
        return Question(self._cell(key), self._runtime.generations(), recipe, None)

    def __repr__(self) -> str:
        return f"Cache({self._runtime.store!r}, namespace={self._namespace!r}, {self._runtime.state.value})"


_LOOK = Policy(ttl=1.0)
