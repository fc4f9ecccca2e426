"""What is staged and when it is given up, decided without a server."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from asynccache.postgres.rows import Run
from asynccache.postgres.staging import COPIED_FROM, CannotStage, Stage
from asynccache.postgres.transport import Transport

INT = Transport('"pg_catalog"."int4"[]', "", "", int, int, None)
TEXT = Transport("text[]", "", "", str, str, None)
LONG = Run((), [[*range(COPIED_FROM)]], [], COPIED_FROM)


class Connection:
    """Copies nothing, and fails as it is told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = [*errors]
        self.executed: list[str] = []

    async def fetchval(self, statement: str, *arguments: Any) -> bool:
        return False

    async def execute(self, statement: str) -> None:
        self.executed.append(statement)

    async def copy_records_to_table(self, name: str, *, records: Any, **options: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)


class Bare:
    """A connection that cannot copy."""


def state(kind: type[asyncpg.PostgresError]) -> Exception:
    return kind("no")


async def test_the_table_is_made_with_the_types_that_travel_and_compresses_nothing() -> None:
    connection = Connection()
    run = Run((), [LONG.keys[0], ["x"] * COPIED_FROM], [], COPIED_FROM)
    (staged,) = await Stage("t", [INT, TEXT]).put(connection, [run])
    name = staged.staged.removeprefix('"pg_temp".')
    (statement,) = connection.executed
    assert statement == (
        f'CREATE TEMPORARY TABLE {name} (c1 "pg_catalog"."int4", c2 text, n int)'
        " WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS;"
        f' ALTER TABLE "pg_temp".{name} ALTER c2 SET STORAGE EXTERNAL'
    )


async def test_a_connection_that_cannot_copy_is_asked_once() -> None:
    stage, short = Stage("t", [INT]), Run((), [[1]], [], 1)
    assert await stage.put(Bare(), [short]) == [short]
    with pytest.raises(CannotStage, match="Bare has no copy_records_to_table"):
        await stage.put(Bare(), [LONG])
    assert await stage.put(Bare(), [LONG]) == [LONG]


@pytest.mark.parametrize(
    "error",
    [
        state(asyncpg.InsufficientPrivilegeError),
        state(asyncpg.UndefinedColumnError),
        state(asyncpg.FeatureNotSupportedError),
        state(asyncpg.DiskFullError),
        asyncpg.InternalClientError("no binary format encoder"),
    ],
    ids=repr,
)
async def test_it_is_given_up_after_what_arrays_may_get_around(error: Exception) -> None:
    stage, connection = Stage("t", [INT]), Connection(error)
    with pytest.raises(CannotStage):
        await stage.put(connection, [LONG])
    assert await stage.put(connection, [LONG]) == [LONG]


@pytest.mark.parametrize(
    "error",
    [
        state(asyncpg.AdminShutdownError),
        state(asyncpg.DeadlockDetectedError),
        state(asyncpg.CharacterNotInRepertoireError),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionResetError("reset"),
        TimeoutError("late"),
    ],
    ids=repr,
)
async def test_it_is_not_given_up_for_an_outage_or_a_row(error: Exception) -> None:
    stage, connection = Stage("t", [INT]), Connection(error)
    with pytest.raises(type(error)) as raised:
        await stage.put(connection, [LONG])
    assert raised.value is error
    assert (await stage.put(connection, [LONG]))[0].staged


@pytest.mark.parametrize(
    "error", [TypeError("an integer is required"), OverflowError("too large"), AttributeError("x")]
)
async def test_what_cannot_be_sent_is_a_rows_fault(error: Exception) -> None:
    stage, connection = Stage("t", [INT]), Connection(error)
    with pytest.raises(asyncpg.DataError, match=str(error)):
        await stage.put(connection, [LONG])
    assert (await stage.put(connection, [LONG]))[0].staged
