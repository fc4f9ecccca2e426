"""RedisStore on a real server: few round trips, bounded waits, and no reply ever reaches the wrong caller."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis as sync_redis
import redis.asyncio
import redis.exceptions

from asynccache import embedded
from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.steps import Acquire, Invalidate, Outcome
from asynccache.stores.redis import RedisStore
from asynccache.stores.scripts import Script
from tests.support.fixtures import StartServer
from tests.support.proxy import Mode, Proxy

TIMEOUT = 0.5
LEASE_MS = 60_000


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_url)
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
async def own_redis(start_redis: StartServer) -> embedded.Server:
    """A server whose statistics and scripts are this test's alone."""
    return await start_redis()


@pytest.fixture
async def distant(redis_url: str, proxy: Proxy) -> AsyncIterator[RedisStore]:
    """A store that reaches Redis through the proxy, with a short timeout."""
    store = RedisStore(proxy.url(redis_url), timeout=TIMEOUT)
    await store.open()
    yield store
    await store.aclose()


def token(at: int) -> bytes:
    return b"%08d" % at


async def lease(store: RedisStore, namespace: str, count: int) -> list[str]:
    """Keys whose cells each hold a lease with their own number."""
    keys = [f"{namespace}:{at}" for at in range(count)]
    await store.apply_many([(key, Acquire(token(at), LEASE_MS)) for at, key in enumerate(keys)])
    return keys


async def one(store: RedisStore, key: str) -> bytes | None:
    return (await store.read([key]))[0]


async def calls(client: redis.asyncio.Redis, command: str) -> int:
    stats = await client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


# -- few round trips


async def test_concurrent_reads_are_one_mget_and_concurrent_steps_one_pipeline(
    own_redis: embedded.Server, namespace: str
) -> None:
    store = RedisStore(own_redis.url)
    await store.open()
    keys = await lease(store, namespace, 500)
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await asyncio.gather(*(one(store, key) for key in keys))
        before = await calls(client, "mget"), await calls(client, "get")
        assert await asyncio.gather(*(one(store, key) for key in keys)) == [b"L" + token(at) for at in range(500)]
        assert (await calls(client, "mget") - before[0], await calls(client, "get") - before[1]) == (1, 0)

        accepted = int((await client.info("stats"))["total_connections_received"])
        await asyncio.gather(*(store.apply(key, Invalidate()) for key in keys))
        # One connection for the pipeline; the first caller, who cannot know of the others, has one of its own.
        assert int((await client.info("stats"))["total_connections_received"]) - accepted <= 2
    assert await store.read(keys) == [None] * 500
    await store.aclose()


async def test_many_keys_of_few_callers_are_answered_in_their_order(store: RedisStore, namespace: str) -> None:
    keys = await lease(store, namespace, 60)
    asked = [keys[:20], keys[30:10:-1], keys[50:], [keys[5]] * 3, []]
    answers = await asyncio.gather(*(store.read(some) for some in asked))
    expected = {key: b"L" + token(at) for at, key in enumerate(keys)}
    assert [list(answer) for answer in answers] == [[expected[key] for key in some] for some in asked]


@pytest.mark.parametrize("count", [1, 2, 199, 200, 201, 202, 399, 400, 401, 601])
async def test_however_many_keys_share_commands_each_step_has_its_own_reply(
    store: RedisStore, namespace: str, count: int
) -> None:
    keys = await lease(store, namespace, count)
    replies = await store.apply_many([(key, Acquire(token(count), LEASE_MS)) for key in keys])
    assert [(reply.outcome, reply.cell) for reply in replies] == [
        (Outcome.HELD, b"L" + token(at)) for at in range(count)
    ]


async def test_1000_concurrent_reads_do_not_exhaust_the_pool(redis_url: str, namespace: str) -> None:
    store = RedisStore(redis_url, max_connections=2, max_batch=10)
    await store.open()
    keys = await lease(store, namespace, 1000)
    for _ in range(3):
        answers = await asyncio.gather(*(one(store, key) for key in keys))
        assert answers == [b"L" + token(at) for at in range(1000)]
    await store.aclose()


# -- scripts


async def test_a_server_that_forgets_its_scripts_is_told_them_again(own_redis: embedded.Server, namespace: str) -> None:
    """SCRIPT FLUSH in mid-flight, as after a failover: no step fails, and none is carried out twice."""
    store = RedisStore(own_redis.url)
    await store.open()
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        stop = asyncio.Event()

        async def flush() -> None:
            while not stop.is_set():
                await client.script_flush()
                await asyncio.sleep(0)

        flushing = asyncio.create_task(flush())
        outcomes = []
        for turn in range(20):
            steps = [store.apply(f"{namespace}:{turn}:{at}", Acquire(token(at), LEASE_MS)) for at in range(20)]
            outcomes += await asyncio.gather(*steps, return_exceptions=True)
            if turn == 18:
                stop.set()
                await flushing
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(error, StoreUnavailable) for error in failed)
    assert all(not isinstance(o, BaseException) and o.outcome is Outcome.LEASED for o in outcomes[-20:])
    await store.aclose()


async def test_after_one_script_flush_no_step_fails(own_redis: embedded.Server, namespace: str) -> None:
    store = RedisStore(own_redis.url)
    await store.open()
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        for turn in range(5):
            await client.script_flush()
            replies = await asyncio.gather(
                *(store.apply(f"{namespace}:{turn}:{at}", Acquire(token(at), LEASE_MS)) for at in range(50)),
                *(store.apply(f"{namespace}:{turn}:{at}:other", Invalidate()) for at in range(50)),
            )
            assert {reply.outcome for reply in replies} == {Outcome.LEASED, Outcome.EMPTY}
    await store.aclose()


async def test_a_script_that_fails_fails_its_caller_alone(store: RedisStore, namespace: str) -> None:
    source = "return redis.error_reply('no such luck')"
    broken = Script("broken", source, hashlib.sha1(source.encode()).hexdigest())
    keys = [f"{namespace}:{at}" for at in range(10)]
    results = await asyncio.gather(
        *(store.apply(key, Acquire(token(0), LEASE_MS)) for key in keys[:5]),
        store.run(broken, [keys[0]], []),
        *(store.apply(key, Acquire(token(0), LEASE_MS)) for key in keys[5:]),
        return_exceptions=True,
    )
    assert isinstance(results.pop(5), StoreUnavailable)
    assert not [result for result in results if isinstance(result, BaseException)]


# -- clients


async def test_a_client_passed_in_is_never_closed(redis_url: str, namespace: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url)
    assert await client.ping()
    store = RedisStore(client)
    await store.open()
    await one(store, namespace)
    await store.reset()
    await store.aclose()
    assert client.connection_pool._available_connections[0].is_connected
    assert await client.ping()
    await client.aclose()


async def test_a_client_made_here_leaves_no_connection_behind(own_redis: embedded.Server, namespace: str) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        store = RedisStore(own_redis.url)
        await store.open()
        await asyncio.gather(*(one(store, f"{namespace}:{at}") for at in range(100)))
        assert len(await client.client_list()) > 1
        await store.aclose()
        async with asyncio.timeout(5):
            while len(await client.client_list()) > 1:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "",
        "redis://localhost:port",
        "redis://localhost:70000000",
        "redis://localhost?no_such_option=1",
        "redis://localhost?socket_timeout=soon",
        "redis://localhost?decode_responses=True",
    ],
)
def test_a_url_that_cannot_work_is_refused_before_any_io(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis"):
        RedisStore(url)


def test_a_password_is_not_told(redis_url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RedisStore("redis://me:s3cret@localhost:port")
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(RedisStore("redis://me:s3cret@localhost/3"))


def test_a_client_that_decodes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(redis.asyncio.Redis(decode_responses=True))
    with pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(redis.asyncio.RedisCluster("localhost", decode_responses=True))


@pytest.mark.parametrize("wrong", [None, 6379, b"redis://localhost", object()])
def test_what_is_no_client_is_refused_by_its_type(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=type(wrong).__qualname__):
        RedisStore(wrong)


def test_a_synchronous_client_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigurationError, match="synchronous client cannot be awaited"):
        RedisStore(sync_redis.Redis())  # type: ignore[arg-type]


# -- bounded waits


async def test_a_closed_port_is_told_at_once_and_not_after_retries(distant: RedisStore, proxy: Proxy) -> None:
    await proxy.set(Mode.REFUSE, cut=True)
    await _raises_within(distant, TIMEOUT)


@pytest.mark.parametrize("mode", [Mode.RESET, Mode.BLACKHOLE, Mode.STALL], ids=lambda mode: mode.value)
async def test_a_server_that_does_not_answer_is_told_within_the_timeout(
    distant: RedisStore, proxy: Proxy, mode: Mode
) -> None:
    await proxy.set(mode, cut=mode is Mode.RESET)
    await _raises_within(distant, TIMEOUT)
    await proxy.set(Mode.PASS, cut=True)
    assert await one(distant, "nothing") is None


async def test_a_server_that_is_slow_but_in_time_is_waited_for(
    distant: RedisStore, proxy: Proxy, namespace: str
) -> None:
    proxy.delay = TIMEOUT / 5
    assert await one(distant, namespace) is None


async def test_1000_callers_of_a_silent_server_all_give_up_in_time(distant: RedisStore, proxy: Proxy) -> None:
    await proxy.set(Mode.BLACKHOLE)
    began = time.monotonic()
    answers = await asyncio.gather(*(one(distant, str(at)) for at in range(1000)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert len({id(answer) for answer in answers}) == 1000
    assert time.monotonic() - began < 3 * TIMEOUT


async def test_a_wrong_password_is_an_unavailable_store(start_redis: StartServer) -> None:
    server = await start_redis(settings={"requirepass": "right"})
    store = RedisStore(f"redis://:wrong@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnavailable, match=r"Authentication|WRONGPASS|invalid"):
        await store.open()
    await store.aclose()


async def _raises_within(store: RedisStore, limit: float) -> None:
    for call in (lambda: one(store, "key"), lambda: store.apply("key", Invalidate()), store.ping):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await call()
        assert time.monotonic() - began < limit + 0.25


# -- cancellation


@pytest.mark.parametrize("turns", range(12))
async def test_a_read_cancelled_anywhere_leaves_the_next_one_its_own_reply(
    distant: RedisStore, proxy: Proxy, namespace: str, turns: int
) -> None:
    keys = await lease(distant, namespace, 10)
    proxy.delay = 0.002
    for at in range(5):
        victim = asyncio.create_task(one(distant, keys[at]))
        for _ in range(turns):
            await asyncio.sleep(0 if turns < 8 else 0.001)
        victim.cancel()
        await asyncio.wait([victim])
        assert await one(distant, keys[at + 1]) == b"L" + token(at + 1)


@pytest.mark.parametrize("turns", range(12))
async def test_a_step_cancelled_anywhere_leaves_the_next_one_its_own_reply(
    distant: RedisStore, proxy: Proxy, namespace: str, turns: int
) -> None:
    keys = await lease(distant, namespace, 10)
    proxy.delay = 0.002
    for at in range(5):
        victim = asyncio.create_task(distant.apply(keys[at], Acquire(token(at), LEASE_MS)))
        for _ in range(turns):
            await asyncio.sleep(0 if turns < 8 else 0.001)
        victim.cancel()
        await asyncio.wait([victim])
        reply = await distant.apply(keys[at + 1], Acquire(b"somebody", LEASE_MS))
        assert (reply.outcome, reply.cell) == (Outcome.HELD, b"L" + token(at + 1))


async def test_cancelling_half_of_many_readers_gives_the_rest_their_own_cells(
    distant: RedisStore, proxy: Proxy, namespace: str
) -> None:
    keys = await lease(distant, namespace, 200)
    proxy.delay = 0.001
    for turn in range(10):
        tasks = [asyncio.create_task(one(distant, key)) for key in keys]
        for _ in range(turn):
            await asyncio.sleep(0)
        for task in tasks[turn % 2 :: 2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for at, answer in enumerate(answers):
            assert isinstance(answer, asyncio.CancelledError) or answer == b"L" + token(at)
        assert sum(not isinstance(answer, BaseException) for answer in answers) >= 100


async def test_a_timed_out_read_never_answers_the_next_one(distant: RedisStore, proxy: Proxy, namespace: str) -> None:
    """The reply that came too late belongs to nobody."""
    keys = await lease(distant, namespace, 2)
    await proxy.set(Mode.STALL)
    with pytest.raises(StoreUnavailable):
        await one(distant, keys[0])
    await proxy.set(Mode.PASS)
    for _ in range(5):
        assert await one(distant, keys[1]) == b"L" + token(1)


async def test_calls_that_share_a_command_fail_alone(store: RedisStore, namespace: str) -> None:
    source = "if ARGV[1] == 'bad' then return redis.error_reply('refused') end return {KEYS[1], ARGV[1]}"
    script = Script.of("picky", source)
    keys = [f"{namespace}:{at}" for at in range(20)]
    answers = await asyncio.gather(
        *(store.run(script, (key,), ("bad" if at == 7 else f"good {at}",)) for at, key in enumerate(keys)),
        return_exceptions=True,
    )
    for at, answer in enumerate(answers):
        if at == 7:
            assert isinstance(answer, StoreUnavailable)
        else:
            assert answer == [keys[at].encode(), f"good {at}".encode()]


async def test_many_steps_of_a_kind_are_one_command(store: RedisStore, redis: Any, namespace: str) -> None:
    await store.apply_many([(f"{namespace}:warm", Invalidate())] * 2)
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await store.apply_many([(f"{namespace}:{at}", Invalidate()) for at in range(150)])
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
