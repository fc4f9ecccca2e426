"""The commands and their options."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console

import asynccache
from asynccache.cli.advise import advise_command
from asynccache.cli.demo.report import print_report
from asynccache.cli.demo.run import DemoOptions, run_demo
from asynccache.cli.install import install
from asynccache.cli.top import top
from asynccache.cli.warm import warm
from asynccache.cli.write_behind import dead, pending, worker
from asynccache.errors import AsyncCacheError

__all__ = ["app"]

app = typer.Typer(
    help="Caching for asyncio services on PostgreSQL and Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(worker)
app.command()(pending)
app.command()(install)
app.command("advise")(advise_command)
app.add_typer(dead, name="dead")
app.command()(warm)
app.command()(top)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(asynccache.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Caching for asyncio services on PostgreSQL and Redis."""
    del version


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Shorter runs and fewer rows; the same scenes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random keys.")] = 1,
) -> None:
    """Runs one workload without a cache and through each strategy, then two scenes: a stampede and a crash.

    Takes REDIS_URL and DATABASE_URL if they are set, working in a namespace and a schema of its own which it removes;
    else it starts embedded servers. Exit code: 0 if both scenes held, 1 if one did not, 3 if a server cannot be had.
    """
    console = Console(stderr=as_json)
    try:
        report = asyncio.run(run_demo(DemoOptions(quick=quick, seed=seed), console, progress=not as_json))
    except AsyncCacheError as error:
        console.print(f"[red]asynccache demo:[/] {error}", highlight=False)
        raise typer.Exit(3) from None
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        print_report(report, console)
    raise typer.Exit(0 if report.held else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(context: typer.Context) -> None:
    """Runs the benchmarks of a source checkout: `python -m benchmarks`, with the same options (see --help)."""
    if importlib.util.find_spec("benchmarks") is None:
        typer.echo(
            "asynccache bench: the benchmarks are in a source checkout, which has to be installed with -e", err=True
        )
        raise typer.Exit(2)
    # As a process: they bring their own event loop.
    found = subprocess.run([sys.executable, "-m", "benchmarks", *context.args], check=False)  # noqa: S603 - our own
    raise typer.Exit(found.returncode)
