"""What a change of a row is mapped to: entries, tags, and everything where neither can be told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import asyncpg
import pytest

from asynccache import Cache, CacheAside, ConfigurationError, VersionCounter, WriteBehind, WriteThrough
from asynccache.postgres import PostgresChanges, PostgresTable, TableChanges
from tests.support.changes import CREATE, POLL, User
from tests.support.gates import until

pytestmark = pytest.mark.one_loop

Following = Callable[..., Awaitable[PostgresChanges]]


@pytest.fixture
def following(cache: Cache, pool: asyncpg.Pool[Any], schema: str) -> Following:
    """Follows `users`, which is made, through these mappings."""

    async def follow(*tables: TableChanges, by: Any = None) -> PostgresChanges:
        await pool.execute(CREATE)
        changes = PostgresChanges(pool, tables=tables, schema=schema, poll=POLL)
        await changes.install()
        (by or cache).follow(changes)
        await until(lambda: cache.health().changes[0].position_age is not None, "the listener to work")
        return changes

    return follow


async def goes(cache: Cache, *keys: Any) -> None:
    """Waits until nothing is cached under these keys of the plain cache."""

    async def gone() -> bool:
        return not await cache.get_many(keys)

    await until(gone, f"{keys} to go")


async def keep(cache: Any, *keys: Any, tags: Iterable[str] = ()) -> None:
    for key in keys:
        await cache.set(key, "kept", tags=tuple(tags))


async def one(_: Any) -> int:
    return 1


class TestEntries:
    async def test_a_function_of_the_row_names_keys_of_the_plain_cache_and_cells(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following
    ) -> None:
        named = CacheAside(cache, "by-name", ttl=60, type=int)

        @cache.cached(key="page:{name}")
        async def page(name: str) -> int:
            return 1

        await following(
            TableChanges(
                "users",
                key="id",
                columns=["name"],
                entries=[
                    lambda row: named.key(row["name"]),
                    lambda row: [page.key(row["name"]), f"plain {row['id']}", ("tuple", row["id"])],
                    lambda row: row["id"],
                    lambda row: None,
                ],
            )
        )
        await named.get("Ada", load=one)
        await page("Ada")
        await keep(cache, "plain 1", ("tuple", 1), 1, 2)
        await pool.execute("INSERT INTO users VALUES (1, 'Ada')")
        await goes(cache, "plain 1", ("tuple", 1), 1, named.key("Ada"), page.key("Ada"))
        assert await cache.get(2) == "kept"

    async def test_each_kind_of_strategy(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following, schema: str
    ) -> None:
        table = PostgresTable(pool, f"{schema}.users", key="id", model=User)
        await pool.execute(CREATE)
        await pool.execute("INSERT INTO users VALUES (1, 'old', 1)")
        through = WriteThrough(cache, "through", source=table)
        behind = WriteBehind(cache, "behind", sink=table, partitions=2)
        counted = CacheAside(cache, "counted", type=int, version=VersionCounter())
        awaited = CacheAside(cache, "awaited", type=int, version=one)
        await pool.execute("DROP TABLE users")
        await following(TableChanges("users", key="id", entries=[through, behind, counted, awaited]))
        await pool.execute("INSERT INTO users VALUES (1, 'old', 1)")
        await until(lambda: cache.health().changes[0].handled, "the insert")
        assert (await through.get(1), await behind.get(1)) == (User(1, "old", 1), User(1, "old", 1))
        await counted.get(1, load=one)
        await awaited.get(1, load=one)
        await pool.execute("UPDATE users SET name = 'new'")

        async def new() -> bool:
            return (await through.get(1), await behind.get(1)) == (User(1, "new", 1), User(1, "new", 1))

        await until(new, "the new name")
        await goes(cache, counted.key(1), await awaited.key_now(1))

    async def test_a_write_that_is_buffered_is_not_lost_to_an_invalidation(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following, schema: str
    ) -> None:
        table = PostgresTable(pool, f"{schema}.users", key="id", model=User)
        behind = WriteBehind(cache, "behind", sink=table, partitions=2, flush_every=600)
        await following(TableChanges("users", key="id", entries=[behind]))
        await behind.put(1, User(1, "buffered", 1))
        await pool.execute("INSERT INTO users VALUES (1, 'database', 1)")
        await until(lambda: cache.health().changes[0].handled, "the insert")
        assert await behind.get(1) == User(1, "buffered", 1)
        await behind.flush()

        async def flushed() -> bool:
            return await behind.get(1) == User(1, "buffered", 1)

        await until(flushed)

    async def test_a_namespace_that_follows_has_its_own_tags(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following
    ) -> None:
        tenant = cache.namespace("tenant-7")
        await following(TableChanges("users", key="id", tags=["users"]), by=tenant)
        assert cache.health().changes[0].name == "tenant-7/default"
        await keep(cache, "outside", tags=["users"])
        await keep(tenant, "inside", tags=["users"])
        await pool.execute("INSERT INTO users VALUES (1)")

        async def gone() -> bool:
            return await tenant.get("inside") is None

        await until(gone)
        assert await cache.get("outside") == "kept"


class TestWhatAWholeTableOutdates:
    async def test_the_tags_if_they_reach_all_that_is_mapped(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following
    ) -> None:
        users = CacheAside(cache, "user", type=int, tags=["users", "user:{key}"])

        @cache.cached(key="page:{user_id}", tags=["users"])
        async def page(user_id: int) -> int:
            return 1

        await following(TableChanges("users", key="id", entries=[users, page], tags=["users"]))
        await users.get(1, load=one)
        await page(1)
        await keep(cache, "list", tags=["users"])
        await keep(cache, "else")
        await pool.execute("TRUNCATE users")
        await goes(cache, "list")

        async def reloaded() -> bool:
            return all([await explains(users.explain(1)), await explains(page.explain(1))])

        await until(reloaded)
        assert await cache.get("else") == "kept"

    async def test_the_namespace_of_an_entry_that_no_tag_reaches(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following
    ) -> None:
        tenant = cache.namespace("tenant-7")
        users = CacheAside(tenant, "user", type=int)
        await following(TableChanges("users", key="id", entries=[users], tags=["users"]))
        await users.get(1, load=one)
        await keep(tenant, "beside")
        await keep(cache, "outside")
        await pool.execute("TRUNCATE users")

        async def gone() -> bool:
            return await tenant.get("beside") is None and await explains(users.explain(1))

        await until(gone)
        assert await cache.get("outside") == "kept"

    async def test_the_whole_namespace_for_tags_that_differ_from_row_to_row(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following
    ) -> None:
        await following(TableChanges("users", key="id", tags=["users", "team:{team_id}"], columns=["team_id"]))
        await keep(cache, "team", tags=["team:1"])
        await keep(cache, "else")
        await pool.execute("TRUNCATE users")
        await goes(cache, "team", "else")

    async def test_what_whole_says(self, cache: Cache, pool: asyncpg.Pool[Any], following: Following) -> None:
        await following(
            TableChanges(
                "users", key="id", tags=lambda row: [f"team:{row['team_id']}"], columns=["team_id"], whole=["teams"]
            )
        )
        await keep(cache, "team", tags=["teams", "team:1"])
        await keep(cache, "else")
        await pool.execute("TRUNCATE users")
        await goes(cache, "team")
        assert await cache.get("else") == "kept"

    async def test_everything_if_a_function_fails_on_a_row(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following
    ) -> None:
        def tags(row: Any) -> list[str]:
            return [f"team:{1 // row['id']}"]

        changes = await following(TableChanges("users", key="id", tags=tags))
        await keep(cache, "any")
        await pool.execute("INSERT INTO users VALUES (0)")
        await goes(cache, "any")
        assert changes.stats.unmapped == 1
        await keep(cache, "other")
        await pool.execute("INSERT INTO users VALUES (1)")
        await until(lambda: changes.stats.changes == 2)
        assert await cache.get("other") == "kept"

    async def test_everything_if_a_value_cannot_be_a_key(
        self, cache: Cache, pool: asyncpg.Pool[Any], following: Following
    ) -> None:
        await pool.execute("CREATE TABLE weights (kilos float PRIMARY KEY)")
        weights = CacheAside(cache, "weight", type=int)
        changes = await following(TableChanges("weights", key="kilos", entries=[weights]))
        await keep(cache, "any")
        await pool.execute("INSERT INTO weights VALUES (1.5)")
        await goes(cache, "any")
        assert changes.stats.unmapped == 1


async def explains(explanation: Awaitable[Any]) -> bool:
    """Whether the next read would load."""
    return (await explanation).reason.name in {"OUTDATED", "EMPTY"}


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"table": 1}, "table must be a name"),
            ({"key": ()}, "must name a column"),
            ({"key": [1]}, "a column is a non-empty str"),
            ({"key": ["id", "id"]}, "names a column twice"),
            ({"columns": "team_id"}, "must be a sequence of columns"),
            ({"entries": "users"}, "entries must be a sequence"),
            ({"entries": [1]}, "not int"),
            ({"tags": "users"}, "sequence of strings"),
            ({"tags": [""]}, "non-empty str"),
            ({"tags": ["team:{team}"]}, "team:{team}.*key= or columns="),
            ({"tags": ()}, "outdates nothing"),
            ({"tags": one}, "not a coroutine function"),
            ({"whole": "users"}, "whole must be a sequence"),
        ],
    )
    def test_of_a_table(self, arguments: dict[str, Any], message: str) -> None:
        given = {"table": "users", "key": "id", "tags": ["users"], "columns": ["team_id"], **arguments}
        with pytest.raises(ConfigurationError, match=message):
            TableChanges(given.pop("table"), **given)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"tables": []}, "tables must be a sequence"),
            ({"tables": ["users"]}, "TableChanges.* is expected, not str"),
            ({"name": "a b"}, "name='a b'"),
            ({"schema": ""}, "schema"),
            ({"poll": 0}, "poll=0"),
            ({"timeout": "x"}, "timeout='x'"),
            ({"retention": 1}, "retention=1"),
            ({"max_keys": -1}, "max_keys=-1"),
            ({"database": 1}, "database must be"),
        ],
    )
    def test_of_the_source(self, arguments: dict[str, Any], message: str) -> None:
        given: dict[str, Any] = {
            "database": "postgresql://localhost/x",
            "tables": [TableChanges("users", key="id", tags=["users"])],
            **arguments,
        }
        with pytest.raises(ConfigurationError, match=message):
            PostgresChanges(given.pop("database"), **given)

    async def test_of_follow(self, cache: Cache) -> None:
        changes = PostgresChanges("postgresql://localhost/x", tables=[TableChanges("users", key="id", tags=["users"])])
        with pytest.raises(ConfigurationError, match="PostgresChanges"):
            cache.follow("users")  # type: ignore[arg-type]  # that is the point
        other = Cache("memory://", namespace="other", ttl=1)
        other.follow(changes)
        with pytest.raises(ConfigurationError, match="already"):
            other.follow(changes)
