"""Flights by themselves: who joins, who is answered with what, and when a load is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asynccache import LoadCancelled
from asynccache.stampede.single_flight import Flight, SingleFlight
from asynccache.supervision import TaskOwner
from tests.support.gates import Gate, until


@pytest.fixture
async def owner() -> AsyncIterator[TaskOwner]:
    owner = TaskOwner("loads")
    yield owner
    await owner.aclose()


class Load:
    """A load that begins, stops at a gate, and brings a value or an error."""

    def __init__(self, result: Any = "value") -> None:
        self.gate = Gate()
        self.begin = Gate()
        self.begin.open()
        self.cancelled = 0
        self._result = result

    async def __call__(self, flight: Flight[Any]) -> Any:
        try:
            await self.begin.stop()
            flight.begin()
            await self.gate.stop()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


async def test_callers_of_one_flight_get_its_result(owner: TaskOwner) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    load = Load()
    flight = flights.start("k", load)
    callers = [asyncio.create_task(flight.join()) for _ in range(3)]
    await load.gate.reached()
    load.gate.open()
    assert await asyncio.gather(*callers) == ["value"] * 3
    assert len(flights) == 0
    assert len(owner) == 0


async def test_a_flight_may_be_joined_by_who_came_before_its_load_or_can_prove_that_nothing_was_written(
    owner: TaskOwner,
) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    load = Load()
    load.begin = Gate()
    before = flights.moment()
    flight = flights.start("k", load)
    flight.proof = "token"
    caller = asyncio.create_task(flight.join())
    await load.begin.reached()
    assert flights.find("k", flights.moment(), None) is flight  # not begun: it will see whatever anybody knows of
    load.begin.open()
    await load.gate.reached()
    after = flights.moment()
    assert flights.find("k", before, None) is flight
    assert flights.find("k", after, None) is None
    assert flights.find("k", after, "token") is flight
    assert flights.find("k", after, "another") is None
    assert flights.find("other", before, "token") is None
    flight.proof = None
    assert flights.find("k", after, None) is None  # to have seen nothing proves nothing
    load.gate.open()
    await caller
    assert flights.find("k", before, None) is None


async def test_of_several_flights_the_youngest_is_joined(owner: TaskOwner) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    loads = [Load("first"), Load("second")]
    callers = []
    for load in loads:
        callers.append(asyncio.create_task(flights.start("k", load).join()))
        await load.gate.reached()
    found = flights.find("k", 0, None)
    assert found is not None
    callers.append(asyncio.create_task(found.join()))
    for load in loads:
        load.gate.open()
    assert await asyncio.gather(*callers) == ["first", "second", "second"]


async def test_an_error_reaches_each_caller_as_an_exception_of_its_own(owner: TaskOwner) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    cause = OSError("connection reset")
    error = KeyError("k", 7)
    error.__cause__ = cause
    load = Load(error)
    flight = flights.start("k", load)
    callers = [asyncio.create_task(flight.join()) for _ in range(4)]
    await load.gate.reached()
    load.gate.open()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(one, KeyError) and one.args == ("k", 7) and one.__cause__ is cause for one in errors)
    assert len({id(one) for one in errors}) == 4
    assert error in errors


async def test_an_error_that_cannot_be_copied_reaches_all_the_same(owner: TaskOwner) -> None:
    class Odd(Exception):
        def __init__(self, code: int, *, reason: str) -> None:
            super().__init__(f"{code}: {reason}")

    flights: SingleFlight[Any] = SingleFlight(owner)
    load = Load(Odd(7, reason="odd"))
    flight = flights.start("k", load)
    callers = [asyncio.create_task(flight.join()) for _ in range(2)]
    await load.gate.reached()
    load.gate.open()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in errors] == ["7: odd", "7: odd"]


async def test_a_cancelled_caller_leaves_the_load_to_the_others(owner: TaskOwner) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    load = Load()
    flight = flights.start("k", load)
    callers = [asyncio.create_task(flight.join()) for _ in range(3)]
    await load.gate.reached()
    for caller in callers[:2]:
        caller.cancel()
    await asyncio.gather(*callers[:2], return_exceptions=True)
    assert load.cancelled == 0
    assert flights.find("k", 0, None) is flight
    load.gate.open()
    assert await callers[2] == "value"


@pytest.mark.parametrize("begun", [True, False])
async def test_when_the_last_caller_leaves_the_load_is_cancelled_and_cannot_be_joined(
    owner: TaskOwner, begun: bool
) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    load = Load()
    flight = flights.start("k", load)
    caller = asyncio.create_task(flight.join())
    if begun:
        await load.gate.reached()
    else:
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()
    assert flights.find("k", 0, None) is None
    await until(lambda: len(owner) == 0)
    assert load.cancelled == (1 if load.begin.arrived else 0)


async def test_a_kept_load_goes_on_and_can_be_joined(owner: TaskOwner) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner, keep=True)
    load = Load()
    flight = flights.start("k", load)
    caller = asyncio.create_task(flight.join())
    await load.gate.reached()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    late = asyncio.create_task(flight.join())
    assert flights.find("k", 0, None) is flight
    load.gate.open()
    assert await late == "value"


async def test_a_kept_load_that_fails_without_callers_is_nobodys_error(
    owner: TaskOwner, caplog: pytest.LogCaptureFixture
) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner, keep=True)
    load = Load(KeyError("k"))
    flight = flights.start("k", load)
    caller = asyncio.create_task(flight.join())
    await load.gate.reached()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    load.gate.open()
    await until(lambda: len(owner) == 0)
    assert len(flights) == 0
    assert not caplog.records


async def test_a_load_cancelled_by_others_is_a_load_cancelled_for_its_callers(owner: TaskOwner) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    load = Load()
    flight = flights.start("k", load)
    callers = [asyncio.create_task(flight.join()) for _ in range(2)]
    await load.gate.reached()
    await owner.aclose()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(error) for error in errors] == [LoadCancelled] * 2
    assert len({id(error) for error in errors}) == 2


async def test_a_caller_cancelled_in_the_moment_of_the_result_is_cancelled_and_the_rest_answered(
    owner: TaskOwner,
) -> None:
    flights: SingleFlight[Any] = SingleFlight(owner)
    load = Load()
    flight = flights.start("k", load)
    callers = [asyncio.create_task(flight.join()) for _ in range(2)]
    await load.gate.reached()
    assert flight.task is not None
    flight.task.add_done_callback(lambda _: callers[0].cancel())
    load.gate.open()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1] == "value"
