"""The keys of a warming: taken from their stream, and what happened to each."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, Generic, TypeVar

import msgspec

from asynccache.strategies.loading import Load, LoadContext
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.verdicts import Miss, Verdict
from asynccache.strategies.warm_reports import WarmKeys

__all__ = ["Note", "taker", "with_generations"]

V = TypeVar("V")


class Note(Generic[V]):
    """What happened to one key.

    Attributes:
        key: the key value.
        cell: its key in Redis.
        loaded: a value was loaded for it here.
        missing: a load found that it does not exist.
        error: why it could not be loaded; None if it could, or did not have to be.
    """

    __slots__ = ("cell", "error", "key", "loaded", "missing")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.cell = ""
        self.loaded = self.missing = False
        self.error: Exception | None = None

    def watch(self, load: Load[V]) -> Load[V]:
        """The same loader, which notes what it brings."""

        async def watched(context: LoadContext) -> V | None:
            self.error = None
            try:
                value = await load(context)
            except Exception as error:
                self.error = error
                raise
            self.loaded, self.missing = value is not None, value is None
            return value

        return watched


def taker(keys: WarmKeys) -> Callable[[int], Awaitable[list[Any]]]:
    """What takes the next keys out of a stream: at most so many, and none at its end."""
    if isinstance(keys, AsyncIterable):
        return _later(keys)
    return _now(keys)


def _later(keys: AsyncIterable[Any]) -> Callable[[int], Awaitable[list[Any]]]:
    source = aiter(keys)

    async def take(most: int) -> list[Any]:
        taken: list[Any] = []
        with suppress(StopAsyncIteration):
            while len(taken) < most:
                taken.append(await anext(source))
        return taken

    return take


def _now(keys: Iterable[Any]) -> Callable[[int], Awaitable[list[Any]]]:
    source = iter(keys)

    async def take(most: int) -> list[Any]:
        return list(islice(source, most))

    return take


async def with_generations(runtime: Runtime, verdicts: list[Verdict[V]]) -> list[Verdict[V]]:
    """The same, with generations that are missing made at once: not by every key's load for itself, which would then
    have no company in its query."""
    misses = [verdict for verdict in verdicts if isinstance(verdict, Miss)]
    absent = dict.fromkeys(name for miss in misses for name, raw in miss.generations.items() if raw is None)
    if not absent:
        return verdicts
    made = await runtime.generations_now(list(absent))

    def completed(miss: Miss) -> Miss:
        generations = {name: raw or made.get(name) for name, raw in miss.generations.items()}
        return msgspec.structs.replace(miss, generations=generations)

    return [completed(one) if isinstance(one, Miss) else one for one in verdicts]
