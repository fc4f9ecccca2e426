"""What commands that run on print: lines for people, or one JSON object a line for machines."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape

from asynccache.clock import SYSTEM_CLOCK, Clock

__all__ = ["Output"]


class Output(logging.Handler):
    """Prints events, and what the package logs as events, too.

    Args:
        as_json: one JSON object a line: `at` (ISO 8601, UTC), `event`, and what belongs to it.
        clock: reads time.
    """

    def __init__(self, *, as_json: bool, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(logging.INFO)
        self._as_json = as_json
        self._clock = clock
        self._console = Console(soft_wrap=True, highlight=False)

    def say(self, event: str, text: str, /, *, style: str = "", **facts: Any) -> None:
        """Prints one event.

        Args:
            event: what happened, for machines.
            text: the same, for people.
            style: of the text, on a terminal.
            facts: what belongs to it, for machines.
        """
        at = dt.datetime.fromtimestamp(self._clock.wall_ms() / 1000, dt.UTC)
        if self._as_json:
            line = {"at": at.isoformat(timespec="milliseconds"), "event": event, **facts}
            sys.stdout.write(json.dumps(line, default=str) + "\n")
        else:
            body = f"[{style}]{escape(text)}[/]" if style else escape(text)
            self._console.print(f"[dim]{at:%H:%M:%S}[/] {body}")
        sys.stdout.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """A line that was logged."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else ""
        self.say("log", record.getMessage(), style=style, level=record.levelname.lower(), message=record.getMessage())
