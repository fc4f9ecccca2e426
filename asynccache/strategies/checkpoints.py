"""How far a warming has come, kept in Redis under a name, so that the next process can go on."""

from __future__ import annotations

from typing import Any, Final

from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.keys import check_name
from asynccache.stores.guarded import GuardedStore
from asynccache.stores.scripts import load_script
from asynccache.strategies.scope import Scope
from asynccache.supervision import logger
from asynccache.tokens import new_token

__all__ = ["Checkpoint"]

_SAVE: Final = load_script("checkpoint", prelude=None)
_RESUME: Final = load_script("resume", prelude=None)
_LIFE_MS: Final = 7 * 86_400_000


class Checkpoint:
    """A position in a stream of keys.

    Args:
        scope: the namespace.
        strategy: whose keys they are.
        name: of the checkpoint: letters, digits, `_`, `-` and `.`.

    Raises:
        ConfigurationError: not a name, or the cache is not in Redis.
    """

    def __init__(self, scope: Scope, strategy: str, name: str) -> None:
        store = scope.runtime.store
        if not isinstance(store, GuardedStore):
            raise ConfigurationError(f"resume={name!r} needs a cache in Redis, not {store!r}: pass a position")
        self._store = store
        self._key = scope.space.checkpoint(strategy, check_name(name, "resume"))
        self._name = name
        self._run = ""

    async def begin(self) -> int:
        """The position to begin from: where the last run stopped, or 0.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        found: Any = await self._store.run(_RESUME, (self._key,), ())
        self._run = f"{self._store.now_ms():015d}.{new_token().hex()}"
        return int(found)

    async def save(self, position: int, *, done: bool = False) -> None:
        """Remembers a position; one that cannot be told to Redis is only logged: some keys are looked at again."""
        try:
            await self._store.run(_SAVE, (self._key,), (self._run, position, int(done), _LIFE_MS))
        except StoreUnavailable as error:
            logger.warning("checkpoint %s was not saved at %d: %s", self._name, position, error)

    def __repr__(self) -> str:
        return f"Checkpoint({self._name!r})"
