"""What all strategies share: a name, keys, a kind of entry, and the ways to read and void it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypedDict, TypeVar

from asynccache.admission import Admission
from asynccache.codecs.upgrades import Upgrades
from asynccache.errors import ConfigurationError
from asynccache.hot_keys.lists import HotList
from asynccache.hot_keys.settings import HotKey
from asynccache.keys import CellKey, check_name
from asynccache.policy import Duration, Policy
from asynccache.protocols import KeyValue
from asynccache.strategies.explaining import Explanation, explain
from asynccache.strategies.loading import Load, bind_loader, tagged
from asynccache.strategies.scope import Host, scope_of
from asynccache.strategies.sources import CheckedSource
from asynccache.strategies.tagging import TagRule, Tags, check_tags
from asynccache.strategies.verdicts import Missing, Question, Recipe
from asynccache.strategies.versions import Version, VersionRule
from asynccache.strategies.warm_reports import Settings, WarmKeys, WarmOptions
from asynccache.strategies.warming import Warming
from asynccache.strategies.writing import Update
from asynccache.supervision import gather

__all__ = ["EntryOptions", "Strategy", "found_only", "loader_for"]

V = TypeVar("V")


class EntryOptions(TypedDict, total=False):
    """What every strategy may be told of its entries.

    Attributes:
        ttl: how long an entry is fresh (seconds, a `timedelta`, or text such as `"5m"`); over the policy's, over the
            cache's.
        policy: how entries live and are loaded; over the cache's.
        tags: tags of the entries: for all the same, or templates such as `"user:{key}"`; a function of the key value;
            or a function of key value and value.
        version: a part of the key that a change raises: the same for all, a function of the key value, a coroutine
            function of it, or a `VersionCounter()`.
        upgrade: how entries of older models are read, which are misses else; and write-behind's pending writes of them.
        admit: which values are stored (`Always()`, `AfterRequests(2)`, `Predicate(...)`); over the cache's.
        max_value_bytes: largest encoded value; over the cache's. A larger one is served and not stored, and counted as
            `too_large`; a put of one is refused before anything is written.
    """

    ttl: Duration | None
    policy: Policy | None
    tags: Tags
    version: Version
    upgrade: Upgrades[Any] | None
    admit: Admission | None
    max_value_bytes: int | None


class Strategy(Generic[V]):
    """The base of the four strategies. Not used by itself.

    Args:
        cache: the cache, or a namespace of it.
        name: names the entity in keys; letters, digits, `_`, `-` and `.`.
        type: what values are; None takes any value and remembers its type.
        ttl, policy, tags, version, upgrade, admit, max_value_bytes: see `EntryOptions`.
        parts: sources and sinks, to be opened with the cache.

    Raises:
        MissingTTL: there is no TTL here nor in the cache.
        ConfigurationError: another argument cannot work.
    """

    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        type: Any,
        ttl: Duration | None = None,
        policy: Policy | None = None,
        tags: Tags = (),
        version: Version = None,
        upgrade: Upgrades[V] | None = None,
        admit: Admission | None = None,
        max_value_bytes: int | None = None,
        parts: Sequence[object] = (),
    ) -> None:
        kind = self.__class__.__name__
        where = f"{kind} {name!r}"
        self._scope = scope_of(cache, where)
        self._runtime = self._scope.runtime
        self._name = check_name(name, f"{kind} name")
        self._recipe: Recipe[V] = self._scope.recipe(
            where,
            name,
            Any if type is None else type,
            policy=policy,
            ttl=ttl,
            upgrade=upgrade,
            admit=admit,
            max_value_bytes=max_value_bytes,
        )
        self._version = VersionRule(name, version, self._scope.space, where)
        self._tags = TagRule(tags, where=f"{where}: tags")
        fixed = self._tags.fixed
        self._fixed = None if fixed is None or self._version.counted else self._scope.generations(fixed)
        self._parts = tuple(parts)
        # Once, where one table is source and sink.
        self._checks = [*dict.fromkeys(part.check_key for part in parts if isinstance(part, CheckedSource))]
        self._ready = False
        self._runtime.adopt(*parts)
        lists = self._runtime.hot_keys
        self._hot = None if lists is None else lists.list_of(self._scope.space, name)
        self._runtime.register(self)

    @property
    def name(self) -> str:
        """The strategy's name, as it stands in keys."""
        return self._name

    @property
    def origin(self) -> str:
        """The strategy's name after those of the namespaces that it is in: `tenant-7/user`."""
        return f"{self._scope.where}{self._name}"

    @property
    def policy(self) -> Policy:
        """How entries live and are loaded."""
        return self._recipe.policy

    @property
    def outdated_by(self) -> tuple[str, ...]:
        """Generations in Redis each of which outdates all entries: first the namespace's, at the end those of tags
        that every entry has."""
        return self._scope.outdated_by(self._tags.common)

    def key(self, key: KeyValue) -> CellKey:
        """The key in Redis of one entity; `cache.get` and `cache.delete` take it, too.

        Raises:
            InvalidKey: the value cannot be part of a key.
            ConfigurationError: its version has to be awaited; see `key_now`.
        """
        return self._version.cell(key)

    async def key_now(self, key: KeyValue) -> CellKey:
        """The same as `key`, also where the version has to be awaited: the key of the version that is current now."""
        return await self._version.cell_now(key)

    async def invalidate(self, *keys: KeyValue) -> None:
        """Empties the entries of these keys, because the database has been changed by other means.

        No load that began before it returns can store what it read.

        Raises:
            StoreUnavailable: Redis did not confirm it (with `on_outage="refuse"`).
        """
        await self._prepare()
        await self._runtime.writer.invalidate([await self.key_now(key) for key in keys])

    async def bump(self, *keys: KeyValue) -> None:
        """Begins a new version of these keys (with `version=VersionCounter()`): nobody is served an older entry, and no
        load that began before it returns can store what it read as the new one.

        Raises:
            ConfigurationError: the strategy has no counter.
            StoreUnavailable: Redis did not confirm it (with `on_outage="refuse"`).
        """
        await self._prepare()
        await self._runtime.writer.invalidate((), [self._version.counter(key) for key in keys])

    async def explain(self, key: KeyValue) -> Explanation:
        """What the next read of this key would do, and why. Changes nothing."""
        await self._prepare()
        return await explain(self._runtime.store, await self._ask(key, None))

    async def hot(self, top: int = 20) -> list[HotKey]:
        """The keys that are asked for most, by all processes, hottest first (with `Cache(hot_keys=HotKeys())`).

        Where nobody has shared anything yet, or Redis does not answer, those of this process.

        Args:
            top: how many at most.

        Raises:
            ConfigurationError: the cache does not count requests, or `top` is not a positive int.
        """
        self._runtime.check()
        return await self._counted(top).top(top)

    # -- for the strategies

    async def _prepare(self) -> None:
        self._runtime.check()
        if not self._ready:
            await self._open_parts()

    def _counted(self, top: int) -> HotList:
        if not isinstance(top, int) or isinstance(top, bool) or top < 1:
            raise ConfigurationError(f"{self!r}: top={top!r} must be a positive int")
        if self._hot is None:
            raise ConfigurationError(f"{self!r}: requests are not counted: pass Cache(..., hot_keys=HotKeys())")
        return self._hot

    def _hot_keys(self, top: int) -> AsyncGenerator[Any, None]:
        hot = self._counted(top)

        async def stream() -> AsyncGenerator[Any, None]:
            for found in await hot.top(top):
                yield found.key

        return stream()

    def _warming(
        self,
        keys: WarmKeys,
        loader: Callable[[Any], Load[V]],
        options: WarmOptions,
        *,
        owned: bool = False,
        crowd: Callable[[], None] | None = None,
    ) -> Warming[V]:
        async def ask(key: Any, watch: Callable[[Load[V]], Load[V]]) -> Question[V]:
            return await self._ask(key, watch(loader(key)))

        return Warming(
            self._scope,
            self._name,
            keys,
            ask,
            self._prepare,
            Settings(**options),
            crowd=crowd,
            awaited=self._version.awaited,
            owned=owned,
        )

    async def _open_parts(self) -> None:
        await self._runtime.use(*self._parts)
        self._ready = True

    def _cell(self, key: KeyValue) -> CellKey:
        for check in self._checks:
            check(key)
        return self.key(key)

    def _generations(self, key: KeyValue) -> tuple[str, ...]:
        if self._fixed is not None:
            return self._fixed
        found = self._scope.generations(self._tags.early(key))
        return (*found, self._version.counter(key)) if self._version.counted else found

    def _generations_of(self, key: KeyValue, value: V) -> tuple[str, ...]:
        """The generations of an entry whose value is known."""
        known = self._generations(key)
        if self._tags.late is None:
            return known
        late = (self._scope.space.generation(tag) for tag in self._tags.late(value, key))
        return tuple(dict.fromkeys((*known, *late)))

    async def _ask(self, key: KeyValue, load: Load[V] | None, ttl: Duration | None = None) -> Question[V]:
        cell = self._cell(key) if not self._version.awaited else await self._cell_now(key)
        if load is not None and self._tags.late is not None:
            load = tagged(self._tags.late, key, load)
        return Question(cell, self._generations(key), self._recipe.lasting(ttl), load)

    async def _cell_now(self, key: KeyValue) -> CellKey:
        for check in self._checks:
            check(key)
        return await self.key_now(key)

    async def _get(self, key: KeyValue, load: Load[V], ttl: Duration | None = None) -> V | None:
        await self._prepare()
        if self._hot is not None:
            self._hot.count(key)
        answer = await self._runtime.reader.get(await self._ask(key, load, ttl))
        return _found(answer)

    async def _get_many(self, keys: Iterable[Any], load: Callable[[Any], Load[V]]) -> dict[Any, V | None]:
        await self._prepare()
        distinct = list(dict.fromkeys(keys))
        if self._hot is not None:
            for key in distinct:
                self._hot.count(key)
        asking = [self._ask(key, load(key)) for key in distinct]
        questions = await gather(asking) if self._version.awaited else [await one for one in asking]
        values = await self._runtime.reader.get_many(questions)
        return {key: _found(value) for key, value in zip(distinct, values, strict=True)}

    async def _refresh(self, key: KeyValue, load: Load[V]) -> V | None:
        await self._prepare()
        return await self._runtime.reader.refresh(await self._ask(key, load))

    def _update(self, keys: Iterable[Any], tags: Iterable[str] = (), *, deferred: bool = False) -> Update:
        distinct = list(dict.fromkeys(keys))
        generations = [self._scope.space.generation(tag) for tag in check_tags(tags, "tags")]
        if not self._version.awaited:
            cells = [self._cell(key) for key in distinct]
            return self._runtime.writer.update(cells, generations, deferred=deferred)

        async def resolve() -> list[CellKey]:
            return [await self._cell_now(key) for key in distinct]

        return self._runtime.writer.update(resolve, generations, deferred=deferred)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._name!r}, ttl={self._recipe.policy.ttl_seconds:g})"


def loader_for(load: Callable[..., Awaitable[V | None]], key: KeyValue) -> Load[V]:
    """A loader of the application's, for one key."""
    if not callable(load):
        raise ConfigurationError(f"load must be an async function of the key, not {load.__class__.__name__} ({load!r})")
    return bind_loader(load, key)


def found_only(values: Mapping[Any, V | None]) -> dict[Any, V]:
    """Without what does not exist."""
    return {key: value for key, value in values.items() if value is not None}


def _found(value: V | Missing | None) -> V | None:
    return None if isinstance(value, Missing) else value
