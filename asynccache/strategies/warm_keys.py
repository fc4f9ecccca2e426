"""The keys of a warming: taken from their stream, and what happened to each."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from asynccache.errors import InvalidKey
from asynccache.strategies.loading import Load, LoadContext
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.verdicts import Miss, Question, Recipe, Verdict
from asynccache.strategies.warm_reports import WarmKeys
from asynccache.supervision import gather, logger

__all__ = ["Ask", "Asking", "Note", "taker", "with_generations"]

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


Ask: TypeAlias = Callable[[Any, Callable[[Load[V]], Load[V]]], Awaitable[Question[V]]]
"""Makes a question of a key, with its loader put through a function."""


class Asking(Generic[V]):
    """Makes questions of keys, whose values are stored however seldom they were requested.

    Args:
        name: the strategy.
        ask: makes one.
        awaited: whether that waits for something.
    """

    def __init__(self, name: str, ask: Ask[V], *, awaited: bool) -> None:
        self._name = name
        self._ask = ask
        self._awaited = awaited
        self._recipes: tuple[Recipe[V], Recipe[V]] | None = None  # the strategy's, and as it is used here

    async def questions(self, keys: list[Any]) -> tuple[list[tuple[Note[V], Question[V]]], int]:
        """Questions for a batch, each cell once; and how many are no keys."""
        refused = 0

        async def ask(key: Any) -> tuple[Note[V], Question[V]] | None:
            nonlocal refused
            note: Note[V] = Note(key)
            try:
                question = self._wanted(await self._ask(key, note.watch))
            except InvalidKey as error:
                if not refused:  # one of a batch: there may be millions
                    logger.warning("warming %s: %.100r is no key: %s", self._name, key, error)
                refused += 1
                return None
            note.cell = question.key
            return note, question

        asking = [ask(key) for key in keys]
        asked = await gather(asking) if self._awaited else [await one for one in asking]
        return list({found[1].key: found for found in asked if found is not None}.values()), refused

    def _wanted(self, question: Question[V]) -> Question[V]:
        recipe = question.recipe
        if recipe.admit is None:
            return question
        if self._recipes is None or self._recipes[0] is not recipe:
            self._recipes = (recipe, replace(recipe, admit=recipe.admit.asked_for()))
        return msgspec.structs.replace(question, recipe=self._recipes[1])


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
