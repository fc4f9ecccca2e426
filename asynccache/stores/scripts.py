"""The Lua scripts of the package: read from their files, and known to servers by their SHA."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

__all__ = ["Argument", "Call", "Script", "ScriptRunner", "load_script"]

Argument: TypeAlias = bytes | str | int


class Script(NamedTuple):
    """A script and the SHA-1 by which servers know it.

    Attributes:
        name: the file's name without `.lua`.
        source: its text.
        sha: of the text.
        many: the script that runs this one for several sets of keys and arguments of the same numbers; None for a
            script that is itself of that kind.
    """

    name: str
    source: str
    sha: str
    many: Script | None = None

    @classmethod
    def of(cls, name: str, source: str, prelude: str = "") -> Script:
        """A script of this text, with the one that runs it many times.

        Args:
            name: the script's name.
            source: its text.
            prelude: definitions in front of it, which many calls share.
        """
        many = _MANY.format(prelude=prelude, source=source)
        source = prelude + source
        return cls(name, source, _sha(source), cls(f"{name} (many)", many, _sha(many)))

    @property
    def sources(self) -> tuple[str, ...]:
        """The texts that a server has to know for it."""
        return (self.source,) if self.many is None else (self.source, self.many.source)


class Call(NamedTuple):
    """One execution of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]


class ScriptRunner(Protocol):
    """A store that runs scripts of others, each of which must be safe to repeat."""

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Runs one, together with those of other callers of this tick."""
        ...

    async def run_many(self, calls: Sequence[Call], then: Sequence[Sequence[Argument]] = ()) -> Sequence[Any]:
        """Runs several in one pipeline, and then commands on its connection; an answer may be an exception."""
        ...


@cache
def load_script(name: str, folder: str = "asynccache.stores", *, prelude: str | None = "_cell") -> Script:
    """Reads a script.

    Args:
        name: the file's name without `.lua`.
        folder: the package whose folder `lua` holds it.
        prelude: a file put in front of it: shared definitions, among them `look`, which is called with the first key.
    """
    files = resources.files(folder) / "lua"
    source = (files / f"{name}.lua").read_text(encoding="utf-8")
    if prelude is None:
        return Script.of(name, source)
    return Script.of(name, f"look(KEYS[1])\n{source}", (files / f"{prelude}.lua").read_text(encoding="utf-8"))


def _sha(source: str) -> str:
    return hashlib.sha1(source.encode()).hexdigest()  # noqa: S324 - Redis names scripts by it


_MANY: Final = """
-- KEYS  those of each call, one call after the other
-- ARGV  keys a call, arguments a call, then the arguments like the keys
-- reply the reply of each call
{prelude}
local function call(KEYS, ARGV)
{source}
end
local keys_each, args_each = tonumber(ARGV[1]), tonumber(ARGV[2])
local replies = {{}}
for at = 0, #KEYS / keys_each - 1 do
  local keys, args = {{}}, {{}}
  for n = 1, keys_each do keys[n] = KEYS[at * keys_each + n] end
  for n = 1, args_each do args[n] = ARGV[2 + at * args_each + n] end
  replies[at + 1] = call(keys, args)
end
return replies
"""
"""Runs a script many times in one command: a command costs a client more than a script costs the server."""
