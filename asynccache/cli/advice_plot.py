"""A picture of an advice: hit ratio and staleness against TTL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from asynccache.advising import Advice, Outcome
from asynccache.errors import ConfigurationError, MissingExtra

__all__ = ["plot"]

_SHOWN: Final[dict[str, str]] = {"read-through": "cache-aside, read-through"}


def plot(advice: Advice, path: Path) -> None:
    """Draws it into a file whose ending says the format.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtra("--plot needs the package matplotlib: pip install 'asynccache[advise]'") from None
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    for name, outcomes in _curves(advice).items():
        ttls = [outcome.plan.ttl for outcome in outcomes]
        above.plot(ttls, [100 * outcome.hit_ratio for outcome in outcomes], marker="o", label=name)
        below.plot(ttls, [100 * outcome.outdated_share for outcome in outcomes], marker="o", label=name)
    _mark(above, below, advice.verdict.outcome)
    above.set_ylabel("hit ratio, %")
    below.set_ylabel("reads older than the database, %")
    below.set_xlabel("TTL, seconds")
    below.set_xscale("log")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    above.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--plot {path}: {error}") from error


def _curves(advice: Advice) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in advice.outcomes:
        plan = outcome.plan
        if plan.strategy in {"none", "cache-aside"}:
            continue
        name = _SHOWN.get(plan.strategy, plan.strategy) + (" + changes" if plan.changes else "")
        found.setdefault(name + (", stale" if plan.stale else ""), []).append(outcome)
    return found


def _mark(above: Any, below: Any, chosen: Outcome) -> None:
    if chosen.plan.ttl:
        for axes, value in ((above, chosen.hit_ratio), (below, chosen.outdated_share)):
            axes.scatter([chosen.plan.ttl], [100 * value], s=180, facecolors="none", edgecolors="black", label="chosen")
