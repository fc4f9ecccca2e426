"""Probabilistic early refresh (XFetch): one reader refreshes a value shortly before it expires.

The probability grows towards expiry, and with the time a load takes, so that of many readers one is likely to begin in
time for the rest never to see a miss. Vattani, Chierichetti, Lowenstein: "Optimal Probabilistic Cache Stampede
Prevention", VLDB 2015: refresh if `now - delta * beta * ln(rand()) >= expiry`.
"""

from __future__ import annotations

import math
import random
from typing import Final

__all__ = ["LARGEST_DRAW", "early_refresh_ms", "should_refresh"]

# -ln of the smallest number above 0 that random() returns: further from expiry than this, no draw can say yes.
LARGEST_DRAW: Final = 53 * math.log(2)


def should_refresh(now_ms: float, fresh_until_ms: float, cost_ms: float, beta: float) -> bool:
    """Whether this reader should refresh the value now.

    Args:
        now_ms: the time, in milliseconds.
        fresh_until_ms: when the value expires, on the same clock.
        cost_ms: how long its last load took, in milliseconds.
        beta: above 1 favours earlier refreshes, below 1 later ones; 0 none.
    """
    remaining = fresh_until_ms - now_ms
    if remaining > cost_ms * beta * LARGEST_DRAW:
        return False
    return early_refresh_ms(cost_ms, beta) >= remaining


def early_refresh_ms(cost_ms: float, beta: float) -> float:
    """How long before its expiry this reader would refresh a value, drawn anew each time, in milliseconds."""
    draw = 1.0 - random.random()  # noqa: S311 - spreads load; in (0, 1], so that the logarithm exists
    return -cost_ms * beta * math.log(draw)
