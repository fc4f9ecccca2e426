"""Checks a history against promise 1: a read that starts after a write was acknowledged never returns an older version.

Of rows that are only written through the cache more is checked. While such a write is under way reads go to the
database, so whoever has read its version proves that it is done: no read that starts afterwards may go back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["History", "Operation", "Violation"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One read or acknowledged write: what a process saw, and when."""

    process: str
    kind: str
    row: int
    start: float
    end: float
    version: int

    def __str__(self) -> str:
        return (
            f"{self.kind} of row {self.row} by {self.process} from {self.start:.6f} to {self.end:.6f}: {self.version}"
        )


@dataclass(frozen=True, slots=True)
class Violation:
    """A read, and what had ended before it began."""

    read: Operation
    known: Operation

    def __str__(self) -> str:
        late = (self.read.start - self.known.end) * 1000
        return f"{self.read}, {late:.3f} ms after\n  {self.known}"


class History:
    """What all processes did.

    Args:
        strict: rows that are only written through the cache.
    """

    def __init__(self, strict: Collection[int]) -> None:
        self._strict = strict
        self._operations: dict[int, list[Operation]] = defaultdict(list)

    def add(self, operation: Operation) -> None:
        self._operations[operation.row].append(operation)

    def count(self, kind: str) -> int:
        return sum(operation.kind == kind for operations in self._operations.values() for operation in operations)

    def acknowledged(self, row: int) -> int:
        """The newest version of a row whose write was acknowledged."""
        return max((one.version for one in self._operations[row] if one.kind == "write"), default=0)

    def seen(self, row: int) -> int:
        """The newest version that anybody has seen."""
        return max((one.version for one in self._operations[row]), default=0)

    def violations(self) -> list[Violation]:
        return [found for row, operations in self._operations.items() for found in self._of(row, operations)]

    def _of(self, row: int, operations: Iterable[Operation]) -> list[Violation]:
        proofs = sorted(
            (one for one in operations if one.kind == "write" or row in self._strict), key=lambda one: one.end
        )
        newest: list[Operation] = []  # of all that had ended by then
        for proof in proofs:
            newest.append(proof if not newest or proof.version > newest[-1].version else newest[-1])
        ends = [proof.end for proof in proofs]
        violations = []
        for read in operations:
            ended = bisect_left(ends, read.start)
            if read.kind == "read" and ended and read.version < newest[ended - 1].version:
                violations.append(Violation(read, newest[ended - 1]))
        return violations
