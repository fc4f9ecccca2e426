"""How write-behind strategies read: what fills their cells, and what lies on top of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

from asynccache.hot_keys.lists import HotList
from asynccache.protocols import ExactSource, KeyValue
from asynccache.strategies.base import found_only
from asynccache.strategies.loading import Load, LoadContext
from asynccache.strategies.overlay import Overlay
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.sources import AnySource, Loading
from asynccache.strategies.verdicts import Recipe
from asynccache.write_behind.buffer import Buffer
from asynccache.write_behind.exact import ExactReads
from asynccache.write_behind.memory_buffer import MemoryBuffer
from asynccache.write_behind.records import Records

__all__ = ["BufferedReads"]

V = TypeVar("V")


class BufferedReads(Generic[V]):
    """The reading half of one write-behind strategy.

    Where the buffer is in Redis, cells hold rows with all that waits, which every process sees. Where it is in this
    process, they hold what the database holds, and what waits is laid over them.

    Args:
        runtime: counts and records reads.
        recipe: the kind of entry.
        buffer: where writes wait.
        records: reads them.
        source: loads rows; None if nothing does.
        hot: counts the keys that are asked for; None if nobody wants to know.

    Attributes:
        loading: fills the cells.
        overlay: reads on top of them; None where they hold what waits.
        adjustable: whether rows can be read together with the ids of applied batches, or nothing reads them.
    """

    def __init__(
        self,
        runtime: Runtime,
        recipe: Recipe[V],
        buffer: Buffer | MemoryBuffer,
        records: Records[V],
        source: AnySource[V] | None,
        hot: HotList | None,
    ) -> None:
        self._source: Loading[V] | None = None if source is None else Loading(source)
        self._exact_source: ExactSource[V] | None = source if isinstance(source, ExactSource) else None
        self._reads: ExactReads[V] = ExactReads(buffer, records, None if source is None else self._load_exact)
        self._exact: Loading[V] = Loading(self._load_many)
        self.adjustable = source is None or self._exact_source is not None
        self.overlay: Overlay[V] | None = None
        self.loading = self._exact
        if isinstance(buffer, MemoryBuffer):
            self.overlay = Overlay(runtime, recipe, buffer, records, self._exact, hot)
            self.loading = _Nowhere() if self._source is None else self._source

    async def aclose(self) -> None:
        """Cancels queries under way."""
        for loading in (self._exact, self.loading, self._source):
            if loading is not None:
                await loading.aclose()

    async def _load_many(self, keys: Sequence[Any]) -> dict[Any, V]:
        return found_only(await self._reads.read(keys))

    async def _load_exact(self, keys: Sequence[Any], ids: Sequence[UUID]) -> tuple[Mapping[Any, V], frozenset[UUID]]:
        if self._exact_source is not None:
            return await self._exact_source.load_exact(keys, ids)
        assert self._source is not None  # noqa: S101 - it is not called without one
        return await self._source.load_many(keys), frozenset()

    def __repr__(self) -> str:
        return f"BufferedReads(overlay={self.overlay is not None})"


class _Nowhere(Loading[Any]):
    """Finds nothing, and says nothing about what others may find."""

    def __init__(self) -> None:
        super().__init__(_nothing)

    def loader(self, key: KeyValue) -> Load[Any]:  # noqa: ARG002
        async def load(context: LoadContext) -> None:
            context.skip()

        return load


async def _nothing(keys: Sequence[Any]) -> dict[Any, Any]:  # noqa: ARG001
    return {}
