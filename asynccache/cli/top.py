"""`asynccache top`: the keys that are asked for most."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from asynccache.cache import Cache
from asynccache.cli.application import find_strategies, using
from asynccache.cli.asking import Application, Folder, Json, plain, run
from asynccache.errors import AsyncCacheError
from asynccache.hot_keys.settings import HotKey

__all__ = ["top"]

Found: TypeAlias = dict[str, list[HotKey]]

_EVERY: Final = 2.0


def top(
    application: Application,
    strategy: Annotated[str | None, typer.Argument(help="The strategy's name; all if it is left out.")] = None,
    most: Annotated[int, typer.Option("-n", min=1, help="How many keys of each.")] = 20,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until interrupted.")] = False,
    as_json: Json = False,
    folder: Folder = Path(),
) -> None:
    """Prints the keys that are asked for most, as all processes have counted them (with Cache(hot_keys=HotKeys())).

    Needs Redis, and no database. Exit code: 0, 1 if Redis does not answer, 2 for bad arguments.
    """

    async def work(make: Callable[[], Awaitable[Cache]]) -> int:
        cache = await make()
        async with using(cache, parts=False):
            if watch:
                await _watch(cache, strategy, most, as_json=as_json)
            found = await _look(cache, strategy, most)
            if as_json:
                typer.echo(_json(found))
            else:
                Console().print(_tables(found))
        return 0

    def failed(error: AsyncCacheError) -> None:
        typer.echo(f"asynccache: {error}", err=True)

    raise typer.Exit(run(application, folder, work, failed))


async def _look(cache: Cache, name: str | None, most: int) -> Found:
    return {one.origin: await one.hot(most) for one in find_strategies(cache, name)}


async def _watch(cache: Cache, name: str | None, most: int, *, as_json: bool) -> None:
    if as_json:
        while True:
            typer.echo(_json(await _look(cache, name, most)))
            await asyncio.sleep(_EVERY)
    with Live(_tables(await _look(cache, name, most)), auto_refresh=False) as live:
        while True:
            await asyncio.sleep(_EVERY)
            live.update(_tables(await _look(cache, name, most)), refresh=True)


def _json(found: Found) -> str:
    return json.dumps({name: [asdict(key) for key in keys] for name, keys in found.items()}, default=str)


def _tables(found: Found) -> Group:
    tables = []
    for name, keys in found.items():
        table = Table(title=f"Hot keys of {plain(name)}", title_justify="left")
        table.add_column("", justify="right")
        table.add_column("key")
        table.add_column("requests/s", justify="right")
        table.add_column("weight", justify="right")
        for place, one in enumerate(keys, 1):
            table.add_row(str(place), plain(repr(one.key)), f"{one.rate:,.2f}", f"{one.weight:,.1f}")
        tables.append(table)
    return Group(*tables)
