"""One load under a lease, and what becomes of its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

import msgspec

from asynccache.admission import Occasion
from asynccache.clock import Clock
from asynccache.codecs import Codec, Packed
from asynccache.entry import NewValue, generation_micros, is_generation
from asynccache.errors import EncodeError, LoadTimeout, StoreUnavailable, ValueTooLarge
from asynccache.events import Counters
from asynccache.steps import Ensure, Extend, Fill, Invalidate, Outcome, Release
from asynccache.stores.base import Store
from asynccache.strategies.loading import Load, LoadContext, loading
from asynccache.strategies.verdicts import Recipe
from asynccache.supervision import TaskOwner, logger
from asynccache.tokens import new_salt

__all__ = ["Filler", "Filling", "Loaded", "new_value"]

V = TypeVar("V")

_RETRY_MS: Final = 1000
"""How long nobody tries again to refresh a value after a refresh has failed."""


class Filling(msgspec.Struct, Generic[V], frozen=True):
    """One load and the right to store its result.

    Attributes:
        key: the cell.
        recipe: the kind of entry.
        load: loads it.
        generations: what the entry's tags were before the load.
        token: names the lease, and then the value.
        leased: when the lease was taken, on the store's clock; None if there is none and nothing may be stored.
        refresh: an older value stands in the cell.
        crowded: other keys are being loaded at the same time.
    """

    key: str
    recipe: Recipe[V]
    load: Load[V]
    generations: Mapping[str, bytes | None]
    token: bytes
    leased: int | None
    refresh: bool
    crowded: bool = False


class Loaded(msgspec.Struct, Generic[V], frozen=True):
    """What a load brought.

    Attributes:
        value: the value; None if it does not exist.
        packed: its encoding; None if it was not encoded.
        late_tags: the loader added tags, of which nobody knew before.
    """

    value: V | None
    packed: Packed | None
    late_tags: bool = False

    def copy(self, codec: Codec[V]) -> V | None:
        """The value for one more caller: decoded anew where it was encoded, so that callers cannot change each
        other's."""
        return self.value if self.packed is None else codec.unpack(*self.packed)


def new_value(
    recipe: Recipe[V],
    packed: Packed | None,
    token: bytes,
    generations: Mapping[str, bytes | None],
    life: tuple[int, int],
    cost_us: int = 0,
) -> NewValue:
    """A cell's content; `packed` is None for "not found", `life` is (fresh, dead) in milliseconds."""
    return NewValue(
        payload=b"" if packed is None else packed.payload,
        fresh_ms=life[0],
        dead_ms=life[1],
        id=token,
        codec=recipe.codec.id,
        compressed=packed is not None and packed.compressed,
        not_found=packed is None,
        cost_us=cost_us,
        fingerprint=recipe.codec.fingerprint,
        tags=tuple((key, raw) for key, raw in generations.items() if raw is not None),
    )


class Filler:
    """Runs loads: bounds their time, keeps their lease alive, stores what they bring or gives the lease back."""

    def __init__(self, store: Store, counters: Counters, owner: TaskOwner, clock: Clock) -> None:
        self._store = store
        self._count = counters
        self._owner = owner
        self._releases = TaskOwner("releases")
        self._told: set[str] = set()
        self._clock = clock

    async def run(self, filling: Filling[V], begin: Callable[[], None] | None = None) -> Loaded[V]:
        """Loads, and stores the result if that is allowed.

        Args:
            filling: what to load.
            begin: called right before the loader.

        Raises:
            LoadTimeout: the load took longer than its policy allows.
        """
        context = LoadContext(filling.key, refresh=filling.refresh, crowded=filling.crowded)
        self._count.loads += 1
        if begin is not None:
            begin()
        try:
            began = self._clock.monotonic()
            value = await self._load(filling, context)
            cost_us = int((self._clock.monotonic() - began) * 1e6)
            packed, fits = self._pack(filling, value)
            if filling.leased is not None:
                await self._store_result(filling, context, value, packed, fits, cost_us)
            return Loaded(value, packed, bool(context.late_tags))
        except BaseException as error:
            if isinstance(error, Exception):
                self._count.load_failures += 1
            if filling.leased is not None:
                self.release_later(filling.key, filling.token, _RETRY_MS if filling.refresh else 0)
            raise

    def release_later(self, key: str, token: bytes, retry_ms: int = 0) -> None:
        """Gives a lease back without making the caller wait for it."""
        self._releases.start(self._release(key, token, retry_ms))

    async def aclose(self) -> None:
        """Waits until the leases given back are; each takes no longer than the store's timeout."""
        await self._releases.join()

    async def _release(self, key: str, token: bytes, retry_ms: int) -> None:
        try:
            await self._store.apply(key, Release(token, retry_ms))
        except StoreUnavailable:  # the lease expires by itself
            self._count.store_failures += 1

    async def _load(self, filling: Filling[V], context: LoadContext) -> V | None:
        loop = asyncio.get_running_loop()
        beating: asyncio.Task[None] | None = None

        def beat() -> None:
            nonlocal beating
            beating = self._owner.start(self._keep_lease(filling))

        third = filling.recipe.policy.lease_ms / 3000
        timer = loop.call_later(third, beat) if filling.leased is not None else None
        limit = filling.recipe.policy.timeout_seconds
        try:
            with loading(context):
                if limit is None:
                    return await filling.load(context)
                bound = asyncio.timeout(limit)
                async with bound:
                    return await filling.load(context)
        except TimeoutError:
            if limit is not None and bound.expired():
                raise LoadTimeout(f"the load of {filling.key!r} took longer than load_timeout={limit:g} s") from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if beating is not None:
                beating.cancel()

    async def _keep_lease(self, filling: Filling[V]) -> None:
        lease_ms = filling.recipe.policy.lease_ms
        while True:
            try:
                reply = await self._store.apply(filling.key, Extend(filling.token, lease_ms))
            except StoreUnavailable:
                self._count.store_failures += 1
            else:
                if reply.outcome is Outcome.REFUSED:
                    return  # a write or an invalidation took it; the fill will be refused, too
            await asyncio.sleep(lease_ms / 3000)

    def _pack(self, filling: Filling[V], value: V | None) -> tuple[Packed | None, bool]:
        """The value's encoding, and whether it could be made. Also of what will not be stored: callers who share the
        load must not share an object that one of them may change."""
        if value is None:
            return None, True
        recipe = filling.recipe
        try:
            return recipe.codec.pack(value), True
        except ValueTooLarge:
            self._count.too_large += 1
        except EncodeError as error:
            # The caller asked for a value, and there is one: a cache must not be what makes it fail.
            self._count.unencodable += 1
            if recipe.name not in self._told:
                self._told.add(recipe.name)
                logger.warning("%s: served, and not cached: %s", filling.key, error)
        return None, False

    async def _store_result(
        self,
        filling: Filling[V],
        context: LoadContext,
        value: V | None,
        packed: Packed | None,
        fits: bool,
        cost_us: int,
    ) -> None:
        recipe = filling.recipe
        own = context.own_ttl if value is not None else context.own_negative_ttl
        life = recipe.policy.life_ms(found=value is not None, ttl=own)
        stored = fits and context.stored and life[0] > 0
        if stored and recipe.admit is not None:
            occasion = Occasion.REFRESH if filling.refresh else Occasion.LOAD
            stored = recipe.admit.admits(filling.key, value, occasion)
        try:
            generations = await self._late_generations(filling, context) if stored else None
            if generations is not None:
                new = new_value(recipe, packed, filling.token, generations, life, cost_us)
                reply = await self._store.apply(filling.key, Fill(filling.token, new))
                if reply.outcome is Outcome.STORED:
                    self._count.fills += 1
                else:
                    self._count.fills_refused += 1
            elif filling.refresh:
                # There is nothing to put in the old value's place, and it is no longer true.
                await self._store.apply(filling.key, Invalidate())
            else:
                await self._store.apply(filling.key, Release(filling.token))
        except StoreUnavailable:  # the lease expires by itself, or the journal holds the invalidation
            self._count.store_failures += 1

    async def _late_generations(self, filling: Filling[V], context: LoadContext) -> Mapping[str, bytes | None] | None:
        """The entry's generations with those of tags that the loader added; None if one began after the load did."""
        if not context.late_tags or filling.leased is None:
            return filling.generations
        keys = [filling.recipe.space.generation(tag) for tag in context.late_tags]
        late = dict(zip(keys, await self._store.read(keys), strict=True))
        for key, raw in late.items():
            if raw is None:
                # Whether it was invalidated and evicted during the load cannot be known: the next load will tell.
                await self._store.apply(key, Ensure(new_salt()))
                return None
            if not is_generation(raw) or generation_micros(raw) >= filling.leased * 1000:
                return None
        return {**filling.generations, **late}
