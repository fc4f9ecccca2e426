"""What tests of a database's changes share: a table of users, caches that follow it, and listeners that are at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from asynccache import Cache, ReadThrough
from asynccache.postgres import PostgresChanges, PostgresTable, TableChanges
from tests.support.gates import until

POLL = 0.05
"""Seconds: tests wait for a listener's next look, not for a second."""

CREATE = "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL DEFAULT '', team_id int NOT NULL DEFAULT 1)"


@dataclass
class User:
    id: int
    name: str
    team_id: int


@dataclass
class World:
    """One process of an application: its cache, what it caches, and the changes that it follows."""

    cache: Cache
    users: ReadThrough[User]
    changes: PostgresChanges
    pool: asyncpg.Pool[Any]

    async def team(self, team_id: int) -> list[str]:
        """The names of a team, cached under its tag."""

        async def load() -> list[str]:
            rows = await self.pool.fetch("SELECT name FROM users WHERE team_id = $1 ORDER BY id", team_id)
            return [row["name"] for row in rows]

        found: list[str] = await self.cache.get_or_load(("team", team_id), load, tags=[f"team:{team_id}"])
        return found

    async def count(self) -> int:
        """How many users there are, cached under the table's tag."""

        async def load() -> int:
            return int(await self.pool.fetchval("SELECT count(*) FROM users"))

        return int(await self.cache.get_or_load("count", load, tags=["users"]))

    async def sees(self, **names: str | None) -> None:
        """Waits until these users (`u1="Ada"`) are read with these names."""

        async def seen() -> bool:
            found = {name: await self.users.get(int(name[1:])) for name in names}
            return {name: user.name if user else None for name, user in found.items()} == names

        await until(seen, f"{names}; {self.cache.health().changes}")

    @property
    def active(self) -> bool:
        """Whether this process does the work."""
        return all(one.active and one.position_age is not None for one in self.cache.health().changes)

    async def at_work(self) -> None:
        """Waits until this process does the work."""
        await until(lambda: self.active, f"the listener to work: {self.cache.health()}")

    async def caught_up(self) -> None:
        """Waits until all that is committed now has been handled."""
        snapshot = await self.pool.fetchval("SELECT pg_current_snapshot()::text")
        listener = self.changes._listeners[0]

        async def done() -> bool:
            position = listener._position
            return position is not None and bool(
                await self.pool.fetchval(
                    "SELECT NOT EXISTS (SELECT FROM asynccache_change WHERE"
                    " pg_visible_in_snapshot(xid, $1::text::pg_snapshot)"
                    " AND NOT pg_visible_in_snapshot(xid, $2::text::pg_snapshot))",
                    snapshot,
                    position.text,
                )
            )

        await until(done, "the listener to catch up")


def world(cache: Cache, pool: asyncpg.Pool[Any], schema: str, **options: Any) -> World:
    """A process of an application: `users` by id, teams and the count by tag. Its cache must not be open yet.

    Args:
        cache: which follows.
        pool: of the application.
        schema: where the table is.
        options: of `PostgresChanges`; `database` and `table` (of `TableChanges`) may be given, too.
    """
    table: Mapping[str, Any] = options.pop("table", {})
    users = ReadThrough(cache, "user", source=PostgresTable(pool, "users", key="id", model=User))
    settings: dict[str, Any] = {
        "key": "id",
        "entries": [users],
        "tags": ["users", "team:{team_id}"],
        "columns": ["team_id"],
        **table,
    }
    changes = PostgresChanges(
        options.pop("database", pool),
        tables=[TableChanges("users", **settings)],
        schema=schema,
        **{"poll": POLL, **options},
    )
    cache.follow(changes)
    return World(cache, users, changes, pool)
