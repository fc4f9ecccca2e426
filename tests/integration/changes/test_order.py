"""Transactions commit in another order than that in which they write: no change is passed over for it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from asynccache.postgres.changes import outbox
from tests.integration.changes.conftest import Follow
from tests.support.changes import World
from tests.support.gates import until

pytestmark = pytest.mark.one_loop


class Writer:
    """A connection with a transaction that the test ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transaction = connection.transaction()

    async def rename(self, key: int, name: str) -> None:
        await self._connection.execute("UPDATE users SET name = $2 WHERE id = $1", key, name)

    async def begin(self) -> None:
        await self._transaction.start()

    async def commit(self) -> None:
        await self._transaction.commit()


async def writers(stack: AsyncExitStack, world: World, count: int) -> list[Writer]:
    found = [Writer(await world.pool.acquire()) for _ in range(count)]
    for writer in found:
        stack.push_async_callback(world.pool.release, writer._connection)
    for writer in found:
        await writer.begin()
    return found


async def filled(world: World, count: int = 5) -> None:
    await world.pool.execute("INSERT INTO users SELECT i, 'n' || i FROM generate_series(1, $1::int) i", count)
    await world.at_work()
    await world.caught_up()
    await world.users.get_many(range(1, count + 1))


async def test_the_later_id_commits_first(follow: Follow) -> None:
    world = await follow()
    await filled(world)
    async with AsyncExitStack() as stack:
        early, late = await writers(stack, world, 2)
        await early.rename(1, "early")
        await late.rename(2, "late")
        await late.commit()
        await world.sees(u1="n1", u2="late")
        await world.caught_up()
        await early.commit()
        await world.sees(u1="early", u2="late")


async def test_the_later_transaction_writes_first_and_the_earlier_one_commits_last(follow: Follow) -> None:
    """The earlier transaction has the lower xid, and the higher id in the outbox."""
    world = await follow()
    await filled(world)
    async with AsyncExitStack() as stack:
        early, late = await writers(stack, world, 2)
        await early._connection.fetchval("SELECT pg_current_xact_id()")
        await late.rename(2, "late")
        await early.rename(1, "early")
        await late.commit()
        await world.sees(u2="late")
        await world.caught_up()
        await early.commit()
        await world.sees(u1="early")


async def test_a_transaction_that_stays_open_holds_nobody_up_and_is_seen_at_its_end(follow: Follow) -> None:
    world = await follow()
    await filled(world)
    async with AsyncExitStack() as stack:
        (long,) = await writers(stack, world, 1)
        await long.rename(1, "first")
        for turn in range(5):
            await world.pool.execute("UPDATE users SET name = $1 WHERE id = 2", f"turn{turn}")
            await world.sees(u1="n1", u2=f"turn{turn}")
        await long.rename(3, "second")
        # The position has gone on, past a transaction that is still open ...
        await world.caught_up()
        position = world.changes._listeners[0]._position
        assert position is not None
        assert position.running
        handled = world.changes.stats.changes
        await world.pool.execute("UPDATE users SET name = 'n4!' WHERE id = 4")
        await world.sees(u4="n4!")
        # ... and what was handled is not handled again.
        assert world.changes.stats.changes == handled + 1
        await long.commit()
        await world.sees(u1="first", u2="turn4", u3="second")


async def test_interleaved_commits_in_every_order_leave_nothing_behind(follow: Follow) -> None:
    world = await follow()
    await filled(world, 24)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    for number, order in enumerate(orders):
        async with AsyncExitStack() as stack:
            three = await writers(stack, world, 3)
            for at, writer in enumerate(three):
                await writer.rename(number * 4 + at + 1, f"r{number}")
            for at in order:
                await three[at].commit()
                await world.sees(**{f"u{number * 4 + at + 1}": f"r{number}"})


async def test_a_transaction_open_since_before_the_listener_is_seen(follow: Follow) -> None:
    first = await follow(name="first")
    await filled(first)
    async with AsyncExitStack() as stack:
        (open_,) = await writers(stack, first, 1)
        await open_.rename(1, "late")
        second = await follow(name="second")
        await second.at_work()
        await second.sees(u1="n1")
        await second.caught_up()
        await open_.commit()
        await second.sees(u1="late")


async def test_more_changes_than_a_page_holds_are_read_page_by_page(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_ROWS", 7)
    monkeypatch.setattr(outbox, "_KEYS", 10)
    world = await follow()
    await filled(world, 60)
    async with AsyncExitStack() as stack:
        (open_,) = await writers(stack, world, 1)
        await open_.rename(60, "open")
        async with world.pool.acquire() as connection, connection.transaction():
            for key in range(1, 41):  # 40 changes of a key
                await connection.execute("UPDATE users SET name = 'paged' WHERE id = $1", key)
            await connection.execute("UPDATE users SET name = 'paged' WHERE id BETWEEN 41 AND 59")  # one of 19 keys
        await world.sees(**{f"u{key}": "paged" for key in range(1, 60)})
        async with world.pool.acquire() as connection, connection.transaction():
            for key in range(1, 41):
                await connection.execute("UPDATE users SET name = 'again' WHERE id = $1", key)
            await open_.commit()
        await world.sees(**{f"u{key}": "again" for key in range(1, 41)}, u60="open")


async def test_handled_changes_are_pruned_and_those_of_open_transactions_are_not(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynccache.postgres.changes.listener._PRUNE_EVERY", 0.0)
    monkeypatch.setattr(outbox, "_PRUNED_AT_ONCE", 3)
    world = await follow()
    await filled(world)
    async with AsyncExitStack() as stack:
        (open_,) = await writers(stack, world, 1)
        await open_.rename(1, "open")
        for key in (2, 3, 4, 5) * 3:
            await world.pool.execute("UPDATE users SET name = name || '.' WHERE id = $1", key)

        async def empty() -> bool:
            return not await world.pool.fetchval("SELECT count(*) FROM asynccache_change")

        await until(empty, "the outbox to be pruned")
        await open_.commit()
        await world.sees(u1="open", u2="n2...")
        await until(empty, "the outbox to be pruned again")
    assert world.changes.stats.pruned == 14
