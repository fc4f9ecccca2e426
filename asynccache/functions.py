"""The entries of one decorated function: how a call becomes a question to the cache."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeAlias, TypedDict, TypeVar, cast

from asynccache.admission import Admission
from asynccache.codecs.upgrades import Upgrades
from asynccache.errors import ConfigurationError
from asynccache.keys import CellKey
from asynccache.policy import Duration, Policy
from asynccache.protocols import KeyPart
from asynccache.strategies.explaining import Explanation, explain
from asynccache.strategies.loading import LoadContext
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.scope import Scope
from asynccache.strategies.sources import returned_type
from asynccache.strategies.tagging import TagRule, wants_result
from asynccache.strategies.verdicts import Question, Recipe
from asynccache.strategies.versions import VersionCounter
from asynccache.templates import compile_call, compile_template, default_template, with_version

__all__ = ["Claims", "FunctionEntry", "FunctionOptions"]

R = TypeVar("R")

FunctionVersion: TypeAlias = "KeyPart | VersionCounter | Callable[..., Awaitable[KeyPart]]"
FunctionTags: TypeAlias = Sequence[str] | Callable[..., Sequence[str]]


class FunctionOptions(TypedDict, total=False):
    """What a decorated function may be told of its entries; see `Decorators.cached`."""

    ttl: Duration | None
    key: str | None
    tags: FunctionTags
    policy: Policy | None
    type: Any
    version: FunctionVersion
    upgrade: Upgrades[Any] | None
    admit: Admission | None
    max_value_bytes: int | None


class Claims:
    """The key templates of one namespace's functions, each of which is one function's."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._templates: dict[str, str] = {}

    def claim(self, template: str, function: Callable[..., Any]) -> None:
        """Refuses a template that another function has: they would read each other's results."""
        name = f"{function.__module__}.{function.__qualname__}"
        owner = self._templates.setdefault(template, name)
        if owner != name:
            raise ConfigurationError(f"key={template!r} of {name} is the key of {owner}, too: give each its own")


class FunctionEntry(Generic[R]):
    """How the calls of one function are cached: their keys, tags and versions, and what becomes of the results."""

    def __init__(
        self,
        claims: Claims,
        function: Callable[..., Coroutine[Any, Any, R]],
        *,
        ttl: Duration | None = None,
        key: str | None = None,
        tags: FunctionTags = (),
        policy: Policy | None = None,
        type: Any = None,
        version: FunctionVersion = None,
        upgrade: Upgrades[Any] | None = None,
        admit: Admission | None = None,
        max_value_bytes: int | None = None,
        skip: tuple[str, ...] = (),
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"cached needs an `async def` function, not {function!r}")
        name = function.__qualname__
        where = f"cached function {name}"
        scope = claims.scope
        signature = inspect.signature(function)
        self.signature = signature
        self._function = function
        self._scope = scope
        self._runtime = scope.runtime
        # A version that has to be awaited is put into the key that the call has without it.
        self._awaited: Callable[..., Awaitable[Any]] | None = None
        if inspect.iscoroutinefunction(version):
            if wants_result(version, signature, f"{where}: version"):
                raise ConfigurationError(f"{where}: version is asked before there is a result; it takes one too many")
            self._awaited = compile_call(version, signature, result=False)
        elif callable(version):
            raise ConfigurationError(
                f"{where}: version must be a value, a template such as '{{user.updated_at}}', an `async def` function"
                f" of the arguments, or a VersionCounter(), not {version!r}"
            )
        fixed = None if self._awaited is not None or isinstance(version, VersionCounter) else version
        if key is None:
            self.build = default_template(function, signature, skip=skip, prefix=scope.space.cells, version=fixed)
        else:
            self.build = compile_template(key, signature, prefix=scope.space.cells, version=fixed)
            claims.claim(key if fixed is None else f"{key} version={fixed!r}", function)
        self._counted = isinstance(version, VersionCounter)
        self._tags = TagRule(tags, signature, f"{where}: tags")
        known = self._tags.fixed is not None and not self._counted and self._awaited is None
        self.fixed = scope.generations(self._tags.fixed or ()) if known else None
        self.outdated_by = scope.outdated_by(self._tags.common)
        self.recipe: Recipe[R] = scope.recipe(
            where,
            name,
            _type_of(function) if type is None else type,
            policy=policy,
            ttl=ttl,
            upgrade=upgrade,
            admit=admit,
            max_value_bytes=max_value_bytes,
        )

    def key(self, *args: Any, **kwargs: Any) -> CellKey:
        if self._awaited is not None:
            raise ConfigurationError(f"{self.recipe.name}: its version has to be awaited: use `await ....key_now(...)`")
        return CellKey(self.build(*args, **kwargs))

    async def key_now(self, *args: Any, **kwargs: Any) -> CellKey:
        if self._awaited is None:
            return CellKey(self.build(*args, **kwargs))
        return CellKey(
            with_version(self.build(*args, **kwargs), self._scope.space, await self._awaited(*args, **kwargs))
        )

    async def call(self, *args: Any, **kwargs: Any) -> R:
        self._runtime.check()
        # There is a loader, so the answer is never MISSING; None is R's.
        return cast("R", await self._runtime.reader.get(await self.question_now(args, kwargs)))

    @property
    def runtime(self) -> Runtime:
        """The parts of the cache."""
        return self._runtime

    async def invalidate(self, *args: Any, **kwargs: Any) -> None:
        self._runtime.check()
        await self._runtime.writer.invalidate([await self.key_now(*args, **kwargs)])

    async def bump(self, *args: Any, **kwargs: Any) -> None:
        self._runtime.check()
        if not self._counted:
            raise ConfigurationError(f"{self.recipe.name} has no counter to bump: pass version=VersionCounter()")
        await self._runtime.writer.invalidate((), [self._counter(self.build(*args, **kwargs))])

    async def refresh(self, *args: Any, **kwargs: Any) -> R:
        self._runtime.check()
        return cast("R", await self._runtime.reader.refresh(await self.question_now(args, kwargs)))

    async def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        self._runtime.check()
        return await explain(self._runtime.store, await self.question_now(args, kwargs))

    def question(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Question[R]:
        """What a call asks for; only where the version need not be awaited."""
        return self._question(self.build(*args, **kwargs), args, kwargs)

    async def question_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Question[R]:
        """The same for any version."""
        if self._awaited is None:
            return self.question(args, kwargs)
        return self._question(await self.key_now(*args, **kwargs), args, kwargs)

    def _question(self, cell: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Question[R]:
        function, late = self._function, self._tags.late

        def load(_: LoadContext) -> Coroutine[Any, Any, R]:
            return function(*args, **kwargs)

        async def load_and_tag(context: LoadContext) -> R:
            result = await function(*args, **kwargs)
            if result is not None:
                context.tags(late(result, *args, **kwargs))  # type: ignore[misc]  # it is used only if there are late tags
            return result

        loader = load if late is None else load_and_tag
        generations = self.fixed
        if generations is None:
            generations = self._scope.generations(self._tags.early(*args, **kwargs))
            if self._counted:
                generations = (*generations, self._counter(cell))
        return Question(cell, generations, self.recipe, loader)

    def _counter(self, cell: str) -> CellKey:
        return self._scope.space.counter("", cell)


def _type_of(function: Callable[..., Any]) -> Any:
    found = returned_type(function)
    return Any if found is None else found
