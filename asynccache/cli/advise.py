"""`asynccache advise`: which strategy and which TTL, from a trace or from a few numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asynccache.advising import Advice, Need, Outcome, Plan, Trace, Workload, World, advise, read_trace
from asynccache.advising.advice import spelled
from asynccache.advising.parsing import TimeUnit
from asynccache.cli.advice_plot import plot
from asynccache.errors import AsyncCacheError, ConfigurationError
from asynccache.policy import seconds

__all__ = ["advise_command"]

_NOTHING = 1
_BAD_ARGUMENTS = 2

_Trace = Annotated[
    str | None,
    typer.Argument(metavar="TRACE", help="CSV (time,operation,key) or JSON lines, as `record=` writes; - for stdin."),
]
_Number = Annotated[float | None, typer.Option(min=0, help="A second; instead of a trace.")]


def advise_command(
    trace: _Trace = None,
    *,
    reads: _Number = None,
    writes: _Number = None,
    keys: Annotated[int | None, typer.Option(min=1, help="How many there are [100000].")] = None,
    skew: Annotated[float | None, typer.Option(min=0, help="Zipf exponent; 0: all alike [0.9].")] = None,
    duration: Annotated[str | None, typer.Option(help="Length of the workload made, such as 10m.")] = None,
    query_cost: Annotated[str, typer.Option(help="Of a load, where the trace has none.")] = "5ms",
    staleness: Annotated[
        str | None,
        typer.Option(help="How far behind the database a read may be; 0: never. Left out: the less the better."),
    ] = None,
    loss_window: Annotated[
        str,
        typer.Option(help="For how long an acknowledged write may be in Redis only; 0: it must be in the database."),
    ] = "0",
    foreign_writes: Annotated[
        float, typer.Option(min=0, max=1, help="Share of writes made by others, whom the cache does not hear of.")
    ] = 0.0,
    ttl: Annotated[list[str] | None, typer.Option(help="To try, such as 5m; may be repeated.")] = None,
    stale: Annotated[
        float, typer.Option(min=0, help="`stale` of the plans that have it, as a share of the TTL.")
    ] = 0.5,
    flush_every: Annotated[str, typer.Option(help="Of write-behind.")] = "1s",
    sample: Annotated[float, typer.Option(help="Take this share of the trace's keys, for long traces.")] = 1.0,
    recorded_share: Annotated[
        float, typer.Option(help="The `sample` that the trace was recorded with; scales rates up.")
    ] = 1.0,
    time_unit: Annotated[str, typer.Option(help="Of times that are numbers: s, ms, us, ns.")] = "s",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 1,
    every: Annotated[bool, typer.Option("--all", help="Show the plans with `stale`, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw hit ratio and staleness against TTL into this file (PNG, SVG, PDF)."),
    ] = None,
) -> None:
    """Simulates each strategy and TTL on a trace, or on a workload made of a few numbers, and recommends one.

    Exit code: 0 if a cache is recommended, 1 if none is, 2 for bad arguments or a trace that cannot be read.
    """
    console = Console(stderr=as_json)
    try:
        need = Need(
            None if staleness is None else _duration(staleness, "--staleness"),
            loss=_duration(loss_window, "--loss-window"),
            ttls=tuple(_duration(one, "--ttl") for one in ttl or ()),
            stale=stale,
            flush_every=_duration(flush_every, "--flush-every"),
        )
        cost = _duration(query_cost, "--query-cost")
        world = World(query_cost=cost, write_cost=cost, foreign=foreign_writes, seed=seed)
        if trace is not None:
            if any(one is not None for one in (reads, writes, keys, skew, duration)):
                raise ConfigurationError(
                    "--reads, --writes, --keys, --skew and --duration make a workload: leave them out with a trace"
                )
            share = _share(recorded_share)
            found = _read(trace, time_unit, sample)
            found.share *= share
        elif reads is None and writes is None:
            raise ConfigurationError(
                "give a trace, or numbers: asynccache advise --reads 2000 --writes 50 --keys 100000"
            )
        else:
            length = None if duration is None else _duration(duration, "--duration")
            found = Workload(
                reads or 0.0,
                writes or 0.0,
                100_000 if keys is None else keys,
                0.9 if skew is None else skew,
                length,
                seed,
            ).trace()

        def progress(plans: Iterable[Plan]) -> Iterable[Plan]:
            bar = Console(stderr=True)
            return track(list(plans), "simulating", console=bar, transient=True, disable=not bar.is_terminal)

        advice = advise(found, need, world, progress=progress)
        if picture is not None:
            plot(advice, picture)
    except AsyncCacheError as error:
        Console(stderr=True).print(f"[red]asynccache advise:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(_BAD_ARGUMENTS) from None
    if as_json:
        typer.echo(json.dumps(_to_json(found, advice), indent=2))
    else:
        _print(console, found, advice, every=every)
    raise typer.Exit(_NOTHING if advice.verdict.outcome.plan.strategy == "none" else 0)


def _read(path: str, unit: str, sample: float) -> Trace:
    if unit not in {"s", "ms", "us", "ns"}:
        raise ConfigurationError(f"--time-unit {unit} must be s, ms, us or ns")
    known: TimeUnit = unit  # type: ignore[assignment]  # checked above
    try:
        with _opened(path) as lines:
            return read_trace(lines, name=path, unit=known, sample=sample)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


@contextmanager
def _opened(path: str) -> Iterator[Iterable[str]]:
    if path == "-":
        yield sys.stdin
        return
    with Path(path).open(encoding="utf-8", newline="") as file:
        yield file


def _share(given: float) -> float:
    if not 0 < given <= 1:
        raise ConfigurationError(f"--recorded-share {given:g} must be above 0 and at most 1")
    return given


def _duration(given: str, name: str) -> float:
    try:
        return seconds(float(given), name)
    except ValueError:
        return seconds(given, name)


def _print(console: Console, trace: Trace, advice: Advice, *, every: bool) -> None:
    sampled = f", {trace.share:.0%} of the keys" if trace.share < 1 else ""
    console.print(
        f"{len(trace):,} operations on {trace.key_count:,} keys in {trace.duration:,.1f} s{sampled}", highlight=False
    )
    if trace.torn:
        console.print("[yellow]the last line was not written to its end, and is left out[/]")
    late = any(outcome.outdated for outcome in advice.outcomes)
    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    table.add_column("strategy", no_wrap=True)
    chosen, before = advice.verdict.outcome, ""
    stale = every or chosen.plan.stale > 0
    for name in (
        "TTL",
        *(["stale"] if stale else []),
        "hits",
        "reads/s",
        "writes/s",
        "outdated",
        "oldest",
        "loss",
        "entries",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for outcome in advice.outcomes:
        plan = outcome.plan
        if plan.strategy == "cache-aside" or (plan.stale and not every and outcome is not chosen):
            continue
        name = "+ changes" if plan.changes else plan.strategy
        style = "bold green" if outcome is chosen else None
        table.add_row("" if name == before else name, *_cells(outcome, stale=stale), style=style)
        before = name
    console.print(table)
    console.print(
        "cache-aside comes to the same as read-through. hits: share of reads answered out of the cache;"
        " reads/s, writes/s: rows of the database; loss: how long an acknowledged write may be in Redis only;"
        " entries: most alive at once."
        + (" outdated: share of reads older than the database; oldest: how far at most." if late else "")
        + (" + changes: read-through, told by the database." if _told(advice) else ""),
        style="dim",
        highlight=False,
    )
    console.print(f"\n{advice.verdict.text}", highlight=False, style="bold")


def _told(advice: Advice) -> bool:
    return any(outcome.plan.changes for outcome in advice.outcomes)


def _cells(outcome: Outcome, *, stale: bool) -> tuple[str, ...]:
    plan = outcome.plan
    return (
        spelled(plan.ttl) if plan.ttl else "",
        *([spelled(plan.stale) if plan.stale else ""] if stale else []),
        f"{outcome.hit_ratio:.1%}",
        f"{outcome.reads_per_second:,.1f}",
        f"{outcome.writes_per_second:,.1f}",
        f"{outcome.outdated_share:.1%}" if outcome.outdated else "",
        f"{outcome.oldest:,.1f}s" if outcome.outdated else "",
        spelled(outcome.loss_window) if outcome.loss_window else "",
        f"{outcome.entries:,}",
    )


def _to_json(trace: Trace, advice: Advice) -> dict[str, Any]:
    verdict = advice.verdict
    return {
        "trace": {
            "operations": len(trace),
            "keys": trace.key_count,
            "duration": trace.duration,
            "share": trace.share,
            "torn": trace.torn,
        },
        "plans": [_outcome(outcome) for outcome in advice.outcomes],
        "recommended": {"rule": verdict.rule, "text": verdict.text, **_outcome(verdict.outcome)},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        **asdict(outcome),
        "hit_ratio": outcome.hit_ratio,
        "outdated_share": outcome.outdated_share,
        "reads_per_second": outcome.reads_per_second,
        "writes_per_second": outcome.writes_per_second,
        "combined": outcome.combined,
    }
