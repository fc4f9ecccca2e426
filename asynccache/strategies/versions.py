"""Versioned keys: entries that a change leaves behind, instead of emptying them.

A version is part of the key, `shop:user@3:42`: whoever asks with a newer one does not see what was stored under an
older one, which leaves by its TTL. It may be the same for all (a deploy raises it), or come from the key or the
arguments, or from a coroutine, which is awaited before each read.

A counter is kept by the cache, one for each key. It is not part of the key but a generation that the entry carries,
like that of a tag: so it is read in the same call as the entry, no lost or evicted counter can come back to an old
number, and the entry that it leaves behind is overwritten.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from asynccache.errors import ConfigurationError, InvalidKey
from asynccache.keys import CellKey, KeySpace, encode_part
from asynccache.protocols import KeyPart

__all__ = ["Version", "VersionCounter", "VersionRule"]


class VersionCounter:
    """A version for each key that the cache keeps and `bump(key)` raises: `version=VersionCounter()`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "VersionCounter()"


Version: TypeAlias = "KeyPart | VersionCounter | Callable[[Any], KeyPart] | Callable[[Any], Awaitable[KeyPart]]"
"""A version of all entries, a function of the key value, a coroutine function of it, or a counter for each key."""


class VersionRule:
    """Where the version of a strategy's entries comes from.

    Args:
        name: the strategy's.
        version: what a user gave; None for no version.
        space: names keys.
        where: for messages.

    Attributes:
        counted: whether each key has a counter.
        awaited: whether the version has to be awaited.
    """

    def __init__(self, name: str, version: Any, space: KeySpace, where: str) -> None:
        self._name = name
        self._space = space
        self._where = where
        self._of: Callable[[Any], Any] | None = None
        self._fixed: str | None = name
        self.counted = isinstance(version, VersionCounter)
        self.awaited = False
        if version is VersionCounter:
            raise ConfigurationError(f"{where}: version=VersionCounter is the class; pass VersionCounter()")
        if version is None or self.counted:
            return
        if callable(version):
            self._of, self._fixed = version, None
            called = getattr(version, "__call__", version)  # noqa: B004 - of an object with an async `__call__`
            self.awaited = inspect.iscoroutinefunction(version) or inspect.iscoroutinefunction(called)
            return
        try:
            self._fixed = versioned(name, version)
        except InvalidKey as error:
            raise ConfigurationError(f"{where}: version={version!r}: {error}") from error

    def cell(self, key: Any) -> CellKey:
        """The key in Redis of one entity.

        Raises:
            ConfigurationError: its version has to be awaited, or is one already.
        """
        if self._fixed is not None:
            return self._space.cell(self._fixed, key)
        if self.awaited:
            raise ConfigurationError(f"{self._where}: its version has to be awaited: use `await ....key_now({key!r})`")
        assert self._of is not None  # noqa: S101 - one of the two is set
        return self._versioned(self._of(key), key)

    async def cell_now(self, key: Any) -> CellKey:
        """The same, also of a version that has to be awaited."""
        if not self.awaited:
            return self.cell(key)
        assert self._of is not None  # noqa: S101 - it is what is awaited
        return self._versioned(await self._of(key), key)

    def counter(self, key: Any) -> CellKey:
        """The generation that counts a key's versions.

        Raises:
            ConfigurationError: there is no counter.
        """
        if not self.counted:
            raise ConfigurationError(f"{self._where} has no counter to bump: pass version=VersionCounter()")
        return self._space.counter(self._name, key)

    def _versioned(self, version: Any, key: Any) -> CellKey:
        if inspect.isawaitable(version):
            if inspect.iscoroutine(version):
                version.close()
            raise ConfigurationError(
                f"{self._where}: version returned an awaitable, but is not an `async def` function: make it one"
            )
        return self._space.cell(versioned(self._name, version), key)


def versioned(name: str, version: Any) -> str:
    """A name with a version, which no other name can be.

    Raises:
        InvalidKey: the version cannot be part of a key.
    """
    return f"{name}@{encode_part(version)}"
