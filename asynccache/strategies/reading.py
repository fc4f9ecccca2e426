"""The read path that all strategies share: look, wait or load, fill.

Invariant: what a call returns is never older than a write that had ended when the call began, and nothing older than an
ended write is left in the store. The steps that hold it are in `steps.py` (fills need a token that every write takes
away) and `single_flight.py` (who may share a load); here they are put in order:

    look     read the cell and the generations of its tags in one call; serve what is fresh
    refresh  serve what is stale, or what XFetch picks, while one reader of all processes loads
    join     share a load of this process that is young enough
    acquire  take the lease; whoever has it loads and fills; the others wait for the key to change
    bypass   while a writer is in flight, when the wait is over, or without Redis: load, and do not fill

A crash of the reader leaves a lease, which expires; a cancelled or failed load gives it back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.entry import is_generation
from asynccache.errors import LoadTimeout, StoreUnavailable
from asynccache.events import Counters, MissReason
from asynccache.stampede.early_refresh import should_refresh
from asynccache.stampede.lease import WaitingRoom
from asynccache.stampede.single_flight import Flight, SingleFlight
from asynccache.steps import Acquire, Ensure, Outcome, Refresh
from asynccache.stores.base import Store
from asynccache.stores.local import LocalEntries
from asynccache.strategies.filling import Filler, Filling, Loaded
from asynccache.strategies.looking import Looker
from asynccache.strategies.near import Near
from asynccache.strategies.verdicts import (
    MISSING,
    UNSURE,
    Hit,
    Miss,
    Missing,
    MissingGenerations,
    Question,
    Verdict,
    judge,
    proof,
    storable,
)
from asynccache.supervision import TaskOwner, gather
from asynccache.tokens import new_salt, new_token

__all__ = ["Reader"]

V = TypeVar("V")

_PATIENCE: Final = 3
"""How many leases a caller without a `load_timeout` waits for another process before it loads by itself."""


class Reader:
    """Reads entries of all kinds from one store.

    Args:
        store: holds the cells.
        counters: counts.
        max_concurrent_loads: most loads at once that no lease bounds, and most refreshes at once.
        keep_loads: lets a load go on after its last caller was cancelled.
        clock: reads time.
        room: where callers wait for keys to change; whoever sees a change wakes them.
        local: the local tier, if there is one.
    """

    direct: bool = True  # whether decorated functions may answer hits without it

    def __init__(
        self,
        store: Store,
        counters: Counters,
        *,
        max_concurrent_loads: int = 64,
        keep_loads: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        room: WaitingRoom | None = None,
        local: LocalEntries | None = None,
    ) -> None:
        self._local = local
        self._near = None if local is None else Near(local, counters)
        self._store = store
        self._count = counters
        self._clock = clock
        self._owner = TaskOwner("loads")
        self._flights: SingleFlight[Loaded[Any] | None] = SingleFlight(self._owner, keep=keep_loads)
        self._room = room or WaitingRoom()
        self._unleased = asyncio.Semaphore(max_concurrent_loads)
        self._refreshing: set[str] = set()
        self._max_refreshes = max_concurrent_loads
        self._looker = Looker(store, counters, self._near)
        self._filler = Filler(store, counters, self._owner, clock)

    @property
    def entries(self) -> LocalEntries | None:
        """The local tier, if there is one."""
        return self._local

    async def aclose(self) -> None:
        """Cancels loads and refreshes, and gives back their leases."""
        await self._owner.aclose()
        self._refreshing.clear()  # of tasks that were cancelled before their first step
        await self._filler.aclose()

    async def get(self, question: Question[V]) -> V | Missing | None:
        """Answers one read.

        Returns:
            The value; None if it does not exist; MISSING if nothing is cached and there is no loader.

        Raises:
            LoadTimeout, LoadCancelled, RecursiveLoad, and whatever the loader raises.
        """
        since = self._flights.moment()
        if self._near is not None:
            if (kept := self._near.find(question)) is not None:
                return self._near.hand_out(kept, question)
            return await self._answer(question, await self._looker.look(question), since)
        try:
            found = await self._store.read((question.key, *question.generations))
        except StoreUnavailable:
            return await self.go_on(question, None, since)
        value = self._looker.quick(question.recipe, question.generations, found)
        if value is not UNSURE:
            return cast("V", value)
        answer = await self.go_on(question, found, since)
        return answer  # noqa: RET504 - returned at once, mypy infers another V

    async def go_on(
        self, question: Question[V], found: Sequence[bytes | None] | None, since: int
    ) -> V | Missing | None:
        """Answers a read that `quick` could not.

        Args:
            question: what is asked for.
            found: the cell and the generations that were read for it; None if the store did not answer.
            since: what `moment` was before that.
        """
        verdict = self._looker.unavailable() if found is None else await self._looker.judge(question, found)
        return await self._answer(question, verdict, since)

    @property
    def looker(self) -> Looker:
        """Looks entries up, without counting."""
        return self._looker

    @property
    def cells(self) -> Store:
        """The store that it reads."""
        return self._store

    @property
    def moment(self) -> Callable[[], int]:
        """Tells the moment at which a call begins; see `SingleFlight.moment`."""
        return self._flights.moment

    async def _answer(self, question: Question[V], verdict: Verdict[V], since: int) -> V | Missing | None:
        if isinstance(verdict, Hit):
            return self._serve(question, verdict)
        self._missed(verdict)
        return await self.resolve(question, verdict, since)

    async def get_many(self, questions: Sequence[Question[V]]) -> list[V | Missing | None]:
        """Answers many reads; one call to the store finds all hits."""
        since = self._flights.moment()
        answers: list[V | Missing | None] = [MISSING] * len(questions)
        far = list(range(len(questions)))
        if self._near is not None:
            far = []
            for at, question in enumerate(questions):
                kept = self._near.find(question)
                if kept is None:
                    far.append(at)
                else:
                    answers[at] = self._near.hand_out(kept, question)
        misses: list[tuple[int, Miss]] = []
        for at, verdict in zip(far, await self._looker.look_many([questions[at] for at in far]), strict=True):
            if isinstance(verdict, Hit):
                answers[at] = self._serve(questions[at], verdict)
                continue
            self._missed(verdict)
            if questions[at].load is not None:
                misses.append((at, verdict))

        async def resolve(at: int, miss: Miss) -> None:
            answers[at] = await self.resolve(questions[at], miss, since)

        if len(misses) > 1:
            self._store.expect_company()
        await gather(resolve(at, miss) for at, miss in misses)
        return answers

    async def refresh(self, question: Question[V]) -> V | None:
        """Loads now, whatever is cached, and stores the result if no write or other load comes in between."""
        assert question.load is not None  # noqa: S101 - for the type checker; the callers all have one
        token, lease_ms = new_token(), question.recipe.policy.lease_ms
        leased: int | None = None
        generations: Mapping[str, bytes | None] = {}
        try:
            raw, generations = await self._looker.read(question)
            verdict = judge(raw, generations, question.recipe, self._store.now_ms())
            if isinstance(verdict, MissingGenerations):
                verdict = await self._looker.judge_again(question, raw, generations, verdict)
            if isinstance(verdict, Hit):
                reply = await self._store.apply(question.key, Refresh(token, lease_ms, verdict.entry.id, at_once=True))
            else:
                reply, generations = await self._acquire(question, token, verdict.dead, generations)
            if reply.outcome is Outcome.LEASED:
                if storable(generations):
                    leased = reply.now_ms
                else:
                    self._filler.release_later(question.key, token)
        except StoreUnavailable:
            self._count.store_failures += 1
        except asyncio.CancelledError:
            self._filler.release_later(question.key, token)  # it may have been acquired
            raise
        filling = Filling(question.key, question.recipe, question.load, generations, token, leased, refresh=True)
        loaded = await self._filler.run(filling)
        return loaded.value

    # -- serving

    def _serve(self, question: Question[V], hit: Hit[V]) -> V | None:
        if hit.stale:
            self._count.stale_hits += 1
        else:
            self._count.hits += 1
        if question.load is not None and self._due(question, hit):
            self._refreshing.add(question.key)
            self._owner.start(self.refresh_stale(question, hit))
        return hit.value

    def _due(self, question: Question[Any], hit: Hit[Any]) -> bool:
        entry, now = hit.entry, self._store.now_ms()
        early = question.recipe.policy.early
        return (
            (hit.stale or (early > 0 and should_refresh(now, entry.fresh_until, entry.cost_us / 1000, early)))
            and entry.refresh_until <= now
            and question.key not in self._refreshing
            and len(self._refreshing) < self._max_refreshes
        )

    async def refresh_stale(self, question: Question[V], hit: Hit[V], *, crowded: bool = False) -> None:
        """Loads what is still served, unless somebody is at it; raises nothing. `crowded`: with others, just found."""
        assert question.load is not None  # noqa: S101 - for the type checker
        token = new_token()
        try:
            # The generations must be those from before the load, and may be newer than the hit's.
            known = {key: raw for key, raw in hit.entry.tags if key in question.generations} if crowded else None
            generations = known or (await self._looker.read(question))[1]
            if not storable(generations):
                return  # the hit is outdated by now, and the next reader will see it
            reply = await self._store.apply(question.key, Refresh(token, question.recipe.policy.lease_ms, hit.entry.id))
            if reply.outcome is not Outcome.LEASED:
                return
            self._count.refreshes += 1
            filling = Filling(
                question.key,
                question.recipe,
                question.load,
                generations,
                token,
                reply.now_ms,
                refresh=True,
                crowded=crowded,
            )
            await self._filler.run(filling)
        except StoreUnavailable:
            self._count.store_failures += 1
        except asyncio.CancelledError:
            self._filler.release_later(question.key, token)  # it may have been acquired
            raise
        except Exception:  # noqa: BLE001 - counted by the filler; the old value goes on being served
            return
        finally:
            self._refreshing.discard(question.key)

    # -- missing

    def _missed(self, miss: Miss) -> None:
        self._count.misses += 1
        if miss.reason is MissReason.UNREADABLE:
            self._count.unreadable += 1

    async def resolve(
        self, question: Question[V], miss: Miss, since: int, *, apart: bool = False
    ) -> V | Missing | None:
        """Answers a read that missed: `since` is what `moment` was before it looked; `apart` from the cell's loads."""
        if question.load is None:
            return MISSING
        flight_key = (question.key, question.recipe.codec.fingerprint, apart)
        self._flights.check(flight_key)
        policy = question.recipe.policy
        patience = policy.timeout_seconds or _PATIENCE * policy.lease_ms / 1000
        deadline: float | None = None
        attempt = 0
        while True:
            flight = self._flights.find(flight_key, since, proof(miss.lease, miss.generations))
            started = flight is None
            older = flight is not None and flight.older(since)
            if flight is None:
                waited = False
                if miss.reason is MissReason.LEASED:
                    now = self._clock.monotonic()
                    if deadline is None:
                        deadline = now + patience
                        self._count.waits += 1
                    waited = now >= deadline
                    if not waited:
                        await self._room.wait(question.key, attempt)
                        attempt += 1
                        verdict = await self._looker.look(question)
                        if isinstance(verdict, Hit):
                            return verdict.value
                        miss = verdict
                        continue
                bypass = waited or miss.reason in {MissReason.WRITING, MissReason.UNAVAILABLE}
                flight = self._flights.start(flight_key, partial(self._fly, question, miss, bypass))
            else:
                self._count.joins += 1
            loaded = await flight.join()
            # Whether late tags were invalidated before this call, an older load cannot say: look.
            if loaded is not None and not (older and loaded.late_tags):
                return loaded.value if started else loaded.copy(question.recipe.codec)
            verdict = await self._looker.look(question)
            if isinstance(verdict, Hit):
                return verdict.value
            miss = verdict

    async def _fly(
        self, question: Question[V], miss: Miss, bypass: bool, flight: Flight[Loaded[Any] | None]
    ) -> Loaded[V] | None:
        """One load of this process; None if another reader got in between, so that the callers must look again."""
        assert question.load is not None  # noqa: S101 - for the type checker
        flight.board()
        crowded = self._flights.crowded
        if crowded:
            self._store.expect_company()
        token = new_token()
        leased: int | None = None
        # Seen before the load, as an entry's generations must be.
        generations = miss.generations
        admit = question.recipe.admit
        # Asked before the lease, so that what will not be stored leaves nothing in Redis, and nobody waits for it.
        refused = admit is not None and not admit.requested(question.key)
        if not (bypass or refused or any(raw is not None and not is_generation(raw) for raw in generations.values())):
            try:
                reply, generations = await self._acquire(question, token, miss.dead, generations)
            except StoreUnavailable:
                self._count.store_failures += 1
            except asyncio.CancelledError:
                self._filler.release_later(question.key, token)  # it may have been acquired
                raise
            else:
                if reply.outcome in {Outcome.HELD, Outcome.VALUE}:
                    return None
                if reply.outcome is Outcome.LEASED:
                    if storable(generations):
                        flight.proof = proof(token, generations)
                        leased = reply.now_ms
                    else:
                        self._filler.release_later(question.key, token)
        filling = Filling(
            question.key, question.recipe, question.load, generations, token, leased, refresh=False, crowded=crowded
        )
        if leased is not None or (refused and not bypass):
            return await self._filler.run(filling, flight.begin)
        limit = question.recipe.policy.timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await self._unleased.acquire()
        except TimeoutError:
            self._count.load_failures += 1
            raise LoadTimeout(
                f"the load of {question.key!r} waited load_timeout={limit:g} s for its turn; max_concurrent_loads run"
            ) from None
        try:
            self._count.bypasses += 1
            return await self._filler.run(filling, flight.begin)
        finally:
            self._unleased.release()

    async def _acquire(
        self, question: Question[Any], token: bytes, dead: bytes, generations: Mapping[str, bytes | None]
    ) -> tuple[Any, dict[str, bytes | None]]:
        """Takes the lease, and in the same call makes generations that are missing."""
        absent = [key for key, raw in generations.items() if raw is None]
        acquire = (question.key, Acquire(token, question.recipe.policy.lease_ms, dead))
        if not absent:
            return await self._store.apply(*acquire), dict(generations)
        reply, *made = await self._store.apply_many([acquire, *((key, Ensure(new_salt())) for key in absent)])
        return reply, {**generations, **{key: made[at].cell for at, key in enumerate(absent)}}
