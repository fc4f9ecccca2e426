"""What the demo found, and how it is printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["CrashResult", "DemoReport", "RunResult", "StampedeResult", "print_report"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run of the workload.

    Attributes:
        name: the strategy.
        operations: how many reads and writes were done.
        seconds: how long that took.
        p50_ms, p99_ms: latency of an operation, in milliseconds.
        hit_ratio: share of reads answered from the cache; None without one.
        statements: SQL statements sent, those of the last flush included.
    """

    name: str
    operations: int
    seconds: float
    p50_ms: float
    p99_ms: float
    hit_ratio: float | None
    statements: int

    @property
    def per_second(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


@dataclass(frozen=True, slots=True)
class StampedeResult:
    """Many callers in several processes missed one key at once."""

    processes: int
    callers: int
    loads: int
    load_seconds: float
    slowest_seconds: float
    answered: int

    @property
    def held(self) -> bool:
        """Whether there was one load, and everybody had its value."""
        return self.loads == 1 and self.answered == self.callers


@dataclass(frozen=True, slots=True)
class CrashResult:
    """Two of three workers were killed while they flushed acknowledged writes."""

    acknowledged: int
    in_database_at_kill: int
    lost: int
    wrong: int
    seconds: float

    @property
    def held(self) -> bool:
        """Whether the database has all that was acknowledged."""
        return self.lost == 0 and self.wrong == 0


@dataclass(frozen=True, slots=True)
class DemoReport:
    """All of it."""

    redis: str
    postgres: str
    rows: int
    callers: int
    writes_share: float
    skew: float
    runs: list[RunResult] = field(default_factory=list)
    stampede: StampedeResult | None = None
    crash: CrashResult | None = None

    @property
    def held(self) -> bool:
        """Whether both scenes held."""
        return all(scene is not None and scene.held for scene in (self.stampede, self.crash))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "held": self.held}


def print_report(report: DemoReport, console: Console) -> None:
    """Prints the table and the scenes."""
    console.print(
        f"{report.rows:,} rows, {report.callers} callers, {report.writes_share:.0%} writes, keys by Zipf's law with"
        f" exponent {report.skew:g}; {report.redis}, {report.postgres}.",
        highlight=False,
    )
    table = Table()
    table.add_column("strategy", no_wrap=True)
    for column in ("ops/s", "p50 ms", "p99 ms", "hits", "SQL", "SQL/1,000 ops"):
        table.add_column(column, justify="right")
    for run in report.runs:
        table.add_row(
            run.name,
            f"{run.per_second:,.0f}",
            f"{run.p50_ms:.2f}",
            f"{run.p99_ms:.2f}",
            "-" if run.hit_ratio is None else f"{run.hit_ratio:.1%}",
            f"{run.statements:,}",
            f"{1000 * run.statements / run.operations:,.0f}",
        )
    console.print(table)
    if report.stampede is not None:
        scene = report.stampede
        console.print(
            f"{_mark(scene.held)} Stampede: {scene.callers:,} callers in {scene.processes} processes missed one key:"
            f" {scene.loads} load of {scene.load_seconds * 1000:.0f} ms, {scene.answered:,} answers, the slowest after"
            f" {scene.slowest_seconds * 1000:.0f} ms.",
            highlight=False,
        )
    if report.crash is not None:
        crash = report.crash
        console.print(
            f"{_mark(crash.held)} Crash: {crash.acknowledged:,} write-behind writes acknowledged; two of three workers"
            f" were killed (kill -9) with {crash.in_database_at_kill:,} in Postgres, and new ones started:"
            f" {crash.lost} lost, {crash.wrong} wrong.",
            highlight=False,
        )


def _mark(held: bool) -> str:
    return "[green]✓[/]" if held else "[red]✗[/]"
