"""Looking: what stands under keys and under the generations of their tags, judged, in one call to the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from asynccache.entry import fresh_payload, is_generation, pack_tags
from asynccache.errors import DecodeError, StoreUnavailable
from asynccache.events import Counters, MissReason
from asynccache.stores.base import Store
from asynccache.stores.local import Ticket
from asynccache.strategies.near import Near
from asynccache.strategies.verdicts import UNSURE, Miss, MissingGenerations, Question, Recipe, Verdict, judge

__all__ = ["Looker"]

V = TypeVar("V")

_MAX_PACKED: Final = 1000
"""Combinations of tags whose generations are remembered in the form in which entries carry them."""


class Looker:
    """Looks entries up, and keeps what it saw in the local tier.

    Args:
        store: holds the cells.
        counters: counts.
        near: the local tier, if there is one.
    """

    def __init__(self, store: Store, counters: Counters, near: Near | None) -> None:
        self._store = store
        self._count = counters
        self._near = near
        self._packed: dict[tuple[str, ...], tuple[Sequence[bytes | None], bytes]] = {}

    async def read(self, question: Question[Any]) -> tuple[bytes | None, dict[str, bytes | None]]:
        found = await self._store.read((question.key, *question.generations))
        return found[0], dict(zip(question.generations, found[1:], strict=True))

    async def look(self, question: Question[V]) -> Verdict[V]:
        if self._near is not None:
            return (await self.look_many((question,)))[0]
        try:
            found = await self._store.read((question.key, *question.generations))
        except StoreUnavailable:
            return self.unavailable()
        return await self.judge(question, found)

    def quick(self, recipe: Recipe[Any], names: tuple[str, ...], found: Sequence[bytes | None]) -> Any:
        """What a read returns in the usual case: a fresh value of the expected type, with all its tags; else UNSURE.

        Args:
            recipe: the kind of entry.
            names: keys of the generations that it carries.
            found: what was read: the cell, and these generations.
        """
        raw, generations = found[0], found[1:]
        if raw is None:
            return UNSURE
        known = self._packed.get(names)
        if known is not None and known[0] == generations:  # as long as nobody invalidates any of them
            tags = known[1]
        elif all(map(is_generation, generations)):
            tags = pack_tags(zip(names, generations, strict=True))  # type: ignore[arg-type]  # none is None
            if len(self._packed) >= _MAX_PACKED:
                self._packed.clear()
            self._packed[names] = (generations, tags)
        else:
            return UNSURE
        codec = recipe.codec
        payload = fresh_payload(raw, recipe.head, codec.fingerprint, tags, self._store.now_ms(), recipe.early)
        if payload is None:
            return UNSURE
        try:
            value = codec.decode(payload)
        except DecodeError:
            return UNSURE
        self._count.hits += 1
        return value

    def unavailable(self) -> Miss:
        """What a look is that the store did not answer."""
        self._count.store_failures += 1
        return Miss(MissReason.UNAVAILABLE)

    async def judge(self, question: Question[V], found: Sequence[bytes | None]) -> Verdict[V]:
        """Judges what was read for a question: the cell, and the generations that the question names."""
        names = question.generations
        raw, generations = found[0], dict(zip(names, found[1:], strict=True))
        verdict = judge(raw, generations, question.recipe, self._store.now_ms())
        if isinstance(verdict, MissingGenerations):
            try:
                verdict = await self.judge_again(question, raw, generations, verdict)
            except StoreUnavailable:
                return self.unavailable()
        return msgspec.structs.replace(verdict, generations=generations) if isinstance(verdict, Miss) else verdict

    async def look_many(self, questions: Sequence[Question[V]]) -> list[Verdict[V]]:
        tickets = self._near.expect(questions) if self._near is not None else ()
        try:
            return await self._judge_all(questions, tickets)
        except StoreUnavailable:
            return [self.unavailable()] * len(questions)
        finally:
            if self._near is not None:
                self._near.forget(tickets)

    async def _judge_all(self, questions: Sequence[Question[V]], tickets: Sequence[Ticket | None]) -> list[Verdict[V]]:
        if len(questions) == 1:
            keys: Sequence[str] = (questions[0].key, *questions[0].generations)
        else:
            keys = list(dict.fromkeys(key for question in questions for key in (question.key, *question.generations)))
        found = dict(zip(keys, await self._store.read(keys), strict=True)) if keys else {}
        now = self._store.now_ms()
        verdicts: list[Verdict[V] | MissingGenerations] = []
        for at, question in enumerate(questions):
            generations = {key: found[key] for key in question.generations}
            verdict = judge(found[question.key], generations, question.recipe, now)
            if self._near is not None:
                self._near.keep(tickets[at], question, verdict, now)
            if isinstance(verdict, Miss):
                verdict = msgspec.structs.replace(verdict, generations=generations)
            verdicts.append(verdict)
        # Tags that only the loader knew: of all entries in one more read.
        late = dict.fromkeys(key for one in verdicts if isinstance(one, MissingGenerations) for key in one.keys)
        more = dict(zip(late, await self._store.read(list(late)), strict=True)) if late else {}
        return [
            self._judged_again(
                question,
                found[question.key],
                {key: found[key] for key in question.generations},
                {key: more[key] for key in verdict.keys},
            )
            if isinstance(verdict, MissingGenerations)
            else verdict
            for question, verdict in zip(questions, verdicts, strict=True)
        ]

    async def judge_again(
        self,
        question: Question[V],
        raw: bytes | None,
        generations: Mapping[str, bytes | None],
        missing: MissingGenerations,
    ) -> Verdict[V]:
        more = dict(zip(missing.keys, await self._store.read(missing.keys), strict=True))
        return self._judged_again(question, raw, generations, more)

    def _judged_again(
        self,
        question: Question[V],
        raw: bytes | None,
        generations: Mapping[str, bytes | None],
        more: Mapping[str, bytes | None],
    ) -> Verdict[V]:
        verdict = judge(raw, {**more, **generations}, question.recipe, self._store.now_ms())
        if isinstance(verdict, MissingGenerations):
            verdict = Miss(MissReason.OUTDATED)
        return msgspec.structs.replace(verdict, generations=generations) if isinstance(verdict, Miss) else verdict
