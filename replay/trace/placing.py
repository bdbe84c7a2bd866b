"""Slots of a file for the pages that calls take and give back, and runs that say those of frees."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.base.compiled import compiled, record
from replay.base.errors import ReplayError
from replay.base.scratch import Growing, Scratch
from replay.engine.requests import IMPOSSIBLE
from replay.trace.calls import releases
from replay.trace.slots import Arena, doubled, give, new_arena, take
from replay.trace.start import BEFORE, pages_of

NO_SLOTS, TAKES, GIVES, LETS_GO = 0, 1, 2, 3
"""What a call does with slots: none, an allocation, a free, a release."""
MUST_GROW, STRANGE = -1, len(IMPOSSIBLE)
"""Beside the numbers of IMPOSSIBLE: the arena is full; a free names what is no slot."""
PLACED_CALLS = 1 << 14
PLACED_PAGES = 1 << 20
"""Calls, and pages, that are looked at at a time."""
PASS = record("row", "pages", "runs", "live", "most", "before")
"""Where a pass is: calls of the part, pages allocated so far and words of the part's runs; pages
live, most of them so far; pages freed so far that were live before."""


class Moves(NamedTuple):
    """Calls in the order of their rows. what: NO_SLOTS, TAKES or GIVES. failed: not 0 for an
    allocation that failed in the recording. slot_at: where the pages of a free begin in `slots`,
    which names them by their place among all pages ever allocated.
    """

    row: np.ndarray
    time: np.ndarray
    what: np.ndarray
    pages: np.ndarray
    pid: np.ndarray
    failed: np.ndarray
    slot_at: np.ndarray
    slots: np.ndarray


class Releases(NamedTuple):
    """Frees that a replay makes for failed allocations: when, and of which call, by time."""

    time: np.ndarray
    call: np.ndarray


class Placed(NamedTuple):
    """slot: of each call that takes some, else -1. end: of its runs in `runs`. live_pages: the most
    at once. slots: how many there are. before: pages freed that were live before."""

    slot: np.ndarray
    end: np.ndarray
    runs: np.ndarray
    releases: Releases
    live_pages: int
    slots: int
    before: int


class _Rows(NamedTuple):
    """By call: what it does, its pages, the first of its allocation's pages among all; where its
    page numbers begin in `values`. And what comes of it: slot, and end of its runs."""

    what: np.ndarray
    pages: np.ndarray
    base: np.ndarray
    start: np.ndarray
    values: np.ndarray
    slot: np.ndarray
    end: np.ndarray


def place(moves: Moves, name: str, start: dict[str, Any], scratch: Scratch) -> Placed:
    """Give slots to all allocations. start: of the trace's Meta.

    ReplayError, in the name of the trace, for frees that no replay could do.
    """
    return _Pass(moves, name, start, scratch).placed()


class _Pass:
    def __init__(self, moves: Moves, name: str, start: dict[str, Any], scratch: Scratch) -> None:
        self.moves, self.name, self.scratch = moves, name, scratch
        size = len(moves.row)
        parts = range(0, size, PLACED_CALLS)
        self.releases = Releases(
            *releases(moves.time, moves.pid, moves.failed, moves.what == GIVES))
        # before which call each of them comes
        self.at = np.searchsorted(moves.time, self.releases.time, side="right")
        self.slot, self.end = scratch.array(size), scratch.array(size)
        self.runs = Growing(scratch)
        pages = sum(int(self._taken(at).sum()) for at in parts)
        self.place = scratch.full(pages, -1)
        self.base = scratch.array(size)
        before = 0
        for at in range(0, len(moves.slots), PLACED_PAGES):
            before += int(np.count_nonzero(moves.slots[at : at + PLACED_PAGES] == BEFORE))
            scratch.relax()
        self.done = np.zeros(1, PASS)
        self.done["live"] = self.done["most"] = max(before, pages_of(start, "live"))
        self.arena = new_arena()

    def _taken(self, at: int) -> np.ndarray:
        part = slice(at, at + PLACED_CALLS)
        return np.where(self.moves.what[part] == TAKES, self.moves.pages[part], 0)

    def placed(self) -> Placed:
        """All calls, a part at a time."""
        base = 0
        for at in range(0, len(self.moves.row), PLACED_CALLS):
            taken = self._taken(at)
            self.base[at : at + PLACED_CALLS] = base + np.cumsum(taken) - taken
            base += int(taken.sum())
            self._part(at, min(at + PLACED_CALLS, len(self.moves.row)))
            self.scratch.relax()
        done = self.done[0]
        return Placed(self.slot, self.end, self.runs.array, self.releases, int(done["most"]),
                      int(self.arena.top[0]), int(done["before"]))

    def _part(self, begin: int, end: int) -> None:
        """Some calls, and the releases between them; those behind the last call are its too."""
        last = end == len(self.moves.row)
        some = slice(*np.searchsorted(self.at, (begin, end + last)))
        where = self.at[some] - begin
        added = np.zeros(end - begin + len(where), np.bool_)
        added[where + np.arange(len(where))] = True
        call = np.cumsum(~added) - 1 + begin
        call[added] = self.releases.call[some]
        moves = self.moves
        what = moves.what[call]
        what[added] = LETS_GO
        rows = _Rows(what, moves.pages[call], self.base[call], moves.slot_at[call], moves.slots,
                     np.full(len(call), -1, np.int64), np.zeros(len(call), np.int64))
        freed = int(np.where(what == GIVES, rows.pages, 0).sum())
        runs = np.empty(2 * freed, np.int64)
        self._run(rows, runs, begin)
        self.slot[begin:end] = rows.slot[~added]
        self.end[begin:end] = rows.end[~added] + self.runs.count
        self.runs.append(runs[: int(self.done["runs"][0])])

    def _run(self, rows: _Rows, runs: np.ndarray, begin: int) -> None:
        self.done["row"] = self.done["runs"] = 0
        while why := int(_place(rows, self.place, runs, self.arena, self.done)):
            if why == MUST_GROW:
                self.arena = doubled(self.arena)
                continue
            says = "names a slot beyond the trace's pages" if why == STRANGE else IMPOSSIBLE[why]
            at = int(self.done["row"][0])
            call = begin + int(np.count_nonzero(rows.what[:at] != LETS_GO))
            row = int(self.moves.row[call - 1]) + 1 if rows.what[at] == LETS_GO else int(
                self.moves.row[call])
            raise ReplayError(f"trace {self.name!r}, row {row}: {says}")


@compiled
def _place(  # type: ignore[no-untyped-def]
        rows: _Rows, place: np.ndarray, runs: np.ndarray, arena: Arena, done):
    """Give slots to allocations and say frees by them; 0 at the end, else why it stopped before.

    place: by page allocated its slot, -1 once it is freed.
    """
    at = done[0]
    for r in range(at.row, len(rows.what)):
        what, pages, base = rows.what[r], rows.pages[r], rows.base[r]
        at.row = r
        if what == TAKES:
            first = take(arena, pages)
            if first < 0:
                return MUST_GROW
            for k in range(pages):
                place[base + k] = first + k
            rows.slot[r] = first
            at.pages += pages
            at.live += pages
            at.most = max(at.most, at.live)
        elif what == LETS_GO:
            first = place[base]
            for k in range(pages):
                if place[base + k] < 0:
                    return 2
                place[base + k] = -1
            give(arena, first, pages)
            rows.slot[r] = first
            at.live -= pages
        elif what == GIVES:
            why = _say(rows, r, place, runs, arena, done)
            if why:
                return why
        rows.end[r] = at.runs
    return 0


@compiled
def _say(rows, r, place, runs, arena, done):  # type: ignore[no-untyped-def]
    """The runs of a free; its slots are given back."""
    at = done[0]
    first, count, end = 0, 0, at.runs
    for k in range(rows.start[r], rows.start[r] + rows.pages[r] + 1):
        slot = 0
        last = k == rows.start[r] + rows.pages[r]
        if not last:
            page = rows.values[k]
            if page < BEFORE or page >= len(place):
                return STRANGE
            slot = page
            if page >= 0:
                if page >= at.pages:
                    return 1
                slot = place[page]
                if slot < 0:
                    return 2
                place[page] = -1
        if count and not last:
            if first < 0 and slot == first:
                count += 1
                continue
            if first >= 0 and count > 0 and slot == first + count:
                count += 1
                continue
            if first >= 0 and slot >= 0 and count <= 1 and slot == first - abs(count):
                count = -abs(count) - 1
                continue
        if count:
            runs[end], runs[end + 1] = first, count
            end += 2
            if first >= 0:
                give(arena, first if count > 0 else first + count + 1, abs(count))
            if first != -1:
                at.live -= abs(count)
            if first == BEFORE:
                at.before += count
        first, count = slot, 1
    at.runs = end
    return 0
