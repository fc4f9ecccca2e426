"""An executable model of the flush protocol, explored exhaustively: every interleaving, crash, loss and late arrival.

One key of one partition. In Redis what pends of it, the frozen batch (which may hold nothing of it), the readable cell,
and per writing process its last call (`seen`); in Postgres the row and the ids of applied batches. Around them

    writers   each puts, deletes and adjusts, one operation after another. The network keeps each call as long as it likes;
              an answer may be lost. A writer calls again with the same number, or gives up: then the outcome is unknown,
              and the call may still arrive when others are long under way. If Redis refuses because the buffer is full,
              the writer writes through: cell, statement, cell
    flushers  freeze, apply in one transaction, acknowledge; any number one after another, of which `flushers` at a time.
              Each may stall anywhere, or crash, with its transaction on the way. That a lease lets only one of them work
              saves work; nothing here depends on it, so the model has none, and a lease that is taken over is covered
    readers   one at a time: take the cell's lease if it is empty, look into Redis, then into the database if what waits
              does not say everything, and into Redis again; fill the cell if the lease is still theirs

and at any moment the cell may expire. Where the bounds say so, the database refuses rows, which become dead letters in
the transaction of their batch; what Redis knows of a writer's calls expires, an hour after the last, when none of them
is on its way any more; and ids of batches are pruned, days after they were applied, when nobody has such a batch in his
hands. That these times are long enough is assumed; the counter-examples show what comes of it where they are not.

What is checked in every state:

    lost or doubled   database + unapplied batch + pending is the result of the operations, in an order in which they may
                      have taken effect (`flush_histories`); each refusal is one dead letter
    wrong read        a reader's answer was true at some moment since it began
    stale read        the same for what stands in the cell, now

Not explored: what Redis itself loses; and readers of refused writes, who see them until their batch is acknowledged, as
is documented: in a read that Redis answers alone, nobody knows yet what the database has said.
"""

from __future__ import annotations

import time

from tests.model.flush_moves import FlushMoves
from tests.model.flush_states import Bounds, Report, Rules, State

__all__ = ["explore"]


def explore(bounds: Bounds, rules: Rules | None = None, *, stop: bool = False) -> Report:
    """Visits every reachable state.

    Args:
        bounds: how many of each process, and what they do.
        rules: a protocol other than the real one.
        stop: at the first violation.
    """
    moves = FlushMoves(bounds, rules or Rules())
    report = Report(bounds)
    began = time.monotonic()
    start = moves.start()
    came_from: dict[State, State | None] = {start: None}
    todo = [start]
    while todo:
        state = todo.pop()
        for name in moves.wrong(state):
            if name not in report.violations:
                report.violations[name] = _path(came_from, state)
        if stop and report.violations:
            break
        for after in moves.of(state):
            report.moves += 1
            if after not in came_from:
                came_from[after] = state
                todo.append(after)
    report.states = len(came_from)
    report.seconds = time.monotonic() - began
    return report


def _path(came_from: dict[State, State | None], state: State) -> list[State]:
    path = [state]
    while (before := came_from[path[-1]]) is not None:
        path.append(before)
    return path[::-1]
