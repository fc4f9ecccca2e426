"""Decorated functions are compiled with their own parameters: every signature is called as it was before."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from asynccache import Cache, InvalidKey, LocalTier
from tests.support.caches import MakeCache
from tests.support.gates import until

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


async def plain(key: int) -> Any:
    return ["plain", key]


async def positional_only(a: int, b: int = 7, /, c: int = 8) -> Any:
    return ["positional", a, b, c]


async def keyword_only(a: int, *, b: int = 7, c: str) -> Any:
    return ["keyword", a, b, c]


async def variable(a: int, *args: int, flag: bool = False, **kwargs: str) -> Any:
    return ["variable", a, args, flag, sorted(kwargs.items())]


async def nothing() -> Any:
    return ["nothing"]


async def like_our_own(kept: int, entries: int, found: int = 3, *, wrapper: int = 4, names: int = 5) -> Any:
    return ["ours", kept, entries, found, wrapper, names]


class Odd:
    """A default that only the function knows how to use."""

    def __str__(self) -> str:
        return "); raise SystemExit('code from a default'"

    __repr__ = __str__


async def odd_default(a: int, b: Any = (1, "{x}", "$names"), c: Any = Odd()) -> Any:  # noqa: B008 - what is tested
    return ["odd", a, list(b), c.__class__.__name__]


CALLS: list[tuple[Callable[..., Any], str, tuple[Any, ...], dict[str, Any]]] = [
    (plain, "p:{key}", (1,), {}),
    (plain, "p:{key}", (), {"key": 1}),
    (positional_only, "o:{a}:{b}:{c}", (1,), {}),
    (positional_only, "o:{a}:{b}:{c}", (1, 2), {"c": 3}),
    (keyword_only, "k:{a}:{b}:{c}", (1,), {"c": "x"}),
    (keyword_only, "k:{a}:{b}:{c}", (), {"a": 1, "c": "x", "b": 2}),
    (variable, "v:{a}:{args}:{flag}:{kwargs}", (1, 2, 3), {"flag": True, "x": "y"}),
    (variable, "v:{a}:{args}:{flag}:{kwargs}", (1,), {}),
    (nothing, "n", (), {}),
    (like_our_own, "l:{kept}:{entries}:{found}:{wrapper}:{names}", (1, 2), {"names": 9}),
    (odd_default, "d:{a}", (1,), {}),
]


@pytest.fixture(params=["local tier", "redis"])
async def cache(request: pytest.FixtureRequest, make_cache: MakeCache) -> Cache:
    if request.param == "redis":
        return await make_cache()
    cache = await make_cache(local=LocalTier())
    entries = cache.runtime.reader.entries
    assert entries is not None
    await until(lambda: entries.on, "tracking")
    return cache


@pytest.mark.parametrize(("function", "key", "args", "kwargs"), CALLS)
@pytest.mark.parametrize("named", [True, False], ids=["template", "default key"])
async def test_a_call_is_the_call_that_was_made(
    cache: Cache,
    function: Callable[..., Any],
    key: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    named: bool,
) -> None:
    cached: Any = cache.cached(ttl=60, key=key if named else None, type=Any)(function)
    if function is odd_default and not named:
        with pytest.raises(InvalidKey):  # an Odd can be no part of a key
            await cached(*args, **kwargs)
        return
    expected = await function(*args, **kwargs)
    for _ in range(4):
        assert _as_lists(await cached(*args, **kwargs)) == _as_lists(expected)
    stats = cache.stats
    assert (stats.loads, stats.hits) == (1, 3)
    assert await cached.explain(*args, **kwargs)
    assert inspect.iscoroutinefunction(cached)
    assert inspect.signature(cached) == inspect.signature(function)
    assert (cached.__name__, cached.__doc__, cached.__wrapped__) == (function.__name__, function.__doc__, function)


async def test_a_wrong_call_is_refused_as_python_does(cache: Cache) -> None:
    cached: Any = cache.cached(ttl=60, key="k:{a}")(keyword_only)
    for args, kwargs in (((), {}), ((1,), {"unknown": 2, "c": "x"}), ((1, 2, 3), {}), ((1,), {})):
        with pytest.raises(TypeError):
            await cached(*args, **kwargs)
    assert cache.stats.reads == 0


async def test_what_a_loader_raises_shows_the_way_it_was_called(cache: Cache) -> None:
    @cache.cached(ttl=60, key="e:{key}")
    async def failing(key: int) -> int:
        raise LookupError(key)

    with pytest.raises(LookupError) as caught:
        await failing(1)
    shown = "".join(traceback.format_exception(caught.value))
    assert "raise LookupError(key)" in shown
    assert "test_wrappers" in shown


async def test_a_value_that_its_own_model_refuses_says_so_from_the_tier_too(make_cache: MakeCache) -> None:
    cache = await make_cache(local=LocalTier())
    entries = cache.runtime.reader.entries
    assert entries is not None
    await until(lambda: entries.on, "tracking")

    @cache.cached(ttl=60, key="r:{key}")
    async def rows(key: int) -> list[int]:
        return [key]

    while cache.stats.local_hits == 0:
        assert await rows(1) == [1]
    kept = entries.get(rows.key(1))
    assert kept is not None
    kept.payload = b"\xc1"  # no msgpack at all
    with pytest.raises(Exception, match="not a list"):
        await rows(1)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value
