"""The commands for write-behind: the worker, what pends, and dead letters."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from asynccache.cli import dead as letters
from asynccache.cli.asking import FAILED, Application, Folder, Json, ask, plain, run
from asynccache.cli.output import Output
from asynccache.cli.pending import look, print_pending
from asynccache.cli.worker import WorkerOptions, run_worker
from asynccache.errors import AsyncCacheError

__all__ = ["dead", "pending", "worker"]

Strategy = Annotated[str, typer.Argument(help="The strategy's name.")]
AnyStrategy = Annotated[str | None, typer.Argument(help="The strategy's name; all if it is left out.")]
Ids = Annotated[list[int] | None, typer.Argument(help="Of dead letters.")]
All = Annotated[bool, typer.Option("--all", help="All there are.")]


def worker(
    application: Application,
    drain: Annotated[float, typer.Option(min=0, help="Longest time of the last flush, in seconds.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    report_every: Annotated[float, typer.Option(min=0.5, help="Seconds between reports of what was flushed.")] = 10.0,
    health_file: Annotated[
        Path | None, typer.Option(help="Rewritten as JSON while all is well; removed when not, and at the end.")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Answers HTTP: 200 while all is well, else 503; 0: a free one.")
    ] = None,
    health_host: Annotated[str, typer.Option(help="Where it does; 0.0.0.0 for probes from outside.")] = "127.0.0.1",
    folder: Folder = Path(),
) -> None:
    """Runs the write-behind flushers of an application's cache, without the application. Several may run.

    SIGTERM or SIGINT: flushes what it can and ends. A second one: ends at once; what is not flushed stays in Redis.

    Exit code: 0 if nothing was left, 1 if something was left or failed, 2 for bad arguments.
    """
    output = Output(as_json=as_json)
    options = WorkerOptions(drain, report_every, health_file, health_port, health_host)

    def failed(error: AsyncCacheError) -> None:
        output.say("failed", str(error), style="red", error=str(error))

    raise typer.Exit(run(application, folder, lambda make: run_worker(make, options, output), failed))


def pending(
    application: Application,
    strategy: AnyStrategy = None,
    every: Annotated[bool, typer.Option("--every", help="Partitions in which nothing waits, too.")] = False,
    as_json: Json = False,
    folder: Folder = Path(),
) -> None:
    """Prints what waits for the database: keys, the oldest one's age, batches in flight, owners, dead letters.

    Works while the database is down. Exit code: 0, 1 if Redis does not answer, 2 for bad arguments.
    """
    found = ask(application, folder, lambda cache: look(cache, strategy))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], default=str))
    else:
        print_pending(found, Console(), every=every)


dead = typer.Typer(help="Writes that the database refused. Exit code: 0, 1 if something failed, 2 for bad arguments.")


@dead.command("list")
def list_dead(
    application: Application,
    strategy: AnyStrategy = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, oldest first.")] = 100,
    as_json: Json = False,
    folder: Folder = Path(),
) -> None:
    """Lists dead letters, oldest first."""
    found = ask(application, folder, lambda cache: letters.list_letters(cache, strategy, limit))
    if as_json:
        rows = [asdict(letter) for letter in found]
        for row in rows:
            del row["record"]
        typer.echo(json.dumps(rows, default=str))
        return
    table = Table("id", "strategy", "table", "operation", "key", "attempts", "failed at", "reason")
    for one in found:
        at = f"{one.failed_at:%Y-%m-%d %H:%M:%S}"
        cells = (one.id, one.origin, one.table, one.operation, one.key or "", one.attempts, at, one.reason)
        table.add_row(*map(plain, cells))
    Console().print(table)


@dead.command()
def show(
    application: Application,
    strategy: Strategy,
    letter: Annotated[int, typer.Argument(metavar="ID")],
    as_json: Json = False,
    folder: Folder = Path(),
) -> None:
    """Shows one dead letter and the write that it holds."""
    facts = ask(application, folder, lambda cache: letters.show(cache, strategy, letter))
    if as_json:
        typer.echo(json.dumps(facts, default=str))
        return
    for name, value in facts.items():
        typer.echo(f"{name:>12}: {value}")


@dead.command()
def retry(
    application: Application,
    strategy: Strategy,
    ids: Ids = None,
    every: All = False,
    as_json: Json = False,
    folder: Folder = Path(),
) -> None:
    """Tries dead letters again, over what the rows hold now. What is refused again stays, and the exit code is 1."""
    wanted = _wanted(ids, every=every)
    tried = ask(application, folder, lambda cache: letters.retry(cache, strategy, wanted))
    facts = {"applied": tried.applied, "failed": tried.failed}
    typer.echo(json.dumps(facts) if as_json else f"{tried.applied} written, {tried.failed} refused again")
    if tried.failed:
        raise typer.Exit(FAILED)


@dead.command()
def drop(
    application: Application,
    strategy: Strategy,
    ids: Ids = None,
    every: All = False,
    as_json: Json = False,
    folder: Folder = Path(),
) -> None:
    """Deletes dead letters for good."""
    wanted = _wanted(ids, every=every)
    count = ask(application, folder, lambda cache: letters.drop(cache, strategy, wanted))
    typer.echo(json.dumps({"dropped": count}) if as_json else f"{count} dropped")


def _wanted(ids: list[int] | None, *, every: bool) -> list[int] | None:
    if bool(ids) == every:
        raise typer.BadParameter("name the ids of dead letters, or --all")
    return None if every else ids
