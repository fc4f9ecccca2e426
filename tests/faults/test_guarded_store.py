"""GuardedStore while Redis is gone, half gone, and back: it fails fast, owes nothing silently, and recovers alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions

from asynccache import embedded
from asynccache.entry import NewValue, Value, Writing, is_generation, parse_cell
from asynccache.errors import StoreUnavailable
from asynccache.steps import Acquire, BeginWrite, Bump, EndBump, EndWrite, Ensure, Invalidate, Outcome, Put, Step
from asynccache.stores.guarded import CircuitState, GuardedStore
from asynccache.stores.redis import RedisStore
from tests.support.proxy import Mode, Proxy

TIMEOUT = 0.2
ME, OTHER = b"-- me --", b"-other--"
LONG = 60_000


@pytest.fixture
async def store(redis_url: str, proxy: Proxy, namespace: str) -> AsyncIterator[GuardedStore]:
    inner = RedisStore(proxy.url(redis_url), timeout=TIMEOUT)
    store = GuardedStore(inner, everything=f"{namespace}:everything", failures=3, max_journal=20)
    await store.open()
    yield store
    await proxy.set(Mode.PASS)
    await store.aclose()


def value(text: bytes = b"old") -> NewValue:
    return NewValue(text, LONG, LONG, b"value--1")


async def until(condition: Callable[[], bool], within: float = 10.0) -> float:
    """Waits for a state; returns how many seconds that took."""
    began = time.monotonic()
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)
    return time.monotonic() - began


def is_open(store: GuardedStore) -> bool:
    return store.state is not CircuitState.CLOSED


async def closed(store: GuardedStore, within: float = 10.0) -> float:
    return await until(lambda: store.state is CircuitState.CLOSED, within)


async def fails(call: Any) -> None:
    with pytest.raises(StoreUnavailable):
        await call


async def open_circuit(store: GuardedStore) -> None:
    for _ in range(3):
        await fails(store.read(["key"]))
    assert store.state is not CircuitState.CLOSED


# -- opening


async def test_the_circuit_opens_after_that_many_failures_in_a_row_and_no_earlier(
    store: GuardedStore, proxy: Proxy, namespace: str
) -> None:
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.read([namespace]))
    await fails(store.apply(namespace, Acquire(ME, LONG)))
    assert store.state is CircuitState.CLOSED
    await proxy.set(Mode.PASS)
    await store.read([namespace])  # a success begins a new row
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.read([namespace]))
    await fails(store.read([namespace]))
    assert store.state is CircuitState.CLOSED
    await fails(store.read([namespace]))
    assert is_open(store)
    assert store.opened == 1


async def test_while_it_is_open_nobody_waits(store: GuardedStore, proxy: Proxy, namespace: str) -> None:
    await proxy.set(Mode.BLACKHOLE)
    await open_circuit(store)
    began = time.monotonic()
    for _ in range(100):
        await fails(store.read([namespace]))
        await fails(store.apply(namespace, Acquire(ME, LONG)))
    assert time.monotonic() - began < TIMEOUT


async def test_it_opens_once_however_many_fail_together(store: GuardedStore, proxy: Proxy) -> None:
    await proxy.set(Mode.BLACKHOLE)
    answers = await asyncio.gather(*(store.read([str(at)]) for at in range(200)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert store.opened == 1


async def test_probes_are_few_and_never_a_callers(store: GuardedStore, proxy: Proxy) -> None:
    await proxy.set(Mode.RESET, cut=True)
    await open_circuit(store)
    before = proxy.accepted
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        await asyncio.gather(*(fails(store.read(["key"])) for _ in range(50)))
        await asyncio.sleep(0.005)
    assert proxy.accepted - before <= 12


# -- closing


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.RESET, Mode.BLACKHOLE, Mode.STALL], ids=lambda mode: mode.value)
async def test_hits_are_back_within_a_second_of_redis(
    store: GuardedStore, proxy: Proxy, namespace: str, mode: Mode
) -> None:
    await store.apply(namespace, Put(value()))
    await asyncio.gather(*(store.read([namespace]) for _ in range(50)))  # fills the pool
    await proxy.set(mode, cut=mode in {Mode.REFUSE, Mode.RESET})
    await open_circuit(store)
    await proxy.set(Mode.PASS)
    assert await closed(store) < 1.0
    cell = parse_cell((await store.read([namespace]))[0])
    assert isinstance(cell, Value)
    assert cell.payload == b"old"


async def test_half_open_connections_in_the_pool_are_not_handed_out_after_an_outage(
    store: GuardedStore, proxy: Proxy, namespace: str
) -> None:
    await asyncio.gather(*(store.inner.ping() for _ in range(12)))  # none of them batched
    assert proxy.links > 6, "there must be more than the failures below use up"
    await proxy.set(Mode.BLACKHOLE)
    await open_circuit(store)
    await proxy.set(Mode.PASS)  # the old connections stay silent for ever
    await closed(store)
    await asyncio.gather(*(store.inner.ping() for _ in range(12)))


@pytest.mark.one_loop
async def test_hits_are_back_within_a_second_of_a_server_killed_and_restarted(
    dedicated_redis: embedded.Server, namespace: str
) -> None:
    store = GuardedStore(RedisStore(dedicated_redis.url, timeout=TIMEOUT), everything=f"{namespace}:all")
    await store.open()
    await store.apply(namespace, Put(value()))
    await dedicated_redis.kill()
    await open_circuit(store)
    await fails(store.apply(namespace, Invalidate()))
    await dedicated_redis.start()
    assert await closed(store) < 1.0
    assert list(await store.read([namespace])) == [None]
    assert (await store.apply(namespace, Put(value(b"new")))).outcome is Outcome.STORED  # scripts are known again
    await store.aclose()


@pytest.mark.one_loop
async def test_hits_are_back_within_a_second_of_a_paused_server(
    dedicated_redis: embedded.Server, namespace: str
) -> None:
    store = GuardedStore(RedisStore(dedicated_redis.url, timeout=TIMEOUT), everything=f"{namespace}:all")
    await store.open()
    await store.apply(namespace, Put(value()))
    await dedicated_redis.pause()
    await open_circuit(store)
    await dedicated_redis.resume()
    assert await closed(store) < 1.0
    assert (await store.read([namespace]))[0] is not None
    await store.aclose()


@pytest.mark.parametrize(
    "trouble",
    [redis.exceptions.TimeoutError("disconnecting"), OSError("bad descriptor"), RuntimeError("whatever")],
    ids=lambda trouble: type(trouble).__name__,
)
async def test_a_probe_survives_whatever_happens_to_it(
    store: GuardedStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    real, left = store.inner.reset, [trouble, trouble]

    async def reset() -> None:
        if left:
            raise left.pop()
        await real()

    monkeypatch.setattr(store.inner, "reset", reset)
    await proxy.set(Mode.REFUSE, cut=True)
    await open_circuit(store)
    await proxy.set(Mode.PASS)
    await closed(store)
    assert not left


# -- what is owed


async def test_a_failed_invalidation_is_carried_out_before_anything_is_served(
    store: GuardedStore, proxy: Proxy, redis: redis.asyncio.Redis, namespace: str
) -> None:
    await store.apply(namespace, Put(value()))
    await proxy.set(Mode.BLACKHOLE)
    await fails(store.apply(namespace, Invalidate()))  # one is enough to open it
    assert store.state is not CircuitState.CLOSED
    assert store.owed == 1
    await proxy.set(Mode.PASS)
    while True:
        try:
            answer = await store.read([namespace])
        except StoreUnavailable:
            await asyncio.sleep(0.001)
        else:
            break
    assert list(answer) == [None]
    assert await redis.get(namespace) is None
    assert store.owed == 0


async def test_a_read_under_way_while_an_invalidation_fails_is_not_served(
    store: GuardedStore, proxy: Proxy, namespace: str
) -> None:
    await store.apply(namespace, Put(value()))
    proxy.delay = TIMEOUT / 4
    reading = asyncio.create_task(store.read([namespace]))
    await asyncio.sleep(0)
    store._failed(StoreUnavailable("as if it had failed just now"), (namespace, Invalidate()))
    await fails(reading)
    proxy.delay = 0
    await closed(store)
    assert list(await store.read([namespace])) == [None]


@pytest.mark.parametrize(
    "step",
    [Invalidate(), Put(value(b"new")), EndWrite(ME, value(b"new")), EndWrite(ME)],
    ids=["Invalidate", "Put", "EndWrite with value", "EndWrite"],
)
async def test_whatever_voids_a_cell_and_fails_is_made_up_for(
    store: GuardedStore, proxy: Proxy, namespace: str, step: Step
) -> None:
    await store.apply(namespace, Put(value()))
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.apply(namespace, step))
    await proxy.set(Mode.PASS)
    await closed(store)
    assert list(await store.read([namespace])) == [None]


@pytest.mark.parametrize("many", [False, True], ids=["apply", "apply_many"])
@pytest.mark.parametrize("step", [Bump(b"salt"), EndBump(ME, b"salt")], ids=["Bump", "EndBump"])
async def test_a_tag_that_could_not_be_invalidated_is_made_up_for(
    store: GuardedStore, proxy: Proxy, namespace: str, step: Step, many: bool
) -> None:
    before = (await store.apply(namespace, Ensure(b"1234"))).cell
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.apply_many([(namespace, step)]) if many else store.apply(namespace, step))
    await proxy.set(Mode.PASS)
    await closed(store)
    (after,) = await store.read([namespace])
    assert is_generation(after)
    assert after != before


async def test_a_write_that_began_unknown_to_its_writer_leaves_no_marker(
    store: GuardedStore, proxy: Proxy, redis: redis.asyncio.Redis, namespace: str
) -> None:
    """The marker would keep readers from the cache until its deadline."""
    await store.apply(f"{namespace}:other", BeginWrite(ME, LONG))  # the server knows the script
    proxy.delay = TIMEOUT * 0.7  # the step arrives, its reply comes too late
    await fails(store.apply(namespace, BeginWrite(ME, LONG)))
    raw = await redis.get(namespace)
    assert isinstance(raw, bytes)
    assert isinstance(parse_cell(raw), Writing)
    proxy.delay = 0
    await closed(store)
    assert list(await store.read([namespace])) == [None]


async def test_others_in_flight_keep_their_markers_when_a_debt_is_paid(
    store: GuardedStore, proxy: Proxy, redis_url: str, namespace: str
) -> None:
    other = RedisStore(redis_url)
    await other.apply(namespace, BeginWrite(OTHER, LONG))
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.apply(namespace, Invalidate()))
    await proxy.set(Mode.PASS)
    await closed(store)
    cell = parse_cell((await other.read([namespace]))[0])
    assert isinstance(cell, Writing)
    assert cell.overlapped
    assert [writer.token for writer in cell.writers] == [OTHER]
    assert (await other.apply(namespace, EndWrite(OTHER, value(b"raced")))).outcome is Outcome.EMPTY
    await other.aclose()


async def test_what_is_owed_while_the_debt_is_being_paid_is_paid_too(
    store: GuardedStore, proxy: Proxy, namespace: str
) -> None:
    keys = [f"{namespace}:{at}" for at in range(15)]
    await store.apply_many([(key, Put(value())) for key in keys])
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.apply(keys[0], Invalidate()))
    proxy.delay = 0.02
    await proxy.set(Mode.PASS)
    for key in keys[1:]:
        if store.state is CircuitState.CLOSED:
            break
        await fails(store.apply(key, Invalidate()))
        await asyncio.sleep(0.005)
    else:
        key = ""
    proxy.delay = 0
    await closed(store)
    paid = keys[: keys.index(key)] if key else keys
    assert list(await store.read(paid)) == [None] * len(paid)


async def test_more_debts_than_are_remembered_outdate_everything(
    store: GuardedStore, proxy: Proxy, namespace: str
) -> None:
    everything = f"{namespace}:everything"
    before = (await store.apply(everything, Ensure(b"1234"))).cell
    await proxy.set(Mode.REFUSE, cut=True)
    for at in range(50):
        await fails(store.apply(f"{namespace}:{at}", Invalidate()))
        assert store.owed <= 21
    await proxy.set(Mode.PASS)
    await closed(store)
    (after,) = await store.read([everything])
    assert is_generation(after)
    assert after != before
    assert store.owed == 0


async def test_reads_and_fills_owe_nothing(store: GuardedStore, proxy: Proxy, namespace: str) -> None:
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.read([namespace]))
    await fails(store.apply(namespace, Acquire(ME, LONG)))
    assert store.owed == 0
    assert store.state is CircuitState.CLOSED


async def test_closing_pays_what_is_owed_if_redis_is_back(
    redis_url: str, proxy: Proxy, redis: redis.asyncio.Redis, namespace: str
) -> None:
    store = GuardedStore(RedisStore(proxy.url(redis_url), timeout=TIMEOUT), everything=f"{namespace}:all")
    await store.open()
    await store.apply(namespace, Put(value()))
    await proxy.set(Mode.REFUSE, cut=True)
    await fails(store.apply(namespace, Invalidate()))
    await proxy.set(Mode.PASS)
    await store.aclose()
    assert await redis.get(namespace) is None


async def test_closing_without_redis_ends_in_time_and_says_what_was_owed(
    redis_url: str, proxy: Proxy, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = GuardedStore(RedisStore(proxy.url(redis_url), timeout=TIMEOUT), everything=f"{namespace}:all")
    await store.open()
    await proxy.set(Mode.BLACKHOLE)
    await fails(store.apply(namespace, Invalidate()))
    began = time.monotonic()
    await store.aclose()
    assert time.monotonic() - began < 2 * TIMEOUT + 0.3
    assert "closed with 1 invalidations owed" in caplog.text
