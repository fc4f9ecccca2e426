"""Reads on top of writes that wait in this process, of write-behind strategies with `durability="memory"`.

Invariant: an answer has every write of this process that was acknowledged before the call, each once, over what any
strategy that only reads would answer. The cells hold nothing that waits here (see `memory_buffer.py`).

    find     a put or a delete needs nothing below it: it is the answer, without Redis and without the database
    below    numbers are only adjusted, and no batch has the key: read the value below, from the cell as everybody does
    find     if still no batch has the key, and none of its partition was acknowledged meanwhile: adjust the value
    exact    else a batch with the key was under way. Whether the value below has it, the cell cannot say, and the
             database can: it is read together with the batch's id (see `exact.py`), past the cell, by all who ask
             at once in one flight

Nothing is written here, so a crash leaves nothing behind. While the database does not answer, numbers in a batch cannot
be read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

from asynccache.events import MissReason
from asynccache.hot_keys.lists import HotList
from asynccache.keys import CellKey
from asynccache.protocols import KeyValue
from asynccache.strategies.explaining import Explanation, NextRead, Reason
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.sources import Loading
from asynccache.strategies.verdicts import UNSURE, Miss, Missing, Question, Recipe, Unsure
from asynccache.supervision import gather
from asynccache.write_behind.buffer import Buffered
from asynccache.write_behind.records import Records

__all__ = ["Overlay"]

V = TypeVar("V")


class Holds(Protocol):
    """Where writes wait, in this process."""

    def cell(self, key: KeyValue) -> CellKey:
        """Where the readable value of a key stands."""
        ...

    def find(self, key: KeyValue) -> Buffered:
        """What is buffered of a key, now."""
        ...

    async def turn(self) -> None:
        """Now and then lets others have their turn."""
        ...


class Overlay(Generic[V]):
    """Reads what waits here, on top of what is below it.

    Args:
        runtime: reads, counts, and records.
        recipe: the kind of entry.
        buffer: where writes wait.
        records: reads them.
        exact: reads rows with all that waits.
        hot: counts the keys that are asked for; None if nobody wants to know.
    """

    def __init__(
        self,
        runtime: Runtime,
        recipe: Recipe[V],
        buffer: Holds,
        records: Records[V],
        exact: Loading[V],
        hot: HotList | None,
    ) -> None:
        self._runtime = runtime
        self._recipe = recipe
        self._buffer = buffer
        self._records = records
        self._exact = exact
        self._hot = hot

    async def get(self, key: Any, below: Callable[[], Awaitable[V | None]], *, counted: bool = True) -> V | None:
        """What a key is.

        Args:
            key: the key value.
            below: reads it as if nothing waited.
            counted: it is a request of the key, and recorded.
        """
        self._runtime.check()
        since = self._runtime.reader.moment()
        before = self._buffer.find(key)
        if before.pending is None and before.frozen is None:
            return await below()
        value = self._alone(before)
        if value is not UNSURE:
            await self._buffer.turn()
            return self._served(key, cast("V | None", value), counted=counted)
        if before.frozen is not None:
            return await self._load(key, since, counted=counted)
        found = await below()
        now = self._buffer.find(key)
        return self._records.fold(found, now.pending) if _same_below(before, now) else await self._exactly(key, since)

    async def get_many(
        self, keys: Iterable[Any], below: Callable[[Sequence[Any]], Awaitable[Mapping[Any, V | None]]]
    ) -> dict[Any, V | None]:
        """What many keys are; `below` reads some of them as if nothing waited."""
        self._runtime.check()
        since = self._runtime.reader.moment()
        seen = {key: self._buffer.find(key) for key in dict.fromkeys(keys)}
        alone = {key: self._alone(before) for key, before in seen.items()}
        asked = [key for key, value in alone.items() if value is UNSURE and seen[key].frozen is None]
        found = await below(asked) if asked else {}
        values: dict[Any, V | None] = {}
        loads: dict[Any, Callable[[Any, int], Awaitable[V | None]]] = {}
        for key, before in seen.items():
            value, now = alone[key], self._buffer.find(key)
            if value is not UNSURE:
                await self._buffer.turn()
                values[key] = self._served(key, cast("V | None", value))
            elif before.pending is None and before.frozen is None:
                values[key] = found.get(key)
            elif before.frozen is not None:
                loads[key] = self._load
            elif _same_below(before, now):
                values[key] = self._records.fold(found.get(key), now.pending)
            else:
                loads[key] = self._exactly
        if loads:
            self._exact.expect_company()
            values.update(zip(loads, await gather(load(key, since) for key, load in loads.items()), strict=True))
        return values

    def explain(self, key: Any) -> Explanation | None:
        """What the next read of a key would do; None if it would read the cell."""
        before = self._buffer.find(key)
        alone = self._alone(before) is not UNSURE
        if not alone and before.frozen is None:
            return None
        return Explanation(self._buffer.cell(key), NextRead.SERVE_PENDING if alone else NextRead.BYPASS, Reason.PENDING)

    def _alone(self, buffered: Buffered) -> V | Unsure | None:
        """What a key is, if that needs nothing below what waits; else UNSURE."""
        needs, fold = self._records.needs_below, self._records.fold
        if not needs(buffered.pending):
            return fold(None, buffered.pending)
        if not needs(buffered.frozen):
            return fold(fold(None, buffered.frozen), buffered.pending)
        return UNSURE

    async def _exactly(self, key: Any, since: int) -> V | None:
        """Reads a key exactly, for a read that was counted, and began at `since`."""
        question = Question(self._buffer.cell(key), (), self._recipe, self._exact.loader(key))
        answer = await self._runtime.reader.resolve(question, Miss(MissReason.WRITING), since, apart=True)
        return None if isinstance(answer, Missing) else answer

    async def _load(self, key: Any, since: int, *, counted: bool = True) -> V | None:
        recorder = self._runtime.recorder
        began = 0.0 if recorder is None else recorder.now()
        self._runtime.counters.misses += 1
        value: V | None = None
        try:
            value = await self._exactly(key, since)
        finally:
            if counted:
                self._note(key, value, began, 0.0 if recorder is None else recorder.now() - began)
        return value

    def _served(self, key: Any, value: V | None, *, counted: bool = True) -> V | None:
        recorder = self._runtime.recorder
        self._runtime.counters.local_hits += 1
        if counted:
            self._note(key, value, 0.0 if recorder is None else recorder.now(), None)
        return value

    def _note(self, key: Any, value: V | None, began: float, cost: float | None) -> None:
        if self._hot is not None:
            self._hot.count(key)
        if (recorder := self._runtime.recorder) is not None:
            recorder.record("get", self._buffer.cell(key), began, cost, missing=value is None)


def _same_below(before: Buffered, now: Buffered) -> bool:
    """Whether what is below a key's pending record was the same all the time: none of its batches came between."""
    return now.frozen is None and now.acks == before.acks
