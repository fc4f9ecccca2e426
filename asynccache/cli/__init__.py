"""The `asynccache` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command; says how to install what it needs if that is missing."""
    try:
        from asynccache.cli.app import app  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write("asynccache: the command line needs more packages: pip install 'asynccache[cli,embedded]'\n")
        raise SystemExit(2) from None
    app(prog_name="asynccache")
