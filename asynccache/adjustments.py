"""`Adjustment`: a change of one number, and how two of them make one."""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from asynccache.errors import ConfigurationError

__all__ = ["Adjustment", "Number"]

Number: TypeAlias = int | float | Decimal
"""What can be added up. A float that meets a Decimal counts as the decimal number that its `repr` shows."""

# Decimal's own context has 28 digits, fewer than a numeric column may hold.
_EXACT = decimal.Context(prec=2000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A change of one number: `x -> min(ceiling, max(floor, x + add))`, where floor and ceiling may be missing.

    Increments, "at least" and "at most" are of this form, and so is any sequence of them: `then` makes one of two. The
    floor goes first, so with `floor > ceiling` the ceiling holds.

    Attributes:
        add: what is added first.
        floor: the least that may come out; None for no bound.
        ceiling: the most that may come out; None for no bound.

    Raises:
        ConfigurationError: one of them is not a finite int, float or Decimal.
    """

    add: Number = 0
    floor: Number | None = None
    ceiling: Number | None = None

    def __post_init__(self) -> None:
        for name in ("add", "floor", "ceiling"):
            value = getattr(self, name)
            if value is None and name != "add":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
                raise ConfigurationError(
                    f"{name} must be an int, float or Decimal, not {type(value).__name__} ({value!r:.100})"
                )
            if not (
                value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or math.isfinite(value)
            ):
                raise ConfigurationError(f"{name} must be finite, not {value!r}: such a sum could not be undone")

    def __call__(self, value: Number) -> Number:
        """The number after the change; NaN counts as larger than all others, as it does in PostgreSQL."""
        changed = _plus(value, self.add)
        if changed.is_nan() if isinstance(changed, Decimal) else changed != changed:  # noqa: PLR0124 - an int may be too large for isnan
            return changed if self.ceiling is None else self.ceiling
        if self.floor is not None and changed < self.floor:
            changed = self.floor
        if self.ceiling is not None and changed > self.ceiling:
            changed = self.ceiling
        return changed

    def then(self, later: Adjustment) -> Adjustment:
        """The one change that does what this one and then `later` do; exact except for the rounding of floats.

        max(f, x + a) + b = max(f + b, x + a + b), and the same for min; then a bound m from above or below is
        min(c, max(f, x)) with m taken into both f and c.
        """
        add = _plus(self.add, later.add)
        floor = None if self.floor is None else _plus(self.floor, later.add)
        ceiling = None if self.ceiling is None else _plus(self.ceiling, later.add)
        if later.floor is not None:
            floor = later.floor if floor is None else max(floor, later.floor)
            ceiling = None if ceiling is None else max(ceiling, later.floor)
        if later.ceiling is not None:
            floor = None if floor is None else min(floor, later.ceiling)
            ceiling = later.ceiling if ceiling is None else min(ceiling, later.ceiling)
        return Adjustment(add, floor, ceiling)


def _plus(left: Number, right: Number) -> Number:
    if not isinstance(left, Decimal) and not isinstance(right, Decimal):
        return left + right
    return _EXACT.add(_decimal(left), _decimal(right))


def _decimal(value: Number) -> Decimal:
    # repr: 0.1 is 0.1, not 0.1000000000000000055.
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
