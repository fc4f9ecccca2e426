"""What an error of Postgres or asyncpg means for the caller: the one place that translates them.

A row that the database refuses is `WriteRejected`, a table that is not what it was is `SchemaMismatch`; all else is
`DatabaseUnavailable`, after which the outcome is unknown and trying again may help. Where one bad row must not keep
others from being written, `refusal` tells what is the row's own fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg
from asyncpg.exceptions import _base as client_errors

from asynccache.errors import (
    AsyncCacheError,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidKey,
    SchemaMismatch,
    WriteRejected,
)

__all__ = ["TRY_AGAIN", "Refusal", "reading", "refusal", "writing"]

TRY_AGAIN = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InvalidCachedStatementError,  # somebody altered the table; asyncpg has dropped its statements by now
)
"""Errors that undid the whole transaction, and that a second attempt right away is likely to pass."""

_ROW_CLASSES = frozenset({
    "21",  # cardinality: two rows of a batch are one for the database
    "22",  # data exceptions
    "23",  # integrity constraints
    "44",  # WITH CHECK OPTION of a view
    "54",  # a row, or an index entry, that is too large
    "P0",  # RAISE in a trigger
})  # fmt: skip
_SCHEMA_STATES = frozenset({
    "42P01",  # undefined table
    "42703",  # undefined column
    "42704",  # undefined object: a type
    "42804",  # datatype mismatch
    "42846",  # cannot coerce
    "42883",  # undefined function: no operator for these types
    "42P10",  # no unique constraint for ON CONFLICT
    "428C9",  # a column that is generated now
    "3F000",  # undefined schema
})  # fmt: skip
_PREPARED_STATES = frozenset({"26000", "42P05"})  # no such prepared statement, or there is one of this name
_ENCODING = (client_errors.DataError, OverflowError, UnicodeError)
_LONGEST_REASON = 2000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row cannot be written, whoever tries.

    Attributes:
        reason: for people.
        sqlstate: the database's code; None if it was found before it got there.
    """

    reason: str
    sqlstate: str | None = None

    @property
    def may_pass(self) -> bool:
        """Whether other rows, once written or gone, may let it pass: a constraint, or a trigger's own check."""
        return self.sqlstate is not None and self.sqlstate[:2] in {"23", "44", "P0"}


def refusal(error: BaseException) -> Refusal | None:
    """What a row is refused for; None if the error is not a row's fault."""
    if isinstance(error, WriteRejected | ConfigurationError) and not isinstance(error, SchemaMismatch):
        return Refusal(str(error)[:_LONGEST_REASON])
    if isinstance(error, _ENCODING):
        return Refusal(str(error)[:_LONGEST_REASON])
    if isinstance(error, asyncpg.PostgresError) and _is_of_a_row(error):
        details: list[str] = [str(error.args[0]) if error.args else type(error).__name__]
        if (detail := getattr(error, "detail", None)) is not None:
            details.append(str(detail))
        # asyncpg raises one of these for what it cannot encode, too, with a code but without the server's severity.
        code = None if getattr(error, "severity", None) is None else getattr(error, "sqlstate", None)
        return Refusal("; ".join(details)[:_LONGEST_REASON], code)
    return None


def _is_of_a_row(error: asyncpg.PostgresError) -> bool:
    state = getattr(error, "sqlstate", None) or ""
    if state == "42501":
        # Row-level security refuses a row under the code of a missing privilege; the message may be in any language.
        return getattr(error, "server_source_function", None) == "ExecWithCheckOptions"
    return state[:2] in _ROW_CLASSES


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Raises what an error inside means for a write."""
    try:
        yield
    except Exception as error:
        raise _translated(error, what, write=True) from error


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raises what an error inside means for a read."""
    try:
        yield
    except Exception as error:
        raise _translated(error, what, write=False) from error


def _translated(error: Exception, what: str, *, write: bool) -> Exception:
    if isinstance(error, AsyncCacheError):
        return error
    if isinstance(error, _ENCODING):
        return WriteRejected(f"{what}: {error}") if write else InvalidKey(f"{what}: {error}")
    if isinstance(error, asyncpg.PostgresError):
        return _refused(error, what, write=write)
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable(f"{what}: PostgreSQL gave no answer in time{_text(error)}")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | EOFError):
        return DatabaseUnavailable(f"{what}: {type(error).__name__}{_text(error)}")
    return error


def _refused(error: asyncpg.PostgresError, what: str, *, write: bool) -> Exception:
    state = getattr(error, "sqlstate", None) or "?"
    parts = [f"{what}: {error.args[0] if error.args else type(error).__name__} (SQLSTATE {state}"]
    parts += [
        f", {name} {value}"
        for name in ("constraint", "column")
        if (value := getattr(error, f"{name}_name", None)) is not None
    ]
    text = "".join(parts) + ")"
    if state in _SCHEMA_STATES:
        return SchemaMismatch(f"{text}: the table is not what it was when it was opened")
    if _is_of_a_row(error):
        return WriteRejected(text) if write else InvalidKey(text)
    if state in _PREPARED_STATES:
        text += ": behind a pgbouncer before 1.21, connect with statement_cache_size=0"
    return DatabaseUnavailable(text)


def _text(error: BaseException) -> str:
    return f": {error}" if str(error) else ""
