"""A process of the history test: `python -m tests.history.client CONFIG-JSON`.

Its clients read and write a few rows through the cache, at random but by a seed, and say what they saw, one line each:

    ["read", row, start, end, version]      a read that began at `start` and returned at `end`
    ["write", row, start, end, version]     a write that was acknowledged at `end`: the call that made it has returned
    ["error", text]                         something that must not happen

Times are of CLOCK_MONOTONIC, which all processes of a machine share. The database is a table of rows with a version,
which every write increments. Rows below STRICT are only written inside `updating` and `put`; the others are also
changed behind the cache's back, and invalidated afterwards. Rows of the PAIR are seen through two more entries, too,
which hold the versions of both and depend on a tag.

With local tiers, `pushes` is the URL of Redis for the links that bring them, which have troubles of their own; and some
processes only read, since one's own writes keep a tier current whatever becomes of its link.

`ASYNCCACHE_TEST_BREAK` names a guard to take out of this process's scripts, or of its local tier: the test must then
find a violation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from redis.asyncio import Redis

from asynccache import (
    Applied,
    Batch,
    Cache,
    CacheAside,
    Delete,
    LoadContext,
    LocalTier,
    Policy,
    Put,
    StoreUnavailable,
    WriteThrough,
)
from asynccache.assembly import Changes
from asynccache.invalidation.tracking import Tracker
from asynccache.steps import BeginWrite, EndWrite, Fill, Step
from asynccache.stores import step_calls
from asynccache.stores.local import LocalEntries
from asynccache.stores.scripts import Script
from asynccache.stores.tiered import TieredStore
from tests.history.plan import CLIENTS, LATE, PAIR, POLICIES, ROWS, STRICT, TAG, WRITE_TIMEOUT, Row

BREAKS: Mapping[str, tuple[type[Step], str, str]] = {
    "fill without its token": (Fill, "not holds(ARGV[1])", "false"),
    "a writer's value although writers overlapped": (EndWrite, "string.sub(raw, 2, 2) == '0'", "true"),
    "a write without its mark at the begin": (BeginWrite, "become_writing(", "type("),
}
LOCAL_BREAKS = ("own writes that the tier is not told of", "a tier that stays on without its link", "pushes unheeded")


class Hiccup(Exception):
    """Raised by a writer after it has changed the database."""


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Database:
    """Rows and their versions; a `Source` and a `Sink`."""

    def __init__(self, pool: asyncpg.Pool[Any], rng: random.Random) -> None:
        self._pool = pool
        self._rng = rng

    async def load_many(self, keys: Sequence[int]) -> dict[int, Row]:
        found = await self._pool.fetch("SELECT key, version FROM rows WHERE key = ANY($1)", list(keys))
        await self.dawdle()
        return {key: Row(version) for key, version in found}

    async def load(self, key: int) -> Row:
        return (await self.load_many([key]))[key]

    async def pair(self) -> list[int]:
        rows = await self.load_many(PAIR)
        return [rows[key].version for key in PAIR]

    async def apply(self, batch: Batch[Row]) -> Applied[Row]:
        keys = sorted(write.key for write in batch.writes if isinstance(write, Put | Delete))
        return Applied(stored={key: Row(await self.change(key)) for key in keys})

    async def change(self, key: int) -> int:
        version: int = await self._pool.fetchval(
            "UPDATE rows SET version = version + 1 WHERE key = $1 RETURNING version", key
        )
        await self.dawdle()
        return version

    async def dawdle(self) -> None:
        """What others do meanwhile is what this is about."""
        if self._rng.random() < 0.5:
            await asyncio.sleep(self._rng.random() * 0.015)


@dataclass
class Clients:
    """What the clients of this process share."""

    cache: Cache
    database: Database
    rng: random.Random
    writes: bool = True
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.rows = CacheAside(self.cache, "row", type=Row, policy=POLICIES["row"])
        self.through = WriteThrough(self.cache, "row", source=self.database, type=Row, policy=POLICIES["row"])
        self.pairs = CacheAside(self.cache, "pair", type=list[int], policy=POLICIES["pair"], tags=[TAG])

    async def run(self) -> None:
        """One client."""
        does: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (16, self.get),
            (4, self.get_through),
            (4, self.get_many),
            (5, self.get_pair),
            (5, self.get_late_pair),
            (2, self.look),
        ]
        if self.writes:
            does += [
                (2, self.refresh),
                (4, self.update),
                (1, self.update_two),
                (1, self.update_and_fail),
                (3, self.put),
                (2, self.change_and_invalidate),
            ]
        weights, operations = zip(*does, strict=True)
        while not self.stopping.is_set():
            (operation,) = self.rng.choices(operations, weights)
            try:
                if self.rng.random() < 0.05:
                    await asyncio.wait_for(operation(), self.rng.random() * 0.02)
                else:
                    await operation()
            except (StoreUnavailable, TimeoutError):
                pass  # refused, or given up: nothing was promised
            except Exception as error:  # noqa: BLE001 - reported
                say(["error", f"{operation.__name__}: {error!r}"])
            await asyncio.sleep(self.rng.random() * 0.008)

    # -- reads

    async def get(self) -> None:
        row, start = self.any_row(), time.monotonic()
        self.seen(start, {row: await self.rows.get(row, self.database.load)})

    async def get_through(self) -> None:
        row, start = self.any_row(), time.monotonic()
        self.seen(start, {row: await self.through.get(row)})

    async def get_many(self) -> None:
        rows, start = self.rng.sample(range(ROWS), 3), time.monotonic()
        self.seen(start, await self.rows.get_many(rows, self.database.load))

    async def refresh(self) -> None:
        row, start = self.any_row(), time.monotonic()
        self.seen(start, {row: await self.rows.refresh(row, self.database.load)})

    async def look(self) -> None:
        row, start = self.any_row(), time.monotonic()
        found = await self.cache.get(self.rows.key(row), type=Row)
        if found is not None:
            self.seen(start, {row: found})

    async def get_pair(self) -> None:
        start = time.monotonic()
        self.seen_pair(start, await self.pairs.get("pair", lambda _: self.database.pair()))

    async def get_late_pair(self) -> None:
        async def load(ctx: LoadContext) -> list[int]:
            versions = await self.database.pair()
            ctx.tags([TAG])
            return versions

        start = time.monotonic()
        self.seen_pair(start, await self.cache.get_or_load(LATE, load, type=list[int]))

    # -- writes

    async def update(self) -> None:
        row, start = self.any_row(), time.monotonic()
        async with self.rows.updating(row, tags=self.tags(row)):
            version = await self.database.change(row)
        self.wrote(start, {row: version})

    async def update_two(self) -> None:
        first, second = sorted(self.rng.sample(range(ROWS), 2))
        start = time.monotonic()
        keys = self.rows.key(first), self.rows.key(second)
        async with self.cache.updating(*keys, tags=self.tags(first, second)):
            versions = {row: await self.database.change(row) for row in (first, second)}
        self.wrote(start, versions)

    async def update_and_fail(self) -> None:
        row, start, version = self.any_row(), time.monotonic(), 0
        try:
            async with self.rows.updating(row, tags=self.tags(row)):
                version = await self.database.change(row)
                raise Hiccup  # noqa: TRY301 - for the update to see
        except Hiccup:
            self.wrote(start, {row: version})

    async def put(self) -> None:
        row, start = self.any_row(), time.monotonic()
        stored = await self.through.put(row, Row(0), tags=self.tags(row))
        self.wrote(start, {row: stored.version})

    async def change_and_invalidate(self) -> None:
        row, start = self.rng.randrange(STRICT, ROWS), time.monotonic()
        version = await self.database.change(row)
        await self.rows.invalidate(row)
        self.wrote(start, {row: version})

    # -- what they say

    def any_row(self) -> int:
        return self.rng.randrange(ROWS)

    def tags(self, *rows: int) -> list[str]:
        return [TAG] if any(row in PAIR for row in rows) else []

    def seen(self, start: float, found: Mapping[int, Row | None]) -> None:
        end = time.monotonic()
        for row, value in found.items():
            say(["read", row, start, end, -1 if value is None else value.version])

    def seen_pair(self, start: float, versions: list[int] | None) -> None:
        self.seen(start, {row: Row(version) for row, version in zip(PAIR, versions or [-1, -1], strict=True)})

    def wrote(self, start: float, versions: Mapping[int, int]) -> None:
        end = time.monotonic()
        for row, version in versions.items():
            say(["write", row, start, end, version])


class Errors(logging.Handler):
    """Background work that failed is a failure of the test, but for what is started again."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.getMessage().startswith("service tracking failed"):
            say(["error", self.format(record)])


def break_tier(cache: Cache, name: str) -> None:
    store, entries = cache.runtime.store, cache.runtime.reader.entries
    assert isinstance(store, TieredStore)
    assert entries is not None
    if name == LOCAL_BREAKS[0]:
        store._entries = LocalEntries(LocalTier(), everything=(), monotonic=time.monotonic)  # nobody reads these
    elif name == LOCAL_BREAKS[1]:
        switch = entries.switch
        entries.switch = lambda on: switch(on) if on else None  # type: ignore[method-assign]
    else:
        Changes.changed = lambda self, key: self._room.wake(key)  # type: ignore[method-assign]


def lead_pushes(cache: Cache, url: str) -> None:
    """Lets the link that brings pushes lead through a proxy, and nothing else."""
    (tracker,) = [service for service in cache.runtime.services if isinstance(service, Tracker)]
    tracker._client = Redis.from_url(url)  # which makes no connection: the tracker does, as this would


def break_guard(name: str) -> None:
    step, guard, instead = BREAKS[name]
    script = step_calls._SCRIPTS[step]
    head, body = script.source.rsplit("\n-- KEYS", 1)
    assert body.count(guard) == 1, body
    source = f"{head}\n-- KEYS{body.replace(guard, instead)}"
    step_calls._SCRIPTS[step] = Script.of(script.name, source)


async def main(config: dict[str, Any]) -> None:
    logging.getLogger("asynccache").addHandler(Errors(logging.ERROR))
    broken = os.environ.get("ASYNCCACHE_TEST_BREAK", "")
    if broken in BREAKS:
        break_guard(broken)
    rng = random.Random(config["seed"])
    options: dict[str, Any] = {"policy": Policy(ttl=60, lease=1), "timeout": 0.5, "write_timeout": WRITE_TIMEOUT}
    if config["pushes"]:
        options["local"] = LocalTier()
    async with asyncpg.create_pool(
        config["database"], min_size=1, max_size=CLIENTS + 4, server_settings={"search_path": config["schema"]}
    ) as pool:
        while True:
            cache = Cache(config["redis"], namespace=config["namespace"], on_outage="refuse", **options)
            if config["pushes"]:
                lead_pushes(cache, config["pushes"])
            if broken in LOCAL_BREAKS:
                break_tier(cache, broken)
            try:
                await cache.startup()
            except StoreUnavailable:
                await asyncio.sleep(0.05)
                continue
            break
        clients = Clients(cache, Database(pool, rng), rng, writes=config["writes"])
        tasks = [asyncio.create_task(clients.run()) for _ in range(CLIENTS)]
        say(["ready"])
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        clients.stopping.set()
        await asyncio.gather(*tasks)
        await cache.shutdown()
        say(["stats", {name: getattr(cache.stats, name) for name in cache.stats.__slots__}])


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
