"""How large the batches of a flusher are: as large as configured, and larger while it is behind."""

from __future__ import annotations

from typing import Final

__all__ = ["BEHIND", "Pace"]

BEHIND: Final = 5
"""How many times its usual size a batch may have."""
_QUICK: Final = 0.1
"""Seconds that a transaction may take for the next batch to be larger."""


class Pace:
    """The size of the next batch of each partition.

    While more waits than a batch takes, the next one is twice as large, for the trips and the COMMIT cost the same for
    many rows as for few; as long as transactions are quick, for what is frozen in one batch is never split: one that
    exceeded the database's time limit would exceed it whenever it is tried again. A slow transaction halves the next
    batch, a failed one takes it back to the usual size, and so does having caught up.

    Args:
        usual: most writes in a batch of a partition that is not behind, and in its first one.
    """

    def __init__(self, usual: int) -> None:
        self._usual = usual
        self._sizes: dict[int, int] = {}

    def size(self, number: int) -> int:
        """Most writes in the next batch of a partition."""
        return self._sizes.get(number, self._usual)

    def applied(self, number: int, seconds: float, left: int) -> None:
        """A batch is in the database.

        Args:
            number: its partition.
            seconds: how long its transaction took.
            left: how many writes of its partition wait.
        """
        size = self.size(number)
        if left <= self._usual:
            self.failed(number)
        elif seconds > _QUICK:
            self._sizes[number] = max(size // 2, self._usual)
        elif left > size:
            self._sizes[number] = min(size * 2, self._usual * BEHIND)

    def failed(self, number: int) -> None:
        """The next batch of a partition has the usual size."""
        self._sizes.pop(number, None)

    def __repr__(self) -> str:
        return f"Pace({self._usual}, {self._sizes})"
