"""The tags of a strategy's or function's entries, from what a user gave."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from asynccache.errors import ConfigurationError
from asynccache.templates import compile_call, compile_templates

__all__ = ["TagRule", "Tags", "check_tags", "wants_result"]

Tags: TypeAlias = Sequence[str] | Callable[[Any], Sequence[str]] | Callable[[Any, Any], Sequence[str]]
"""Tags of a strategy's entries: for all the same, or templates such as `"user:{key}"`; a function of the key value; or
a function of key value and loaded value."""

_KEY: Final = inspect.Signature([inspect.Parameter("key", inspect.Parameter.POSITIONAL_OR_KEYWORD)])


class TagRule:
    """Which tags an entry has.

    Tags that are known before the load are read with the entry, in one call. Those that only the loaded value tells are
    read in a second one whenever the entry is: cheaper than a miss, but not free.

    Args:
        tags: names and templates; or a function of the call's arguments, which may have one parameter more than the
            call: then it is given the result, as its last argument.
        signature: of the call.
        where: for messages.

    Attributes:
        fixed: the tags, if they are the same for all entries and known without the call.
        common: those of the tags that every entry has, whatever else it has.
        early: tags of a call.
        late: tags of a result and its call, `late(result, *args, **kwargs)`; None if there are none.
    """

    def __init__(self, tags: Any, signature: inspect.Signature = _KEY, where: str = "tags") -> None:
        self.fixed: tuple[str, ...] | None = None
        self.common: tuple[str, ...] = ()
        self.late: Callable[..., tuple[str, ...]] | None = None
        if not callable(tags):
            names = check_tags(tags, where)
            self.early: Callable[..., tuple[str, ...]] = compile_templates(names, signature)
            self.common = tuple(name for name in names if "{" not in name and "}" not in name)
            if not any("{" in name or "}" in name for name in names):
                self.fixed = names
            return
        if inspect.iscoroutinefunction(tags):
            raise ConfigurationError(f"{where} must be a plain function, not a coroutine function ({tags!r})")

        late = wants_result(tags, signature, where)
        call = compile_call(tags, signature, result=late)

        def of(*args: Any, **kwargs: Any) -> tuple[str, ...]:
            return check_tags(call(*args, **kwargs), f"{where}: what {getattr(tags, '__name__', tags)!r} returns")

        if late:
            self.fixed = ()
            self.early = lambda *_, **__: ()
            self.late = of
        else:
            self.early = of


def wants_result(tags: Callable[..., Any], signature: inspect.Signature, where: str) -> bool:
    """Whether a function has one parameter more than the call."""
    try:
        own = inspect.signature(tags)
    except (TypeError, ValueError):  # a builtin
        return False
    parameters = list(own.parameters.values())
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return False
    wanted = [
        one.name for one in parameters if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY}
    ]
    given = [one for one in signature.parameters.values() if one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}]
    if len(wanted) == len(given) + 1:
        return True
    if len(wanted) != len(given):
        expected = ", ".join(one.name for one in given)
        raise ConfigurationError(
            f"{where}: {getattr(tags, '__name__', tags)!r} must take ({expected}), or that and the result; it takes"
            f" ({', '.join(wanted)})"
        )
    return False


def check_tags(tags: Iterable[str], what: str = "tags") -> tuple[str, ...]:
    """Checks tags given as a sequence; a lone string is a likely slip, since it is a sequence, too."""
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise ConfigurationError(f"{what} must be a sequence of strings, such as ['users'], not {tags!r}")
    names = tuple(tags)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(
                f"{what}: a tag must be a non-empty string, not {name.__class__.__name__} ({name!r})"
            )
    return names
