"""Connections that exchange commands without redis-py's pool: none is used again that might answer somebody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import Connection
from redis.credentials import UsernamePasswordCredentialProvider

from asynccache import embedded
from asynccache.stores.redis import RedisStore
from asynccache.stores.scripts import Call, Script
from asynccache.stores.wires import Wires
from tests.support.fixtures import StartServer
from tests.support.gates import PATIENCE, until
from tests.support.proxy import Mode, Proxy


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def wires(redis_url: str, proxy: Proxy) -> AsyncIterator[Wires]:
    async with redis.asyncio.Redis.from_url(proxy.url(redis_url)) as client:
        wires = Wires.of(client, 4)
        assert wires is not None
        yield wires
        await wires.aclose()
        assert not wires._open


async def echo(wires: Wires, word: str) -> bytes:
    (answer,) = await wires.exchange([("ECHO", word)], PATIENCE)
    return answer  # type: ignore[no-any-return]


async def test_replies_come_in_the_order_of_the_commands_errors_among_them(wires: Wires, namespace: str) -> None:
    answers = await wires.exchange(
        [("ECHO", "a"), ("LPUSH", namespace, 1), ("GET", namespace), ("ECHO", b"b"), ("GET", "-")], PATIENCE
    )
    assert answers[:2] == [b"a", 1]
    assert isinstance(answers[2], redis.exceptions.ResponseError)
    assert "WRONGTYPE" in str(answers[2])
    assert answers[3:] == [b"b", None]
    assert isinstance((await wires.exchange([("EVALSHA", "0" * 40, 0)], PATIENCE))[0], redis.exceptions.NoScriptError)
    await wires.exchange([("DEL", namespace)], PATIENCE)


async def test_a_reply_that_comes_in_pieces_is_put_together(wires: Wires, proxy: Proxy) -> None:
    large = "x" * 3_000_000
    assert await asyncio.gather(*(echo(wires, large + str(at)) for at in range(3))) == [
        (large + str(at)).encode() for at in range(3)
    ]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_cancelled_exchange_answers_nobody_afterwards(wires: Wires, proxy: Proxy, turns: int) -> None:
    for at in range(20):
        await echo(wires, "before")
        task = asyncio.create_task(echo(wires, f"cancelled {at}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        assert await echo(wires, f"next {at}") == f"next {at}".encode()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: len(wires._open) == 1, "the end of those that were left")


async def test_a_late_reply_answers_nobody(wires: Wires, proxy: Proxy) -> None:
    await echo(wires, "before")
    await proxy.set(Mode.STALL)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await echo(wires, "late")
    await proxy.set(Mode.PASS)
    for _ in range(5):
        assert await echo(wires, "next") == b"next"


async def test_a_reply_that_arrived_while_the_loop_was_held_up_is_in_time(client: redis.asyncio.Redis) -> None:
    """A handler that computes for longer than the timeout must not open the circuit."""
    wires = Wires.of(client, 1)  # and no proxy, which this loop would hold up, too
    assert wires is not None
    await echo(wires, "before")
    asked = asyncio.create_task(wires.exchange([("ECHO", "asked")], 0.05))
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - holds the loop up
    assert await asked == [b"asked"]
    assert len(wires._open) == 1
    await wires.aclose()


@pytest.mark.parametrize("where", ["connecting", "waiting for its turn", "waiting for the answer"])
async def test_no_answer_in_time_is_an_error_in_time(wires: Wires, proxy: Proxy, where: str) -> None:
    if where != "connecting":
        await asyncio.gather(*(echo(wires, "before") for _ in range(4)))
    await proxy.set(Mode.BLACKHOLE)
    crowd = [asyncio.create_task(echo(wires, "x")) for _ in range(4)] if where == "waiting for its turn" else []
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PATIENCE / 2) as bound:
            await wires.exchange([("ECHO", "asked")], 0.05)
    assert not bound.expired()
    for task in crowd:
        task.cancel()
    ended = await asyncio.gather(*crowd, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended)
    await proxy.set(Mode.PASS, cut=True)
    wires.drop_idle()  # as whoever finds Redis back does
    assert await echo(wires, "next") == b"next"


async def test_bytes_that_nobody_asked_for_end_the_connection(wires: Wires) -> None:
    await echo(wires, "before")
    (wire,) = wires._idle
    wire._transport.write(b"ECHO stray\r\n")  # as if a reply had been counted wrongly
    await until(lambda: not wire.usable, "the stray reply")
    assert await echo(wires, "next") == b"next"


async def test_pushes_are_passed_over(redis_url: str, client: redis.asyncio.Redis, namespace: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url, protocol=3) as modern:
        wires = Wires.of(modern, 1)
        assert wires is not None
        await wires.exchange([("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", namespace)], PATIENCE)
        (tracking,) = wires._open
        for at in range(20):
            await client.set(f"{namespace}:{at}", at)
            assert await echo(wires, f"{at}") == f"{at}".encode()
        await client.delete(*(f"{namespace}:{at}" for at in range(20)))
        assert [*wires._open] == [tracking]
        await wires.aclose()


async def test_what_is_no_reply_is_an_error_and_ends_the_connection(wires: Wires) -> None:
    await echo(wires, "before")
    (wire,) = wires._idle
    asked = asyncio.create_task(echo(wires, "asked"))
    await asyncio.sleep(0)
    wire.data_received(b"!? no protocol at all\r\n")
    with pytest.raises(redis.exceptions.InvalidResponse):
        await asked
    assert await echo(wires, "next") == b"next"


async def test_a_connection_that_redis_closed_meanwhile_is_not_used(start_redis: StartServer) -> None:
    server = await start_redis()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        wires = Wires.of(client, 4)
        assert wires is not None
        await asyncio.gather(*(echo(wires, "x") for _ in range(4)))
        open_ = list(wires._open)
        await client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: not any(wire.usable for wire in open_), "the end of the connections")
        assert await echo(wires, "next") == b"next"
        await wires.aclose()


async def test_a_connection_that_is_lost_in_mid_exchange_is_an_error_at_once(wires: Wires, proxy: Proxy) -> None:
    await echo(wires, "before")
    await proxy.set(Mode.STALL)
    asked = [asyncio.create_task(echo(wires, "asked")) for _ in range(3)]
    await until(lambda: proxy.links == 3, "all of them")
    await proxy.set(Mode.PASS, cut=True)
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert answer == b"asked" or isinstance(answer, redis.exceptions.ConnectionError | OSError), answer


async def test_more_exchanges_than_connections_take_turns(wires: Wires, proxy: Proxy) -> None:
    answers = await asyncio.gather(*(echo(wires, str(at)) for at in range(200)))
    assert answers == [str(at).encode() for at in range(200)]
    assert proxy.accepted <= 4


async def test_nothing_to_send_is_nothing_sent(wires: Wires, proxy: Proxy) -> None:
    assert await wires.exchange([], PATIENCE) == []
    assert proxy.accepted == 0


class Special(Connection):
    """An application's own kind of connection."""


@pytest.mark.parametrize("kind", ["connection", "credentials", "pool"])
async def test_clients_that_may_do_more_are_left_to_do_it(redis_url: str, namespace: str, kind: str) -> None:
    options: dict[str, Any] = {}
    if kind == "credentials":
        options["credential_provider"] = UsernamePasswordCredentialProvider("default", "")

    class OwnPool(redis.asyncio.ConnectionPool):
        pass

    pool = (OwnPool if kind == "pool" else redis.asyncio.ConnectionPool).from_url(redis_url)
    if kind == "connection":
        pool.connection_class = Special
    pool.connection_kwargs.update(options)
    client = redis.asyncio.Redis.from_pool(pool)
    assert Wires.of(client, 4) is None
    if kind != "credentials":  # this server has no password
        store = RedisStore(client)
        await store.open()
        assert list(await store.read([f"{namespace}:{at}" for at in range(3)])) == [None] * 3
        assert pool._in_use_connections or pool._available_connections
        await store.aclose()
    await client.aclose()


async def test_a_url_of_any_kind_is_served_without_the_pool(start_redis: StartServer) -> None:
    server: embedded.Server = await start_redis()
    store = RedisStore(server.url)
    await store.open()
    await store.read(["a"])
    pool = store.client.connection_pool  # type: ignore[union-attr]
    assert not pool._available_connections
    await store.aclose()


def test_a_store_can_be_opened_again_in_another_loop(redis_url: str) -> None:
    store = RedisStore(redis_url, max_connections=1)
    script = Script.of("one", "return 1")

    async def crowd() -> None:
        await store.open()
        assert await asyncio.gather(*(store.run_many([Call(script, (), ())]) for _ in range(10))) == [[1]] * 10
        await store.aclose()

    for _ in range(3):
        asyncio.run(crowd())
