"""Who owns a task: short ones belong to a `TaskOwner`, services to the `Supervisor`, which restarts them.

No task is started anywhere else, so that each is awaited, cancelled or reported by somebody.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from asynccache.clock import SYSTEM_CLOCK, Clock

__all__ = [
    "Service",
    "ServiceHealth",
    "ServiceState",
    "Supervisor",
    "TaskOwner",
    "backoff",
    "copy_error",
    "finish",
    "gather",
]

logger = logging.getLogger("asynccache")

CANCEL_AGAIN_SECONDS = 5.0
"""After how long a task that has not ended is cancelled once more; longer than any clean-up takes."""

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


class TaskOwner:
    """Keeps the tasks it starts until they end, reports what they raise, and ends them with itself."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T], *, handled: bool = False) -> asyncio.Task[T]:
        """Runs `work` in a task.

        Args:
            work: the coroutine.
            handled: somebody else awaits the task and sees its error; otherwise an error is logged.
        """
        task = asyncio.get_running_loop().create_task(work, name=f"asynccache:{self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._forget if handled else self._report)
        return task

    async def aclose(self) -> None:
        """Cancels all tasks and waits until they have ended."""
        while self._tasks:
            await _end(self._tasks)

    async def join(self) -> None:
        """Waits until all tasks have ended by themselves."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen by whoever awaits it

    def _report(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background task %s failed", self._name, exc_info=error)

    def __repr__(self) -> str:
        return f"TaskOwner({self._name!r}, running={len(self._tasks)})"


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks and waits until they have ended; comes back without that after a while, to be called again.

    `asyncio.wait_for` of Python 3.11, by which redis-py sends commands, drops a cancellation that comes just as the
    command has been sent: such a task would go on for ever.
    """
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting, timeout=CANCEL_AGAIN_SECONDS)


async def finish(owner: TaskOwner, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end even if the caller is cancelled meanwhile; the caller then sees its cancellation after it.

    For the ends of writes: a step that takes a marker away must not be lost with the request that set it.
    """
    task = owner.start(work, handled=True)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            if task.done():
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


def copy_error(error: E) -> E:
    """An exception equal to `error`, for one more task to raise: tracebacks of tasks must not grow into each other."""
    try:
        twin = copy.copy(error)
        if type(twin) is not type(error) or twin is error or str(twin) != str(error):
            return error
    except Exception:  # noqa: BLE001 - an exception with a constructor, or a text, of its own kind
        return error
    twin.__cause__ = error.__cause__
    twin.__context__ = error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)


class ServiceState(enum.Enum):
    """What a service is doing."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    """It failed and will be started again."""
    STOPPED = "stopped"
    DONE = "done"
    """It has come to its own end: there was no more to do."""


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How a background service is.

    Attributes:
        name: the service.
        state: what it is doing.
        restarts: how often it has been started again.
        failures: how many times in a row it has failed without a success in between.
        last_error: type and text of its last error; None if it never failed.
    """

    name: str
    state: ServiceState
    restarts: int
    failures: int
    last_error: str | None

    @property
    def ok(self) -> bool:
        """Whether it is running, about to for the first time, or done."""
        return self.state in {ServiceState.RUNNING, ServiceState.STARTING, ServiceState.DONE}


class Service(Protocol):
    """Work that goes on as long as the cache is open."""

    @property
    def name(self) -> str:
        """Names it in health reports and logs."""
        ...

    async def run(self, alive: Callable[[], None], /) -> None:
        """Works until cancelled; calls `alive` whenever it has done what it is for. May return when it is done."""
        ...


class Supervisor:
    """Runs services: starts again what fails, with capped exponential backoff and jitter, and stops all at the end.

    A service with an attribute `longest_wait` (seconds) is started again within that.

    It holds no cancel scope, so that one task may start it and another stop it.

    Args:
        base: first wait before a restart, in seconds.
        cap: longest wait, in seconds.
        clock: reads time.
    """

    def __init__(self, *, base: float = 0.1, cap: float = 30.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._base = base
        self._cap = cap
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._owner = TaskOwner("supervisor")

    def start(self, service: Service) -> None:
        """Starts a service; names are unique while it runs."""
        if service.name in self._running and not self._running[service.name].task_done():
            raise RuntimeError(f"a service named {service.name!r} is already running")
        running = _Running(service, self._base, self._cap)
        self._running[service.name] = running
        running.task = self._owner.start(running.run())

    async def stop(self, service: Service) -> None:
        """Stops one service and waits until it has ended."""
        running = self._running.pop(service.name, None)
        if running is not None and running.task is not None:
            while not running.task.done():
                await _end((running.task,))

    async def aclose(self) -> None:
        """Stops all services and waits until they have ended."""
        await self._owner.aclose()

    def health(self) -> tuple[ServiceHealth, ...]:
        """How each service is, in the order in which they were started."""
        return tuple(running.health() for running in self._running.values())


class _Running:
    def __init__(self, service: Service, base: float, cap: float) -> None:
        self.task: asyncio.Task[None] | None = None
        self._service = service
        self._base = base
        self._cap = min(cap, getattr(service, "longest_wait", cap))
        self._state = ServiceState.STARTING
        self._restarts = 0
        self._failures = 0
        self._last_error: str | None = None
        self._done = False

    def task_done(self) -> bool:
        return self.task is None or self.task.done()

    def _alive(self) -> None:
        self._state = ServiceState.RUNNING
        self._failures = 0

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self._service.run(self._alive)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is reported and the service restarted
                    self._failures += 1
                    self._last_error = f"{type(error).__name__}: {error}"
                    # The first of a row with its traceback; the rest would bury it.
                    log = logger.exception if self._failures == 1 else logger.error
                    log("service %s failed (%d in a row): %s", self._service.name, self._failures, error)
                else:
                    self._done = True
                    return
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    return  # it was stopped, and its clean-up failed
                self._state = ServiceState.WAITING
                await asyncio.sleep(backoff(self._failures, self._base, self._cap))
                self._restarts += 1
                self._state = ServiceState.STARTING
        finally:
            self._state = ServiceState.STOPPED

    def health(self) -> ServiceHealth:
        # A task that is cancelled before its first step never gets to say so.
        state = self._state if not self.task_done() else ServiceState.DONE if self._done else ServiceState.STOPPED
        return ServiceHealth(self._service.name, state, self._restarts, self._failures, self._last_error)


def backoff(failures: int, base: float, cap: float) -> float:
    """Seconds to wait after that many failures in a row: exponential, capped, with full jitter above half.

    "Equal jitter" of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    longest = min(cap, base * 2.0 ** min(failures - 1, 30))
    return longest * (0.5 + 0.5 * random.random())  # noqa: S311 - spreads load


async def gather(works: Iterable[Awaitable[T]]) -> list[T]:
    """The results of all, in order. If one fails the others are cancelled, and its error is raised as it is."""
    waiting = list(works)
    if len(waiting) <= 1:
        return [await work for work in waiting]

    async def wait_for(work: Awaitable[T]) -> T:
        return await work

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait_for(work)) for work in waiting]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
