"""A source for tests of warming, and what their reports are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asynccache import DatabaseUnavailable, WarmProgress
from tests.support.gates import Gate


@dataclass
class User:
    id: int
    name: str


class Users:
    """A source that counts: keys below `end` exist.

    Attributes:
        calls: the keys of each query.
        fails: how many of the next queries fail; -1 for all.
        held: if set, holds queries before they return.
        during: called in each query.
    """

    model = User

    def __init__(self, end: int = 10_000) -> None:
        self.end = end
        self.calls: list[list[int]] = []
        self.fails = 0
        self.held: Gate | None = None

    @property
    def loaded(self) -> list[int]:
        return [key for call in self.calls for key in call]

    async def load_many(self, keys: Sequence[int]) -> dict[int, User]:
        self.calls.append(sorted(keys))
        if self.fails:
            self.fails -= 1
            raise DatabaseUnavailable("the database is away")
        if self.held is not None:
            await self.held.stop()
        return {key: User(key, f"user {key}") for key in keys if key < self.end}


def counts(report: WarmProgress) -> tuple[int, int, int, int]:
    return report.loaded, report.skipped, report.missing, report.failed


def stop_at(work: Any, progress: WarmProgress, position: int) -> None:
    """Stops a warming that has come so far."""
    if progress.position >= position:
        work.stop()
