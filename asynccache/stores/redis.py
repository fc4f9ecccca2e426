"""Cells in Redis or Valkey: each step is one Lua script on one key.

Concurrent reads share an `MGET`, concurrent scripts a pipeline.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any, Final, TypeAlias, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.steps import Outcome, Reply, Step
from asynccache.stores.batching import Batcher
from asynccache.stores.scripts import Argument, Call, Script
from asynccache.stores.step_calls import call_of
from asynccache.stores.wires import Wires

__all__ = ["RedisClient", "RedisStore"]

RedisClient: TypeAlias = "Redis | RedisCluster"
T = TypeVar("T")

_SHARED: Final = 200
"""Most calls that share a command: a script holds up everybody else on the server."""
_PUT_TIMEOUTS: Final = 2
"""After how many timeouts a put that was on its way is no longer carried out: its caller has been told otherwise."""
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


class RedisStore:
    """The store of a cache that several processes share.

    Args:
        client: a URL, for which a client with short timeouts and no blind retries is made; or a client of the
            application's, which is never closed here.
        timeout: the longest any call may take, in seconds, its wait for a connection included.
        max_connections: most of them, beside those in the pool of a client that is passed in; to each node of a
            cluster. Batching needs few.
        max_batch: most keys in one `MGET`, most scripts in one pipeline.
        clock: reads time.
    """

    def __init__(
        self,
        client: str | RedisClient,
        *,
        timeout: float = 1.0,
        max_connections: int = 16,
        max_batch: int = 1000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._client, self._owned = _client(client, timeout, max_connections)
        self._timeout = timeout
        self._clock = clock
        # A cluster's client does not wait for a free connection: it fails, and closes those of all others.
        self._wires = Wires.of(self._client, max_connections)
        self._turns = asyncio.Semaphore(max_connections) if isinstance(self._client, RedisCluster) else nullcontext()
        self._under_way = 0
        self._closed = False
        self._ended = asyncio.Event()  # nothing is under way, after it was closed
        self._ahead_ms = 0  # of our wall clock, as measured at the last answer that told the server's
        self._reads: Batcher[Sequence[str], Sequence[bytes | None]] = Batcher(
            self._read_batch, name="redis-reads", max_batch=max_batch
        )
        self._calls: Batcher[Call, Any] = Batcher(self._call_batch, name="redis-scripts", max_batch=max_batch)

    @property
    def client(self) -> RedisClient:
        """The client in use."""
        return self._client

    async def open(self) -> None:
        """Connects and measures the server's clock.

        Raises:
            StoreUnavailable: no answer within the timeout, or a refusal (such as a wrong password).
        """
        self._closed = False
        if self._wires is not None:
            self._wires.open()
        await self.ping()

    async def ping(self) -> None:
        """Asks for the server's time; the cheapest proof that it answers."""
        if isinstance(self._client, RedisCluster):
            seconds, micros = await self._bounded(self._client.time)
        else:
            seconds, micros = await self._ask(("TIME",))
        self._learn(int(seconds) * 1000 + int(micros) // 1000)

    async def reset(self) -> None:
        """Drops idle connections: after an outage they may be half-open, and each would cost a timeout."""
        if self._wires is not None:
            self._wires.drop_idle()
        if self._owned and isinstance(self._client, Redis):
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Ends what is under way, and the client if it was made here."""
        # A caller who came before may yet ask: it would open a connection that nobody closes.
        self._closed = True
        self._ended.clear()
        await self._reads.aclose()
        await self._calls.aclose()
        if self._under_way:
            await self._ended.wait()  # no longer than the timeout
        if self._wires is not None:
            await self._wires.aclose()
        if self._owned:
            await self._client.aclose()

    def now_ms(self) -> int:
        return self._clock.wall_ms() + self._ahead_ms

    def read(self, keys: Sequence[str]) -> Awaitable[Sequence[bytes | None]]:
        return self._reads(keys)  # as it is, for one frame less on the hot path

    async def apply(self, key: str, step: Step) -> Reply:
        return self._reply(await self._calls(call_of(key, step, self._put_deadline_ms())))

    def expect_company(self) -> None:
        """Lets the next steps share a pipeline."""
        self._calls.expect_company()

    async def apply_many(self, steps: Sequence[tuple[str, Step]]) -> list[Reply]:
        answers = await self._call_batch([call_of(key, step, self._put_deadline_ms()) for key, step in steps])
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [self._reply(answer) for answer in answers]

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Runs any script that is safe to repeat, together with those of other callers of this tick.

        Raises:
            StoreUnavailable: no answer in time, or an error of the script.
        """
        return await self._calls(Call(script, keys, args))

    async def run_many(self, calls: Sequence[Call], then: Sequence[Sequence[Argument]] = ()) -> Sequence[Any]:
        """Runs scripts that are safe to repeat, in one pipeline of their own; then other commands, on its connection.

        Returns:
            The reply of each, those of the commands last; of a script that the server refused, the `StoreUnavailable`.

        Raises:
            StoreUnavailable: no answer in time; each may have run or not.
        """
        return await self._call_batch(calls, then)

    def _put_deadline_ms(self) -> int:
        return self.now_ms() + int(_PUT_TIMEOUTS * self._timeout * 1000)

    def _reply(self, answer: Any) -> Reply:
        outcome, now, cell = answer
        self._learn(now)
        return Reply(_OUTCOMES[outcome], now, cell)

    def _learn(self, server_ms: int) -> None:
        # Late by the way back, which is far below the granularity of a TTL.
        self._ahead_ms = server_ms - self._clock.wall_ms()

    async def _read_batch(self, requests: Sequence[Sequence[str]]) -> Sequence[Sequence[bytes | None]]:
        if len(requests) == 1:
            return (await self._bounded(lambda: self._mget(requests[0])),)
        keys = list(dict.fromkeys(chain.from_iterable(requests)))
        values = await self._bounded(lambda: self._mget(keys))
        find = dict(zip(keys, values, strict=True)).__getitem__
        return [list(map(find, request)) for request in requests]

    async def _ask(self, command: Sequence[Argument]) -> Any:
        (reply,) = await self._bounded(lambda: self._exchange((command,)))
        if isinstance(reply, Exception):
            raise _unavailable(reply)
        return reply

    async def _mget(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        if isinstance(self._client, RedisCluster):
            return await self._client.mget_nonatomic(keys)
        if not keys:
            return ()
        (values,) = await self._exchange([("MGET", *keys)])
        if isinstance(values, Exception):
            raise values
        return cast("Sequence[bytes | None]", values)

    async def _call_batch(self, calls: Sequence[Call], then: Sequence[Sequence[Argument]] = ()) -> Sequence[Any]:
        answers = await self._send(calls, then)
        forgotten = [at for at, answer in enumerate(answers) if _forgotten(answer)]
        if forgotten:
            scripts = dict.fromkeys(calls[at].script for at in forgotten)
            for source in [text for script in scripts for text in script.sources]:
                if isinstance(self._client, RedisCluster):
                    await self._bounded(partial(self._client.script_load, source))
                else:
                    await self._ask(("SCRIPT", "LOAD", source))
            again = await self._send([calls[at] for at in forgotten], then)
            answers[len(calls) :] = again[len(forgotten) :]
            for at, answer in zip(forgotten, again, strict=False):
                answers[at] = answer
        return [_unavailable(answer) if isinstance(answer, Exception) else answer for answer in answers]

    async def _send(self, calls: Sequence[Call], then: Sequence[Sequence[Argument]] = ()) -> list[Any]:
        if isinstance(self._client, RedisCluster):
            # One connection a node, for a crowd, too. It may send commands again, which every script here bears (so its
            # `evalsha`, which is refused for the sake of others, is passed by), and what comes then does not.
            cluster = self._client.pipeline()
            for call in calls:
                cluster.execute_command("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)
            sent = await self._bounded(lambda: cluster.execute(raise_on_error=False))
            return [*sent, *[await self._bounded(partial(self._client.execute_command, *command)) for command in then]]
        return await self._send_grouped(calls, then=then)

    async def _exchange(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """One pipeline; the reply of each command, errors of the server among them."""
        if self._wires is not None:
            return await self._wires.exchange(commands, self._timeout)
        pipeline: Any = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def _send_grouped(
        self,
        calls: Sequence[Call],
        *,
        alone: bool = False,
        then: Sequence[Sequence[Argument]] = (),
    ) -> list[Any]:
        """One pipeline, in which calls of the same script share commands, unless each is to be `alone`."""
        groups: dict[tuple[Script, int, int], list[int]] = {}
        for at, call in enumerate(calls):
            groups.setdefault((call.script, len(call.keys), len(call.args)), []).append(at)
        commands: list[Sequence[Argument]] = []
        sent: list[list[int]] = []
        for (script, keys_each, args_each), members in groups.items():
            most = 1 if script.many is None or alone else _SHARED
            for begin in range(0, len(members), most):
                part = members[begin : begin + most]
                keys = [key for at in part for key in calls[at].keys]
                args = [argument for at in part for argument in calls[at].args]
                if script.many is None or len(part) == 1:  # the last of them may be alone, too
                    commands.append(("EVALSHA", script.sha, len(keys), *keys, *args))
                else:
                    commands.append(("EVALSHA", script.many.sha, len(keys), *keys, keys_each, args_each, *args))
                sent.append(part)
        commands += then
        replies = await self._bounded(lambda: self._exchange(commands))
        answers: list[Any] = [*([None] * len(calls)), *replies[len(sent) :]]
        for part, reply in zip(sent, replies, strict=False):
            if len(part) == 1:
                answers[part[0]] = reply
                continue
            if isinstance(reply, redis.exceptions.ResponseError) and not _forgotten(reply):
                # One of them failed, and with it the command: who is to blame shows when each is sent by itself.
                reply = await self._send_grouped([calls[at] for at in part], alone=True)  # noqa: PLW2901
            shared = [reply] * len(part) if isinstance(reply, Exception) else reply
            for at, answer in zip(part, shared, strict=True):
                answers[at] = answer
        return answers

    async def _bounded(self, command: Callable[[], Awaitable[T]]) -> T:
        if self._closed:
            raise StoreUnavailable("Redis: this store is closed")
        self._under_way += 1
        try:
            if self._wires is not None:  # which see to the time themselves
                return await command()
            async with asyncio.timeout(self._timeout), self._turns:
                return await command()
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            raise _unavailable(error) from error
        except RuntimeError as error:
            if "unable to perform operation" in str(error):  # uvloop's word for a connection that was closed meanwhile
                raise _unavailable(error) from error
            raise
        finally:
            self._under_way -= 1
            if self._closed and not self._under_way:
                self._ended.set()

    def __repr__(self) -> str:
        return f"RedisStore({describe(self._client)})"


def _client(client: str | RedisClient, timeout: float, max_connections: int) -> tuple[RedisClient, bool]:
    if isinstance(client, str):
        scheme = urlsplit(client).scheme
        if scheme not in {"redis", "rediss", "unix"}:
            raise ConfigurationError(
                f"redis={_hide_password(client)!r} must be a URL (redis://, rediss://, unix://) "
                "or a client of redis.asyncio"
            )
        try:
            pool = BlockingConnectionPool.from_url(
                client,
                max_connections=max_connections,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigurationError(f"redis={_hide_password(client)!r} is not a Redis URL: {error}") from error
        known = {name for kind in (BlockingConnectionPool, *pool.connection_class.__mro__) for name in _options(kind)}
        if unknown := parse_qs(urlsplit(client).query).keys() - known:
            # With the first command redis-py would raise a TypeError.
            raise ConfigurationError(
                f"redis={_hide_password(client)!r} has options redis-py does not know: {', '.join(sorted(unknown))}"
            )
        client, owned = Redis.from_pool(pool), True  # which closes the pool with the client
    else:
        owned = False
    if not isinstance(client, Redis | RedisCluster):
        kind = f"{type(client).__module__}.{type(client).__qualname__}"
        fix = "; a synchronous client cannot be awaited" if kind.startswith("redis.") else ""
        raise ConfigurationError(f"redis must be a URL or a client of redis.asyncio, not {kind}{fix}")
    if client.get_encoder().decode_responses:
        raise ConfigurationError("redis must be a client without decode_responses=True: cells are bytes, not text")
    return client, owned


def _options(kind: type[object]) -> Iterable[str]:
    return inspect.signature(kind).parameters if "__init__" in vars(kind) else ()


def _hide_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url)


def describe(client: RedisClient) -> str:
    """Where a client connects to, without its password."""
    if isinstance(client, RedisCluster):
        return "cluster"
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return f"unix://{options['path']}"
    return f"redis://{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db') or 0}"


def _unavailable(error: BaseException) -> StoreUnavailable:
    if isinstance(error, StoreUnavailable):
        return error
    what = str(error) or "no answer in time"
    unavailable = StoreUnavailable(f"Redis: {type(error).__name__}: {what}")
    unavailable.__cause__ = error
    return unavailable


def _forgotten(answer: Any) -> bool:
    return isinstance(answer, redis.exceptions.NoScriptError)
