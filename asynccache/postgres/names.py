"""Names of SQL: taken apart, quoted, and suggested when one is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from asynccache.errors import ConfigurationError

__all__ = ["did_you_mean", "parse_name", "qualified", "quoted"]

_LONGEST = 63


def quoted(name: str) -> str:
    """A name as an identifier: in quotes, so that it is never anything else."""
    return '"' + name.replace('"', '""') + '"'


def qualified(*names: str) -> str:
    """Names joined by dots, each in quotes."""
    return ".".join(quoted(name) for name in names if name)


def parse_name(text: object, argument: str) -> tuple[str, str]:
    """Takes `table` or `schema.table` apart; a part that holds a dot or quotes is given in double quotes.

    Case counts: `Users` is the table that SQL must call `"Users"`.

    Returns:
        The schema, empty if none is given, and the name.

    Raises:
        ConfigurationError: it is not such a name.
    """
    if not isinstance(text, str):
        raise ConfigurationError(
            f"{argument} must be a name such as 'users' or 'app.users', not {type(text).__name__} ({text!r})"
        )
    parts: list[str] = []
    rest = text
    while True:
        part, rest = _quoted_part(rest) if rest.startswith('"') else _plain_part(rest)
        if not part or "\0" in part or len(part.encode(errors="replace")) > _LONGEST:
            break
        parts.append(part)
        if not rest:
            if len(parts) > 2:
                break
            return ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
        if not rest.startswith("."):
            break
        rest = rest[1:]
    raise ConfigurationError(
        f"{argument}={text!r} is not a name: write 'users' or 'app.users', parts of at most {_LONGEST} bytes, and"
        " double quotes around a part that holds a dot or a quote"
    )


def _plain_part(text: str) -> tuple[str, str]:
    part, dot, rest = text.partition(".")
    return ("", "") if '"' in part else (part, dot + rest)


def _quoted_part(text: str) -> tuple[str, str]:
    part: list[str] = []
    position = 1
    while position < len(text):
        if text[position] == '"':
            if text[position + 1 : position + 2] != '"':
                return "".join(part), text[position + 1 :]
            position += 1
        part.append(text[position])
        position += 1
    return "", ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?`, or nothing."""
    names = list(known)
    same = [other for other in names if other.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {quoted(close[0])}?" if close else ""
