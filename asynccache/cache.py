"""What users hold: one cache, wired from its parts, with a life that any framework can drive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Self, Unpack

from asynccache.admission import Admission
from asynccache.assembly import make_store
from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import ConfigurationError
from asynccache.events import Counters, Stats
from asynccache.hot_keys.lists import HotKeyLists
from asynccache.hot_keys.settings import HotKeys
from asynccache.keys import KeySpace, check_name
from asynccache.lifecycle import CacheHealth, Lifespan
from asynccache.namespaces import Namespace
from asynccache.observability.recording import Recorder, recorder_of
from asynccache.policy import Duration, Policy, seconds
from asynccache.stampede.lease import WaitingRoom
from asynccache.stores.local import LocalTier
from asynccache.stores.redis import RedisClient
from asynccache.strategies.admitting import check_admission
from asynccache.strategies.cache_aside import CacheAside
from asynccache.strategies.reading import Reader
from asynccache.strategies.recorded import RecordedReader, RecordedWriter
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.scope import Scope
from asynccache.strategies.sourced import Sourced
from asynccache.strategies.warm_reports import WarmKeys, WarmOptions
from asynccache.strategies.writing import OnOutage, Writer
from asynccache.supervision import Supervisor, TaskOwner, finish, gather
from asynccache.warming import AtStart, warm_at_start

__all__ = ["Cache"]


class Cache(Namespace):
    """A cache in Redis for the values of one application. Building it does no I/O.

    Args:
        redis: a URL (`redis://`, `rediss://`, `unix://`), or a `redis.asyncio` client, which says how to connect and is
            never closed here; or `memory://` for a cache in this process, without write-behind.
        namespace: begins every key; letters, digits, `_`, `-` and `.`.
        ttl: how long entries are fresh where neither the call nor the strategy says so.
        policy: how entries live and are loaded where the strategy does not say so.
        local: keeps what this process reads in its memory, coherent through pushes from Redis (extra `local`).
        on_outage: what a write does when Redis cannot be told of it. "refuse" raises before the database is touched;
            "proceed" goes on, and what it touched is invalidated before this process serves anything from the cache
            again. Other processes may read the old value meanwhile.
        require_redis: whether opening the cache fails without an answer from Redis; else it opens without, loads
            directly, and uses Redis once it answers.
        write_timeout: the longest a write may take; what a crashed writer was changing is not cached for so long.
        timeout: the longest any call to Redis may take; then the loader is asked.
        max_connections: most connections to Redis, beside those in the pool of a client that is passed in; to each node
            of a cluster.
        max_concurrent_loads: most loads at once that no lease bounds (without Redis, during writes).
        keep_loads: lets a load go on after its last caller was cancelled.
        max_value_bytes: largest encoded value.
        compress_above: compresses encoded values above so many bytes (extra `compress`); None does not.
        admit: which values are stored where the strategy does not say so (`AfterRequests(2)`, `Predicate(...)`); None
            stores all. What `set` is given is stored whatever this says.
        hot_keys: finds the keys that strategies are asked for most, in bounded memory; None does not count.
        background: runs services such as the flushers of write-behind in this process.
        record: writes down each operation for `asynccache advise`: the path of a file, or a `Recorder`.
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
        local: LocalTier | None = None,
        on_outage: OnOutage = "refuse",
        require_redis: bool = True,
        write_timeout: Duration = 30.0,
        timeout: Duration = 1.0,
        max_connections: int = 16,
        max_concurrent_loads: int = 64,
        keep_loads: bool = False,
        max_value_bytes: int = 8 * 1024 * 1024,
        compress_above: int | None = None,
        admit: Admission | None = None,
        hot_keys: HotKeys | None = None,
        background: bool = True,
        record: str | PathLike[str] | Recorder | None = None,
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
        if hot_keys is not None and not isinstance(hot_keys, HotKeys):
            raise ConfigurationError(
                f"hot_keys must be HotKeys(...) or None, not {type(hot_keys).__name__} ({hot_keys!r})"
            )
        space = KeySpace((check_name(namespace, "namespace"),))
        if ttl is not None or policy is not None:
            policy = (policy or Policy()).with_ttl(ttl)
        counters = Counters()
        room = WaitingRoom()
        recorder = recorder_of(record, clock)
        store, entries, tracker = make_store(
            redis,
            space,
            room,
            local=local,
            required=require_redis,
            timeout=seconds(timeout, "timeout", least=0.001, zero=False),
            max_connections=max_connections,
            clock=clock,
        )
        runtime = Runtime(
            store=store,
            reader=(Reader if recorder is None else partial(RecordedReader, recorder))(
                store,
                counters,
                max_concurrent_loads=max_concurrent_loads,
                keep_loads=keep_loads,
                clock=clock,
                room=room,
                local=entries,
            ),
            writer=(Writer if recorder is None else partial(RecordedWriter, recorder))(
                store,
                counters,
                on_outage=on_outage,
                write_timeout=seconds(write_timeout, "write_timeout", least=0.05, zero=False),
            ),
            counters=counters,
            clock=clock,
            supervisor=Supervisor(),
            background=background,
            hot_keys=None if hot_keys is None else HotKeyLists(store, hot_keys, clock),
            recorder=recorder,
        )
        if tracker is not None:
            runtime.serve(tracker, always=True)
        super().__init__(
            Scope(
                runtime,
                space,
                policy,
                max_value_bytes=max_value_bytes,
                compress_above=compress_above,
                admit=check_admission("Cache", admit),
            )
        )
        self._at_start: list[AtStart] = []
        self._entered = 0
        self._life = asyncio.Lock()
        self._owner = TaskOwner("life")

    def warm_at_start(
        self,
        strategy: Sourced[Any] | CacheAside[Any],
        *,
        keys: WarmKeys | Callable[[], WarmKeys] | None = None,
        query: str | None = None,
        hot: int | None = None,
        load: Callable[..., Awaitable[Any]] | None = None,
        before_ready: bool = False,
        timeout: Duration = 30.0,
        **options: Unpack[WarmOptions],
    ) -> None:
        """Warms a strategy whenever the cache is opened: in the background, or before it is ready.

        Where a server does not answer it is tried again, with growing waits, until it is done. `health` shows it.

        Args:
            strategy: a strategy of this cache, or of a namespace of it.
            keys: the keys; or a function that returns them, if they can be read only once.
            query: returns the keys; see `ReadThrough.warm_query`.
            hot: so many of the hottest keys; see `ReadThrough.warm_hot`.
            load: of a `CacheAside`: `async def load(key)`.
            before_ready: holds up `startup` and `lifespan` until it is done.
            timeout: the longest it does so; then the cache opens all the same, with a warning in the log.
            options: `concurrency`, `rate`, `batch`, `refresh`, `max_failures`; see `WarmOptions`.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        service = warm_at_start(
            strategy,
            keys=keys,
            query=query,
            hot=hot,
            load=load,
            before_ready=before_ready,
            timeout=timeout,
            options=dict(options),
        )
        self._runtime.serve(service, always=True)
        self._at_start.append(service)

    @property
    def runtime(self) -> Runtime:
        """The parts, which all namespaces share."""
        return self._runtime

    # -- life

    async def startup(self, _: object = None, /) -> None:
        """Opens the cache: connects, checks sources, starts background services. May be called again to no effect;
        each call wants a `shutdown`. Takes and ignores one argument, as hooks of task queues pass it.

        Raises:
            StoreUnavailable, DatabaseUnavailable: a server does not answer.
            SchemaMismatch: a model and its table disagree.
        """
        async with self._life:
            if self._entered == 0:
                for warming in self._at_start:
                    warming.reset()
                try:
                    await self._runtime.start()
                    await gather(warming.before_ready() for warming in self._at_start)
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
            tuple(report() for report in self._runtime.reports),
            tuple(report() for report in self._runtime.listeners),
        )

    @property
    def stats(self) -> Stats:
        """What this process has counted since the cache was made."""
        return self._runtime.counters.snapshot()

    def __repr__(self) -> str:
        return f"Cache({self._runtime.store!r}, namespace={self._scope.space.path[0]!r}, {self._runtime.state.value})"
