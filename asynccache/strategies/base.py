"""What all strategies share: a name, keys, a kind of entry, and the ways to read and void it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from asynccache.errors import ConfigurationError
from asynccache.keys import CellKey, check_name
from asynccache.policy import Duration, Policy
from asynccache.protocols import KeyValue
from asynccache.strategies.explaining import Explanation, explain
from asynccache.strategies.loading import Load, bind_loader
from asynccache.strategies.reading import Missing, Question
from asynccache.strategies.runtime import Host, Runtime
from asynccache.strategies.sources import CheckedSource
from asynccache.strategies.verdicts import Recipe
from asynccache.strategies.writing import Update

__all__ = ["Strategy", "Tags", "check_tags", "found_only", "loader_for"]

V = TypeVar("V")

Tags: TypeAlias = Sequence[str] | Callable[[Any], Sequence[str]]
"""Tags of a strategy's entries: the same for all, or a function of the key value."""


class Strategy(Generic[V]):
    """The base of the four strategies. Not used by itself.

    Args:
        cache: the cache, or a namespace of it.
        name: names the entity in keys; letters, digits, `_`, `-` and `.`.
        ttl: how long an entry is fresh; over the policy's, over the cache's.
        policy: how entries live and are loaded; over the cache's.
        type: what values are; None takes any value and remembers its type.
        tags: tags of the entries, or a function of the key value.

    Raises:
        MissingTTL: there is no TTL here nor in the cache.
        ConfigurationError: another argument cannot work.
    """

    def __init__(
        self,
        cache: Host,
        name: str,
        *,
        ttl: Duration | None,
        policy: Policy | None,
        type: Any,
        tags: Tags,
        parts: Sequence[object] = (),
    ) -> None:
        kind = self.__class__.__name__
        runtime = getattr(cache, "runtime", None)
        if not isinstance(runtime, Runtime):
            raise ConfigurationError(f"{kind}: cache must be a Cache, not {cache.__class__.__name__} ({cache!r})")
        self._runtime = runtime
        self._name = check_name(name, f"{kind} name")
        chosen = self._runtime.policy(f"{kind} {name!r}", policy, ttl)
        self._recipe: Recipe[V] = Recipe(name, self._runtime.codec(Any if type is None else type), chosen)
        self._tags = _tags(tags, f"{kind} {name!r}")
        self._fixed = None if callable(self._tags) else self._runtime.generations(self._tags)
        self._parts = tuple(parts)
        self._checks = [part.check_key for part in parts if isinstance(part, CheckedSource)]
        self._ready = False
        self._runtime.adopt(*parts)

    @property
    def name(self) -> str:
        """The strategy's name, as it stands in keys."""
        return self._name

    @property
    def policy(self) -> Policy:
        """How entries live and are loaded."""
        return self._recipe.policy

    def key(self, key: KeyValue) -> CellKey:
        """The key in Redis of one entity; `cache.get` and `cache.delete` take it, too.

        Raises:
            InvalidKey: the value cannot be part of a key.
        """
        return self._runtime.space.cell(self._name, key)

    async def invalidate(self, *keys: KeyValue) -> None:
        """Empties the entries of these keys, because the database has been changed by other means.

        No load that began before it returns can store what it read.

        Raises:
            StoreUnavailable: Redis did not confirm it (with `on_outage="refuse"`).
        """
        await self._prepare()
        cells = [self.key(key) for key in keys]
        await self._runtime.writer.invalidate(cells)

    async def explain(self, key: KeyValue) -> Explanation:
        """What the next read of this key would do, and why. Changes nothing."""
        await self._prepare()
        return await explain(self._runtime.store, self._question(key, None))

    # -- for the strategies

    async def _prepare(self) -> None:
        self._runtime.check()
        if not self._ready:
            await self._open_parts()

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
        tags = self._tags(key)  # type: ignore[operator]  # fixed is set otherwise
        return self._runtime.generations(check_tags(tags, f"tags of {self._name!r}"))

    def _question(self, key: KeyValue, load: Load[V] | None, ttl: Duration | None = None) -> Question[V]:
        recipe = self._recipe
        if ttl is not None:
            recipe = Recipe(recipe.name, recipe.codec, recipe.policy.with_ttl(ttl))
        return Question(self._cell(key), self._generations(key), recipe, load)

    async def _get(self, key: KeyValue, load: Load[V], ttl: Duration | None = None) -> V | None:
        await self._prepare()
        answer = await self._runtime.reader.get(self._question(key, load, ttl))
        return _found(answer)

    async def _get_many(self, keys: Iterable[Any], load: Callable[[Any], Load[V]]) -> dict[Any, V | None]:
        await self._prepare()
        distinct = list(dict.fromkeys(keys))
        values = await self._runtime.reader.get_many([self._question(key, load(key)) for key in distinct])
        return {key: _found(value) for key, value in zip(distinct, values, strict=True)}

    async def _refresh(self, key: KeyValue, load: Load[V]) -> V | None:
        await self._prepare()
        return await self._runtime.reader.refresh(self._question(key, load))

    def _update(self, keys: Iterable[Any], tags: Iterable[str] = ()) -> Update:
        distinct = list(dict.fromkeys(keys))
        cells = [self._cell(key) for key in distinct]
        names = list(check_tags(tags, "tags"))
        return self._runtime.writer.update(cells, [self._runtime.space.generation(tag) for tag in names])

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


def _tags(tags: Tags, where: str) -> Tags:
    return tags if callable(tags) else check_tags(tags, f"{where}: tags")


def check_tags(tags: Iterable[str], what: str = "tags") -> tuple[str, ...]:
    """Checks tags given as a sequence; a lone string is a likely slip, since it is a sequence, too."""
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise ConfigurationError(f"{what} must be a sequence of strings, such as ['users'], not {tags!r}")
    names = tuple(tags)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(
                f"{what}: a tag must be a non-empty string, not {name.__class__.__name__} ({name!r})"
            )
    return names
