"""Installing and removing the triggers: once, again, by migration, by the command; and what they cost writers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asynccache import Cache, DatabaseUnavailable, SchemaMismatch
from asynccache.postgres import Database, PostgresChanges, TableChanges
from tests.integration.changes.conftest import Follow
from tests.support.changes import CREATE, POLL
from tests.support.gates import until

pytestmark = pytest.mark.one_loop

ROOT = Path(__file__).parents[3]


def changes_of(pool: Any, schema: str, *columns: str, **options: Any) -> PostgresChanges:
    table = TableChanges("users", key="id", tags=["users"], columns=columns)
    return PostgresChanges(pool, tables=[table], schema=schema, **{"poll": POLL, **options})


async def triggers(pool: asyncpg.Pool[Any]) -> list[tuple[str, str]]:
    rows = await pool.fetch(
        "SELECT tgname, xmin::text FROM pg_trigger WHERE tgrelid = 'users'::regclass AND NOT tgisinternal ORDER BY 1"
    )
    return [(row["tgname"], row["xmin"]) for row in rows]


async def leftovers(pool: asyncpg.Pool[Any], schema: str) -> list[str]:
    rows = await pool.fetch(
        "SELECT relname::text AS name FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relname ~ 'asynccache'"
        " UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = $1::text::regnamespace"
        " UNION ALL SELECT tgname::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        " WHERE c.relnamespace = $1::text::regnamespace AND tgname ~ 'asynccache'",
        schema,
    )
    return [row["name"] for row in rows]


class TestNothingIsInstalledBySurprise:
    async def test_a_cache_that_follows_does_not_open_and_says_what_to_do(
        self, pool: asyncpg.Pool[Any], schema: str
    ) -> None:
        await pool.execute(CREATE)
        cache = Cache("memory://", namespace="n", ttl=1)
        changes = changes_of(pool, schema)
        cache.follow(changes)
        with pytest.raises(
            SchemaMismatch, match=r"asynccache install module:cache.*changes\.install\(\).*changes\.sql"
        ):
            await cache.startup()
        assert await leftovers(pool, schema) == []
        await changes.install()
        async with cache:
            pass
        await pool.execute("DROP TRIGGER " + (await triggers(pool))[0][0] + " ON users")
        with pytest.raises(SchemaMismatch, match=r'"users" has no triggers.*install'):
            await cache.startup()
        await changes.install()
        await pool.execute(f"ALTER TABLE users DISABLE TRIGGER {(await triggers(pool))[1][0]}")
        with pytest.raises(SchemaMismatch, match="disabled"):
            await cache.startup()

    async def test_columns_that_are_not_recorded_and_tables_that_are_not_there_are_named(
        self, pool: asyncpg.Pool[Any], schema: str
    ) -> None:
        await pool.execute(CREATE)
        await changes_of(pool, schema).install()
        cache = Cache("memory://", namespace="n", ttl=1)
        cache.follow(changes_of(pool, schema, "team_id"))
        with pytest.raises(SchemaMismatch, match='do not record "team_id"'):
            await cache.startup()
        with pytest.raises(SchemaMismatch, match='no column "taem_id"; did you mean "team_id"'):
            await changes_of(pool, schema, "taem_id").install()
        await pool.execute("ALTER TABLE users RENAME TO people")
        with pytest.raises(SchemaMismatch, match='no table "users"'):
            await changes_of(pool, schema).install()

    async def test_without_the_database_it_opens_if_that_is_not_required_and_listens_later(
        self, pool: asyncpg.Pool[Any], schema: str
    ) -> None:
        await pool.execute(CREATE)
        missing = Database("postgresql://127.0.0.1:1/none", timeout=1)
        cache = Cache("memory://", namespace="n", ttl=1)
        cache.follow(changes_of(missing, schema))
        with pytest.raises(DatabaseUnavailable):
            await cache.startup()
        cache = Cache("memory://", namespace="n", ttl=1)
        cache.follow(changes_of(missing, schema, required=False))
        async with cache:
            await until(lambda: cache.health().changes[0].problem, "it to say that it cannot listen")
            assert not cache.health().ok


class TestInstalling:
    async def test_again_changes_nothing_and_locks_nothing(self, pool: asyncpg.Pool[Any], schema: str) -> None:
        await pool.execute(CREATE)
        changes = changes_of(pool, schema, "team_id")
        await asyncio.gather(changes.install(), changes_of(pool, schema, "team_id").install())
        before = await triggers(pool)
        assert len(before) == 4
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO users VALUES (1)")  # a lock on the table would wait for this
            await changes.install()
        assert await triggers(pool) == before

    async def test_two_applications_record_what_either_wants(self, pool: asyncpg.Pool[Any], schema: str) -> None:
        await pool.execute(CREATE)
        one, other = changes_of(pool, schema, "team_id"), changes_of(pool, schema, "name")
        await one.install()
        await other.install()
        await one.install()
        await pool.execute("INSERT INTO users VALUES (1, 'Ada', 7)")
        row = await pool.fetchrow("SELECT columns, rows::text FROM asynccache_change")
        assert row is not None
        found = dict(zip(row["columns"], json.loads(row["rows"])[0], strict=True))
        assert found == {"id": "1", "team_id": "7", "name": "Ada"}

    async def test_the_sql_is_a_migration_that_may_run_twice(self, pool: asyncpg.Pool[Any], schema: str) -> None:
        await pool.execute(CREATE)
        changes = changes_of(pool, schema)
        await pool.execute(changes.sql())
        await pool.execute(changes.sql())
        async with Cache("memory://", namespace="n", ttl=1) as cache:
            cache.follow(changes)
            await until(lambda: cache.health().changes[0].position_age is not None)
        await pool.execute(changes.uninstall_sql())
        assert await triggers(pool) == []

    async def test_uninstalling_leaves_nothing_unless_another_table_needs_it(
        self, pool: asyncpg.Pool[Any], schema: str
    ) -> None:
        await pool.execute(CREATE)
        await pool.execute("CREATE TABLE teams (id int PRIMARY KEY)")
        users = changes_of(pool, schema)
        teams = PostgresChanges(pool, tables=[TableChanges("teams", key="id", tags=["teams"])], schema=schema)
        await users.install()
        await teams.install()
        await users.uninstall()
        await pool.execute("INSERT INTO teams VALUES (1); INSERT INTO users VALUES (1)")
        assert await pool.fetchval("SELECT count(*) FROM asynccache_change") == 1
        await teams.uninstall()
        await teams.uninstall()
        assert await leftovers(pool, schema) == []

    async def test_a_table_that_is_busy_is_waited_for_within_a_bound(
        self, pool: asyncpg.Pool[Any], schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asynccache.postgres.changes.installing._LOCK_WAIT", "50ms")
        await pool.execute(CREATE)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO users VALUES (1)")
            with pytest.raises(DatabaseUnavailable, match="lock timeout"):
                await changes_of(pool, schema).install()
        await changes_of(pool, schema).install()


class TestWriters:
    async def test_need_no_rights_on_the_outbox(self, pool: asyncpg.Pool[Any], schema: str) -> None:
        await pool.execute(CREATE)
        await changes_of(pool, schema).install()
        role = f"writer_{schema}"
        await pool.execute(
            f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON users TO {role}"
        )
        try:
            async with pool.acquire() as connection:
                await connection.execute(f"SET ROLE {role}")
                await connection.execute("INSERT INTO users VALUES (1)")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("SELECT * FROM asynccache_change")
                # Nor can they use the function for a table of their own.
                await connection.execute("CREATE TEMP TABLE mine (id int)")
                function = await connection.fetchval(
                    "SELECT proname FROM pg_proc WHERE pronamespace = $1::text::regnamespace", schema
                )
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(
                        f"CREATE TRIGGER t AFTER INSERT ON mine FOR EACH STATEMENT EXECUTE FUNCTION {schema}.{function}()"
                    )
                # A listener needs some, and says which.
                await connection.execute("RESET ROLE; DROP TABLE mine")
            assert await pool.fetchval("SELECT count(*) FROM asynccache_change") == 1
        finally:
            await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    async def test_are_not_misled_by_tables_of_the_same_name_in_front_of_ours(
        self, pool: asyncpg.Pool[Any], schema: str
    ) -> None:
        await pool.execute(CREATE)
        await changes_of(pool, schema).install()
        async with pool.acquire() as connection:
            await connection.execute("CREATE TEMP TABLE asynccache_change (LIKE asynccache_change)")
            await connection.execute("CREATE TEMP TABLE pg_attribute (attrelid int)")
            await connection.execute("INSERT INTO users VALUES (1)")
            await connection.execute("DISCARD TEMP")
        assert await pool.fetchval("SELECT count(*) FROM asynccache_change") == 1

    async def test_go_on_when_a_recorded_column_is_renamed_or_dropped(self, follow: Follow) -> None:
        world = await follow()
        await world.at_work()
        await world.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await world.sees(u1="Ada")
        async with world.pool.acquire() as connection:
            # In a session that has used the function before.
            await connection.execute("UPDATE users SET name = 'Ada L.'")
            await connection.execute("ALTER TABLE users RENAME team_id TO crew_id")
            await connection.execute("UPDATE users SET name = 'renamed'")
            await connection.execute("ALTER TABLE users RENAME crew_id TO team_id")
            await connection.execute("UPDATE users SET name = 'named'")
            await connection.execute("ALTER TABLE users DROP team_id")
            await connection.execute("UPDATE users SET name = 'dropped'")
            await connection.execute("ALTER TABLE users ADD team_id int NOT NULL DEFAULT 2")
            await connection.execute("UPDATE users SET name = 'added'")
        await world.sees(u1="added")
        rows = await world.pool.fetch("SELECT rows IS NULL AS whole FROM asynccache_change ORDER BY xid, id")
        assert [row["whole"] for row in rows] == [False, False, True, False, True, False]

    async def test_may_be_serializable(self, follow: Follow) -> None:
        world = await follow()
        async with world.pool.acquire() as connection, connection.transaction(isolation="serializable"):
            await connection.execute("INSERT INTO users VALUES (1, 'Ada')")
        await world.sees(u1="Ada")


class TestTriggersThatAreInstalledAgain:
    async def test_clear_what_went_unrecorded_while_nobody_listened(self, follow: Follow) -> None:
        world = await follow()
        await world.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await world.at_work()
        await world.caught_up()
        await world.sees(u1="Ada")
        await world.cache.shutdown()
        await world.pool.execute(world.changes.uninstall_sql())
        await world.pool.execute("UPDATE users SET name = 'unheard'")
        await world.changes.install()
        await world.cache.startup()
        await world.sees(u1="unheard")


class TestTriggersThatGoMissingLater:
    async def test_are_said_and_what_was_missed_is_cleared_once_they_are_back(self, follow: Follow) -> None:
        world = await follow()
        await world.pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await world.at_work()
        await world.sees(u1="Ada")
        await world.pool.execute("ALTER TABLE users DISABLE TRIGGER USER")
        await world.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asynccache changes:default'"
            " AND datname = current_database() AND query ~ $1",
            "asynccache",
        )
        await until(lambda: "disabled" in (world.cache.health().changes[0].problem or ""), "the listener to notice")
        assert not world.cache.health().ok
        await world.pool.execute("UPDATE users SET name = 'unheard'")
        await world.pool.execute("ALTER TABLE users ENABLE TRIGGER USER")
        await world.sees(u1="unheard")
        await until(lambda: world.cache.health().ok)


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from asynccache.cli import main; main()",
        "install",
        *arguments,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "160", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


class TestTheCommand:
    APP = "tests.processes.changes_app:cache"

    async def test_installs_prints_and_removes(
        self, pool: asyncpg.Pool[Any], schema: str, database_url: str, redis_url: str, namespace: str
    ) -> None:
        await pool.execute(CREATE)
        environment = {
            "APP_REDIS": redis_url,
            "APP_NAMESPACE": namespace,
            "APP_DATABASE": database_url,
            "APP_SCHEMA": schema,
        }
        code, out, _ = await run(self.APP, "--print", **environment)
        assert (code, await leftovers(pool, schema)) == (0, [])
        assert "CREATE OR REPLACE TRIGGER" in out
        code, out, err = await run(self.APP, **environment)
        assert (code, err) == (0, "")
        assert "installed: PostgresChanges('default'" in out
        assert "installed: PostgresTable(" in out
        assert {"asynccache_change", "asynccache_listener", "asynccache_batch", "asynccache_dead_letter"} <= set(
            await leftovers(pool, schema)
        )
        assert len(await triggers(pool)) == 4
        code, _, _ = await run(self.APP, "--uninstall", **environment)
        assert (code, await triggers(pool)) == (0, [])

        code, _, err = await run("tests.processes.cli_app:number", **environment)
        assert (code, "must be a Cache" in err) == (2, True)
        code, _, err = await run("tests.processes.cli_app:empty", **environment)
        assert (code, "has no PostgresTable" in err) == (2, True)
        code, _, err = await run(self.APP, **{**environment, "APP_DATABASE": "postgresql://127.0.0.1:1/none"})
        assert (code, "installing the triggers" in err) == (1, True)
