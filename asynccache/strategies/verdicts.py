"""What a read makes of a cell: serve it, or why not. Pure: no I/O, no time of its own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from asynccache.codecs import Codec
from asynccache.codecs.upgrades import Upgrader
from asynccache.entry import (
    TOKEN_BYTES,
    Lease,
    Value,
    Writing,
    is_generation,
    parse_cell,
    plain_head,
)
from asynccache.errors import DecodeError, EncodeError
from asynccache.events import MissReason
from asynccache.keys import KeySpace
from asynccache.policy import Duration, Policy
from asynccache.stampede.early_refresh import LARGEST_DRAW
from asynccache.strategies.admitting import Admitting
from asynccache.strategies.loading import Load

__all__ = [
    "MISSING",
    "UNSURE",
    "Hit",
    "Miss",
    "Missing",
    "MissingGenerations",
    "Question",
    "Recipe",
    "Unsure",
    "Verdict",
    "judge",
    "proof",
    "storable",
]

V = TypeVar("V")
_ID_AT = 24


@dataclass(frozen=True, slots=True)
class Recipe(Generic[V]):
    """How one kind of entry is stored and loaded.

    Attributes:
        name: the strategy or function.
        codec: writes and reads values.
        policy: how entries live and are loaded.
        space: names the generations of tags that a loader adds.
        upgrades: readers of entries that older models have written.
        admit: which values are stored; None stores all.
        head: what its values begin with in the usual case.
        early: milliseconds before its expiry, for each microsecond of its cost, in which an entry may be refreshed.
    """

    name: str
    codec: Codec[V]
    policy: Policy
    space: KeySpace
    upgrades: Mapping[tuple[int, bytes], Upgrader[V]] = field(default_factory=dict)
    admit: Admitting | None = None
    head: bytes = field(init=False, default=b"")
    early: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", plain_head(self.codec.id))
        object.__setattr__(self, "early", self.policy.early * LARGEST_DRAW / 1000)

    def lasting(self, ttl: Duration | None) -> Recipe[V]:
        """The same kind of entry with another TTL; None leaves it."""
        return self if ttl is None else replace(self, policy=self.policy.with_ttl(ttl))


class Question(msgspec.Struct, Generic[V], frozen=True):
    """What one read asks for.

    Attributes:
        key: the cell.
        generations: keys of the generations that its entry carries, as far as they are known from the call.
        recipe: the kind of entry.
        load: loads it; None only looks.
    """

    key: str
    generations: tuple[str, ...]
    recipe: Recipe[V]
    load: Load[V] | None


class Hit(msgspec.Struct, Generic[V], frozen=True):
    """A value to serve; None is a remembered "not found"."""

    value: V | None
    entry: Value
    stale: bool


class Miss(msgspec.Struct, frozen=True):
    """Why nothing can be served.

    Attributes:
        reason: why.
        dead: id of a value that stands there and must not be served; empty if none does.
        lease: token of the reader that may fill the cell; None if nobody holds it.
        generations: what the read found under the keys of generations that it asked for.
    """

    reason: MissReason
    dead: bytes = b""
    lease: bytes | None = None
    generations: Mapping[str, bytes | None] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MissingGenerations:
    """The entry carries tags that were not read with it; read them, and judge again."""

    keys: tuple[str, ...]


class Missing:
    """The type of MISSING."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""Nothing is cached, and there was no loader: not the same as a remembered "not found", which is None."""


Verdict: TypeAlias = Hit[V] | Miss


class Unsure:
    """The type of UNSURE."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSURE"


UNSURE: Final = Unsure()
"""A cell has to be judged."""


def judge(
    raw: bytes | None, generations: Mapping[str, bytes | None], recipe: Recipe[V], now_ms: int
) -> Verdict[V] | MissingGenerations:
    """Decides about one cell.

    Args:
        raw: the cell.
        generations: what stands under the keys of generations, read with the cell or after it.
        recipe: the kind of entry expected.
        now_ms: the store's clock.
    """
    if raw is None:
        return Miss(MissReason.EMPTY)
    cell = parse_cell(raw)
    if isinstance(cell, Value):
        if cell.dead_after <= now_ms:
            return Miss(MissReason.EXPIRED, cell.id)
        for key, generation in cell.tags:
            if key not in generations:
                return MissingGenerations(tuple(name for name, _ in cell.tags))
            if generations[key] != generation:
                return Miss(MissReason.OUTDATED, cell.id)
        if len(cell.tags) < len(generations):
            # Stored by code that did not give it all the tags this reader relies on.
            return Miss(MissReason.OUTDATED, cell.id)
        codec = recipe.codec
        if cell.not_found:
            return Hit(None, cell, False)
        if cell.codec != codec.id or cell.fingerprint != codec.fingerprint:
            return _upgraded(cell, recipe, now_ms)
        try:
            value = codec.unpack(cell.payload, cell.compressed)
        except DecodeError:
            return Miss(MissReason.UNREADABLE, cell.id)
        return Hit(value, cell, cell.fresh_until <= now_ms)
    if isinstance(cell, Lease):
        return Miss(MissReason.LEASED, lease=cell.token)
    if isinstance(cell, Writing):
        return Miss(MissReason.WRITING)
    return Miss(MissReason.UNREADABLE, raw[_ID_AT : _ID_AT + TOKEN_BYTES])


def _upgraded(cell: Value, recipe: Recipe[V], now_ms: int) -> Verdict[V]:
    """An entry of an older model, as this one would have written it; a miss if it is nobody's that we know."""
    upgrader = recipe.upgrades.get((cell.codec, cell.fingerprint))
    if upgrader is None:
        return Miss(MissReason.UNREADABLE, cell.id)
    try:
        value, packed = upgrader(cell.payload, cell.compressed)
    except (DecodeError, EncodeError):
        return Miss(MissReason.UNREADABLE, cell.id)
    entry = msgspec.structs.replace(
        cell,
        codec=recipe.codec.id,
        fingerprint=recipe.codec.fingerprint,
        payload=packed.payload,
        compressed=packed.compressed,
    )
    return Hit(value, entry, cell.fresh_until <= now_ms)


def storable(generations: Mapping[str, bytes | None]) -> bool:
    """Whether an entry may carry these generations: none is missing, none is being written."""
    return all(is_generation(raw) for raw in generations.values())


def proof(token: bytes | None, generations: Mapping[str, bytes | None]) -> Hashable:
    """What a reader has seen: equal to a flight's, nothing was written since before that flight's load."""
    return None if token is None else (token, frozenset(generations.items()))
