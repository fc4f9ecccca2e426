"""The Lua scripts of the package: read from their files, and known to servers by their SHA."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple, TypeAlias

__all__ = ["Argument", "Call", "Script", "load_script"]

Argument: TypeAlias = bytes | str | int


class Script(NamedTuple):
    """A script and the SHA-1 by which servers know it."""

    name: str
    source: str
    sha: str


class Call(NamedTuple):
    """One execution of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]


@cache
def load_script(name: str, folder: str = "asynccache.stores", *, prelude: str | None = "_cell") -> Script:
    """Reads a script.

    Args:
        name: the file's name without `.lua`.
        folder: the package whose folder `lua` holds it.
        prelude: a file put in front of it: shared definitions.
    """
    files = resources.files(folder) / "lua"
    parts = [name] if prelude is None else [prelude, name]
    source = "\n".join((files / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())  # noqa: S324 - Redis names scripts by SHA-1
