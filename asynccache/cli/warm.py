"""`asynccache warm`: loads keys into the cache of an application before they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, TextIO
from uuid import UUID

import typer

from asynccache.cache import Cache
from asynccache.cli.application import find_strategies, using
from asynccache.cli.asking import FAILED, Application, Folder, run
from asynccache.cli.output import Output
from asynccache.clock import SYSTEM_CLOCK
from asynccache.errors import AsyncCacheError, ConfigurationError
from asynccache.strategies.sourced import Sourced
from asynccache.strategies.warm_reports import WarmOptions, WarmProgress
from asynccache.strategies.warming import Warming

__all__ = ["parse_key", "warm"]

_TELL_EVERY: Final = 1.0
_LINES: Final = 1000


def warm(
    application: Application,
    strategy: Annotated[str, typer.Argument(help="The strategy's name; tenant-7/user for one in a namespace.")],
    *,
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="FILE|-", help='A key a line: 42, ada, or JSON: "42", [7, "b"].')
    ] = None,
    query: Annotated[str | None, typer.Option("--query", metavar="SQL", help="Returns the key columns.")] = None,
    hot: Annotated[int | None, typer.Option("--hot", min=1, metavar="N", help="The N hottest keys.")] = None,
    rate: Annotated[float | None, typer.Option(help="Most keys loaded a second.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Batches under way at once.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Keys in a batch.")] = 500,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on where the last run of this name ended.")
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Load what is fresh, too.")] = False,
    uuids: Annotated[bool, typer.Option("--uuid", help="The keys in the file are UUIDs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    folder: Folder = Path(),
) -> None:
    """Loads what is not fresh of some keys, through the strategy's own source.

    SIGTERM or SIGINT: ends after the batches under way.

    Exit code: 0 if all is loaded, 1 if it was stopped or some failed, 2 for bad arguments.
    """
    output = Output(as_json=as_json)
    options: WarmOptions = {"rate": rate, "concurrency": concurrency, "batch": batch, "refresh": refresh}
    if resume is not None:
        options["resume"] = resume
    options["progress"] = _teller(output) if as_json else True

    def make_warming(found: Sourced[Any]) -> Warming[Any]:
        if query is not None:
            return found.warm_query(query, **options)
        if hot is not None:
            return found.warm_hot(hot, **options)
        return found.warm(_read_keys(str(keys), uuids=uuids), **options)

    async def work(make: Callable[[], Awaitable[Cache]]) -> int:
        if sum(one is not None for one in (keys, query, hot)) != 1:
            raise ConfigurationError("say what to warm: one of --keys, --query and --hot")
        cache = await make()
        found = find_strategies(cache, strategy)
        sourced = next((one for one in found if isinstance(one, Sourced)), None)
        if sourced is None:
            raise ConfigurationError(f"{found[0]!r} has no source: warm it in the application, with load=")
        return await _run(cache, lambda: make_warming(sourced), output)

    def failed(error: AsyncCacheError) -> None:
        output.say("failed", str(error), style="red", error=str(error))

    raise typer.Exit(run(application, folder, work, failed))


async def _run(cache: Cache, make: Callable[[], Warming[Any]], output: Output) -> int:
    async with using(cache):
        warming = make()
        with _signals(lambda number: warming.stop(f"told to by {signal.Signals(number).name}")):
            report = await warming
    text = (
        f"{report.loaded:,} loaded, {report.skipped:,} fresh, {report.missing:,} missing, {report.failed:,} failed in"
        f" {report.seconds:.1f} s; position {report.position:,}"
    )
    if report.stopped is not None:
        text += f"; stopped: {report.stopped}"
    output.say("warmed", text, style="green" if report.complete else "yellow", **asdict(report))
    return 0 if report.complete else FAILED


def _teller(output: Output) -> Callable[[WarmProgress], None]:
    told = SYSTEM_CLOCK.monotonic()

    def tell(progress: WarmProgress) -> None:
        nonlocal told
        now = SYSTEM_CLOCK.monotonic()
        if now - told >= _TELL_EVERY:
            told = now
            output.say("progress", "", **asdict(progress))

    return tell


@contextlib.contextmanager
def _signals(told: Callable[[int], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _read_keys(name: str, *, uuids: bool) -> AsyncGenerator[Any, None]:
    """The keys of a file, or of standard input, a line each; empty lines are left out."""
    if name == "-" and not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
        async for line in _piped():
            if text := line.strip():
                yield parse_key(text, uuids=uuids)
        return
    try:
        file: TextIO = sys.stdin if name == "-" else await asyncio.to_thread(Path(name).open, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--keys {name}: {error}") from error
    with file:
        while lines := await asyncio.to_thread(lambda: list(islice(file, _LINES))):
            for line in lines:
                if text := line.strip():
                    yield parse_key(text, uuids=uuids)


async def _piped() -> AsyncGenerator[str, None]:
    # A thread that waits for a pipe could not be ended by a signal.
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    try:
        while line := await reader.readline():
            yield line.decode()
    finally:
        transport.close()


def parse_key(text: str, *, uuids: bool = False) -> Any:
    """A key as it is written in a line: a whole number, text, or JSON: text in quotes, or an array for a tuple.

    Raises:
        ConfigurationError: no UUID, where the keys are UUIDs.
    """
    if uuids:
        try:
            return UUID(text)
        except ValueError as error:
            raise ConfigurationError(f"--uuid: {text!r:.100} is none") from error
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return _tuples(found) if isinstance(found, int | str | list) and not isinstance(found, bool) else text


def _tuples(found: Any) -> Any:
    return tuple([_tuples(item) for item in found]) if isinstance(found, list) else found
