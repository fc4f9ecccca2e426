"""Background work: it is owned, restarted, reported, and ended; an end that must happen happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asynccache import supervision
from asynccache.supervision import ServiceState, Supervisor, TaskOwner, backoff, copy_error, finish


def quick() -> Supervisor:
    return Supervisor(base=0.001, cap=0.002)


class Scripted:
    """A service that does one thing after another, each time it is started."""

    def __init__(self, *acts: Callable[[Callable[[], None]], Awaitable[None]], name: str = "scripted") -> None:
        self.name = name
        self.starts = 0
        self._acts = acts

    async def run(self, alive: Callable[[], None]) -> None:
        act = self._acts[min(self.starts, len(self._acts) - 1)]
        self.starts += 1
        await act(alive)


async def fail(alive: Callable[[], None]) -> None:
    raise ValueError("broken")


async def work(alive: Callable[[], None]) -> None:
    alive()
    await asyncio.get_running_loop().create_future()


async def end(alive: Callable[[], None]) -> None:
    alive()


async def work_then_fail(alive: Callable[[], None]) -> None:
    alive()
    raise ValueError("broken")


async def fail_to_clean_up(alive: Callable[[], None]) -> None:
    try:
        await work(alive)
    finally:
        raise ConnectionError("the server is gone, too")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def supervisor() -> Any:
    supervisor = quick()
    yield supervisor
    await supervisor.aclose()


def health(supervisor: Supervisor) -> Any:
    (one,) = supervisor.health()
    return one


async def test_a_service_that_fails_is_started_again_until_it_works(supervisor: Supervisor) -> None:
    service = Scripted(fail, fail, work)
    supervisor.start(service)
    assert health(supervisor).state is ServiceState.STARTING
    assert health(supervisor).ok
    await until(lambda: health(supervisor).state is ServiceState.RUNNING)
    assert service.starts == 3
    now = health(supervisor)
    assert (now.restarts, now.failures, now.last_error) == (2, 0, "ValueError: broken")


async def test_a_service_between_two_attempts_is_not_ok() -> None:
    supervisor = Supervisor(base=60)
    supervisor.start(Scripted(fail))
    await until(lambda: health(supervisor).state is ServiceState.WAITING)
    assert not health(supervisor).ok
    assert health(supervisor).failures == 1
    await supervisor.aclose()
    assert health(supervisor).state is ServiceState.STOPPED


async def test_a_success_begins_a_new_row_of_failures(supervisor: Supervisor) -> None:
    service = Scripted(fail, fail, work_then_fail, work)
    supervisor.start(service)
    await until(lambda: service.starts == 4)
    assert health(supervisor).failures == 0


async def test_the_first_failure_of_a_row_is_logged_with_its_traceback_the_rest_in_a_line(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    service = Scripted(fail, fail, fail, work)
    with caplog.at_level(logging.ERROR, "asynccache"):
        supervisor.start(service)
        await until(lambda: service.starts == 4)
    assert [record.exc_info is not None for record in caplog.records] == [True, False, False]
    assert "service scripted failed (3 in a row): broken" in caplog.text


async def test_a_service_may_end(supervisor: Supervisor) -> None:
    service = Scripted(end)
    supervisor.start(service)
    await until(lambda: health(supervisor).state is ServiceState.DONE)
    assert health(supervisor).ok  # there was no more to do
    assert service.starts == 1
    supervisor.start(service)  # and be started again
    await until(lambda: service.starts == 2)


async def test_a_name_runs_once_at_a_time(supervisor: Supervisor) -> None:
    supervisor.start(Scripted(work))
    with pytest.raises(RuntimeError, match="'scripted' is already running"):
        supervisor.start(Scripted(work))


async def test_one_service_is_stopped_the_others_go_on(supervisor: Supervisor) -> None:
    one, two = Scripted(work, name="one"), Scripted(work, name="two")
    supervisor.start(one)
    supervisor.start(two)
    await until(lambda: all(h.state is ServiceState.RUNNING for h in supervisor.health()))
    await supervisor.stop(one)
    assert [(h.name, h.state) for h in supervisor.health()] == [("two", ServiceState.RUNNING)]
    await supervisor.stop(one)  # again, to no effect


async def test_another_task_than_the_starter_may_stop(supervisor: Supervisor) -> None:
    service = Scripted(work)
    await asyncio.create_task(_call(lambda: supervisor.start(service)))
    await until(lambda: health(supervisor).state is ServiceState.RUNNING)
    await asyncio.create_task(supervisor.aclose())
    assert health(supervisor).state is ServiceState.STOPPED


async def _call(what: Callable[[], None]) -> None:
    what()


async def test_a_service_stopped_before_its_first_step_is_not_reported_as_starting() -> None:
    supervisor = quick()
    supervisor.start(Scripted(work))
    await supervisor.aclose()
    assert health(supervisor).state is ServiceState.STOPPED
    assert not health(supervisor).ok


@pytest.mark.parametrize("closing", [True, False])
async def test_a_service_whose_clean_up_fails_ends_all_the_same(closing: bool) -> None:
    supervisor = quick()
    service = Scripted(fail_to_clean_up)
    supervisor.start(service)
    await until(lambda: health(supervisor).state is ServiceState.RUNNING)
    async with asyncio.timeout(5):
        await (supervisor.aclose() if closing else supervisor.stop(service))
    assert service.starts == 1


@pytest.mark.parametrize("failures", range(1, 40))
def test_waits_double_up_to_the_cap_with_jitter_below(failures: int) -> None:
    longest = min(30.0, 0.1 * 2 ** (failures - 1))
    waits = [backoff(failures, 0.1, 30.0) for _ in range(50)]
    assert all(longest / 2 <= wait <= longest for wait in waits)
    assert len(set(waits)) > 1


# -- the ends of writes


async def test_finish_gives_the_result_or_the_error() -> None:
    owner = TaskOwner("test")

    async def good() -> int:
        await asyncio.sleep(0)
        return 7

    async def bad() -> int:
        raise ValueError("no")

    assert await finish(owner, good()) == 7
    with pytest.raises(ValueError, match="no"):
        await finish(owner, bad())
    assert len(owner) == 0


@pytest.mark.parametrize("cancels", [1, 2, 5])
async def test_finish_ends_its_work_however_often_the_caller_is_cancelled(cancels: int) -> None:
    owner, gate, done = TaskOwner("test"), asyncio.Event(), []

    async def must_end() -> None:
        await gate.wait()
        done.append(True)

    caller = asyncio.create_task(finish(owner, must_end()))
    await asyncio.sleep(0)
    for _ in range(cancels):
        caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == [True]
    assert len(owner) == 0


async def test_finish_under_a_timeout_ends_its_work_and_then_times_out() -> None:
    owner, done = TaskOwner("test"), []

    async def must_end() -> None:
        await asyncio.sleep(0.05)
        done.append(True)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await finish(owner, must_end())
    assert done == [True]


async def test_finish_of_work_that_fails_under_cancellation_is_a_cancellation() -> None:
    owner, gate = TaskOwner("test"), asyncio.Event()

    async def bad() -> None:
        await gate.wait()
        raise ValueError("no")

    caller = asyncio.create_task(finish(owner, bad()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller


# -- who owns tasks


async def test_an_owner_reports_what_nobody_else_sees(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner("probe")

    async def bad() -> None:
        raise ValueError("no")

    with caplog.at_level(logging.ERROR, "asynccache"):
        await asyncio.wait([owner.start(bad()), owner.start(bad(), handled=True)])
    assert [record.getMessage() for record in caplog.records] == ["background task probe failed"]
    assert len(owner) == 0


async def test_an_owner_ends_its_tasks_with_itself_those_started_meanwhile_too() -> None:
    owner = TaskOwner("test")

    async def start_another() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        owner.start(asyncio.sleep(60))

    owner.start(start_another())
    await asyncio.sleep(0)
    await owner.aclose()
    assert len(owner) == 0
    assert repr(owner) == "TaskOwner('test', running=0)"


# -- one more task to raise


class DropsACancellation:
    """A service whose first cancellation is lost on the way, as `asyncio.wait_for` of Python 3.11 may lose it."""

    name = "deaf"

    async def run(self, alive: Callable[[], None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await work(alive)
        await work(alive)


@pytest.mark.parametrize("how", ["owner", "supervisor", "one service"])
async def test_a_cancellation_that_is_lost_on_the_way_keeps_nobody_from_closing(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "CANCEL_AGAIN_SECONDS", 0.01)
    service, running = DropsACancellation(), asyncio.Event()
    supervisor, owner = quick(), TaskOwner("test")
    if how == "owner":
        owner.start(service.run(running.set))
    else:
        supervisor.start(service)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await {"owner": owner.aclose, "supervisor": supervisor.aclose, "one service": lambda: supervisor.stop(service)}[
            how
        ]()
    assert len(owner) == 0


class NeedsTwo(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(code)
        self.code = code


class Changes(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(f"<{text}>")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Uncopyable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no copies")


class BecomesAnother(Exception):
    def __reduce__(self) -> Any:
        return (ValueError, ("other",))


def test_a_copy_is_equal_and_has_a_traceback_of_its_own() -> None:
    error = _raised(ValueError("a", 1))
    error.__cause__ = cause = KeyError("k")
    error.add_note("note")
    twin = copy_error(error)
    assert twin is not error
    assert (type(twin), twin.args, twin.__cause__) == (ValueError, ("a", 1), cause)
    assert twin.__notes__ == ["note"]
    assert twin.__traceback__ is error.__traceback__
    _raised(twin)
    assert twin.__traceback__ is not error.__traceback__


@pytest.mark.parametrize(
    "error",
    [NeedsTwo("a", "b"), KeywordOnly(code=1), Changes("x"), Unprintable(), Uncopyable(), BecomesAnother()],
    ids=lambda error: type(error).__name__,
)
def test_an_odd_error_is_raised_as_it_is(error: Exception) -> None:
    assert copy_error(error) is error


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        OSError(111, "refused"),
        ExceptionGroup("several", [ValueError("a")]),
        KeyError("k"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_with_arguments_of_its_own_is_copied_whole(error: Exception) -> None:
    twin = copy_error(error)
    assert twin is not error
    assert (str(twin), twin.args) == (str(error), error.args)


def _raised(error: Exception) -> Exception:
    try:
        raise error  # noqa: TRY301 - for its traceback
    except Exception as caught:  # noqa: BLE001
        return caught
