"""Looking: what stands under keys and under the generations of their tags, judged, in one call to the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from asynccache.errors import StoreUnavailable
from asynccache.events import Counters, MissReason
from asynccache.stores.base import Store
from asynccache.stores.local import Ticket
from asynccache.strategies.near import Near
from asynccache.strategies.verdicts import Miss, MissingGenerations, Question, Verdict, judge

__all__ = ["Looker"]

V = TypeVar("V")


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

    async def read(self, question: Question[Any]) -> tuple[bytes | None, dict[str, bytes | None]]:
        found = await self._store.read((question.key, *question.generations))
        return found[0], dict(zip(question.generations, found[1:], strict=True))

    async def look(self, question: Question[V]) -> Verdict[V]:
        if self._near is not None:
            return (await self.look_many((question,)))[0]
        # The same for one question without a local tier, which is worth saying twice: this is the hot path.
        names = question.generations
        try:
            found = await self._store.read((question.key, *names))
            raw, generations = found[0], dict(zip(names, found[1:], strict=True))
            verdict = judge(raw, generations, question.recipe, self._store.now_ms())
            if isinstance(verdict, MissingGenerations):
                verdict = await self.judge_again(question, raw, generations, verdict)
        except StoreUnavailable:
            self._count.store_failures += 1
            return Miss(MissReason.UNAVAILABLE)
        return msgspec.structs.replace(verdict, generations=generations) if isinstance(verdict, Miss) else verdict

    async def look_many(self, questions: Sequence[Question[V]]) -> list[Verdict[V]]:
        tickets = self._near.expect(questions) if self._near is not None else ()
        try:
            return await self._judge_all(questions, tickets)
        except StoreUnavailable:
            self._count.store_failures += 1
            return [Miss(MissReason.UNAVAILABLE)] * len(questions)
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
