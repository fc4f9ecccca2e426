"""`PostgresChanges`: a database whose changes a cache follows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import ConfigurationError, DatabaseUnavailable, SchemaMismatch
from asynccache.keys import check_name
from asynccache.policy import Duration, seconds
from asynccache.postgres.changes.ddl import Outbox
from asynccache.postgres.changes.installing import INSTALLING, Installer, Survey
from asynccache.postgres.changes.interpreting import ChangesStats
from asynccache.postgres.changes.listener import ChangeListener, Timing
from asynccache.postgres.changes.mapping import Follows
from asynccache.postgres.changes.places import Places
from asynccache.postgres.changes.tables import TableChanges
from asynccache.postgres.database import AnyDatabase, connections_for
from asynccache.postgres.failures import writing
from asynccache.postgres.names import parse_name, quoted
from asynccache.supervision import logger

__all__ = ["ChangesStats", "PostgresChanges"]

_LEASE_OVER_POLL = 2.0


class PostgresChanges:
    """Changes of tables, recorded by triggers in the writers' own transactions, whoever writes.

    `cache.follow(changes)` invalidates what the tables' declarations say. Nothing is installed by that: call `install`
    once, or use `asynccache install`, or put `sql()` into a migration.

    Args:
        database: an `asyncpg.Pool`, a DSN, a `Database`, or a function without arguments that returns a pool. The
            process that does the work opens one more connection, with the pool's settings.
        tables: what a change of each table outdates.
        name: listeners of the same name, namespace and declarations share the work: one is active, the others stand by.
            Another name gets every change for itself: give one to each Redis.
        schema: where the outbox is, and where tables are that are named without a schema.
        poll: seconds between two looks without a wake-up by NOTIFY; also how often those look that stand by.
        timeout: the longest one statement may take.
        retention: how long changes wait for a listener that is away; after that it clears, instead of catching up.
        max_keys: rows that one statement changes above which the whole table counts as changed.
        notify: whether writers wake listeners. Without it changes are seen within `poll`, and the database is spared
            the lock that all transactions with a NOTIFY take in turn at their COMMIT; nor can a transaction with a
            NOTIFY be prepared (two-phase commit).
        required: whether opening the cache fails without an answer from PostgreSQL; else it is tried in the background.
        clock: reads time.

    Raises:
        ConfigurationError: an argument cannot work. No I/O is done here.
    """

    def __init__(
        self,
        database: AnyDatabase,
        *,
        tables: Sequence[TableChanges],
        name: str = "default",
        schema: str = "public",
        poll: Duration = 1.0,
        timeout: Duration = 5.0,
        retention: Duration = "7d",
        max_keys: int = 50_000,
        notify: bool = True,
        required: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if isinstance(tables, TableChanges) or not isinstance(tables, Sequence) or not tables:
            raise ConfigurationError(
                f"tables must be a sequence such as [TableChanges('users', key='id', ...)], not {tables!r:.100}"
            )
        for table in tables:
            if not isinstance(table, TableChanges):
                raise ConfigurationError(
                    f"tables: TableChanges(...) is expected, not {type(table).__name__} ({table!r})"
                )
        # Each key of a larger statement is in the writer's transaction, and all of them in one array of the trigger's.
        if not isinstance(max_keys, int) or isinstance(max_keys, bool) or not 0 <= max_keys <= 1_000_000:
            raise ConfigurationError(
                f"max_keys={max_keys!r} ({type(max_keys).__name__}) must be an int of 0 to 1000000"
            )
        outside, schema = parse_name(quoted(schema) if isinstance(schema, str) and schema else schema, "schema")
        assert not outside  # noqa: S101 - it was in quotes
        self._connections = connections_for(database)
        self._tables = list(tables)
        self._name = check_name(name, "name")
        self._outbox = Outbox(schema, max_keys, notify)
        self._installer = Installer(self._outbox, self._tables)
        poll = seconds(poll, "poll", least=0.01, zero=False)
        self._timing = Timing(
            poll, seconds(timeout, "timeout", least=0.05, zero=False), lease=3 * poll + _LEASE_OVER_POLL
        )
        self._retention = seconds(retention, "retention", least=10 * self._timing.lease, zero=False)
        self._required = required
        self._clock = clock
        self._listeners: list[ChangeListener] = []

    @property
    def name(self) -> str:
        """The listener's name."""
        return self._name

    @property
    def stats(self) -> ChangesStats:
        """What the listeners of this object have counted."""
        counts = [listener.counts for listener in self._listeners]
        return ChangesStats(
            **{one.name: sum(getattr(count, one.name) for count in counts) for one in fields(ChangesStats)}
        )

    def sql(self) -> str:
        """What `install` runs on a database where nothing is installed yet, for a migration. It may be run again; each
        table's columns are then those declared here, and not what another application has added."""
        return self._installer.sql()

    def uninstall_sql(self) -> str:
        """What takes the triggers away. The outbox stays: `DROP TABLE asynccache_change, asynccache_listener`."""
        return self._installer.drop_sql()

    async def install(self) -> None:
        """Makes the outbox and the triggers, as far as they are not there. May be run at each deploy.

        Making a table's triggers waits for the transactions that write to it, for 10 seconds at most, and those that
        want to write wait for it meanwhile.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or refuses, or a lock was not to be had.
            SchemaMismatch: a table or column is not there.
            ConfigurationError: the server is older than PostgreSQL 14.
        """
        await self._on_connection("installing the triggers of changes", self._installer.install)

    async def uninstall(self) -> None:
        """Takes the triggers away, and the outbox with the last ones that use it.

        Raises:
            DatabaseUnavailable: as for `install`.
        """
        await self._on_connection("removing the triggers of changes", self._installer.uninstall)

    async def _on_connection(self, what: str, work: Any) -> None:
        await self._connections.open()
        try:
            with writing(f"{what}{self._connections.where}"):
                async with self._connections.connection(INSTALLING) as connection:
                    await work(connection)
        finally:
            await self._connections.aclose()

    # -- for the cache

    async def open(self) -> None:
        """Connects, and checks that changes are recorded.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached (unless `required=False`).
            SchemaMismatch: something is not installed; the message lists what.
        """
        await self._connections.open()
        try:
            with writing(f"looking for the triggers of changes{self._connections.where}"):
                async with self._connections.connection(self._timing.timeout) as connection:
                    survey = await self._installer.survey(connection)
            _refuse(survey)
        except DatabaseUnavailable as error:
            if self._required:
                await self._connections.aclose()
                raise
            logger.warning("opened without the database whose changes are followed, which is tried again: %s", error)
        except BaseException:
            await self._connections.aclose()
            raise

    async def aclose(self) -> None:
        """Gives back the connections that `open` took."""
        await self._connections.aclose()

    def followed_by(self, follower: Follows) -> ChangeListener:
        """The service that tells a namespace of changes; `cache.follow` runs it."""
        described = sorted(table.description(self._outbox.schema) for table in self._tables)
        mapping = hashlib.blake2b(repr(described).encode(errors="backslashreplace"), digest_size=8).hexdigest()
        places = Places(
            self._outbox,
            self._name,
            follower.path,
            mapping,
            self._installer.relations,
            lease=self._timing.lease,
            retention=self._retention,
        )
        listener = ChangeListener(
            f"changes:{follower.where}{self._name}",
            self._connections,
            self._installer,
            self._outbox,
            self._tables,
            follower,
            places,
            self._timing,
            self._clock,
        )
        self._listeners.append(listener)
        return listener

    def __repr__(self) -> str:
        return f"PostgresChanges({self._name!r}, {', '.join(self._installer.relations)}, {self._connections!r})"


def _refuse(survey: Survey) -> None:
    if survey.faults:
        raise SchemaMismatch("; ".join(survey.faults))
