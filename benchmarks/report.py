"""The report of a run: text for people, JSON to compare with, pictures."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.model import Finding, Series

__all__ = ["compare", "environment", "to_markdown", "write"]

_PACKAGES = (
    "asynccache",
    "redis",
    "hiredis",
    "asyncpg",
    "msgspec",
    "moka-py",
    "cashews",
    "aiocache",
    "dogpile.cache",
    "async_lru",
    "cachebox",
    "uvloop",
)


def environment(servers: str, loop: str, quick: bool, load: str) -> dict[str, str]:
    """What the figures depend on."""
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "load of the machine": load,
        "loop": loop,
        "servers": servers,
        "packages": ", ".join(versions),
        "mode": "quick" if quick else "full",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def to_markdown(run: dict[str, str], findings: Sequence[Finding], failed: dict[str, str]) -> str:
    """The report as Markdown."""
    lines = ["# Benchmarks", "", "Made by `python -m benchmarks`. Figures of one machine: read them as ratios.", ""]
    lines += [f"- {name}: {value}" for name, value in run.items()]
    lines += [f"- not measured: {name} ({why})" for name, why in failed.items()]
    for finding in findings:
        lines += ["", f"## {finding.title}", "", *_table(finding)]
        lines.append("")
        lines += [
            f"- {'met' if met else '**not met**'}: {text} ({_figure(value)})" for text, value, met in finding.targets
        ]
        lines += [f"- {note}" for note in finding.notes]
    return "\n".join(lines) + "\n"


def _table(finding: Finding) -> list[str]:
    loops = [*finding.beside]
    head = ["contender", finding.unit, "spread", "ours to theirs"]
    for loop in loops:
        head += [f"on {loop}", "spread", "ours to theirs"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for series in finding.series:
        cells = [series.name, *_cells(series, finding.series[0])]
        for loop in loops:
            others = {one.name: one for one in finding.beside[loop]}
            ours = others[finding.series[0].name]
            cells += _cells(others[series.name], ours) if series.name in others else ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(series: Series, ours: Series) -> list[str]:
    ratio = "" if series is ours or not series.median else f"{ours.median / series.median:.2f}"
    return [_figure(series.median), f"±{series.spread:.0%}", ratio]


def write(out: Path, run: dict[str, str], findings: Sequence[Finding], failed: dict[str, str]) -> None:
    """Writes report.md, report.json and the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(to_markdown(run, findings, failed))
    content = {"environment": run, "findings": [finding.to_json() for finding in findings], "failed": failed}
    (out / "report.json").write_text(json.dumps(content, indent=1))
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
    except ImportError:
        sys.stderr.write("no pictures: pip install 'asynccache[bench]'\n")
        return
    mpl.use("Agg")
    for finding in findings:
        _bars(out, finding)
        if finding.curves:
            _curves(out, finding)


def _bars(out: Path, finding: Finding) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - an extra

    series = list(reversed(finding.series))
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.45 * len(series)))
    medians = [one.median for one in series]
    errors = [one.median * one.spread for one in series]
    colours = ["tab:blue" if one is finding.series[0] else "tab:gray" for one in series]
    axes.barh([one.name for one in series], medians, xerr=errors, color=colours)
    axes.set_xlabel(finding.unit)
    axes.set_title(finding.title, fontsize=10)
    figure.tight_layout()
    figure.savefig(out / f"{finding.name}.png", dpi=110)
    plt.close(figure)


def _curves(out: Path, finding: Finding) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - an extra

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for name, points in finding.curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xscale("log", base=10)
    if finding.curve_axes[1].endswith("ms"):
        axes.set_yscale("log", base=10)
    axes.set_xlabel(finding.curve_axes[0])
    axes.set_ylabel(finding.curve_axes[1])
    axes.set_title(finding.title, fontsize=10)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out / f"{finding.name}-curve.png", dpi=110)
    plt.close(figure)


def compare(old: dict[str, Any], findings: Sequence[Finding]) -> list[str]:
    """How our medians, relative to each contender's, have changed since an old report; a line each.

    Ratios and not figures: the old report may be another machine's.
    """
    lines = []
    before = {finding["name"]: finding for finding in old["findings"]}
    for finding in findings:
        was = before.get(finding.name)
        if was is None:
            lines.append(f"{finding.name}: not in the old report")
            continue
        old_medians = {one["name"]: sorted(one["rounds"])[len(one["rounds"]) // 2] for one in was["series"]}
        ours = finding.series[0]
        old_ours = old_medians.get(ours.name)
        for series in finding.series[1:]:
            other = old_medians.get(series.name)
            if not other or not old_ours or not series.median:
                continue
            then, now = old_ours / other, ours.median / series.median
            lines.append(f"{finding.name}: {then:.2f} -> {now:.2f} x {series.name} ({now / then - 1:+.0%})")
    return lines
