"""Puts of a write-behind strategy made into operations, with the cells that make them readable at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from asynccache.codecs import Packed
from asynccache.entry import plain_tail
from asynccache.keys import CellKey
from asynccache.policy import Duration
from asynccache.protocols import KeyValue
from asynccache.strategies.filling import new_value
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.verdicts import Recipe, storable
from asynccache.tokens import new_token
from asynccache.write_behind.layout import Op
from asynccache.write_behind.records import Records

__all__ = ["PutOps", "Recent"]

V = TypeVar("V")

_RECENT_SECONDS: Final = 0.1
"""How long generations that were read serve for the puts that follow: to read them anew would double the cost."""
_MAX_SEEN: Final = 1000


class Recent(NamedTuple):
    """Generations that were read a moment ago.

    Attributes:
        until: when the moment is over, by the monotonic clock.
        generations: what was read.
        tail: see `plain_tail`; None if nothing may be cached that carries them.
    """

    until: float
    generations: Mapping[str, bytes | None]
    tail: bytes | None


class PutOps(Generic[V]):
    """Makes operations of puts, and cells that carry generations as they were a moment ago, which is as right as now:
    what is stored with older ones is outdated at once, and read from the buffer instead.

    Args:
        runtime: reads generations.
        recipe: the kind of entry.
        records: encodes operations.
        cell: where the value of a key can be read.
    """

    def __init__(
        self, runtime: Runtime, recipe: Recipe[V], records: Records[V], cell: Callable[[KeyValue], CellKey]
    ) -> None:
        self._cell = cell
        self._runtime = runtime
        self._now = runtime.clock.monotonic
        self._recipe = recipe
        self._records = records
        self._seen: dict[tuple[str, ...], Recent] = {}

    def recent(self, names: tuple[str, ...]) -> Recent | None:
        """What was read a moment ago; None if nothing was."""
        found = self._seen.get(names)
        return found if found is not None and found.until > self._now() else None

    async def read(self, names: tuple[str, ...]) -> Recent:
        """What they are now; missing ones are made."""
        found = await self._runtime.generations_now(names)
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen[names] = recent = self.of(found)
        return recent

    def of(self, generations: Mapping[str, bytes | None]) -> Recent:
        """The same for generations that are known."""
        tags = [(name, raw) for name, raw in generations.items() if raw is not None]
        tail = plain_tail(self._recipe.codec.fingerprint, tags) if storable(generations) else None
        return Recent(self._now() + _RECENT_SECONDS, generations, tail)

    async def many(
        self,
        packed: Sequence[tuple[Any, V, Packed, tuple[str, ...]]],
        ttl: Duration | None,
    ) -> list[Op]:
        """The operations of many puts.

        Args:
            packed: key value, row, the same encoded, and the generations of its cell.
            ttl: see `op`.
        """
        every = tuple(dict.fromkeys(name for *_, names in packed for name in names))
        found = self.recent(every) or await self.read(every)
        seen = {names: self.of({n: found.generations[n] for n in names}) for names in {one[3] for one in packed}}
        return [self.op(key, value, one, seen[names], ttl) for key, value, one, names in packed]

    def op_without_cell(self, key: KeyValue, packed: Packed, ttl: Duration | None) -> Op:
        """The operation of a put that nobody reads from a cell; see `op`."""
        if ttl is not None:
            self._recipe.policy.with_ttl(ttl)  # raises as it would elsewhere
        return self._records.put_op(key, packed, None)

    def op(self, key: KeyValue, value: V, packed: Packed, seen: Recent, ttl: Duration | None) -> Op:
        """The operation of one put.

        Args:
            key: the key value.
            value: the row.
            packed: the same, encoded.
            seen: the generations that the cell carries.
            ttl: how long it is fresh; None for the policy's.
        """
        recipe = self._recipe
        if seen.tail is None or (recipe.admit is not None and not recipe.admit.admits_put(self._cell(key), value)):
            return self._records.put_op(key, packed, None)
        policy = recipe.policy if ttl is None else recipe.policy.with_ttl(ttl)
        life = policy.life_ms()
        if packed.compressed:
            readable = new_value(recipe, packed, new_token(), seen.generations, life)
            return self._records.put_op(key, packed, readable)
        return self._records.cached_put_op(key, packed, seen.tail, life)
