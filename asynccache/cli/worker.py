"""Runs the flushers and listeners of an application's cache without the application, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from asynccache.cache import Cache
from asynccache.cli.application import background_work
from asynccache.cli.health import report, serving, write_file
from asynccache.cli.output import Output
from asynccache.errors import AsyncCacheError
from asynccache.supervision import TaskOwner
from asynccache.write_behind.flusher import Flusher

__all__ = ["WorkerOptions", "run_worker"]

_LOOK: Final = 0.5
_LEFT: Final = 1


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        drain: longest time of the last flush, in seconds; None leaves it to each strategy.
        report_every: seconds between lines about what was flushed.
        health_file: is there, with a report, while the worker is well.
        health_port: answers HTTP; 0 takes a free one; None does not.
        health_host: where it does so.
    """

    drain: float | None = 10.0
    report_every: float = 10.0
    health_file: Path | None = None
    health_port: int | None = None
    health_host: str = "127.0.0.1"


async def run_worker(make: Callable[[], Awaitable[Cache]], options: WorkerOptions, output: Output) -> int:
    """Runs until SIGTERM or SIGINT, and flushes what it can; a second signal ends the process at once.

    Returns:
        0 if nothing was left, 1 if something was, or it could not be told.

    Raises:
        ConfigurationError: there is nothing to run.
        StoreUnavailable, DatabaseUnavailable: the cache could not be opened.
    """
    cache = await make()
    works = background_work(cache)
    stop = asyncio.Event()
    with _signals(stop, output):
        cache.runtime.background = True
        await cache.startup()
        failed: BaseException | None = None
        try:
            async with _telling(cache, works, options, output):
                await stop.wait()
            output.say("stopping", f"stopping: flushing for at most {_limit(options)}", drain=options.drain)
            for flusher in works:
                flusher.drain_limit = options.drain
        finally:
            try:
                await cache.shutdown()
            except AsyncCacheError as error:
                failed = error
                output.say("failed", f"closing failed: {error}", style="red", error=str(error))
    left = {flusher.origin: flusher.left for flusher in works}
    if any(count != 0 for count in left.values()):
        text = ", ".join(
            f"{name}: {'unknown' if count is None or count < 0 else count}" for name, count in left.items()
        )
        output.say("stopped", f"stopped; not flushed, and safe in Redis: {text}", style="yellow", left=left)
        return _LEFT
    output.say("stopped", "stopped; nothing is left", style="green", left=left)
    return 0 if failed is None else _LEFT


def _limit(options: WorkerOptions) -> str:
    return "as long as each strategy says" if options.drain is None else f"{options.drain:g} s"


@contextlib.contextmanager
def _signals(stop: asyncio.Event, output: Output) -> Any:
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stop.is_set():
            # What pends is in Redis, and a batch in flight is there, too, until the database has it.
            output.say("left", "told again: leaving at once; what pends is safe in Redis", style="yellow")
            os._exit(_LEFT)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _telling(
    cache: Cache, works: list[Flusher[Any]], options: WorkerOptions, output: Output
) -> AsyncIterator[None]:
    """Says what the worker does, and how it is."""
    logs = logging.getLogger("asynccache")
    level, propagate = logs.level, logs.propagate
    logs.setLevel(logging.INFO)
    logs.propagate = False
    logs.addHandler(output)
    owner = TaskOwner("worker")
    try:
        async with AsyncExitStack() as stack:
            port = None
            if options.health_port is not None:
                health = serving(options.health_host, options.health_port, lambda: report(cache, works))
                port = await stack.enter_async_context(health)
            names = [flusher.origin for flusher in works]
            where = f"; health on {options.health_host}:{port}" if port else ""
            follows = [health.name for health in cache.health().changes]
            does = [f"flushes {', '.join(names)}"] * bool(names) + [f"follows {', '.join(follows)}"] * bool(follows)
            text = f"worker {os.getpid()} {' and '.join(does)} of {cache!r}{where}"
            output.say("started", text, style="bold", pid=os.getpid(), strategies=names, health_port=port)
            owner.start(_report(cache, works, options, output))
            yield
    finally:
        await owner.aclose()
        if options.health_file is not None:
            await asyncio.to_thread(write_file, options.health_file, None)
        logs.removeHandler(output)
        logs.setLevel(level)
        logs.propagate = propagate


async def _report(cache: Cache, works: list[Flusher[Any]], options: WorkerOptions, output: Output) -> None:
    owned: dict[str, tuple[int, ...]] = {}
    told = {flusher.origin: flusher.stats for flusher in works}
    looks = 0
    while True:
        if options.health_file is not None:
            await asyncio.to_thread(write_file, options.health_file, report(cache, works))
        for flusher in works:
            stats = flusher.stats
            if owned.get(flusher.origin) != stats.owned:
                owned[flusher.origin] = stats.owned
                workers = flusher.ownership.workers if flusher.ownership else ()
                text = f"{flusher.origin}: {len(stats.owned)} partitions of {flusher.buffer.partitions}"
                text += f", shared by {len(workers)} workers" if len(workers) > 1 else ""
                output.say("owned", text, strategy=flusher.origin, partitions=stats.owned, workers=workers)
            before = told[flusher.origin]
            if looks and looks % max(1, round(options.report_every / _LOOK)) == 0 and stats.batches != before.batches:
                told[flusher.origin] = stats
                text = (
                    f"{flusher.origin}: {stats.batches - before.batches} batches,"
                    f" {stats.writes - before.writes} writes,"
                    f" {stats.rejected - before.rejected} refused, lag {stats.lag:.1f} s"
                )
                output.say("flushed", text, strategy=flusher.origin, **asdict(stats))
        looks += 1
        await asyncio.sleep(_LOOK)
