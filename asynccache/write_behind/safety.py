"""What Redis may lose of acknowledged writes: levels of durability, and a look at whether Redis can keep them.

    memory      nothing is in Redis; a crash of this process loses what was not flushed
    redis       Redis has acknowledged; its crash loses what its append-only file does not have, all of it without one
    fsync       the append-only file of this Redis has it on disk: WAITAOF 1 0 (Redis 7.2, Valkey)
    replicated  so many replicas have it, too: WAIT n; a failover to one of those keeps it

A confirmation is asked for in the pipeline of the writes, on their connection, after one more write: both commands
speak of the last write of their connection, and the calls may be repeats. If it comes short, the same calls are sent
again, which merges nothing twice (see `lanes`), until the time is over. Neither waits inside of MULTI or a script.
https://redis.io/commands/wait, https://redis.io/commands/waitaof
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import redis.exceptions
from redis.asyncio import Redis, RedisCluster

from asynccache.clock import Clock
from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.stores.guarded import GuardedStore
from asynccache.stores.scripts import Argument, Call
from asynccache.supervision import logger

__all__ = ["Durability", "Safety", "Unsafe"]

Durability: TypeAlias = Literal["memory", "redis", "fsync", "replicated"]
"""What holds when a write returns."""

Unsafe: TypeAlias = Literal["refuse", "warn", "allow"]
"""What happens if Redis may lose what it acknowledges."""

_WAIT_MS: Final = 400
"""Longest single wait: below any sensible timeout of a connection."""


class Safety:
    """Sends writes so that they are as durable as asked, and looks whether Redis can keep them.

    Args:
        where: the strategy, for messages.
        store: runs the scripts.
        mark: a key that may be written at any time.
        durability: what a write waits for.
        replicas: how many, for "replicated".
        unsafe: what to do about a Redis that may lose writes.
        patience: the longest wait for confirmations, in seconds.
        clock: reads time.

    Raises:
        ConfigurationError: a setting that does not exist, or that cannot work with this client.
    """

    def __init__(
        self,
        where: str,
        store: GuardedStore,
        mark: str,
        *,
        durability: Durability,
        replicas: int,
        unsafe: Unsafe,
        patience: float,
        clock: Clock,
    ) -> None:
        check_settings(where, durability, unsafe)
        client = store.inner.client
        if durability != "redis" and not isinstance(client, Redis):
            raise ConfigurationError(f"{where}: durability={durability!r} needs a single Redis, not a cluster")
        self._where = where
        self._store = store
        self._client = client
        self._mark = mark
        self._durability = durability
        self._unsafe = unsafe
        self._patience = patience
        self._clock = clock
        self._told: set[str] = set()
        self.wanted = {"fsync": 1, "replicated": replicas}.get(durability, 0)
        self.problem: str | None = None

    async def send(self, calls: Sequence[Call]) -> tuple[Sequence[Any], int]:
        """Runs the calls; returns their replies, and how many disks or replicas have confirmed them."""
        wait = ("WAITAOF", 1, 0, _WAIT_MS) if self._durability == "fsync" else ("WAIT", self.wanted, _WAIT_MS)
        then: list[Sequence[Argument]] = [("SET", self._mark, "", "PX", 60_000), wait]
        deadline = self._clock.monotonic() + self._patience
        while True:
            *replies, _, confirmed = await self._store.run_many(calls, then)
            count = self._count(confirmed)
            if count >= self.wanted or self._clock.monotonic() >= deadline:
                return replies, count

    def _count(self, reply: Any) -> int:
        if isinstance(reply, redis.exceptions.RedisError):
            if self.problem is None:
                self.problem = f"{self._where}: Redis refuses to confirm writes: {reply}"
            return 0
        if isinstance(reply, StoreUnavailable):
            raise reply
        return int(reply[0] if isinstance(reply, list) else reply)

    async def _rhythm(self) -> str:
        try:
            found = await self._client.config_get("appendfsync")
        except redis.exceptions.ResponseError:  # CONFIG is often not for applications
            return "unknown"
        return str(found.get("appendfsync", "unknown"))

    async def check(self) -> None:
        """Looks at the settings that decide what Redis keeps; logs what may lose writes, once as long as it lasts.

        Raises:
            ConfigurationError: it may lose writes, and that is refused.
            StoreUnavailable: no answer.
        """
        try:
            found = await self._infos()
        except (redis.exceptions.RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
        problems = {problem for info in found for problem in self._problems(info)}
        remarks = set()
        if self._durability == "redis" and not all(info.get("aof_enabled") for info in found):
            remarks.add(
                f"{self._where}: Redis has no append-only file: a crash of Redis loses acknowledged writes that are not"
                " flushed yet; set appendonly yes"
            )
        if self._durability == "fsync" and (rhythm := await self._rhythm()) == "everysec":
            remarks.add(
                f"{self._where}: with appendfsync {rhythm} a write waits for the next fsync, and Valkey 9.1 was seen to"
                " confirm before it; set appendfsync always where that matters"
            )
        self._tell(remarks | (problems if self._unsafe != "allow" else set()))
        self.problem = min(problems) if problems and self._unsafe == "refuse" else None
        if self.problem is not None:
            raise ConfigurationError(self.problem)

    async def _infos(self) -> Sequence[Mapping[str, Any]]:
        """What the server says of itself; of a cluster, each node that takes writes."""
        if isinstance(self._client, Redis):
            return [await self._client.info()]
        nodes: Mapping[str, Mapping[str, Any]] = await self._client.info(target_nodes=RedisCluster.PRIMARIES)
        return list(nodes.values())

    def _problems(self, info: Mapping[str, Any]) -> set[str]:
        found = set()
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy.startswith("allkeys"):
            found.add(
                f"{self._where}: maxmemory-policy {policy} lets Redis evict buffered writes without a word;"
                " set noeviction or a volatile-... policy, or unsafe='warn'"
            )
        if self._durability == "fsync":
            if not info.get("aof_enabled"):
                found.add(f"{self._where}: durability='fsync' needs an append-only file; set appendonly yes")
            version = str(info.get("redis_version", "0"))
            if tuple(map(int, version.split(".")[:2])) < (7, 2):
                found.add(f"{self._where}: durability='fsync' needs WAITAOF, so Redis 7.2 or Valkey, not {version}")
        if self._durability == "replicated" and int(info.get("connected_slaves", 0)) < self.wanted:
            found.add(
                f"{self._where}: durability='replicated' needs {self.wanted} connected replicas; Redis has"
                f" {info.get('connected_slaves', 0)}"
            )
        return found

    def _tell(self, problems: set[str]) -> None:
        for problem in sorted(problems - self._told):
            logger.warning(problem)
        self._told = problems

    def __repr__(self) -> str:
        return f"Safety({self._durability!r}, {self._unsafe!r}, problem={self.problem!r})"


def check_settings(where: str, durability: object, unsafe: object) -> None:
    """Raises `ConfigurationError` for a setting that does not exist."""
    for name, value, known in (
        ("durability", durability, get_args(Durability)),
        ("unsafe", unsafe, get_args(Unsafe)),
    ):
        if value not in known:
            raise ConfigurationError(f"{where}: {name}={value!r} must be one of {', '.join(map(repr, known))}")
