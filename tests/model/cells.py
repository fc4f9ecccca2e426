"""A cell or a generation as one process of the model sees it, and bytes that look like that."""

from __future__ import annotations

from typing import NamedTuple

from asynccache.entry import (
    NO_TOKEN,
    Lease,
    NewValue,
    Value,
    Writer,
    Writing,
    is_generation,
    pack_generation,
    parse_cell,
    with_refresh,
)
from asynccache.steps import (
    Acquire,
    BeginWrite,
    Bump,
    EndBump,
    EndWrite,
    Ensure,
    Extend,
    Fill,
    Invalidate,
    Put,
    Refresh,
    Release,
    Step,
)

__all__ = ["EMPTY", "NOW", "SOON", "STEPS", "View", "abstract", "concrete"]

NOW = 1_000_000
SOON, PAST = NOW + 5_000, NOW - 5_000
ME, OTHER = b"-- me --", b"-other--"
OLD_ID, NEW_ID = b"-- old -", b"-- new -"
OLD_GENERATION, SALT = pack_generation((NOW - 9_000) * 1000, b"-old"), b"-new"
NEW = NewValue(b"", 60_000, 60_000, NEW_ID)


class View(NamedTuple):
    """A cell or generation as one process sees it."""

    kind: str = ""
    """V, L, W, G, or empty."""
    holder: str = ""
    """V, L: whose token it holds, "me", "other", or nobody's."""
    running: bool = False
    """V: the refresh lease has not expired."""
    overlapped: bool = False
    mine: str = ""
    """W: this writer's marker: "in time", "late", or none."""
    others: int = 0
    """W: markers of others that are in time."""
    late: int = 0
    """W: markers of others that are past their deadline."""
    new: bool = False
    """V, G: the step has just made it."""


EMPTY = View()

STEPS: dict[str, Step] = {
    "acquire": Acquire(ME, SOON - NOW),
    "acquire over": Acquire(ME, SOON - NOW, OLD_ID),
    "refresh": Refresh(ME, SOON - NOW, OLD_ID),
    "extend": Extend(ME, SOON - NOW),
    "fill": Fill(ME, NEW),
    "release": Release(ME),
    "begin write": BeginWrite(ME, SOON - NOW),
    "end write": EndWrite(ME),
    "end write with value": EndWrite(ME, NEW),
    "invalidate": Invalidate(),
    "put": Put(NEW),
    "ensure": Ensure(SALT),
    "bump": Bump(SALT),
    "end bump": EndBump(ME, SALT),
}


def concrete(view: View) -> bytes | None:
    """Bytes that look like `view`."""
    token = {"me": ME, "other": OTHER, "": NO_TOKEN}[view.holder]
    match view.kind:
        case "":
            return None
        case "V":
            value = NewValue(b"", 60_000, 60_000, OLD_ID).pack(PAST)
            return with_refresh(value, token, SOON if view.running else PAST)
        case "L":
            return b"L" + token
        case "G":
            return OLD_GENERATION
        case _:
            mine = [Writer(ME, SOON if view.mine == "in time" else PAST)] if view.mine else []
            others = [Writer(b"other%03d" % at, SOON) for at in range(view.others)]
            late = [Writer(b"later%03d" % at, PAST) for at in range(view.late)]
            return Writing(view.overlapped, (*late, *mine, *others)).pack()


def abstract(raw: bytes | None) -> View:
    """How the process that made the step sees the bytes."""
    if raw is None:
        return EMPTY
    if is_generation(raw):
        return View("G", new=raw != OLD_GENERATION)
    cell = parse_cell(raw)
    match cell:
        case Value():
            holder = {ME: "me", OTHER: "other", NO_TOKEN: ""}[cell.refresh_token]
            return View("V", holder, cell.refresh_until > NOW, new=cell.id == NEW_ID)
        case Lease():
            return View("L", "me" if cell.token == ME else "other")
        case Writing():
            mine = next(("in time" if w.deadline > NOW else "late" for w in cell.writers if w.token == ME), "")
            rest = [w.deadline > NOW for w in cell.writers if w.token != ME]
            return View("W", overlapped=cell.overlapped, mine=mine, others=sum(rest), late=len(rest) - sum(rest))
        case _:
            raise AssertionError(f"the protocol left {raw!r}")
