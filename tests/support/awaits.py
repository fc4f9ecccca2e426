"""Something happens to a coroutine at its n-th await: it is cancelled, or another thing is done there."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from asynccache import Cache
from asynccache.entry import Lease, Writing, parse_cell
from tests.support.gates import until

MOST_AWAITS = 200


class AtAwait:
    """Drives a coroutine, and does something at its n-th suspension.

    Args:
        at: n, from 0.
        late: in the moment in which the coroutine's wait is over, and not while it waits.
        do: what; cancels the coroutine's task if left out.

    Attributes:
        reached: whether there were that many.
    """

    def __init__(self, at: int, *, late: bool = False, do: Callable[[], object] | None = None) -> None:
        self._at = at
        self._late = late
        self._do = do
        self.reached = False

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs the coroutine to its end."""
        return await self._drive(work)

    @types.coroutine
    def _drive(self, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        do = self._do or task.cancel
        error: BaseException | None = None
        for count in range(MOST_AWAITS):
            try:
                waits_for = work.send(None) if error is None else work.throw(error)
            except StopIteration as end:
                return end.value
            if count == self._at:
                self.reached = True
                if self._late and waits_for is not None:
                    waits_for.add_done_callback(lambda _: do())
                else:
                    do()
            try:
                yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - handed to the coroutine
                error = thrown
            else:
                error = None
        raise AssertionError(f"more than {MOST_AWAITS} awaits")


async def outcome(task: asyncio.Task[Any]) -> Any:
    """What a task returned or raised."""
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def tasks_end(before: set[asyncio.Task[Any]]) -> None:
    """Waits until no other tasks are there than before."""
    try:
        await until(lambda: asyncio.all_tasks() <= before, "the tasks to end")
    except AssertionError as error:
        left = "\n".join(f"  {task!r}" for task in asyncio.all_tasks() - before)
        raise AssertionError(f"tasks are left:\n{left}") from error


def connections_of(cache: Cache, store: Any = None) -> BlockingConnectionPool:
    """The connections of a cache with a URL; of `store` if gates are in front of it."""
    guard = cache.runtime.guard
    assert guard is not None
    client = (store or guard.inner).client
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    return pool


async def nothing_is_left(redis: Redis, cache: Cache, namespace: str, *, inside: Any = None) -> None:
    """Waits until no lease and no mark of a writer is left, and checks that nobody holds or waits for anything."""

    # Leases are given back in the background, and would stay for ten seconds; marks of writers for ten minutes.
    async def settled() -> bool:
        keys = [key async for key in redis.scan_iter(match=f"{namespace}*", count=1000)]
        cells = [parse_cell(raw) for raw in await redis.mget(keys) if isinstance(raw, bytes)] if keys else []
        return not any(isinstance(cell, Lease | Writing) for cell in cells)

    await until(settled, "leases and marks to go")
    guard = cache.runtime.guard
    assert guard is not None
    assert guard.owed == 0
    assert not connections_of(cache, inside)._in_use_connections
    assert len(cache.runtime.reader._flights) == 0
    assert len(cache.runtime.reader._room) == 0
    assert not cache.runtime.reader._refreshing
    assert cache.runtime.reader._unleased._value == 64
