# ruff: noqa: S101 - a test suite, although it is shipped
"""What every store must do: a suite that holds a store to `steps.transition`, step by step and byte by byte.

Subclass in a test module, and give it a store::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            async with my_store() as store:
                yield store

`RawStoreContract` goes further for stores whose cells can be written and inspected from outside: it starts from cells
that no history of steps leads to, such as another version's or damaged ones. Needs pytest, pytest-asyncio in auto mode
and hypothesis.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from asynccache.clock import SYSTEM_CLOCK
from asynccache.entry import (
    GENERATION_BYTES,
    HEADER_BYTES,
    NO_TOKEN,
    NewValue,
    Writer,
    Writing,
    generation_micros,
    is_generation,
    pack_generation,
    with_refresh,
)
from asynccache.steps import (
    Acquire,
    BeginWrite,
    Bump,
    EndBump,
    EndWrite,
    Ensure,
    Extend,
    Fill,
    Invalidate,
    Outcome,
    Put,
    Refresh,
    Release,
    Reply,
    Step,
    Transition,
    transition,
)
from asynccache.stores.base import Store

__all__ = ["RawStoreContract", "StoreContract", "cells", "steps"]

TOKENS: Final = (b"token--A", b"token--B", b"token--C")
IDS: Final = (b"value--1", b"value--2")
LIVES: Final = (60_000, 90_000)
FAR_MS: Final = 20_000
"""How far from now a time must be for a test not to depend on how fast it runs."""
SLACK_MS: Final = 250

EXAMPLES = hypothesis.settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def values() -> st.SearchStrategy[NewValue]:
    """Values on their way into a cell."""
    return st.builds(
        lambda payload, life, stale, id_, tags, missing, packed, cost: NewValue(
            payload,
            life,
            life + stale,
            id_,
            codec=3,
            compressed=packed,
            not_found=missing,
            cost_us=cost,
            fingerprint=b"shape--1",
            tags=tags,
        ),
        st.binary(max_size=40),
        st.sampled_from(LIVES),
        st.sampled_from((0, 30_000)),
        st.sampled_from(IDS),
        st.sampled_from(((), (("ns:g:users", pack_generation(5, b"salt")), ("ns:g:é", pack_generation(6, b"salt"))))),
        st.booleans(),
        st.booleans(),
        st.integers(0, 2**40),
    )


def steps() -> st.SearchStrategy[Step]:
    """Every step, with tokens and ids that often meet those in the cell."""
    token, life, id_ = st.sampled_from(TOKENS), st.sampled_from(LIVES), st.sampled_from(IDS)
    salt = st.binary(min_size=4, max_size=4)
    return st.one_of(
        st.builds(Acquire, token, life, st.sampled_from((b"", *IDS))),
        st.builds(Fill, token, values()),
        st.builds(Extend, token, life),
        st.builds(Release, token, st.sampled_from((0, FAR_MS))),
        st.builds(Refresh, token, life, id_),
        st.builds(BeginWrite, token, life),
        st.builds(EndWrite, token, st.none() | values()),
        st.just(Invalidate()),
        st.builds(Put, values()),
        st.builds(Ensure, salt),
        st.builds(Bump, salt),
        st.builds(EndBump, token, salt),
    )


def cells(now_ms: int) -> st.SearchStrategy[bytes | None]:
    """Every kind of cell, as it may stand at `now_ms`; damaged ones and another version's among them."""
    times = st.sampled_from((now_ms - FAR_MS, now_ms + FAR_MS, now_ms + 2 * FAR_MS))
    value = st.builds(lambda new: new.pack(now_ms), values())
    refreshed = st.builds(with_refresh, value, st.sampled_from((NO_TOKEN, *TOKENS)), times)
    writers = st.lists(st.sampled_from(TOKENS), unique=True, max_size=3)
    writing = st.builds(
        lambda overlapped, tokens, deadlines: Writing(
            overlapped, tuple(Writer(token, deadline) for token, deadline in zip(tokens, deadlines, strict=False))
        ).pack(),
        st.booleans(),
        writers,
        st.tuples(times, times, times),
    )
    generation = st.builds(
        pack_generation,
        st.sampled_from(((now_ms - FAR_MS) * 1000, (now_ms + FAR_MS) * 1000)),
        st.binary(min_size=4, max_size=4),
    )
    whole = st.one_of(
        value, refreshed, st.builds(b"L".__add__, st.sampled_from(TOKENS)), writing, generation
    )  # fmt: skip
    return st.one_of(
        st.none(),
        whole,
        st.builds(lambda raw, size: raw[:size], whole, st.integers(1, 80)),  # cut short
        st.builds(lambda raw: raw[:1] + b"\x02" + raw[2:], refreshed),  # another version
        st.builds(lambda raw: raw[: HEADER_BYTES - 2] + b"\xff\xff" + raw[HEADER_BYTES:], refreshed),  # bad tags
        st.builds(lambda head, rest: head + rest, st.sampled_from((b"?", b"", b"v", b"\x00")), st.binary(min_size=1)),
    )


def all_steps() -> list[Step]:
    """Each step once in every way that it can go, for the token A."""
    new = NewValue(b"new", LIVES[0], LIVES[1], IDS[1], tags=(("ns:g:users", pack_generation(5, b"salt")),))
    return [
        *(Acquire(TOKENS[0], LIVES[0], dead) for dead in (b"", *IDS)),
        Fill(TOKENS[0], new),
        Extend(TOKENS[0], LIVES[0]),
        *(Release(TOKENS[0], retry) for retry in (0, FAR_MS)),
        *(Refresh(TOKENS[0], LIVES[0], id_) for id_ in IDS),
        BeginWrite(TOKENS[0], LIVES[0]),
        *(EndWrite(TOKENS[0], value) for value in (None, new)),
        Invalidate(),
        Put(new),
        Ensure(b"salt"),
        Bump(b"salt"),
        EndBump(TOKENS[0], b"salt"),
    ]


def all_cells(now_ms: int) -> list[bytes | None]:
    """Every kind of cell that a step may tell from others, for the token A."""
    past, soon, late = now_ms - FAR_MS, now_ms + FAR_MS, now_ms + 2 * LIVES[1]
    value = NewValue(b"old", LIVES[0], LIVES[0], IDS[0]).pack(now_ms)
    values = [with_refresh(value, token, until) for token in (NO_TOKEN, *TOKENS[:2]) for until in (past, soon)]
    mine = [(), (Writer(TOKENS[0], soon),), (Writer(TOKENS[0], past),)]
    others = [(), *((Writer(TOKENS[1], until),) for until in (past, soon, late))]
    third = [(), (Writer(TOKENS[2], past),), (Writer(TOKENS[2], soon),)]
    writing = [
        Writing(overlapped, (*one, *two, *three)).pack()
        for overlapped in (False, True)
        for one in mine
        for two in others
        for three in third
    ]
    generations = [pack_generation(micros * 1000, b"then") for micros in (past, soon)]
    whole = [*values, b"L" + TOKENS[0], b"L" + TOKENS[1], *writing, *generations]
    other_version = value[:1] + b"\x02" + value[2:]
    damaged = [
        value[: HEADER_BYTES - 2] + b"\xff\xff",
        other_version,
        value[:-10],
        b"W",
        b"W0x",
        b"L",
        b"?",
        b"\x00" * 60,
    ]
    return [None, *whole, *damaged]


def check(
    before: bytes | None, expires_ms: int, step: Step, reply: Reply, cell: bytes | None, *, what: str = ""
) -> Transition:
    """Compares what a store made of a cell with what `transition` does, at the time the store says it was.

    Returns:
        What `transition` makes of it, with the store's own bytes where the two may differ.
    """
    after = transition(before, expires_ms, step, reply.now_ms)
    said = f"{what}{step!r} on {before!r}"
    assert reply.outcome is after.reply.outcome, f"{said}: replied {reply.outcome}, should {after.reply.outcome}"
    assert same(after.cell, cell), f"{said}: left {cell!r}, should leave {after.cell!r}"
    assert same(after.reply.cell, reply.cell), f"{said}: showed {reply.cell!r}, should show {after.reply.cell!r}"
    if reply.outcome in {Outcome.VALUE, Outcome.HELD} and not isinstance(step, Release):
        assert reply.cell == cell, f"{said}: showed another cell than stands there"
    else:
        assert reply.cell is None, f"{said}: showed a cell without need"
    return Transition(cell, after.expires_ms, reply)


def same(expected: bytes | None, found: bytes | None) -> bool:
    """Equal, but for the microseconds of a generation that began within one millisecond."""
    if expected != found and is_generation(expected) and is_generation(found):
        assert expected is not None
        assert found is not None
        later = generation_micros(found) - generation_micros(expected)
        return 0 <= later < 1000 and found[GENERATION_BYTES - 4 :] == expected[GENERATION_BYTES - 4 :]
    return expected == found


class StoreContract:
    """What a store must do, seen through its own methods only."""

    @pytest.fixture
    async def store(self) -> Any:
        """The store under test, open."""
        raise NotImplementedError("a subclass of StoreContract must have a fixture named `store`")

    @pytest.fixture
    def prefix(self) -> str:
        """Put in front of every key of this test."""
        return f"contract:{secrets.token_hex(6)}"

    @EXAMPLES
    @given(history=st.lists(steps(), min_size=1, max_size=8))
    async def test_any_history_of_steps_leaves_what_the_reference_leaves(
        self, store: Store, prefix: str, history: list[Step]
    ) -> None:
        key = f"{prefix}:{secrets.token_hex(6)}"
        cell, expires_ms = None, 0
        for at, step in enumerate(history):
            reply = await store.apply(key, step)
            (found,) = await store.read([key])
            after = check(cell, expires_ms, step, reply, found, what=f"step {at}: ")
            cell, expires_ms = after.cell, after.expires_ms

    @EXAMPLES
    @given(batch=st.lists(steps(), min_size=1, max_size=12))
    async def test_apply_many_does_the_same_as_apply(self, store: Store, prefix: str, batch: list[Step]) -> None:
        mark = secrets.token_hex(6)
        keys = [f"{prefix}:{mark}:{at}" for at in range(len(batch))]
        await store.apply_many([(key, Acquire(TOKENS[0], LIVES[0])) for key in keys])
        before = await store.read(keys)
        replies = await store.apply_many(list(zip(keys, batch, strict=True)))
        after = await store.read(keys)
        for old, step, reply, cell in zip(before, batch, replies, after, strict=True):
            check(old, reply.now_ms + LIVES[0], step, reply, cell)

    async def test_read_answers_in_the_order_asked_repeats_and_gaps_included(self, store: Store, prefix: str) -> None:
        there = [f"{prefix}:{at}" for at in range(5)]
        await store.apply_many([(key, Acquire(key.encode()[-8:], 60_000)) for key in there])
        asked = [there[3], f"{prefix}:missing", there[0], there[3], there[4]]
        found = await store.read(asked)
        assert list(found) == [b"L" + asked[0].encode()[-8:], None, *(b"L" + key.encode()[-8:] for key in asked[2:])]

    async def test_nothing_asked_is_nothing_answered(self, store: Store) -> None:
        assert list(await store.read([])) == []
        assert list(await store.apply_many([])) == []

    async def test_of_many_readers_exactly_one_gets_the_lease(self, store: Store, prefix: str) -> None:
        tokens = [b"reader%02d" % at for at in range(50)]
        replies = await asyncio.gather(*(store.apply(prefix, Acquire(token, 60_000)) for token in tokens))
        winners = [token for token, reply in zip(tokens, replies, strict=True) if reply.outcome is Outcome.LEASED]
        assert len(winners) == 1
        assert {reply.cell for reply in replies if reply.outcome is Outcome.HELD} == {b"L" + winners[0]}

    async def test_concurrent_reads_each_get_their_own_cell(self, store: Store, prefix: str) -> None:
        keys = [f"{prefix}:{at}" for at in range(200)]
        await store.apply_many([(key, Acquire(b"%08d" % at, 60_000)) for at, key in enumerate(keys)])
        answers = await asyncio.gather(*(store.read([key]) for key in keys))
        assert [answer[0] for answer in answers] == [b"L%08d" % at for at in range(200)]

    async def test_generations_never_repeat_even_after_one_was_lost(self, store: Store, prefix: str) -> None:
        seen = []
        for at in range(20):
            reply = await store.apply(prefix, Bump(at.to_bytes(4, "big")))
            seen.append(reply.cell)
            if at % 3 == 0:
                await store.apply(prefix, Invalidate())
        assert len(set(seen)) == 20

    async def test_a_lease_ends_by_itself(self, store: Store, prefix: str) -> None:
        await store.apply(prefix, Acquire(TOKENS[0], 30))
        await self._until_leased(store, prefix)

    async def test_a_writer_that_vanished_blocks_nobody_past_its_deadline(self, store: Store, prefix: str) -> None:
        await store.apply(prefix, BeginWrite(TOKENS[0], 30))
        await self._until_leased(store, prefix)

    async def test_a_value_is_gone_after_its_life(self, store: Store, prefix: str) -> None:
        await store.apply(prefix, Put(NewValue(b"x", 30, 30, IDS[0])))
        await self._until_leased(store, prefix)

    async def test_the_clock_is_the_one_steps_run_on(self, store: Store, prefix: str) -> None:
        reply = await store.apply(prefix, Invalidate())
        assert abs(store.now_ms() - reply.now_ms) < SLACK_MS

    async def test_a_caller_that_gives_up_leaves_the_others_alone(self, store: Store, prefix: str) -> None:
        keys = [f"{prefix}:{at}" for at in range(20)]
        await store.apply_many([(key, Acquire(b"%08d" % at, 60_000)) for at, key in enumerate(keys)])
        tasks = [asyncio.ensure_future(_first(store, key)) for key in keys]  # noqa: TID251 - awaited below
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [a for a in answers if not isinstance(a, BaseException)] == [
            b"L%08d" % at for at, a in enumerate(answers) if not isinstance(a, BaseException)
        ]
        assert len([a for a in answers[1::2] if isinstance(a, BaseException)]) == 0
        assert list(await store.read(keys)) == [b"L%08d" % at for at in range(20)]

    async def _until_leased(self, store: Store, key: str) -> None:
        async with asyncio.timeout(10):
            while (await store.apply(key, Acquire(TOKENS[1], 60_000))).outcome is not Outcome.LEASED:  # noqa: ASYNC110 - servers signal no event
                await asyncio.sleep(0.005)


class RawStoreContract(StoreContract):
    """What a store must do from any cell, for stores whose cells can be written and inspected from outside."""

    async def seed(self, store: Any, key: str, cell: bytes, life_ms: int) -> None:
        """Puts `cell` under `key` for `life_ms` milliseconds, whatever stood there."""
        raise NotImplementedError

    async def life_ms(self, store: Any, key: str) -> int | None:
        """How many milliseconds `key` has left; None if it is empty."""
        raise NotImplementedError

    async def test_every_step_from_every_kind_of_cell_does_what_the_reference_does(
        self, store: Store, prefix: str
    ) -> None:
        for step in all_steps():
            cells = all_cells(store.now_ms())
            await asyncio.gather(*(self._does(store, f"{prefix}:{secrets.token_hex(6)}", cell, step) for cell in cells))

    @EXAMPLES
    @given(data=st.data(), step=steps())
    async def test_any_step_from_any_cell_does_what_the_reference_does(
        self, store: Store, prefix: str, data: st.DataObject, step: Step
    ) -> None:
        cell = data.draw(cells(store.now_ms()), label="cell")
        await self._does(store, f"{prefix}:{secrets.token_hex(6)}", cell, step)

    async def _does(self, store: Store, key: str, cell: bytes | None, step: Step) -> None:
        begun, now, life = SYSTEM_CLOCK.monotonic(), store.now_ms(), 45_000
        if cell is not None:
            await self.seed(store, key, cell, life)
        reply = await store.apply(key, step)
        (found,) = await store.read([key])
        left = await self.life_ms(store, key)
        after = check(cell, now + life, step, reply, found)
        late = (SYSTEM_CLOCK.monotonic() - begun) * 1000 + SLACK_MS
        if after.cell is None:
            assert left is None
        else:
            assert left is not None, f"{step!r} on {cell!r}: the cell never expires"
            expected = after.expires_ms - reply.now_ms
            assert expected - late <= left <= expected + late, f"{step!r} on {cell!r}: {left} ms, should {expected}"


async def _first(store: Store, key: str) -> bytes | None:
    return (await store.read([key]))[0]
