"""Workers share partitions: evenly, soon after one joins or leaves, and after the lease of one that was killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from asynccache import ConfigurationError
from asynccache.clock import SYSTEM_CLOCK
from asynccache.keys import KeySpace
from asynccache.stores.redis import RedisStore
from asynccache.write_behind.ownership import Ownership, RedisClaims, shares

PARTITIONS = 16


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_url)
    await opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
def claims(store: RedisStore, namespace: str) -> RedisClaims:
    return RedisClaims(store, KeySpace((namespace,)), "score")


@asynccontextmanager
async def working(*owners: Ownership) -> AsyncIterator[None]:
    """They take part, and leave at the end, as a stopped worker does."""
    tasks = [asyncio.create_task(owner.run()) for owner in owners]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until(state: Callable[[], bool], within: float = 10.0) -> float:
    """Waits for a state; how many seconds that took."""
    begun = SYSTEM_CLOCK.monotonic()
    async with asyncio.timeout(within):
        while not state():
            await asyncio.sleep(0.01)
    return SYSTEM_CLOCK.monotonic() - begun


def shared(*owners: Ownership) -> bool:
    """Every partition has one owner, and none has two more than another."""
    owned = [owner.owned for owner in owners]
    sizes = [len(numbers) for numbers in owned]
    return sorted(number for numbers in owned for number in numbers) == list(range(PARTITIONS)) and (
        max(sizes) - min(sizes) <= 1
    )


class TestShares:
    def test_all_have_as_many_give_or_take_one(self) -> None:
        for workers in range(1, 25):
            for partitions in (1, 7, 16, 64):
                dealt = shares([f"worker-{n}" for n in range(workers)], partitions)
                sizes = [len(numbers) for numbers in dealt.values()]
                assert sorted(number for numbers in dealt.values() for number in numbers) == list(range(partitions))
                assert max(sizes) - min(sizes) <= 1

    def test_a_worker_that_joins_moves_little_more_than_its_own_share(self) -> None:
        moved = dealt = 0
        for fewer, more in pairwise(range(1, 20)):
            before = shares([f"w{n}" for n in range(fewer)], 64)
            after = shares([f"w{n}" for n in range(more)], 64)
            moved += sum(len(numbers - before[worker]) for worker, numbers in after.items() if worker in before)
            dealt += 64
        # Counted by turns, almost all would move.
        assert moved < dealt / 4

    def test_the_order_in_which_workers_are_named_is_of_no_importance(self) -> None:
        assert shares(["a", "b", "c"], 16) == shares(["c", "a", "b", "a"], 16)

    def test_without_workers_nobody_has_anything(self) -> None:
        assert shares([], 16) == {}


def test_a_lease_that_cannot_be_renewed_in_time_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match=r"lease=0.01 \(seconds\) must be at least 0.1"):
        Ownership(RedisClaims(RedisStore("redis://localhost"), KeySpace((namespace,)), "x"), 1, lease=0.01)


async def test_a_lone_worker_has_everything_at_once(claims: RedisClaims) -> None:
    alone = Ownership(claims, PARTITIONS)
    assert await alone.beat()
    assert shared(alone)
    await alone.leave()


@pytest.mark.one_loop
async def test_a_worker_that_joins_has_its_share_within_seconds_and_gives_it_back_when_it_stops(
    claims: RedisClaims,
) -> None:
    first, second, third = (Ownership(claims, PARTITIONS) for _ in range(3))
    async with working(first):
        await until(lambda: shared(first))
        async with working(second, third):
            assert await until(lambda: shared(first, second, third)) < 3.0
        assert second.owned == third.owned == ()
        # Not after the lease: they said that they leave.
        assert await until(lambda: shared(first)) < 3.0


@pytest.mark.one_loop
async def test_a_killed_worker_is_taken_over_after_its_lease_and_not_before(claims: RedisClaims) -> None:
    killed, other = Ownership(claims, PARTITIONS, lease=1.5), Ownership(claims, PARTITIONS, lease=1.5)
    async with working(other):
        # It shares until both have their halves, and then says no more: what a kill leaves behind.
        while not shared(killed, other):
            await killed.beat()
            await asyncio.sleep(0.05)
        kept = set(killed.owned)
        assert not kept & set(other.owned)
        assert 0.5 < await until(lambda: shared(other)) < 4.0
        await until(lambda: killed.owned == ())  # it knows by itself that its time is up


async def test_a_partition_is_given_up_only_after_its_batch(claims: RedisClaims) -> None:
    under_way = set(range(PARTITIONS))
    busy, other = Ownership(claims, PARTITIONS, busy=under_way.__contains__), Ownership(claims, PARTITIONS)
    assert await busy.beat()
    assert not await other.beat()
    assert not await busy.beat()
    assert not await other.beat()
    assert other.owned == ()
    assert len(busy.owned) == PARTITIONS // 2  # and begins nothing new on what it will give up
    under_way.clear()
    assert await busy.beat()
    assert await other.beat()
    assert shared(busy, other)
    await busy.leave()
    await other.leave()


async def test_who_gets_more_to_do_is_told(claims: RedisClaims) -> None:
    told: list[int] = []
    owner = Ownership(claims, PARTITIONS, changed=lambda: told.append(1))
    await owner.beat()
    await owner.beat()
    assert told == [1]
    await owner.leave()


async def test_a_worker_whose_lease_passed_begins_nothing_until_it_is_renewed(claims: RedisClaims) -> None:
    owner = Ownership(claims, PARTITIONS, lease=0.1)
    await owner.beat()
    await until(lambda: owner.owned == (), within=1.0)
    assert await owner.beat()
    assert shared(owner)
    await owner.leave()


@pytest.mark.one_loop
async def test_a_redis_that_lost_all_leases_leaves_nobody_without_work(
    redis: Redis, claims: RedisClaims, namespace: str
) -> None:
    owners = [Ownership(claims, PARTITIONS) for _ in range(2)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(working(*owners))
        await until(lambda: shared(*owners))
        async for key in redis.scan_iter(match=f"{namespace}#w:*"):
            await redis.delete(key)
        await until(lambda: all(len(owner.workers) == 2 for owner in owners) and shared(*owners))


async def test_a_worker_that_left_leaves_nothing_behind_in_redis(
    redis: Redis, claims: RedisClaims, namespace: str
) -> None:
    owner = Ownership(claims, PARTITIONS)
    await owner.beat()
    assert [key async for key in redis.scan_iter(match=f"{namespace}#w:*")]
    await owner.leave()
    assert not [key async for key in redis.scan_iter(match=f"{namespace}#w:*")]


async def test_what_is_left_by_killed_workers_goes_away_by_itself(
    redis: Redis, claims: RedisClaims, namespace: str
) -> None:
    owner = Ownership(claims, PARTITIONS, lease=5.0)
    await owner.beat()
    keys = [key async for key in redis.scan_iter(match=f"{namespace}#w:*")]
    assert len(keys) == PARTITIONS + 1
    assert all([0 < await redis.pttl(key) <= 5000 for key in keys])
