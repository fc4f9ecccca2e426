"""Batching: company is shared, nobody who is alone waits, and nobody gets another's answer, error or cancellation."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence

import pytest

from asynccache.errors import StoreUnavailable
from asynccache.stores.batching import Batcher


class Server:
    """Answers a request with its double; holds calls until `gate` is open."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.instant = False

    async def __call__(self, requests: Sequence[int]) -> Sequence[int | BaseException]:
        self.calls.append(list(requests))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if not self.instant:
                await asyncio.sleep(0)
                await self.gate.wait()
            if self.error is not None:
                raise self.error
            return [ValueError(f"{one} is negative") if one < 0 else one * 2 for one in requests]
        finally:
            self.under_way -= 1


@pytest.fixture
async def server() -> Server:
    return Server()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def ask(batcher: Batcher[int, int], *requests: int) -> list[asyncio.Task[int]]:
    async def call(request: int) -> int:
        return await batcher(request)

    return [asyncio.create_task(call(request)) for request in requests]


async def test_a_lone_caller_makes_no_task_and_waits_for_nobody(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    server.instant = True
    before = asyncio.all_tasks()
    call = batcher(1)
    assert inspect.iscoroutine(call)
    with pytest.raises(StopIteration) as done:  # it never gave the loop a turn
        call.send(None)
    assert done.value.value == 2
    assert asyncio.all_tasks() == before
    for at in range(3):
        assert await batcher(at) == at * 2
    assert server.calls == [[1], [0], [1], [2]]


async def test_a_lone_caller_who_never_begins_holds_up_nobody(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b", max_calls=1)
    for _ in range(3):
        task = asyncio.ensure_future(batcher(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    first, second = batcher(2), batcher(3)  # neither has begun
    assert [await second, await first] == [6, 4]


async def test_callers_of_the_same_tick_share_a_call(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    assert await asyncio.gather(*ask(batcher, *range(100))) == [at * 2 for at in range(100)]
    # The first could not know of the others; from then on the batcher looks for company.
    assert server.calls == [[0], list(range(1, 100))]
    assert await asyncio.gather(*ask(batcher, *range(50))) == [at * 2 for at in range(50)]
    assert server.calls[2:] == [list(range(50))]


async def test_a_caller_that_is_alone_again_makes_its_own_calls_again(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    await asyncio.gather(*ask(batcher, 1, 2, 3))
    await batcher(4)
    server.instant = True
    call = batcher(5)
    assert inspect.iscoroutine(call)
    with pytest.raises(StopIteration):
        call.send(None)


async def test_no_more_calls_are_under_way_than_allowed_and_no_call_is_larger(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b", max_batch=10, max_calls=2)
    server.gate.clear()
    tasks = ask(batcher, *range(55))
    await turns()
    assert server.under_way == 2
    server.gate.set()
    assert await asyncio.gather(*tasks) == [at * 2 for at in range(55)]
    assert server.most_under_way == 2
    assert max(map(len, server.calls)) == 10
    assert sorted(one for call in server.calls for one in call) == list(range(55))
    assert repr(batcher) == "Batcher('b', waiting=0, calls=0)"


async def test_whoever_comes_while_calls_are_under_way_shares_the_next(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b", max_calls=1)
    server.gate.clear()
    tasks = ask(batcher, 1)
    for request in range(2, 8):
        await turns()
        tasks += ask(batcher, request)
    await turns()
    assert server.calls == [[1]]
    server.gate.set()
    assert await asyncio.gather(*tasks) == [at * 2 for at in range(1, 8)]
    assert server.calls == [[1], [2, 3, 4, 5, 6, 7]]


async def test_a_cancelled_waiter_leaves_the_others_alone(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    server.gate.clear()
    tasks = ask(batcher, *range(6))
    await turns()
    tasks[3].cancel()
    await turns()
    server.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers.pop(3), asyncio.CancelledError)
    assert answers == [0, 2, 4, 8, 10]


async def test_who_is_cancelled_in_the_queue_is_not_asked_for(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b", max_calls=1)
    server.gate.clear()
    tasks = ask(batcher, 0, 1, 2)
    await turns()
    tasks[1].cancel()
    await turns()
    server.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert server.calls == [[0], [2]]


async def test_a_cancelled_lone_caller_ends_its_call_and_lets_the_queue_go_on(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b", max_calls=1)
    server.gate.clear()
    lone, *others = ask(batcher, 0, 1, 2)
    await turns()
    lone.cancel()
    await turns()
    server.gate.set()
    assert await asyncio.gather(*others) == [2, 4]
    assert lone.cancelled()
    assert await batcher(9) == 18


async def test_an_answer_that_is_an_error_reaches_its_caller_alone(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    answers = await asyncio.gather(*ask(batcher, 1, -2, 3, -4, 5), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2", "-2 is negative", "6", "-4 is negative", "10"]
    with pytest.raises(ValueError, match="-7 is negative"):
        await batcher(-7)


async def test_a_failed_call_reaches_each_caller_as_an_error_of_its_own(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    server.error = StoreUnavailable("gone")
    answers = await asyncio.gather(*ask(batcher, *range(5)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["gone"] * 5
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert len({id(answer) for answer in answers}) == 5
    server.error = None
    assert await batcher(1) == 2


async def test_a_crowd_does_not_wait_for_one_failure_after_another(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b", max_batch=10, max_calls=1)
    server.gate.clear()
    server.error = StoreUnavailable("gone")
    tasks = ask(batcher, *range(100))
    await turns()
    tasks[0].cancel()  # the lone one; then the first batch is under way, the rest waits
    await turns()
    late = ask(batcher, 100)
    await turns()
    server.gate.set()
    answers = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert [len(call) for call in server.calls[:2]] == [1, 10]
    assert len(server.calls) <= 3, "each batch failed on its own"
    await asyncio.gather(*late, return_exceptions=True)
    assert server.calls[2:] == [[100]], "who came later is asked for"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a text")


async def test_an_error_that_cannot_be_copied_or_printed_leaves_nobody_waiting(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    server.error = Mute()
    answers = await asyncio.gather(*ask(batcher, *range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Mute}


async def test_too_few_answers_leave_nobody_waiting() -> None:
    async def send(requests: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        return requests[:1]

    batcher: Batcher[int, int] = Batcher(send, name="b")
    answers = await asyncio.gather(*ask(batcher, 1, 2, 3), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["1", *["b: 1 answers to 2 requests"] * 2]


async def test_closing_tells_those_who_wait_instead_of_cancelling_them(server: Server) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b", max_batch=2, max_calls=2)
    server.gate.clear()
    lone, *others = ask(batcher, *range(8))
    await turns()
    await batcher.aclose()
    answers = await asyncio.gather(*others, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    server.gate.set()
    assert await lone == 0  # its call is its own


@pytest.mark.parametrize("ticks", range(6))
async def test_closing_in_any_tick_of_a_call_leaves_nobody_waiting(server: Server, ticks: int) -> None:
    batcher: Batcher[int, int] = Batcher(server, name="b")
    calls = ask(batcher, 1, 2, 3)
    await turns(ticks)
    await batcher.aclose()
    async with asyncio.timeout(10):
        await asyncio.gather(*calls, return_exceptions=True)
        # A call that was ended before its first step is not counted as under way for ever.
        assert await asyncio.gather(*ask(batcher, 1, 2, 3)) == [2, 4, 6]
