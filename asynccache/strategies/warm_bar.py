"""A progress bar for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynccache.errors import MissingExtra
from asynccache.strategies.warm_reports import WarmProgress

__all__ = ["WarmBar", "listener"]


class WarmBar:
    """A bar with the counts of a warming, on standard error.

    Raises:
        MissingExtra: `rich` is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            from rich.console import Console  # noqa: PLC0415 - an extra
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise MissingExtra("progress=True needs the extra cli: pip install 'asynccache[cli]'") from error
        self._bar: Any = Progress(
            TextColumn("warming {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task: Any = self._bar.add_task(name, total=None, counts="")
        self._begun = False

    def show(self, progress: WarmProgress) -> None:
        """Draws it anew."""
        if not self._begun:
            self._begun = True
            self._bar.start()
        counts = f"{progress.loaded:,} loaded, {progress.skipped:,} fresh, {progress.missing:,} missing"
        if progress.failed:
            counts += f", {progress.failed:,} failed"
        self._bar.update(self._task, completed=progress.position, total=progress.total, counts=counts)

    def close(self) -> None:
        """Leaves it as it is, and the terminal as it was."""
        if self._begun:
            self._bar.stop()


def listener(
    progress: Callable[[WarmProgress], object] | bool | None, name: str
) -> tuple[Callable[[WarmProgress], object] | None, Callable[[], None]]:
    """Whom to tell of progress, and what to call at the end.

    Raises:
        MissingExtra: a bar is wanted, and `rich` is not installed.
    """
    if isinstance(progress, bool) or progress is None:
        if not progress:
            return None, lambda: None
        bar = WarmBar(name)
        return bar.show, bar.close
    return progress, lambda: None
