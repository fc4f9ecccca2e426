"""Follows a database's changes: what a namespace gives to a source of changes, and what it asks of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from asynccache.errors import ConfigurationError
from asynccache.events import ChangesHealth
from asynccache.strategies.scope import Scope

__all__ = ["ChangeSource", "Follower", "Listener", "follow"]


class Follower:
    """A namespace, as a source of changes sees it: it names entries and tags, and invalidates them.

    Attributes:
        path: the namespace's name, after those of the namespaces that it is in.
        outdated_by: generations each of which outdates the whole namespace; the first is its own.
    """

    def __init__(self, scope: Scope) -> None:
        self._space = scope.space
        self._runtime = scope.runtime
        self.path = "/".join(scope.space.path)
        self.where = scope.where
        self.outdated_by = scope.outdated_by()

    def cell(self, key: Any) -> str:
        """The cell that the plain cache has under a key.

        Raises:
            InvalidKey: the value cannot be part of a key.
        """
        return self._space.cell("", key)

    def generation(self, tag: str) -> str:
        """The generation of a tag."""
        return self._space.generation(tag)

    async def invalidate(self, cells: Sequence[str], generations: Sequence[str]) -> None:
        """Empties cells and outdates what carries the generations.

        Raises:
            StoreUnavailable: Redis did not confirm it, whatever the cache does about that otherwise.
        """
        await self._runtime.writer.invalidate(cells, generations, certain=True)

    def __repr__(self) -> str:
        return f"Follower({self.path!r})"


class Listener(Protocol):
    """A service that turns changes into invalidations."""

    @property
    def name(self) -> str:
        """Names it in health reports and logs."""
        ...

    async def run(self, alive: Callable[[], None], /) -> None:
        """Works until cancelled; calls `alive` whenever it has done what it is for."""
        ...

    def health(self) -> ChangesHealth:
        """How it is; does no I/O."""
        ...


@runtime_checkable
class ChangeSource(Protocol):
    """What can be followed; `asynccache.postgres.PostgresChanges` is such a source."""

    def followed_by(self, follower: Follower, /) -> Listener:
        """A service that tells this namespace of changes."""
        ...


def follow(scope: Scope, changes: ChangeSource) -> None:
    """Runs a source's listener for a namespace while the cache is open.

    Raises:
        ConfigurationError: it is no source of changes, or the namespace follows one of this name already.
    """
    if isinstance(changes, type) or not isinstance(changes, ChangeSource):
        raise ConfigurationError(
            f"follow: changes must be a source such as PostgresChanges(pool, tables=[...]), not"
            f" {type(changes).__name__} ({changes!r:.100})"
        )
    listener = changes.followed_by(Follower(scope))
    scope.runtime.serve(listener)
    scope.runtime.adopt(changes)
    scope.runtime.listeners.append(listener.health)
