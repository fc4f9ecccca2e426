"""Changes made behind the cache's back: every way that SQL has to change rows is seen, in every process."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from asynccache import LocalTier
from tests.integration.changes.conftest import Follow
from tests.support.changes import World
from tests.support.gates import until


async def recorded(pool: asyncpg.Pool[Any]) -> list[tuple[str, int]]:
    rows = await pool.fetch("SELECT op, keys FROM asynccache_change ORDER BY xid, id")
    return [(row["op"], row["keys"]) for row in rows]


async def fill(world: World, count: int = 3) -> None:
    """Users 1 to count, "n1" and so on, in team 1; cached, as are the team and the count."""
    await world.pool.execute("INSERT INTO users SELECT i, 'n' || i FROM generate_series(1, $1::int) i", count)
    await world.at_work()
    await world.caught_up()
    await world.users.get_many(range(1, count + 1))
    await world.team(1)
    await world.count()


class TestEveryWayToChangeRows:
    async def test_another_client_changes_a_row_and_two_processes_with_local_tiers_see_it(
        self, follow: Follow, database_url: str, schema: str
    ) -> None:
        first = await follow(cache={"local": LocalTier(max_entries=100)})
        second = await follow(cache={"local": LocalTier(max_entries=100)})
        await until(lambda: first.active or second.active)
        await first.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        for process in (first, second):
            await process.sees(u1="Ada")
        stranger = await asyncpg.connect(database_url)
        await stranger.execute(f"UPDATE {schema}.users SET name = 'Ada L.'")
        await stranger.close()
        for process in (first, second):
            await process.sees(u1="Ada L.")

    async def test_insert_update_delete(self, follow: Follow) -> None:
        world = await follow()
        await fill(world, 2)
        await world.pool.execute("INSERT INTO users VALUES (3, 'n3')")
        await until_equal(world.count, 3)
        await until_equal(lambda: world.team(1), ["n1", "n2", "n3"])
        await world.pool.execute("UPDATE users SET name = 'x' WHERE id = 2")
        await world.sees(u1="n1", u2="x")
        await until_equal(lambda: world.team(1), ["n1", "x", "n3"])
        await world.pool.execute("DELETE FROM users WHERE id = 1")
        await world.sees(u1=None)
        await until_equal(world.count, 2)

    async def test_a_row_that_moves_to_another_team_outdates_both(self, follow: Follow) -> None:
        world = await follow()
        await fill(world)
        assert await world.team(2) == []
        await world.pool.execute("UPDATE users SET team_id = 2 WHERE id = 2")
        await until_equal(lambda: world.team(1), ["n1", "n3"])
        await until_equal(lambda: world.team(2), ["n2"])

    async def test_a_key_that_changes_outdates_the_old_and_the_new(self, follow: Follow) -> None:
        world = await follow()
        await fill(world)
        assert await world.users.get(9) is None
        await world.pool.execute("UPDATE users SET id = 9 WHERE id = 2")
        await world.sees(u2=None, u9="n2")

    async def test_copy_merge_and_on_conflict(self, follow: Follow) -> None:
        world = await follow()
        await fill(world)
        await world.pool.copy_records_to_table("users", records=[(4, "n4", 1), (5, "n5", 1)])
        await until_equal(world.count, 5)
        await world.pool.execute(
            "INSERT INTO users VALUES (1, 'on conflict') ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        )
        await world.sees(u1="on conflict")
        if await world.pool.fetchval("SELECT current_setting('server_version_num')::int") < 150_000:
            return
        await world.pool.execute(
            "MERGE INTO users u USING (VALUES (2), (3), (6)) v(id) ON u.id = v.id"
            " WHEN MATCHED AND u.id = 2 THEN UPDATE SET name = 'merged'"
            " WHEN MATCHED THEN DELETE"
            " WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'n6')"
        )
        await world.sees(u2="merged", u3=None, u6="n6")

    async def test_a_cascaded_delete_is_one_of_the_other_tables_rows(self, follow: Follow) -> None:
        world = await follow()
        await world.pool.execute("CREATE TABLE teams (id int PRIMARY KEY)")
        await world.pool.execute("INSERT INTO teams VALUES (1), (2)")
        await world.pool.execute(
            "ALTER TABLE users ADD FOREIGN KEY (team_id) REFERENCES teams ON DELETE CASCADE ON UPDATE CASCADE"
        )
        await fill(world)
        await world.pool.execute("UPDATE teams SET id = 7 WHERE id = 1")
        await until_equal(lambda: world.team(7), ["n1", "n2", "n3"])
        await until_equal(lambda: world.team(1), [])
        await world.pool.execute("DELETE FROM teams WHERE id = 7")
        await world.sees(u1=None, u2=None, u3=None)

    async def test_an_update_of_10_000_rows_reaches_each(self, follow: Follow) -> None:
        world = await follow()
        await fill(world, 10_000)
        await world.pool.execute("UPDATE users SET name = 'bulk' || id")
        await world.caught_up()
        found = await world.users.get_many(range(1, 10_001))
        assert {user.name for user in found.values()} == {f"bulk{key}" for key in range(1, 10_001)}
        # An update that leaves what is recorded as it was is one key for each row.
        assert (await recorded(world.pool))[-20:] == [("update", 500)] * 20

    async def test_a_statement_above_the_bound_counts_as_the_whole_table(self, follow: Follow) -> None:
        world = await follow(max_keys=10)
        await fill(world, 11)
        await world.pool.execute("UPDATE users SET name = 'all' WHERE id < 11")
        await world.sees(u1="all", u10="all", u11="n11")
        await world.pool.execute("UPDATE users SET name = 'more'")
        await world.sees(u1="more", u11="more")
        await world.pool.execute("DELETE FROM users")
        await world.sees(u1=None, u11=None)
        assert await recorded(world.pool) == [("insert", 0), ("update", 10), ("update", 0), ("delete", 0)]

    async def test_truncate_outdates_all(self, follow: Follow) -> None:
        world = await follow()
        await fill(world)
        await world.pool.execute("TRUNCATE users")
        await world.sees(u1=None, u2=None, u3=None)
        await until_equal(lambda: world.team(1), [])
        await until_equal(world.count, 0)

    async def test_what_is_rolled_back_is_not_recorded(self, follow: Follow) -> None:
        world = await follow()
        await fill(world)
        before = await recorded(world.pool)
        connection = await world.pool.acquire()
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE users SET name = 'never'")
        async with connection.transaction():
            await connection.execute("DELETE FROM users WHERE id = 3")
        await transaction.rollback()
        await world.pool.release(connection)
        assert await recorded(world.pool) == before
        await world.sees(u1="n1", u3="n3")

    async def test_a_savepoint_that_is_rolled_back_takes_only_its_own_with_it(self, follow: Follow) -> None:
        world = await follow()
        await fill(world)
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("UPDATE users SET name = 'kept' WHERE id = 1")
            inner = connection.transaction()
            await inner.start()
            await connection.execute("UPDATE users SET name = 'never' WHERE id = 2")
            await inner.rollback()
        await world.sees(u1="kept", u2="n2")
        assert (await recorded(world.pool))[1:] == [("update", 1)]

    async def test_statements_that_change_no_row_record_nothing(self, follow: Follow) -> None:
        world = await follow()
        await world.pool.execute("UPDATE users SET name = 'x'")
        await world.pool.execute("DELETE FROM users")
        await world.pool.execute("INSERT INTO users SELECT 1 WHERE false")
        assert await recorded(world.pool) == []

    async def test_a_partitioned_table_and_a_partition_that_is_named(self, follow: Follow) -> None:
        world = await follow()
        await world.pool.execute("DROP TABLE users")
        await world.pool.execute(
            "CREATE TABLE users (id int PRIMARY KEY, name text, team_id int DEFAULT 1) PARTITION BY RANGE (id);"
            "CREATE TABLE users_low PARTITION OF users FOR VALUES FROM (0) TO (100);"
            "CREATE TABLE users_high PARTITION OF users FOR VALUES FROM (100) TO (200)"
        )
        await world.changes.install()
        await fill(world)
        await world.pool.execute("UPDATE users SET name = 'x' WHERE id = 1")
        await world.sees(u1="x")
        await world.pool.execute("UPDATE users SET id = 150 WHERE id = 2")  # into another partition
        await world.sees(u2=None, u150="n2")
        await world.pool.execute("TRUNCATE users")
        await world.sees(u1=None, u150=None)

    async def test_without_notify_changes_are_seen_by_looking(self, follow: Follow) -> None:
        world = await follow(notify=False)
        await fill(world)
        await world.pool.execute("UPDATE users SET name = 'polled' WHERE id = 1")
        await world.sees(u1="polled")
        listening = await world.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asynccache changes:default' AND query ~ 'LISTEN'"
        )
        assert listening == 0

    async def test_a_wake_up_does_not_wait_for_the_next_look(self, follow: Follow) -> None:
        world = await follow(poll=60, retention="7d")
        await fill(world)
        await world.pool.execute("UPDATE users SET name = 'woken' WHERE id = 1")
        await world.sees(u1="woken")


async def until_equal(ask: Any, wanted: object) -> None:
    async def equal() -> bool:
        return bool(await ask() == wanted)

    await until(equal, f"{wanted!r}")


@pytest.mark.one_loop
async def test_a_change_that_commits_while_a_load_is_in_flight_is_not_covered_up_by_it(follow: Follow) -> None:
    """The load has read the old row; the change commits and is handled; then the load stores what it read."""
    world = await follow()
    await world.at_work()
    await world.pool.execute("INSERT INTO users VALUES (1, 'old')")
    await world.caught_up()
    read, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        name = await world.pool.fetchval("SELECT name FROM users WHERE id = 1")
        read.set()
        await go_on.wait()
        return str(name)

    async def slow() -> Any:
        return await world.cache.get_or_load("slow", load, tags=["users"])

    loading = asyncio.create_task(slow())
    await read.wait()
    await world.pool.execute("UPDATE users SET name = 'new'")
    await world.caught_up()
    go_on.set()
    assert await loading == "old"  # it was asked before
    assert await world.cache.get("slow") is None
    assert await world.cache.get_or_load("slow", load, tags=["users"]) == "new"
