"""Listeners share the work by name, or take all of it; and know when what they have missed cannot be known."""

from __future__ import annotations

import logging
from typing import Any

import asyncpg
import pytest

from asynccache import Cache
from asynccache.postgres import PostgresChanges, TableChanges
from tests.integration.changes.conftest import Follow
from tests.support.changes import CREATE, POLL, World
from tests.support.gates import until

pytestmark = pytest.mark.one_loop


async def rows(world: World) -> list[asyncpg.Record]:
    return await world.pool.fetch("SELECT *, position::text AS at FROM asynccache_listener ORDER BY name, mapping")


async def looked(world: World) -> None:
    """Waits until its position has been written, and what can be has been pruned, a few times."""
    listener = world.changes._listeners[0]
    seen: set[float] = set()

    def enough() -> bool:
        seen.add(listener._saved_at)
        return len(seen) > 3

    await until(enough, "the listener to look a few times")


class TestTheSameName:
    async def test_one_works_and_another_takes_over_when_it_closes(
        self, redis_url: str, namespace: str, pool: asyncpg.Pool[Any], schema: str, follow: Follow
    ) -> None:
        first = await follow()
        await first.at_work()
        second = await follow()
        await until(lambda: second.cache.health().changes[0].position_age is not None, "it to stand by")
        health = second.cache.health()
        assert (health.ok, health.changes[0].active) == (True, False)
        await first.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await first.caught_up()
        await second.sees(u1="Ada")
        assert (first.changes.stats.changes, second.changes.stats.changes) == (1, 0)
        await first.cache.shutdown()
        await first.pool.execute("UPDATE users SET name = 'Ada L.'")
        await second.sees(u1="Ada L.")
        await second.at_work()
        # It went on where the first had been: nothing was cleared.
        assert second.changes.stats.cleared == 0
        await first.cache.startup()  # for the fixture

    async def test_a_place_that_is_taken_away_is_given_up_without_harm(self, follow: Follow) -> None:
        world = await follow()
        await world.at_work()
        # As if this process had stood still for longer than its lease.
        await world.pool.execute(
            "UPDATE asynccache_listener SET owner = gen_random_uuid(), lease_until = now() + '1 hour'"
        )
        await until(lambda: not world.cache.health().changes[0].active, "it to notice")
        await world.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await world.pool.execute("UPDATE asynccache_listener SET lease_until = now()")
        await world.sees(u1="Ada")

    async def test_another_mapping_has_a_place_of_its_own(
        self, pool: asyncpg.Pool[Any], schema: str, follow: Follow
    ) -> None:
        """Two versions of an application during a deploy: what only the new one maps must not pass the old one by."""
        old = await follow(table={"entries": [], "tags": ["users"]})
        new = await follow()
        for one in (old, new):
            await one.at_work()
        await pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await new.sees(u1="Ada")
        await until(lambda: (old.changes.stats.changes, new.changes.stats.changes) == (1, 1))
        assert len(await rows(new)) == 2

    async def test_another_namespace_has_a_place_of_its_own(self, pool: asyncpg.Pool[Any], follow: Follow) -> None:
        tags_only: dict[str, Any] = {"entries": []}
        first, second = await follow(table=tags_only), await follow(table=tags_only, cache={"namespace": "another"})
        for one in (first, second):
            await one.at_work()
            assert await one.count() == 0
        await pool.execute("INSERT INTO users VALUES (1, 'Ada')")

        async def seen() -> bool:
            return (await first.count(), await second.count()) == (1, 1)

        await until(seen, "both to count anew")


class TestAnotherName:
    async def test_takes_all_changes_for_itself(self, pool: asyncpg.Pool[Any], follow: Follow) -> None:
        first, second = await follow(name="first"), await follow("memory://", name="second")
        for one in (first, second):
            await one.at_work()
        await pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        for one in (first, second):
            await one.sees(u1="Ada")
            assert one.changes.stats.changes == 1

    async def test_two_sources_in_one_cache(
        self, redis_url: str, namespace: str, pool: asyncpg.Pool[Any], schema: str
    ) -> None:
        await pool.execute(CREATE)
        tables = [TableChanges("users", key="id", tags=["users"])]
        async with Cache(redis_url, namespace=namespace, ttl=60) as cache:
            for name in ("a", "b"):
                changes = PostgresChanges(pool, tables=tables, schema=schema, name=name, poll=POLL)
                await changes.install()
                cache.follow(changes)
            await until(lambda: all(one.active for one in cache.health().changes))
            assert [one.name for one in cache.health().changes] == ["a", "b"]


class TestALostPosition:
    async def missed(self, world: World, sql: str, *arguments: Any) -> None:
        """Caches user 1, closes, changes it behind the listener's back as `sql` does, opens again, and reads it."""
        await world.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await world.at_work()
        await world.caught_up()
        await world.sees(u1="Ada")
        await world.cache.shutdown()
        await world.pool.execute("UPDATE users SET name = 'missed'")
        await world.pool.execute("TRUNCATE asynccache_change")
        await world.pool.execute(sql, *arguments)
        await world.cache.startup()
        await world.sees(u1="missed")
        await world.pool.execute("UPDATE users SET name = 'heard'")
        await world.sees(u1="heard")

    async def test_that_was_given_up_is_cleared(self, follow: Follow, caplog: pytest.LogCaptureFixture) -> None:
        world = await follow()
        with caplog.at_level(logging.WARNING):
            await self.missed(world, "DELETE FROM asynccache_listener")
        assert "away for too long" in caplog.text
        assert world.changes.stats.cleared == 2  # the first was when it was new

    async def test_above_what_the_server_has_come_to_is_another_servers(self, follow: Follow) -> None:
        world = await follow()
        await self.missed(world, "UPDATE asynccache_listener SET position = '900000000000:900000000000:'::pg_snapshot")

    async def test_of_another_server_or_timeline_is_cleared(
        self, follow: Follow, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = await follow()
        await self.missed(world, "UPDATE asynccache_listener SET server = 'another/00000001/5'")
        assert "not the server it knew" in caplog.text

    async def test_whose_clearing_was_not_finished_is_cleared(self, follow: Follow) -> None:
        world = await follow()
        await self.missed(world, "UPDATE asynccache_listener SET cleared = false")

    async def test_that_is_given_up_while_it_works_is_cleared(self, follow: Follow) -> None:
        world = await follow()
        await world.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await world.at_work()
        await world.sees(u1="Ada")
        async with world.pool.acquire() as connection, connection.transaction():
            # As one whose position had not moved for a week: its row goes, and then what only it had not handled.
            await connection.execute("DELETE FROM asynccache_listener")
            await connection.execute("UPDATE users SET name = 'missed'")
            await connection.execute("DELETE FROM asynccache_change")
        await world.sees(u1="missed")
        assert len(await rows(world)) == 1


class TestPruning:
    async def test_keeps_what_another_listener_has_not_handled_until_it_is_given_up(
        self, follow: Follow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asynccache.postgres.changes.listener._PRUNE_EVERY", 0.0)
        away, here = await follow(name="away"), await follow(name="here")
        for one in (away, here):
            await one.at_work()
        await away.cache.shutdown()
        await here.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await here.sees(u1="Ada")
        await here.caught_up()
        pruned = here.changes.stats.pruned

        await looked(here)
        assert (await here.pool.fetchval("SELECT count(*) FROM asynccache_change"), here.changes.stats.pruned) == (
            1,
            pruned,
        )
        await here.pool.execute(
            "UPDATE asynccache_listener SET seen_at = now() - interval '8 days' WHERE name = 'away'"
        )

        async def empty() -> bool:
            return not await here.pool.fetchval("SELECT count(*) FROM asynccache_change")

        await until(empty, "the change to be pruned")
        assert [row["name"] for row in await rows(here)] == ["here"]
        await away.cache.startup()
        await away.at_work()
        assert away.changes.stats.cleared == 2

    async def test_keeps_what_was_open_at_anothers_position(
        self, follow: Follow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The position of the listener that is away is beyond a transaction that had not ended then."""
        monkeypatch.setattr("asynccache.postgres.changes.listener._PRUNE_EVERY", 0.0)
        away, here = await follow(name="away"), await follow(name="here")
        await here.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        for one in (away, here):
            await one.at_work()
            await one.caught_up()
        async with here.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE users SET name = 'open'")
            await here.pool.execute("CREATE TABLE later (); DROP TABLE later")  # a transaction that begins after it
            await away.sees(u1="Ada")

            async def beyond() -> bool:
                found = await here.pool.fetchval(
                    "SELECT pg_snapshot_xip(position)::text FROM asynccache_listener WHERE name = 'away'"
                )
                return found is not None

            await until(beyond, "the position to be beyond the open transaction")
            await away.cache.shutdown()
            await transaction.commit()
        await here.sees(u1="open")
        await here.caught_up()
        await looked(here)
        assert await here.pool.fetchval("SELECT count(*) FROM asynccache_change") == 1
        handled = away.changes.stats.changes
        await away.cache.startup()
        await until(lambda: away.changes.stats.changes == handled + 1, "it to read it")

    async def test_gives_up_the_place_of_a_version_that_was_replaced_within_hours(
        self, follow: Follow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asynccache.postgres.changes.listener._PRUNE_EVERY", 0.0)
        old, new = await follow(table={"entries": []}), await follow()
        for one in (old, new):
            await one.at_work()
        await old.cache.shutdown()
        await new.pool.execute(
            "UPDATE asynccache_listener SET seen_at = now() - interval '2 hours' WHERE owner IS NULL"
        )

        async def one_place() -> bool:
            return len(await rows(new)) == 1

        await until(one_place)
        await old.cache.startup()
