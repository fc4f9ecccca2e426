"""What may happen next in the model: the moves of its processes, and what expires."""

from __future__ import annotations

from collections.abc import Iterator

from asynccache.steps import Outcome
from tests.model.cells import EMPTY, NOW, SOON, STEPS, View, abstract, concrete
from tests.model.states import Bounds, Change, Load, Rules, Slot, State, Write

__all__ = ["Moves"]


class Moves:
    """What may happen next."""

    def __init__(self, bounds: Bounds, rules: Rules) -> None:
        self._bounds = bounds
        self._rules = rules
        self._known: dict[tuple[View, str], tuple[View, Outcome]] = {}
        lost = (EMPTY, View("V"), View("V", "other"), View("V", "other", True), View("L", "other"), View("W"))
        self._forget = rules.forget_lost_loads and all(
            self._step(view, "fill") == (view, Outcome.REFUSED) for view in lost
        )

    def start(self) -> State:
        """The cell holds what the database holds, and carries the current generation."""
        bounds = self._bounds
        kinds = [(False, True)] * (bounds.writers - bounds.cache_aside) + [(False, False)] * bounds.cache_aside
        kinds += [(True, False)] * bounds.tag_writers
        writers = (Write(tag, through, 0, 0, "", 0) for tag, through in kinds)
        changers = [Change(False, 0, 0)] * bounds.changers + [Change(True, 0, 0)] * bounds.tag_changers
        cell, tag = Slot("V", carries=1), Slot("G")
        return State(0, 0, cell, tag, bounds.crashes, (), (), tuple(sorted(writers)), tuple(sorted(changers)))

    # -- what must hold

    def wrong(self, s: State) -> Iterator[str]:
        """Which promises this state breaks."""
        if s.cell.kind == "V" and self._current(s, s.cell.carries):
            if s.cell.version < s.acknowledged:
                yield "stale read"
            idle = all(w.at == 0 for w in s.writers) and all(c.at == 0 for c in s.changers)
            if idle and s.cell.version != s.database:
                yield "stale rest"
        for load in s.loads:
            shared = load.holds and (self._rules.share_by_token_alone or self._current(s, load.carries))
            if shared and load.loaded and load.version < s.acknowledged:
                yield "stale share"

    def _current(self, s: State, carries: int) -> bool:
        """Whether what carries this generation may be used now."""
        if not self._bounds.tags:
            return True
        return (carries == 1 and s.tag.kind == "G") or (carries == 2 and s.tag.kind == "")

    # -- what may happen

    def of(self, s: State) -> Iterator[State]:
        """The states that may follow."""
        yield from self._readers(s)
        for at, load in enumerate(s.loads):
            if at == 0 or load != s.loads[at - 1]:
                yield from self._load(s, at, load)
        for at, write in enumerate(s.writers):
            if at == 0 or write != s.writers[at - 1]:
                yield from self._write(s, at, write)
        for at, change in enumerate(s.changers):
            if at == 0 or change != s.changers[at - 1]:
                yield self._change(s, at, change)
        yield from self._expiry(s)

    def _readers(self, s: State) -> Iterator[State]:
        room = len(s.loads) + len(s.waiting) < self._bounds.loads
        if room and not self._bounds.tags:
            yield from self._lease(s, 1)
        elif room and (self._rules.late_tags or self._rules.late_tags_unchecked):
            yield from self._lease(s, int(s.tag.kind == "G"))
        elif room:
            seen = self._see(s)
            if seen is not None:
                yield seen[0]._replace(waiting=tuple(sorted((*s.waiting, seen[1]))))
        for at, carries in enumerate(s.waiting):
            rest = s._replace(waiting=s.waiting[:at] + s.waiting[at + 1 :])
            yield rest
            yield from self._lease(rest, carries)

    def _see(self, s: State) -> tuple[State, int] | None:
        """A reader looks at the generation, and makes it if it is missing; None: a writer is at it."""
        if s.tag.kind == "":
            if self._rules.missing_is_zero:
                return s, 2
            return self._on_tag(s, self._step(self._tag_view(s), "ensure")[0], None), 1
        return (s, 1) if s.tag.kind == "G" else None

    def _lease(self, s: State, carries: int) -> Iterator[State]:
        usable = s.cell.kind == "V" and self._current(s, s.cell.carries)
        names = ["acquire", "refresh"] if usable else ["acquire over" if s.cell.kind == "V" else "acquire"]
        for name in names:
            after, outcome = self._step(self._cell_view(s, None, None), name)
            if outcome is Outcome.LEASED:
                load = Load(False, 0, True, carries)
                joined = s._replace(loads=(*s.loads, load))
                yield self._on_cell(joined, after, load=len(s.loads))

    def _load(self, s: State, at: int, load: Load) -> Iterator[State]:
        without = s._replace(loads=s.loads[:at] + s.loads[at + 1 :])
        yield without  # crashed: the token stays where it is
        if not load.loaded:
            yield self._sorted(s, at, load._replace(loaded=True, version=s.database))
            if self._bounds.tags and not self._rules.late_tags and (seen := self._see(s)) is not None:
                # As if the generation had been read after the lease was taken; still before the load.
                yield self._sorted(seen[0], at, seen[0].loads[at]._replace(carries=seen[1]))
        names = ["release", *(["extend"] if s.cell.lease == "expired" else [])]
        carries = load.carries
        if self._rules.late_tags_unchecked:
            carries = 1 if s.tag.kind == "G" else 0
        if load.loaded and (carries or not self._rules.late_tags):
            names.append("fill")
        for name in names:
            view = self._cell_view(s, load, None)
            after, _ = self._step(view, name)
            if name == "extend":
                yield self._on_cell(s, after, load=at)
            else:
                yield self._on_cell(without, after, version=load.version, carries=carries)

    def _sorted(self, s: State, at: int, load: Load) -> State:
        return s._replace(loads=tuple(sorted((*s.loads[:at], load, *s.loads[at + 1 :]))))

    def _write(self, s: State, at: int, write: Write) -> Iterator[State]:
        def becomes(s: State, after: Write | None) -> State:
            rest = s.writers[:at] + s.writers[at + 1 :]
            return s._replace(writers=rest if after is None else tuple(sorted((*rest, after))))

        plain = self._rules.writes != "begin, end"
        crash = write.marker in {"in time", ""}
        if write.at == 0:
            begun = write._replace(at=1, carries=int(s.tag.kind == "G"))
            yield becomes(s, begun) if plain else self._by_writer(s, at, begun, "begin write")
        elif write.at == 1:
            changed = s._replace(database=s.database + 1)
            yield becomes(changed, write._replace(at=2, version=changed.database))
            if crash and s.crashes:
                yield becomes(s._replace(crashes=s.crashes - 1), write._replace(at=3))
        elif write.at == 2:
            done = s._replace(acknowledged=max(s.acknowledged, write.version))
            if plain:
                name = "put" if self._rules.writes == "put after" else "invalidate"
                after, _ = self._step(self._cell_view(s, None, None), name)
                yield self._on_cell(becomes(done, None), after, version=write.version, carries=write.carries)
            else:
                name = "end bump" if write.tag else "end write with value" if write.through else "end write"
                yield self._by_writer(done, at, None, name)
            if crash and s.crashes:
                yield self._haunt(becomes(s._replace(crashes=s.crashes - 1), None), write)
        else:
            yield self._haunt(becomes(s, None), write)  # the statement never arrived
            yield self._haunt(becomes(s._replace(database=s.database + 1), None), write)

    def _by_writer(self, s: State, at: int, after: Write | None, name: str) -> State:
        """A writer's step on its cell or generation; the writer is `after` then, but for its marker."""
        write = s.writers[at]
        rest = s._replace(writers=s.writers[:at] + s.writers[at + 1 :])
        if write.tag:
            view, _ = self._step(self._tag_view(rest, write), name)
            return self._on_tag(rest, view, after)
        view, _ = self._step(self._cell_view(rest, None, write), name)
        return self._on_cell(rest, view, version=write.version, carries=write.carries, writer=after)

    def _haunt(self, s: State, write: Write) -> State:
        """The crashed writer's marker stays, if it has one."""
        if not write.marker:
            return s
        if write.tag:
            return s._replace(tag=s.tag._replace(ghosts=s.tag.ghosts + 1))
        return s._replace(cell=s.cell._replace(ghosts=s.cell.ghosts + 1))

    def _change(self, s: State, at: int, change: Change) -> State:
        rest = s.changers[:at] + s.changers[at + 1 :]
        if change.at == 0:
            after = change._replace(at=1, version=s.database + 1)
            return s._replace(database=s.database + 1, changers=tuple(sorted((*rest, after))))
        done = s._replace(changers=rest, acknowledged=max(s.acknowledged, change.version))
        if change.tag:
            return self._on_tag(done, self._step(self._tag_view(done), "bump")[0], None)
        return self._on_cell(done, self._step(self._cell_view(done, None, None), "invalidate")[0])

    def _expiry(self, s: State) -> Iterator[State]:
        if s.cell.kind:
            yield self._gone(s, False)
        if s.cell.lease == "running":
            yield s._replace(cell=s.cell._replace(lease="expired"))
        if s.tag.kind and self._bounds.tags:
            yield self._gone(s, True)
        for tag, slot in ((False, s.cell), (True, s.tag)):
            if slot.ghosts:
                late = slot._replace(ghosts=slot.ghosts - 1, late_ghosts=slot.late_ghosts + 1)
                yield self._unless_gone(s._replace(tag=late) if tag else s._replace(cell=late), tag)
        for at, write in enumerate(s.writers):
            if write.marker == "in time" and (at == 0 or write != s.writers[at - 1]):
                rest = s.writers[:at] + s.writers[at + 1 :]
                if write.at != 3:
                    changed = s._replace(writers=tuple(sorted((*rest, write._replace(marker="late")))))
                    yield self._unless_gone(changed, write.tag)

    def _unless_gone(self, s: State, tag: bool) -> State:
        """A writing cell lives as long as its last marker."""
        slot = s.tag if tag else s.cell
        if slot.ghosts or any(w.tag == tag and w.marker == "in time" for w in s.writers):
            return s
        return self._gone(s, tag)

    def _gone(self, s: State, tag: bool) -> State:
        """The cell or the generation has expired, or was evicted."""
        writers = []
        for one in s.writers:
            if one.tag != tag or one.marker not in {"in time", "late"}:
                writers.append(one)
            elif one.at != 3:  # whose statement is still on the way is not promised anything
                writers.append(one._replace(marker="lost"))
        s = s._replace(writers=tuple(sorted(writers)))
        return self._on_tag(s, EMPTY, None) if tag else self._on_cell(s, EMPTY)

    # -- between states and what a process sees

    def _step(self, view: View, name: str) -> tuple[View, Outcome]:
        known = self._known.get((view, name))
        if known is None:
            after = self._rules.step(concrete(view), SOON, STEPS[name], NOW)
            known = self._known[view, name] = abstract(after.cell), after.reply.outcome
        return known

    def _cell_view(self, s: State, load: Load | None, write: Write | None) -> View:
        cell = s.cell
        if cell.kind == "W":
            return self._writing_view(s, cell, False, write)
        if cell.kind == "V":
            holder = "me" if load is not None and load.holds else "other" if cell.lease else ""
            return View("V", holder, cell.lease == "running")
        return View(cell.kind, "me" if load is not None and load.holds else "other") if cell.kind == "L" else EMPTY

    def _tag_view(self, s: State, write: Write | None = None) -> View:
        return self._writing_view(s, s.tag, True, write) if s.tag.kind == "W" else View(s.tag.kind)

    def _writing_view(self, s: State, slot: Slot, tag: bool, write: Write | None) -> View:
        """What `write`, which is not among the state's writers now, sees of them."""
        markers = [w.marker for w in s.writers if w.tag == tag]
        return View(
            "W",
            overlapped=slot.overlapped,
            mine="" if write is None or write.marker == "lost" else write.marker,
            others=markers.count("in time") + slot.ghosts,
            late=markers.count("late") + slot.late_ghosts,
        )

    def _on_cell(
        self,
        s: State,
        view: View,
        *,
        version: int = 0,
        carries: int = 0,
        load: int | None = None,
        writer: Write | None = None,
    ) -> State:
        """The state after a step on the cell: by the load of that index, or by the writer, who then is `writer`."""
        old = s.cell
        writers, slot = self._marked(s, view, old, False, writer)
        loads = s.loads
        if view.kind == "V":
            if view.new:
                slot = Slot("V", version, carries)
            else:
                lease = ("running" if view.running else "expired") if view.holder or view.running else ""
                slot = Slot("V", old.version, old.carries, lease)
        if view.kind not in {"V", "L"} or view.new or not view.holder:
            holder = -1
        elif view.holder == "me":
            holder = -1 if load is None else load
        else:
            holder = next((at for at, one in enumerate(loads) if one.holds and at != load), -1)
        if any(one.holds != (at == holder) for at, one in enumerate(loads)):
            loads = tuple(one._replace(holds=at == holder) for at, one in enumerate(loads))
        if self._forget:
            loads = tuple(one for one in loads if one.holds)
        return s._replace(cell=slot, loads=tuple(sorted(loads)), writers=writers)

    def _on_tag(self, s: State, view: View, writer: Write | None) -> State:
        writers, slot = self._marked(s, view, s.tag, True, writer)
        s = s._replace(tag=slot, writers=writers)
        if view.kind == "G" and not view.new:
            return s
        # Whatever generation there was never comes back.
        return s._replace(
            cell=s.cell._replace(carries=0) if s.cell.carries == 1 else s.cell,
            waiting=tuple(sorted(0 if carries == 1 else carries for carries in s.waiting)),
            loads=tuple(sorted(one._replace(carries=0) if one.carries == 1 else one for one in s.loads)),
            writers=tuple(sorted(one._replace(carries=0) if one.carries == 1 else one for one in s.writers)),
        )

    def _marked(
        self, s: State, view: View, old: Slot, tag: bool, writer: Write | None
    ) -> tuple[tuple[Write, ...], Slot]:
        """The writers with the markers that they have now, and the slot with the ghosts'."""
        stay = {"in time", "late"} if view.late else {"in time"} if view.kind == "W" else set()
        writers = [
            one
            if one.tag != tag or one.marker in stay or one.marker in {"", "lost"}
            else one._replace(marker="" if one.marker == "in time" else "lost")
            for one in s.writers
        ]
        if writer is not None:
            writers.append(writer._replace(marker=view.mine))
        if view.kind != "W":
            return tuple(sorted(writers)), Slot(view.kind)
        late = old.late_ghosts if "late" in stay else 0
        return tuple(sorted(writers)), Slot("W", overlapped=view.overlapped, ghosts=old.ghosts, late_ghosts=late)
