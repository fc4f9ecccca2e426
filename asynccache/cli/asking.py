"""What the commands on an application have in common: their arguments, and how they run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from asynccache.cache import Cache
from asynccache.cli.application import find_cache
from asynccache.errors import AsyncCacheError, ConfigurationError

__all__ = ["FAILED", "Application", "Folder", "Json", "ask", "plain", "run"]

T = TypeVar("T")

FAILED: Final = 1
_BAD_ARGUMENTS: Final = 2

Application = Annotated[
    str, typer.Argument(metavar="MODULE:CACHE", help="Where the cache is, or a function that returns it.")
]
Folder = Annotated[Path, typer.Option("--app-dir", help="Where modules are looked for first.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def ask(application: str, folder: Path, work: Callable[[Cache], Coroutine[Any, Any, T]]) -> T:
    """What `work` finds out about the application's cache; ends the command if it fails."""
    found: list[T] = []

    async def ask(make: Callable[[], Awaitable[Cache]]) -> int:
        found.append(await work(await make()))
        return 0

    def failed(error: AsyncCacheError) -> None:
        typer.echo(f"asynccache: {error}", err=True)

    if code := run(application, folder, ask, failed):
        raise typer.Exit(code)
    return found[0]


def run(
    application: str,
    folder: Path,
    work: Callable[[Callable[[], Awaitable[Cache]]], Coroutine[Any, Any, int]],
    failed: Callable[[AsyncCacheError], None],
) -> int:
    """Runs `work`; returns its exit code, or that of its failure: 1, or 2 for bad arguments."""
    try:
        return asyncio.run(work(find_cache(application, folder)))
    except ConfigurationError as error:
        failed(error)
        return _BAD_ARGUMENTS
    except AsyncCacheError as error:
        failed(error)
        return FAILED


def plain(value: object) -> str:
    """The text of a value, for rich."""
    # Keys and reasons hold what users wrote: brackets in it are no markup.
    return str(value).replace("[", "\\[")
