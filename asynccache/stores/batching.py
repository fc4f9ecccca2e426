"""Collects what concurrent callers ask for into few calls, without a wait for anybody who is alone.

A caller who finds nobody else about makes the call itself, in its own task. Callers of the same tick, and those who
come while as many calls as allowed are under way, share the next call, which a task of the batcher makes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from asynccache.errors import StoreUnavailable
from asynccache.supervision import TaskOwner, copy_error

__all__ = ["Batcher"]

Q = TypeVar("Q")
R = TypeVar("R")


class Batcher(Generic[Q, R]):
    """Turns `await batcher(request)` from many callers into `send([requests])`.

    Args:
        send: answers a batch, in order; an answer that is an exception is raised to its caller alone. If `send` itself
            raises, every caller of the batch gets an exception of its own, and so does who has waited all that time
            for a later batch: else a crowd would wait for one timeout after another.
        name: for the tasks and the repr.
        max_batch: most requests in one call.
        max_calls: most calls under way at once.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[R | BaseException]]],
        *,
        name: str,
        max_batch: int = 1000,
        max_calls: int = 2,
    ) -> None:
        self._send = send
        self._name = name
        self._max_batch = max_batch
        self._max_calls = max_calls
        self._queue: deque[tuple[Q, asyncio.Future[R]]] = deque()
        self._queued = 0  # requests that ever were in the queue
        self._calls = 0
        self._alone = True  # whether the last call had one request: then the next caller need not look for company
        self._scheduled = False
        self._tasks = TaskOwner(name)

    def __call__(self, request: Q) -> Awaitable[R]:
        """Answers one request; to be awaited at once.

        Raises:
            Whatever `send` raised, or answered for this request.
        """
        if self._alone and not self._calls and not self._queue:
            return self._send_alone(request)
        # Here and not in a method, as a future and not as a coroutine that awaits it: this is the hot path.
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((request, future))
        self._queued += 1
        if not self._scheduled:
            self._schedule()
        return future

    async def _send_alone(self, request: Q) -> R:
        if self._calls:  # somebody else has begun meanwhile
            return await self(request)
        self._calls = 1
        try:
            answer = (await self._send((request,)))[0]
        finally:
            self._calls -= 1
            self._schedule()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def expect_company(self) -> None:
        """Lets the next callers share a call, because the one who says this knows that they are many."""
        self._alone = False

    async def aclose(self) -> None:
        """Ends what is under way; callers that still wait get `StoreUnavailable`, as they were not cancelled."""
        await self._tasks.aclose()
        self._give_up(self._queue)
        self._queue.clear()

    def _schedule(self) -> None:
        if self._queue and not self._scheduled and self._calls < self._max_calls:
            self._scheduled = True
            # Not now: the other callers of this tick are yet to come.
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        queue = self._queue
        take = min(len(queue), self._max_batch)
        taken = [queue.popleft() for _ in range(take)]
        batch = [item for item in taken if not item[1].done()]  # the others' callers were cancelled
        if not batch:
            self._schedule()
            return
        self._alone = len(batch) == 1 and not self._queue
        self._calls += 1
        task = self._tasks.start(self._run(batch))
        # A task that is cancelled before its first step never comes to its own end.
        task.add_done_callback(lambda _: self._ended(batch))
        self._schedule()

    async def _run(self, batch: list[tuple[Q, asyncio.Future[R]]]) -> None:
        queued = self._queued
        try:
            answers = await self._send([request for request, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{self._name}: {len(answers)} answers to {len(batch)} requests")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - handed to the callers
            while len(self._queue) > self._queued - queued:
                batch.append(self._queue.popleft())
            for _, future in batch:
                if not future.done():
                    future.set_exception(copy_error(error))
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, BaseException):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        finally:
            self._ended(batch)

    def _ended(self, batch: list[tuple[Q, asyncio.Future[R]]]) -> None:
        if batch:  # it is told twice
            self._calls -= 1
            self._give_up(batch)  # whom a cancelled call has not answered
            batch.clear()
            self._schedule()

    def _give_up(self, batch: Iterable[tuple[Q, asyncio.Future[R]]]) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(StoreUnavailable(f"{self._name}: closed before it answered"))

    def __repr__(self) -> str:
        return f"Batcher({self._name!r}, waiting={len(self._queue)}, calls={self._calls})"
