"""Reads that this process answers by itself, out of its local tier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from asynccache.events import Counters
from asynccache.stampede.early_refresh import early_refresh_ms
from asynccache.stores.local import Kept, LocalEntries, Ticket
from asynccache.strategies.verdicts import Hit, MissingGenerations, Question, Verdict

__all__ = ["Near"]

V = TypeVar("V")


class Near:
    """The local tier as the read path uses it: looks there first, and keeps what was read from Redis."""

    def __init__(self, entries: LocalEntries, counters: Counters) -> None:
        self._entries = entries
        self._count = counters

    def find(self, question: Question[Any]) -> Kept | None:
        """The entry that answers a question, if there is one."""
        kept = self._entries.get(question.key)
        if kept is None or kept.fingerprint != question.recipe.codec.fingerprint:
            return None
        return kept if kept.generations == question.generations else None

    def hand_out(self, kept: Kept, question: Question[V]) -> V | None:
        """Its value, which the caller cannot change for others."""
        self._count.local_hits += 1
        value: V | None = kept.value
        return value if kept.payload is None else question.recipe.codec.unpack(kept.payload, kept.compressed)

    def expect(self, questions: Sequence[Question[Any]]) -> list[Ticket | None]:
        """Placeholders for cells that are about to be read; to be given to `keep`, and then to `forget`."""
        return [self._entries.expect(question.key, question.generations) for question in questions]

    def keep(
        self, ticket: Ticket | None, question: Question[V], verdict: Verdict[V] | MissingGenerations, now_ms: int
    ) -> None:
        """Keeps what was read, if it is fresh and nothing has changed meanwhile.

        An entry with more tags than the question named is not kept: changes of these were not expected.
        """
        if ticket is None or not isinstance(verdict, Hit) or verdict.stale:
            return
        entry, recipe = verdict.entry, question.recipe
        # Asked for again a little before it expires, as XFetch would: else it would expire for all at once.
        early_ms = early_refresh_ms(entry.cost_us / 1000, recipe.policy.early)
        life = (entry.fresh_until - now_ms - early_ms) / 1000
        self._entries.keep(ticket, verdict.value, entry.payload, entry.compressed, recipe.codec.fingerprint, life)

    def forget(self, tickets: Sequence[Ticket | None]) -> None:
        """Takes placeholders away."""
        for ticket in tickets:
            if ticket is not None:
                self._entries.forget(ticket)
