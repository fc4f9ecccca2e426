"""Reading and writing with a record of it: what `Cache(record=...)` puts in the place of the reader and the writer.

A recording cache takes these instead of `Reader` and `Writer`; the others have no trace of recording in their paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from asynccache.observability.recording import Recorder
from asynccache.strategies.loading import Load, LoadContext
from asynccache.strategies.reading import Reader
from asynccache.strategies.verdicts import MISSING, Missing, Question
from asynccache.strategies.writing import Update, Writer

__all__ = ["RecordedReader", "RecordedWriter"]

V = TypeVar("V")


class _Timed(Generic[V]):
    """A loader that remembers how long it took."""

    __slots__ = ("_load", "_recorder", "cost")

    def __init__(self, load: Load[V], recorder: Recorder) -> None:
        self._load = load
        self._recorder = recorder
        self.cost: float | None = None

    async def __call__(self, context: LoadContext) -> V | None:
        began = self._recorder.now()
        value = await self._load(context)
        self.cost = self._recorder.now() - began
        return value


class RecordedReader(Reader):
    """A reader that records each read, answered by whatever tier, with the cost of its load.

    Args:
        recorder: takes the records.
        arguments, options: as for `Reader`.
    """

    direct: bool = False

    def __init__(self, recorder: Recorder, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._recorder = recorder

    async def get(self, question: Question[V]) -> V | Missing | None:
        began = self._recorder.now()
        question, timed = self._timed(question)
        answer: V | Missing | None = MISSING
        try:
            answer = await super().get(question)
        finally:
            self._read(began, question, timed, answer)
        return answer

    async def get_many(self, questions: Sequence[Question[V]]) -> list[V | Missing | None]:
        began = self._recorder.now()
        pairs = [self._timed(question) for question in questions]
        answers: list[V | Missing | None] = [MISSING] * len(pairs)
        try:
            answers = await super().get_many([question for question, _ in pairs])
        finally:
            for (question, timed), answer in zip(pairs, answers, strict=True):
                self._read(began, question, timed, answer)
        return answers

    def _read(self, began: float, question: Question[V], timed: _Timed[V] | None, answer: V | Missing | None) -> None:
        cost = None if timed is None else timed.cost
        self._recorder.record("get", question.key, began, cost, missing=answer is None)

    def _timed(self, question: Question[V]) -> tuple[Question[V], _Timed[V] | None]:
        if question.load is None:
            return question, None
        timed = _Timed(question.load, self._recorder)
        return msgspec.structs.replace(question, load=timed), timed


class RecordedWriter(Writer):
    """A writer that records what it ends and empties; tags and namespaces are not recorded.

    Args:
        recorder: takes the records.
        arguments, options: as for `Writer`.
    """

    def __init__(self, recorder: Recorder, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._recorder = recorder
        self._began: dict[bytes, float] = {}

    async def invalidate(self, cells: Sequence[str], generations: Sequence[str] = (), *, certain: bool = False) -> None:
        began = self._recorder.now()
        try:
            await super().invalidate(cells, generations, certain=certain)
        finally:
            for cell in dict.fromkeys(cells):
                self._recorder.record("invalidate", cell, began)

    async def begin(self, update: Update) -> None:
        await super().begin(update)
        if not update.counted:
            return
        # From one reply of Redis to the other: for as long as the marks stood there.
        self._began[update.token] = self._recorder.now()

    async def end(self, update: Update, *, failed: bool) -> None:
        try:
            await super().end(update, failed=failed)
        finally:
            self._ended(update, failed=failed)

    def leave(self, update: Update) -> None:
        super().leave(update)
        self._ended(update, failed=True)

    def _ended(self, update: Update, *, failed: bool) -> None:
        began = self._began.pop(update.token, None)
        if began is None:
            return
        cost = self._recorder.now() - began
        for cell in update.cells:
            op = "invalidate" if failed else "delete" if cell in update.deleted else "put"
            self._recorder.record(op, cell, began, cost)
