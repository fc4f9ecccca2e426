"""Checks a history against promise 1: a read that starts after a write was acknowledged never returns an older version.

Of rows that are only written through the cache more is checked. While such a write is under way reads go to the
database, so whoever has read its version proves that it is done: no read that starts afterwards may go back.

With local tiers a read may be older than another process's write by the time that a push takes, but never than one of
its own process.
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
        lag: how long after another process's write a read may be older, in seconds.
    """

    def __init__(self, strict: Collection[int] = (), *, lag: float = 0.0) -> None:
        self._strict = strict
        self._lag = lag
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
        everybody = _Proofs(one for one in operations if one.kind == "write" or row in self._strict)
        own: dict[str, _Proofs] = {}
        if self._lag:
            writes: dict[str, list[Operation]] = defaultdict(list)
            for one in operations:
                if one.kind == "write":
                    writes[one.process].append(one)
            own = {process: _Proofs(proofs) for process, proofs in writes.items()}
        violations = []
        for read in operations:
            if read.kind != "read":
                continue
            known = [everybody.newest(read.start - self._lag)]
            if read.process in own:
                known.append(own[read.process].newest(read.start))
            violations += [Violation(read, proof) for proof in known if proof and read.version < proof.version][:1]
        return violations


class _Proofs:
    """What shows that a version had been written."""

    def __init__(self, proofs: Iterable[Operation]) -> None:
        ordered = sorted(proofs, key=lambda one: one.end)
        self._ends = [proof.end for proof in ordered]
        self._newest: list[Operation] = []  # of all that had ended by then
        for proof in ordered:
            last = self._newest[-1] if self._newest else proof
            self._newest.append(proof if proof.version > last.version else last)

    def newest(self, before: float) -> Operation | None:
        """The newest version of all that had ended before that moment."""
        ended = bisect_left(self._ends, before)
        return self._newest[ended - 1] if ended else None
