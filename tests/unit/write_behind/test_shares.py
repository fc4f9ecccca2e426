"""Which partitions share a command."""

from __future__ import annotations

from typing import Any

import pytest

from asynccache.write_behind.lane import _shares


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ([1], [[1]]),
        ([100, 100, 1], [[100, 100], [1]]),
        ([700, 1, 199, 150, 60], [[700], [1, 199], [150], [60]]),
    ],
)
def test_a_command_holds_two_hundred_writes_at_most_unless_one_partition_has_more(
    sizes: list[int], shares: list[list[int]]
) -> None:
    """A script holds up everybody else on the server."""
    parts: Any = [(number, [None] * size) for number, size in enumerate(sizes)]
    assert [[len(items) for _, items in share] for share in _shares(parts, 200)] == shares
    assert [len(share) for share in _shares(parts, 0)] == [1] * len(sizes)
