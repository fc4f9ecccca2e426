"""`TableChanges`: what a change of a table's rows outdates in the cache, as a user declares it."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from asynccache.errors import ConfigurationError
from asynccache.postgres.names import parse_name, qualified
from asynccache.templates import compile_templates

__all__ = ["Entries", "Keyed", "Row", "RowTags", "TableChanges"]

Row: TypeAlias = Mapping[str, Any]
"""The recorded columns of a row, before or after its change."""


@runtime_checkable
class Keyed(Protocol):
    """A strategy, or a decorated function."""

    @property
    def outdated_by(self) -> tuple[str, ...]:
        """Generations each of which outdates all its entries; the first is its namespace's."""
        ...

    @property
    def key_now(self) -> Callable[..., Awaitable[str]]:
        """Awaited with a key, or the parts of one: the key in Redis of its entry."""
        ...


Entries: TypeAlias = "Keyed | Callable[[Row], Any]"
"""A strategy; a decorated function; or a function of a row that returns what is to be emptied: what `key(...)` of a
strategy or function returns, a key of the plain cache, a list or set of these, or None for nothing."""

RowTags: TypeAlias = Sequence[str] | Callable[[Row], Iterable[str]]
"""Tags and templates such as `"team:{team_id}"`, whose fields are recorded columns; or a function of a row."""


class TableChanges:
    """What a change of one table's rows outdates.

    Of an UPDATE both the old and the new row count: a row that moves from team 1 to team 2 outdates both teams' lists.

    Args:
        table: `users` or `app.users`; case counts. Without a schema it is in that of the `PostgresChanges`.
        key: the column by which entries are keyed, or several: then a key is a tuple in their order.
        entries: what has entries by this key: strategies, which are given the key value; decorated functions, which are
            given it as their argument, or its parts as their arguments; or functions of the row, which may return what
            `users.key(...)` does, a key of the plain cache, a list or set of these, or None.
        tags: tags to outdate, of the namespace that follows: names; templates over the columns, `"team:{team_id}"`; or
            a function of the row.
        columns: further columns that are recorded beside the key; small ones, since each changed row's values are kept
            in the outbox for a while.
        whole: tags of which you know that outdating them outdates everything that a change of any row could: they are
            what a TRUNCATE, or a statement too large to be recorded by key, outdates. Without them that is the plain
            names among `tags`, if all is known to be reached by them, and else the whole namespace.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        table: str,
        *,
        key: str | Sequence[str],
        entries: Sequence[Entries] = (),
        tags: RowTags = (),
        columns: Sequence[str] = (),
        whole: Sequence[str] | None = None,
    ) -> None:
        self._schema, self._name = parse_name(table, "table")
        self._shown = table
        where = f"TableChanges({table!r})"
        self.key = _names((key,) if isinstance(key, str) else key, f"{where}: key")
        if not self.key:
            raise ConfigurationError(f"{where}: key=() must name a column, or several")
        self.columns = tuple(dict.fromkeys((*self.key, *_names(columns, f"{where}: columns"))))
        self.entries = _entries(entries, where)
        self.whole = None if whole is None else _tags(whole, f"{where}: whole")
        if not self.entries and not callable(tags) and not tags:
            raise ConfigurationError(f"{where} outdates nothing: give it entries=[...] or tags=[...]")
        self.fixed: tuple[str, ...] = ()
        self.tag_function: Callable[[Row], Iterable[str]] | None = None
        self._templates: Callable[..., tuple[str, ...]] | None = None
        if callable(tags):
            if inspect.iscoroutinefunction(tags):
                raise ConfigurationError(f"{where}: tags must be a plain function of the row, not a coroutine function")
            self.tag_function = tags
            self._described = _function_name(tags)
            return
        names = _tags(tags, f"{where}: tags")
        self._described = repr(names)
        self.fixed = tuple(name for name in names if "{" not in name and "}" not in name)
        templates = [name for name in names if name not in self.fixed]
        if templates:
            self._fields = [name for name in self.columns if name.isidentifier() and not keyword.iskeyword(name)]
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            try:
                self._templates = compile_templates(
                    templates, inspect.Signature([inspect.Parameter(name, kind) for name in self._fields])
                )
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{where}: tags: {error}; a field is a column of key= or columns=, and one whose name is no"
                    " identifier needs a function of the row"
                ) from error

    @property
    def varies(self) -> bool:
        """Whether its tags are not the same for all rows."""
        return self.tag_function is not None or self._templates is not None

    def row_key(self, row: Row) -> Any:
        """The key value of a row."""
        return row[self.key[0]] if len(self.key) == 1 else tuple([row[name] for name in self.key])

    def row_tags(self, row: Row) -> tuple[str, ...]:
        """The tags of a row; whatever a user's function raises, it raises."""
        if self.tag_function is not None:
            return _tags(self.tag_function(row), f"what the tags function of {self._shown} returns")
        if self._templates is None:
            return self.fixed
        return (*self.fixed, *self._templates(*[row[name] for name in self._fields]))

    def place(self, schema: str) -> tuple[str, str]:
        """Schema and name, in this schema unless it says its own."""
        return self._schema or schema, self._name

    def relation(self, schema: str) -> str:
        """The table's full name as SQL."""
        return qualified(*self.place(schema))

    def description(self, schema: str) -> str:
        """What it maps to what, as far as that can be told: two versions of an application that differ in it must not
        share a position."""
        entries = [
            _function_name(entry)
            if callable(entry)
            else (type(entry).__name__, getattr(entry, "name", ""), entry.outdated_by)
            for entry in self.entries
        ]
        return repr((self.relation(schema), self.key, self.columns, entries, self._described, self.whole))

    def __repr__(self) -> str:
        key = self.key[0] if len(self.key) == 1 else self.key
        return f"TableChanges({self._shown!r}, key={key!r}, entries={len(self.entries)}, tags={self._described})"


def _names(names: Any, what: str) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigurationError(f"{what} must be a sequence of columns, not {type(names).__name__} ({names!r})")
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigurationError(f"{what}: a column is a non-empty str, not {type(name).__name__} ({name!r})")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{what}={names!r} names a column twice")
    return tuple(names)


def _tags(tags: Any, what: str) -> tuple[str, ...]:
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise ConfigurationError(f"{what} must be a sequence of strings such as ['users'], not {tags!r}")
    names = tuple(tags)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{what}: a tag is a non-empty str, not {type(name).__name__} ({name!r})")
    return names


def _entries(entries: Any, where: str) -> tuple[Entries, ...]:
    if isinstance(entries, str | Keyed) or not isinstance(entries, Sequence):
        raise ConfigurationError(f"{where}: entries must be a sequence such as [users], not {entries!r:.100}")
    for entry in entries:
        if isinstance(entry, type) or not (isinstance(entry, Keyed) or callable(entry)):
            raise ConfigurationError(
                f"{where}: entries takes strategies, cached functions and functions of a row, not"
                f" {type(entry).__name__} ({entry!r:.100})"
            )
    return tuple(entries)


def _function_name(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
