"""Decorated functions and methods as a user types them."""

import asyncio
import inspect
from dataclasses import dataclass

import pytest

from asynccache import Cache, ConfigurationError, InvalidKey, MissingTTL, NextRead, Reason, current_load
from tests.support.caches import MakeCache


@dataclass
class User:
    id: int
    name: str


async def test_a_decorated_function_stays_an_async_function(cache: Cache) -> None:
    @cache.cached(ttl="5m", key="user:{user_id}")
    async def get_user(user_id: int) -> User:
        """Loads a user."""
        return User(user_id, "Ada")

    assert inspect.iscoroutinefunction(get_user)
    assert get_user.__name__ == "get_user"  # type: ignore[attr-defined]
    assert get_user.__doc__ == "Loads a user."
    assert list(inspect.signature(get_user).parameters) == ["user_id"]


async def test_calls_are_cached_by_their_arguments(cache: Cache, namespace: str) -> None:
    calls = []

    @cache.cached(ttl=60, key="user:{user_id}", tags=["users", "user:{user_id}"])
    async def get_user(user_id: int) -> User:
        calls.append(user_id)
        return User(user_id, f"v{len(calls)}")

    assert await get_user(1) == await get_user(user_id=1) == User(1, "v1")
    assert await get_user(2) == User(2, "v2")
    assert get_user.key(1) == f"{namespace}:user:1"
    await get_user.invalidate(1)
    assert await get_user(1) == User(1, "v3")
    assert await get_user.refresh(1) == User(1, "v4")
    assert await get_user(1) == User(1, "v4")
    await cache.invalidate_tags("user:2")
    assert await get_user(2) == User(2, "v5")
    assert await get_user(1) == User(1, "v4")
    await cache.invalidate_tags("users")
    assert await get_user(1) == User(1, "v6")
    await cache.delete(get_user.key(1))
    assert await get_user(1) == User(1, "v7")
    async with cache.updating(get_user.key(1)):
        assert await get_user(1) == User(1, "v8")
        assert await get_user(1) == User(1, "v9")
    assert await get_user(1) == User(1, "v10")
    assert await get_user(1) == User(1, "v10")


async def test_a_call_explains_what_the_next_one_would_do(cache: Cache) -> None:
    @cache.cached(ttl=60, tags=["users"])
    async def get_user(user_id: int) -> User:
        return User(user_id, "Ada")

    async def seen() -> tuple[NextRead, Reason]:
        explanation = await get_user.explain(1)
        assert str(explanation).startswith(get_user.key(1))
        return explanation.next, explanation.reason

    assert await seen() == (NextRead.LOAD, Reason.EMPTY)
    await get_user(1)
    assert await seen() == (NextRead.SERVE, Reason.FRESH)
    await cache.invalidate_tags("users")
    assert await seen() == (NextRead.LOAD, Reason.OUTDATED)
    async with cache.updating(get_user.key(1)):
        assert await seen() == (NextRead.BYPASS, Reason.WRITING)
    async with cache.updating(tags=["users"]):
        assert await seen() == (NextRead.BYPASS, Reason.WRITING)


async def test_without_a_key_the_function_and_all_arguments_are_it(cache: Cache) -> None:
    calls = []

    @cache.cached()
    async def add(a: int, b: int = 2, *, c: int = 3) -> int:
        calls.append((a, b, c))
        return a + b + c

    @cache.cached()
    async def subtract(a: int, b: int = 2, *, c: int = 3) -> int:
        return a - b - c

    assert await add(1) == await add(1, 2) == await add(a=1, c=3) == 6
    assert calls == [(1, 2, 3)]
    assert await add(1, c=4) == 7
    assert await subtract(1) == -4


async def test_methods_say_what_tells_instances_apart(cache: Cache, namespace: str) -> None:
    class Orders:
        def __init__(self, tenant: str) -> None:
            self.tenant = tenant
            self.loads = 0

        @cache.cached_method(ttl=60, key="orders:{self.tenant}:{order_id}")
        async def get(self, order_id: int) -> str:
            self.loads += 1
            return f"{self.tenant} {order_id} v{self.loads}"

        @cache.cached_method(ttl=60, shared=True)
        async def rate(self, currency: str) -> str:
            self.loads += 1
            return currency

    acme, umbrella = Orders("acme"), Orders("umbrella")
    assert await acme.get(1) == await acme.get(1) == "acme 1 v1"
    assert await umbrella.get(1) == "umbrella 1 v1"
    assert acme.get.key(1) == f"{namespace}:orders:acme:1"
    await acme.get.invalidate(1)
    assert await acme.get(1) == "acme 1 v2"
    assert await Orders.get(acme, 1) == "acme 1 v2"
    assert await acme.rate("EUR") == await umbrella.rate("EUR") == "EUR"
    assert umbrella.loads == 1
    assert inspect.iscoroutinefunction(acme.get)


async def test_mistakes_are_found_when_decorating(redis_url: str, namespace: str) -> None:
    cache = Cache(redis_url, namespace=namespace)

    async def function(user_id: int) -> int:
        return user_id

    async def other(user_id: int) -> int:
        return user_id

    with pytest.raises(MissingTTL, match="function"):
        cache.cached()(function)
    with pytest.raises(ConfigurationError, match="did you mean"):
        cache.cached(ttl=1, key="user:{userid}")(function)
    with pytest.raises(ConfigurationError, match="async def"):
        cache.cached(ttl=1)(lambda: 1)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match="parentheses"):
        cache.cached(ttl=function)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="instances would share"):
        cache.cached_method(ttl=1, key="a:{user_id}")(function)
    cache.cached(ttl=1, key="user:{user_id}")(function)
    with pytest.raises(ConfigurationError, match="is the key of"):
        cache.cached(ttl=1, key="user:{user_id}")(other)


async def test_arguments_that_are_no_keys_are_refused_before_the_call(cache: Cache) -> None:
    @cache.cached(ttl=1)
    async def function(ratio: float) -> float:
        raise AssertionError("called")

    with pytest.raises(InvalidKey, match="float"):
        await function(1.5)


async def test_an_exception_reaches_each_caller_as_its_own(cache: Cache) -> None:
    @cache.cached(ttl=60)
    async def fail() -> int:
        await asyncio.sleep(0)
        raise KeyError("missing")

    errors = await asyncio.gather(*(fail() for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [KeyError] * 3
    assert len(set(map(id, errors))) == 3


async def test_the_function_may_say_what_becomes_of_its_result(cache: Cache) -> None:
    @cache.cached(ttl=60)
    async def function(skip: bool) -> int:
        load = current_load()
        assert load is not None
        if skip:
            load.skip()
        return 1

    await function(True)
    await function(False)
    assert (await function.explain(True)).reason is Reason.EMPTY
    assert (await function.explain(False)).reason is Reason.FRESH
    assert current_load() is None


async def test_a_result_of_another_model_is_a_miss_and_not_an_error(make_cache: MakeCache) -> None:
    @dataclass
    class Renamed:
        id: int
        full_name: str

    one, two = await make_cache(), await make_cache()

    @one.cached(key="user:{user_id}", ttl=60, type=User)
    async def old(user_id: int) -> User:
        return User(user_id, "Ada")

    @two.cached(key="user:{user_id}", ttl=60, type=Renamed)
    async def new(user_id: int) -> Renamed:
        return Renamed(user_id, "Ada")

    await old(1)
    assert await new(1) == Renamed(1, "Ada")
    assert two.stats.unreadable == 1


async def test_a_result_that_cannot_be_cached_is_served_all_the_same(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    from http import HTTPStatus

    @cache.cached(ttl=60)
    async def status(code: int) -> int:
        return HTTPStatus(code) if code == 200 else code

    for _ in range(2):
        assert await status(200) == 200
        assert await status(404) == 404
    assert (await status.explain(200)).reason is Reason.EMPTY
    assert (await status.explain(404)).reason is Reason.FRESH
    assert cache.stats.unencodable == 2
    assert len([record for record in caplog.records if "not cached" in record.message]) == 1
