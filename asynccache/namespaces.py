"""Namespaces: parts of a cache that can be cleared at once, whatever is in them."""

from __future__ import annotations

from typing import Unpack

from asynccache.admission import Admission
from asynccache.decorators import Cached, CachedMethod, Decorators
from asynccache.functions import FunctionOptions
from asynccache.plain import PlainCache
from asynccache.policy import Duration, Policy
from asynccache.strategies.admitting import check_admission
from asynccache.strategies.following import ChangeSource, follow
from asynccache.strategies.scope import Scope

__all__ = ["Namespace"]


class Namespace(PlainCache):
    """A part of a cache with keys and tags of its own, as `cache.namespace("tenant-7")` makes it.

    It does all that a cache does, strategies are built on it as on a cache, and it lives as long as its cache does.
    Keys and tags of two namespaces never meet: what is tagged "users" here is not reached by `invalidate_tags("users")`
    elsewhere, not even in the namespace around this one. Only `clear` reaches inwards.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._decorators = Decorators(scope)

    def namespace(
        self,
        name: str,
        *,
        ttl: Duration | None = None,
        policy: Policy | None = None,
        admit: Admission | None = None,
    ) -> Namespace:
        """A namespace in this one.

        Made anew at each call, and cheap: one for each tenant or request is fine, and nothing has to be closed.

        Args:
            name: letters, digits, `_`, `-` and `.`; names of your users must be brought into that form, without making
                two the same.
            ttl: how long entries are fresh where neither the call nor the strategy says so; over this one's.
            policy: how entries live and are loaded; over this one's.
            admit: which values are stored; over this one's.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        check_admission(f"namespace {name!r}", admit)
        return Namespace(self._scope.nested(name, ttl=ttl, policy=policy, admit=admit))

    async def clear(self) -> None:
        """Outdates every entry of this namespace, and of those in it, at a cost that does not depend on their number.

        No load that began before it returns can store what it read. Writes that wait in write-behind buffers are not
        touched. What is outdated leaves Redis by its TTL, or when it is next loaded.

        Raises:
            StoreUnavailable: Redis did not confirm it (with `on_outage="refuse"`).
        """
        self._runtime.check()
        await self._runtime.writer.invalidate((), self._scope.space.own_generations()[-1:])

    def follow(self, changes: ChangeSource) -> None:
        """Invalidates what a database says has changed, whoever changed it, while the cache is open.

        `cache.follow(PostgresChanges(pool, tables=[...]))`. The tags that the source names are those of this namespace;
        strategies and functions that it names keep their own. It runs where background services do: with
        `background=False` another process must follow.

        Args:
            changes: the source, which is checked when the cache is opened.

        Raises:
            ConfigurationError: it is no such source, or this namespace follows one of this name already.
        """
        follow(self._scope, changes)

    def cached(self, **options: Unpack[FunctionOptions]) -> Cached:
        """Caches the results of an async function by its arguments; see `decorators.Decorators.cached`.

        Args:
            options: `ttl`, `key`, `tags`, `policy`, `version`, `upgrade`, `admit`, `max_value_bytes`,
                `type`.
        """
        return self._decorators.cached(**options)

    def cached_method(self, *, shared: bool = False, **options: Unpack[FunctionOptions]) -> CachedMethod:
        """Caches the results of an async method; see `decorators.Decorators.cached_method`.

        Args:
            shared: all instances share their entries.
            options: as for `cached`.
        """
        return self._decorators.cached_method(shared=shared, **options)

    def __repr__(self) -> str:
        return f"Namespace({'/'.join(self._scope.space.path)!r}, {self._runtime.state.value})"
