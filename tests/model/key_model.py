"""An executable model of the key protocol, explored exhaustively: every interleaving, crash, expiry and eviction.

It drives `steps.transition` itself. One cell and, if asked for, the generation of one tag; one row in the database,
whose versions are numbered. Around them

    loads         any number, one after another, of which `loads` at a time are under way: they take a lease on an empty
                  cell or a refresh lease on a value, read the database, and fill; they may give up, or crash
    writers       of the row (begin, change the database, end), write-through or cache-aside; or of the tag
    changers      change the database by other means, and then invalidate the cell or bump the tag

and at any moment a value, lease, refresh lease, generation or writer's marker may expire or be evicted. What is checked
in every state:

    no stale read   a value that a read may use now is not older than any write acknowledged so far
    no stale share  nor is the result of a load that a reader may join by the token that it finds in the cell
    no stale rest   with no writer and changer under way, a value that a read may use is what the database holds

Reads without an effect need no processes of their own: one that starts now is answered by the cell as it is now, by a
load that begins now (never stale), or by one it may join. That a step is atomic is Redis's part.

Not promised, and not explored: a writer that crashes after it has lost its marker, or loses it while its last statement
is still on the way to the database. A marker is lost when the write takes longer than allowed, or by eviction.

Symmetry: loads, writers and changers are sets; who holds a token is a mark on the holder. A token without a holder is a
crashed one's. Ids and generations never come back, so of each only "still the current one" is kept.
"""

from __future__ import annotations

import time

from tests.model.moves import Moves
from tests.model.states import Bounds, Report, Rules

__all__ = ["explore"]


def explore(bounds: Bounds, rules: Rules | None = None, *, stop: bool = False) -> Report:
    """Visits every reachable state.

    Args:
        bounds: how many of each process.
        rules: a protocol other than the real one.
        stop: at the first violation.
    """
    rules = rules or Rules()
    moves = Moves(bounds, rules)
    report = Report(bounds)
    began = time.monotonic()
    start = moves.start()
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        for name in moves.wrong(state):
            report.violations.setdefault(name, state)
        if stop and report.violations:
            break
        for after in moves.of(state):
            report.moves += 1
            if after not in seen:
                seen.add(after)
                todo.append(after)
    report.states = len(seen)
    report.seconds = time.monotonic() - began
    return report
