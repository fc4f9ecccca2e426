"""Writes that pend while a deploy changes the model are written by the new version, which was told how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg
import pytest

from asynccache import Upgrade, WriteBehind
from asynccache.errors import DecodeError
from asynccache.postgres import PostgresTable
from tests.support.caches import MakeCache

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class UserV1:
    id: int
    name: str
    visits: int = 0


@dataclass
class User:
    id: int
    first: str
    last: str
    visits: int = 0
    tags: list[str] = field(default_factory=list)


def convert(old: UserV1) -> User:
    first, _, last = old.name.partition(" ")
    return User(old.id, first, last, old.visits)


TABLE = (
    "CREATE TABLE person (id int PRIMARY KEY, name text, visits int NOT NULL DEFAULT 0, first text, last text,"
    " tags text[] NOT NULL DEFAULT '{}')"
)


@pytest.fixture
async def before(make_cache: MakeCache, pool: Pool) -> WriteBehind[UserV1]:
    """The strategy of the version before."""
    await pool.execute(TABLE)
    table = PostgresTable(pool, "person", key="id", model=UserV1)
    return WriteBehind(await make_cache(background=False), "person", sink=table, defaults={"name": "?"}, partitions=2)


async def after(make_cache: MakeCache, pool: Pool, **options: Any) -> WriteBehind[User]:
    table = PostgresTable(pool, "person", key="id", model=User)
    cache = await make_cache(background=False)
    return WriteBehind(cache, "person", sink=table, defaults={"first": "?", "last": "?"}, partitions=2, **options)


async def test_what_the_version_before_has_put_is_read_and_flushed_by_the_next(
    make_cache: MakeCache, pool: Pool, before: WriteBehind[UserV1]
) -> None:
    for number in range(40):
        await before.put(number, UserV1(number, f"Ada {number}"))
        if number % 2:
            await before.increment(number, visits=number)
    await before.increment(100, visits=3)
    await before.delete(1)
    now = await after(make_cache, pool, upgrade=[Upgrade(UserV1, convert)])
    assert await now.get(3) == User(3, "Ada", "3", 3)
    await now.increment(3, visits=1)
    await now.put(4, User(4, "Eve", "Four", tags=["new"]))
    await now.flush()
    rows = {row["id"]: row for row in await pool.fetch("SELECT * FROM person")}
    assert len(rows) == 40
    assert 1 not in rows
    assert (rows[3]["first"], rows[3]["last"], rows[3]["visits"]) == ("Ada", "3", 4)
    assert (rows[4]["first"], rows[4]["tags"]) == ("Eve", ["new"])
    assert (rows[100]["first"], rows[100]["visits"]) == ("?", 3)


async def test_an_upgrade_that_fails_stops_its_partition_and_loses_nothing(
    make_cache: MakeCache, pool: Pool, before: WriteBehind[UserV1]
) -> None:
    await before.put(1, UserV1(1, "Ada Lovelace"))

    def fail(old: UserV1) -> User:
        raise ValueError("not yet")

    broken = await after(make_cache, pool, upgrade=[Upgrade(UserV1, fail)])
    with pytest.raises(DecodeError, match=r"older model.*not yet"):
        await broken.flush()
    mended = await after(make_cache, pool, upgrade=[Upgrade(UserV1, convert)])
    await mended.flush()
    assert await pool.fetchval("SELECT last FROM person") == "Lovelace"


async def test_a_dead_letter_of_the_version_before_is_shown_and_tried_again_as_the_model_of_now(
    make_cache: MakeCache, pool: Pool, before: WriteBehind[UserV1]
) -> None:
    await pool.execute("ALTER TABLE person ADD CONSTRAINT long CHECK (length(name) > 20)")
    await before.put(1, UserV1(1, "Ada Lovelace"))
    await before.flush()
    await pool.execute("ALTER TABLE person DROP CONSTRAINT long")
    now = await after(make_cache, pool, upgrade=[Upgrade(UserV1, convert)])
    (letter,) = await now.dead_letters.list()
    shown = await now.dead_letters.show(letter.id)
    assert shown is not None
    assert getattr(shown[1], "value", None) == User(1, "Ada", "Lovelace")
    assert (await now.dead_letters.retry()).applied == 1
    assert await now.get(1) == User(1, "Ada", "Lovelace")
