"""A store that tells the local tier of this process's own writes, before they are sent and after their reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asynccache.steps import Acquire, Ensure, Extend, Refresh, Release, Reply, Step
from asynccache.stores.guarded import GuardedStore
from asynccache.stores.local import LocalEntries
from asynccache.stores.scripts import Argument, Script

__all__ = ["TieredStore"]

_HARMLESS = (Acquire, Ensure, Extend, Refresh, Release)
"""Steps that change no value that somebody could be reading."""


class TieredStore(GuardedStore):
    """A `GuardedStore` with a local tier in front of it.

    Args:
        entries: the local tier.
        inner, everything, failures, max_journal: as for `GuardedStore`.
    """

    def __init__(self, *args: Any, entries: LocalEntries, **options: Any) -> None:
        super().__init__(*args, **options)
        self._entries = entries

    @property
    def entries(self) -> LocalEntries:
        """The local tier."""
        return self._entries

    async def apply(self, key: str, step: Step) -> Reply:
        if isinstance(step, _HARMLESS):
            return await super().apply(key, step)
        self._entries.changed(key)
        try:
            return await super().apply(key, step)
        finally:
            self._entries.changed(key)

    async def apply_many(self, steps: Sequence[tuple[str, Step]]) -> Sequence[Reply]:
        changed = [key for key, step in steps if not isinstance(step, _HARMLESS)]
        self._changed(changed)
        try:
            return await super().apply_many(steps)
        finally:
            self._changed(changed)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        self._changed(keys)
        try:
            return await super().run(script, keys, args)
        finally:
            self._changed(keys)

    def _changed(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._entries.changed(key)
