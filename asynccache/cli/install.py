"""Installs in the database what an application's cache needs there: tables, and the triggers of changes it follows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from asynccache.cache import Cache
from asynccache.cli.application import find_cache
from asynccache.errors import AsyncCacheError, ConfigurationError
from asynccache.postgres.changes import PostgresChanges
from asynccache.postgres.table import PostgresTable

__all__ = ["install"]

_FAILED: Final = 1
_BAD_ARGUMENTS: Final = 2


@dataclass(frozen=True, slots=True)
class _Parts:
    tables: list[PostgresTable[Any]]
    changes: list[PostgresChanges]


def install(
    application: Annotated[
        str, typer.Argument(metavar="MODULE:CACHE", help="Where the cache is, or a function that returns it.")
    ],
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the SQL of the triggers, for a migration, and change nothing.")
    ] = False,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Take the triggers away, and the outbox.")] = False,
    folder: Annotated[Path, typer.Option("--app-dir", help="Where modules are looked for first.")] = Path(),
) -> None:
    """Creates what the cache of an application needs in its database: the tables of write-behind, and the outbox and
    triggers of the changes that it follows. What is there is not touched.

    With --uninstall those triggers go, and the outbox with the last of them; tables of write-behind stay.

    Exit code: 0, 1 if the database does not answer or refuses, 2 for bad arguments.
    """
    try:
        lines = asyncio.run(_run(application, folder, only_print=only_print, uninstall=uninstall))
    except ConfigurationError as error:
        typer.echo(f"asynccache install: {error}", err=True)
        raise typer.Exit(_BAD_ARGUMENTS) from None
    except AsyncCacheError as error:
        typer.echo(f"asynccache install: {error}", err=True)
        raise typer.Exit(_FAILED) from None
    for line in lines:
        typer.echo(line)


async def _run(application: str, folder: Path, *, only_print: bool, uninstall: bool) -> list[str]:
    parts = _parts(await find_cache(application, folder)(), application)
    if only_print:
        return [changes.uninstall_sql() if uninstall else changes.sql() for changes in parts.changes]
    lines = []
    for changes in parts.changes:
        await (changes.uninstall() if uninstall else changes.install())
        lines.append(f"{'removed' if uninstall else 'installed'}: {changes!r}")
    if not uninstall:
        for table in parts.tables:
            async with table:
                await table.install()
            lines.append(f"installed: {table!r}")
    return lines


def _parts(cache: Cache, application: str) -> _Parts:
    adopted = cache.runtime.adopted
    found = _Parts(
        [part for part in adopted if isinstance(part, PostgresTable)],
        [part for part in adopted if isinstance(part, PostgresChanges)],
    )
    if not found.tables and not found.changes:
        raise ConfigurationError(f"{application} has no PostgresTable and follows no PostgresChanges")
    return found
