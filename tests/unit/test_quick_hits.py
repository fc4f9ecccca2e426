"""The short way to serve a hit: it says the same as the long one, or nothing."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccache import Policy
from asynccache.clock import ManualClock
from asynccache.codecs import codec_for
from asynccache.entry import NewValue, Writing, pack_generation, with_refresh
from asynccache.events import Counters
from asynccache.keys import KeySpace
from asynccache.stores.memory import MemoryStore
from asynccache.strategies.looking import Looker
from asynccache.strategies.verdicts import UNSURE, Hit, Recipe, judge

SPACE = KeySpace(("shop",))
NAMES = (*SPACE.own_generations(), SPACE.generation("t"))
GENERATIONS = tuple(pack_generation(at, b"salt") for at in (1, 2))
NOW = 1_700_000_000_000


class Row(msgspec.Struct):
    name: str


WRONG = (
    "nothing",
    "codec",
    "shape",
    "tags",
    "one tag",
    "order",
    "life",
    "dead",
    "not found",
    "compressed",
    "cut",
    "kind",
)
WRONG_GENERATIONS = ("nothing", "missing", "written", "changed")


@st.composite
def cells(draw: st.DrawFn) -> tuple[bytes | None, tuple[bytes | None, ...]]:
    """A cell as a reader of `Row` expects it, and the generations of its tags; with at most one thing wrong in each."""
    wrong = draw(st.sampled_from(WRONG))
    codec = {"codec": codec_for(Any), "compressed": codec_for(Row, compress_above=0)}.get(wrong, codec_for(Row))
    packed = codec.pack(Row("ada" * 50))
    carried = {"tags": (), "one tag": GENERATIONS[:1], "order": GENERATIONS[::-1]}.get(wrong, GENERATIONS)
    life = draw(st.integers(-3, 1)) if wrong in {"life", "dead"} else draw(st.integers(1, 1000))
    new = NewValue(
        packed.payload,
        life,
        life + (0 if wrong == "dead" else draw(st.integers(0, 50))),
        b"valueid!",
        codec=codec.id,
        compressed=packed.compressed,
        not_found=wrong == "not found",
        cost_us=draw(st.sampled_from([0, 1, 10_000])),
        fingerprint=b"other---" if wrong == "shape" else codec.fingerprint,
        tags=tuple(zip(NAMES, carried, strict=False)),
    )
    raw: bytes | None = new.pack(NOW)
    assert raw is not None
    if draw(st.booleans()):
        raw = with_refresh(raw, b"token---", NOW + draw(st.integers(-10, 10)))
    if wrong == "cut":
        raw = raw[: draw(st.integers(0, len(raw) - 1))]
    elif wrong == "kind":
        raw = draw(st.sampled_from([None, b"L12345678", Writing(False, ()).pack(), b"W" + raw[1:]]))
    first = GENERATIONS[0]
    current: dict[str, tuple[bytes | None, ...]] = {
        "nothing": GENERATIONS,
        "missing": (first, None),
        "written": (first, b"W0"),
        "changed": (first, pack_generation(3, b"salt")),
    }
    return raw, current[draw(st.sampled_from(WRONG_GENERATIONS))]


@given(st.lists(cells(), min_size=1, max_size=3), st.sampled_from([0.0, 1.0]))
@settings(max_examples=500)
def test_a_hit_found_the_short_way_is_the_fresh_hit_that_the_long_way_finds(
    read: list[tuple[bytes | None, tuple[bytes | None, ...]]], early: float
) -> None:
    counters = Counters()
    looker = Looker(MemoryStore(clock=ManualClock(NOW / 1000)), counters, None)
    recipe: Recipe[Any] = Recipe("row", codec_for(Row), Policy(ttl=5, early=early), SPACE)
    served = 0
    for raw, generations in read:  # one after the other, so that what was remembered of the last does not hold
        long = judge(raw, dict(zip(NAMES, generations, strict=True)), recipe, NOW)
        short = looker.quick(recipe, NAMES, (raw, *generations))
        if short is not UNSURE:
            served += 1
            assert isinstance(long, Hit)
            assert (long.value, long.stale) == (short, False)
        elif isinstance(long, Hit) and not long.stale and early == 0:
            # What it leaves to the long way, and nothing else.
            assert long.entry.compressed or long.entry.not_found
    assert counters.hits == served


def test_the_usual_hit_is_found_the_short_way() -> None:
    codec = codec_for(Row)
    new = NewValue(
        codec.encode(Row("ada")),
        60_000,
        60_000,
        b"valueid!",
        codec=codec.id,
        cost_us=1000,
        fingerprint=codec.fingerprint,
        tags=tuple(zip(NAMES, GENERATIONS, strict=True)),
    )
    looker = Looker(MemoryStore(clock=ManualClock(NOW / 1000)), Counters(), None)
    recipe: Recipe[Any] = Recipe("row", codec, Policy(ttl=60), SPACE)
    assert looker.quick(recipe, NAMES, (new.pack(NOW), *GENERATIONS)) == Row("ada")
