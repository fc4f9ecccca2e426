"""What tests of hot keys count with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asynccache import (
    Cache,
    CacheAside,
    HotKey,
    HotKeys,
    ReadThrough,
)
from asynccache.hot_keys.lists import HotKeyLists
from asynccache.protocols import Applied, Batch

SETTINGS = HotKeys(capacity=100, half_life="1h", share_every="1h")


class Rows:
    """A source and sink that has every row, and counts loads."""

    def __init__(self) -> None:
        self.loaded: list[Any] = []

    async def load_many(self, keys: Sequence[Any]) -> dict[Any, str]:
        self.loaded += keys
        return {key: repr(key) for key in keys}

    async def apply(self, batch: Batch[str]) -> Applied[str]:
        return Applied()


async def load(key: Any) -> str:
    return repr(key)


def shared(cache: Cache) -> HotKeyLists:
    assert cache.runtime.hot_keys is not None
    return cache.runtime.hot_keys


def weights(found: list[HotKey]) -> dict[Any, int]:
    return {one.key: round(one.weight) for one in found}


async def ask(users: ReadThrough[Any] | CacheAside[Any], **counts: int) -> None:
    for key, count in counts.items():
        for _ in range(count):
            await (users.get(key) if isinstance(users, ReadThrough) else users.get(key, load))
