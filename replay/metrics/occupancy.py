"""Which pages live at which of a few instants: a replay is taken in part by part.

A page lives from the modelled time at which its allocation had the lock to that at which its free
had it. Most come and go between two instants and leave a trace in the 2 MiB blocks alone. What is
kept grows with the pages live at once, and with the blocks that change between two instants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from replay.base.compiled import compiled, index, inline, record, unlikely
from replay.engine.outcome import NO_FRAME, SLEPT
from replay.engine.paused import under_way
from replay.engine.requests import ALLOC, FREE, Requests
from replay.engine.state import NEVER, SECTION
from replay.metrics.counted import Counted, count, full, place_of
from replay.metrics.holders import HOLDING_AT_START, MOST_HOLDERS, Holders
from replay.metrics.part import Part

HELD = record("frame", "begin_ns")
"""A slot's page, and since when it lives. NO_FRAME: there is none; less: under_way(request)."""
FREED = record("request", "slot", "end_ns")
"""A page whose free came before anything was known of its allocation."""
EDGE = record("group", "value", "count", "pages", "begin_high", "begin_low")
"""By instant and holder (group: instant * MOST_HOLDERS + holder) and first frame of a piece (value)
that is within one 2 MiB block: pages that live there from this instant on, less those that do no
more; the sum of their begin_ns likewise, as begin_high << LIMB_BITS | begin_low. count: of changes.
"""
LIMB_BITS = 32
"""Bits: sums of 2^31 pages stay within 63 bits."""
CURSOR = record("row", "part_row", "page", "freed", "instant")
"""Up to where requests are taken in; of `freed`, how many; the instant found last."""
NOTED = 64
"""Numbers of blocks that are known to be in the table of them, by their lowest bits: a list of free
pages hands out those of a few blocks in turn."""
ROOM_FOR_FREED = 1 << 10
"""Entries of FREED that there is room for from the start."""
SLOTS_AT_ONCE = 1 << 16


class Kept(NamedTuple):
    """What compiled code goes by, and fills."""

    at: np.ndarray
    """Instants, in ns, ascending."""
    start: np.ndarray
    """First frame of each section, ascending."""
    end: np.ndarray
    """The first frame behind each."""
    held: np.ndarray
    """HELD by slot."""
    whose: np.ndarray
    """Holder by slot, see holders.py."""
    freed: np.ndarray
    """FREED."""
    edges: np.ndarray
    """EDGE, a hash table, see counted.py."""
    nr_edges: np.ndarray
    blocks: np.ndarray
    """Numbers of 2 MiB blocks, a hash table of counted.SEEN."""
    nr_blocks: np.ndarray
    noted: np.ndarray
    """(NOTED,)."""
    cursor: np.ndarray
    """(1,) of CURSOR."""


@inline
def _piece(kept: Kept, frame: int, shift: int) -> tuple[int, int]:
    """The frames around one, from `low` to before `high`, that are alike to all who look: in the
    same block of the address space, and in the same one of a section, counted from its start."""
    low = frame >> shift << shift
    high = low + (1 << shift)
    a, b = 0, kept.start.shape[0]
    while a < b:
        middle = (a + b) >> 1
        if kept.start[middle] <= frame:
            a = middle + 1
        else:
            b = middle
    if a < kept.start.shape[0]:
        high = min(high, kept.start[a])
    if a > 0:
        start, end = kept.start[a - 1], kept.end[a - 1]
        if frame < end:
            first = start + ((frame - start) >> shift << shift)
            low, high = max(low, first), min(high, first + (1 << shift), end)
        else:
            low = max(low, end)
    return low, high


@inline
def _moved(kept: Kept, instant: int, whose: int, low: int, pages: int, begin_ns: int) -> None:
    """Pages live in a piece from an instant on, or, if negative, live there no more."""
    if instant == kept.at.shape[0]:
        return
    group = instant * MOST_HOLDERS + whose
    entry = kept.edges[place_of(kept.edges, group, low)]
    kept.nr_edges[0] += int(entry.count == 0)
    entry.group, entry.value = group, low
    entry.count += 1
    entry.pages += pages
    entry.begin_high += pages * (begin_ns >> LIMB_BITS)
    entry.begin_low += pages * (begin_ns & ((1 << LIMB_BITS) - 1))


@inline
def _instant(kept: Kept, ns: int) -> int:
    """The first instant that is not before a time; one call's is mostly near the one before."""
    k = kept.cursor[0].instant
    while k < kept.at.shape[0] and kept.at[k] < ns:
        k += 1
    while k > 0 and kept.at[k - 1] >= ns:
        k -= 1
    kept.cursor[0].instant = k
    return k


@inline
def _take(kept: Kept, frames: Any, place: int, slot: int, pages: int, served: bool, begin_ns: int,
          mark: int, shift: int, whose: int) -> bool:
    """An allocation's pages come to its slots, or to those alone that hold `mark`, if negative;
    False, and the cursor says where, if a table must grow before."""
    for k in range(kept.cursor[0].page, pages):
        frame = frames[index(place + k)] if served else NO_FRAME
        number = frame >> shift
        if unlikely(frame >= 0 and kept.noted[index(number & (NOTED - 1))] != number):
            if full(kept.blocks, kept.nr_blocks[0], 1):
                kept.cursor[0].page = k
                return False
            kept.nr_blocks[0] += count(kept.blocks, 0, number, 1)
            kept.noted[index(number & (NOTED - 1))] = number
        held = kept.held[index(slot + k)]
        if mark >= 0 or held.frame == mark:
            held.frame, held.begin_ns = max(frame, NO_FRAME), begin_ns
            kept.whose[index(slot + k)] = whose
    return True


@inline
def _give(kept: Kept, slots: Any, first: int, pages: int, end_ns: int, shift: int) -> bool:
    """A free's pages leave their slots; else as _take()."""
    cursor, went = kept.cursor[0], _instant(kept, end_ns)
    low = high = begin_ns = alike = came = 0
    whose = np.int64(0)
    before = kept.at[went - 1] if went > 0 else np.int64(-1)  # of what came since, nothing is seen
    done = True
    for k in range(cursor.page, pages):
        slot = slots[index(first + k)]
        if unlikely(slot < 0):
            continue
        held = kept.held[index(slot)]
        frame, since = held.frame, held.begin_ns
        if unlikely(frame < NO_FRAME):
            if cursor.freed == kept.freed.shape[0]:
                cursor.page, done = k, False
                break
            early = kept.freed[cursor.freed]
            # What under_way() makes of a number it makes of its answer: the number.
            early.request, early.slot, early.end_ns = under_way(frame), slot, end_ns
            cursor.freed += 1
        elif unlikely(frame >= 0 and since <= before):
            holder = np.int64(kept.whose[index(slot)])
            if since != begin_ns or holder != whose or not low <= frame < high:
                if alike:
                    _moved(kept, came, whose, low, alike, begin_ns)
                    _moved(kept, went, whose, low, -alike, begin_ns)
                alike = 0
                if full(kept.edges, kept.nr_edges[0], 2):
                    cursor.page, done = k, False
                    break
                low, high = _piece(kept, frame, shift)
                begin_ns, whose = since, holder
                came = _instant(kept, since)
            alike += 1
        held.frame = NO_FRAME
    if alike:
        _moved(kept, came, whose, low, alike, begin_ns)
        _moved(kept, went, whose, low, -alike, begin_ns)
    cursor.instant = went
    return done


@compiled
def _fold(kept: Kept, shift: int, base: int, kind: Any, pages: Any, first: Any, slots: Any,
          number: Any, time: Any, place: Any, rows: Any, frames: Any, holders: Any) -> bool:
    """Take requests in from the cursor on; whether all are."""
    cursor = kept.cursor[0]
    for r in range(cursor.row, kind.shape[0]):
        p = cursor.part_row
        settled = p < number.shape[0] and number[index(p)] == base + r
        done = True
        if kind[r] == ALLOC and settled:
            row = rows[index(p)]
            served = row.errno == 0 or row.path == SLEPT
            done = _take(kept, frames, place[index(p)], first[r], pages[r], served,
                         time[index(p)] + row.wait_ns, 0, shift, np.int64(holders[index(p)]))
        elif kind[r] == ALLOC:
            for k in range(first[r], first[r] + pages[r]):
                kept.held[k].frame = under_way(base + r)
        elif kind[r] == FREE and settled:
            done = _give(kept, slots, first[r], pages[r], time[index(p)] + rows[index(p)].wait_ns,
                         shift)
        if not done:
            cursor.row = r
            return False
        cursor.page = 0
        cursor.part_row += int(settled)
    return True


@compiled
def _take_late(kept: Kept, shift: int, mark: int, slot: int, pages: int, served: bool,
               begin_ns: int, frames: Any, whose: int) -> bool:
    """A call that was under way has its pages; those freed meanwhile are another affair."""
    return bool(_take(kept, frames, 0, slot, pages, served, begin_ns, mark, shift, whose))


@compiled
def _give_back(kept: Kept, shift: int, request: int, slot: int, served: bool, begin_ns: int,
               frames: Any, whose: int) -> bool:
    """The pages of a call that were freed before it returned; else as _fold()."""
    cursor = kept.cursor[0]
    for k in range(cursor.page, cursor.freed):
        early = kept.freed[k]
        if early.request != request or not served:
            continue
        frame, went = frames[early.slot - slot], _instant(kept, early.end_ns)
        if frame < 0 or went == 0 or begin_ns > kept.at[went - 1]:
            continue
        if full(kept.edges, kept.nr_edges[0], 2):
            cursor.page = k
            return False
        low, _ = _piece(kept, frame, shift)
        _moved(kept, went, whose, low, -1, begin_ns)
        _moved(kept, _instant(kept, begin_ns), whose, low, 1, begin_ns)
    return True


@compiled
def _leave(kept: Kept, shift: int, slots: Any) -> bool:
    """Pages live to the end, and their slots hold them no more; else as _fold()."""
    return bool(_give(kept, slots, 0, slots.shape[0], NEVER, shift))


def by_address(sections: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(added_ns, start_pfn, nr_pages) of each section, by address."""
    rows = sections[np.argsort(sections["start_pfn"], kind="stable")]
    added, start, pages = (np.ascontiguousarray(rows[name])
                           for name in ("time_ns", "start_pfn", "nr_pages"))
    return added, start, pages


class Occupancy:
    """What lives where, at these instants (ns, ascending).

    block: pages of 2 MiB. nr_slots, before: slots of the stream, and the frames of pages that live
    before the first request, -1 if unknown: slot nr_slots + k is before[k]. Where a section that is
    not made of whole blocks ends within one, its pages are told from those behind it once it is
    known: frames of both must not have been given back before it was added.
    """

    def __init__(self, at: np.ndarray, block: int, nr_slots: int, before: np.ndarray) -> None:
        self.at, self._shift = at, block.bit_length() - 1
        assert block == 1 << self._shift
        self._held = np.zeros(nr_slots + len(before), HELD)
        self._held["frame"] = NO_FRAME
        self._whose, self.holders = np.zeros(len(self._held), np.uint16), Holders()
        self._freed, self._cursor = np.zeros(ROOM_FOR_FREED, FREED), np.zeros(1, CURSOR)
        self._edges, self._blocks = Counted(EDGE), Counted()
        self._noted = np.full(NOTED, -1, np.int64)
        self._sections = by_address(np.zeros(0, SECTION))
        self._under_way: dict[int, int] = {}
        self._run(_take_late, NO_FRAME, nr_slots, len(before), True, 0, before,
                  HOLDING_AT_START)

    def fold(self, part: Part, q: Requests, base: int = 0) -> None:
        """Take in a batch. q: all its requests, in bounds; base: the number of the first of them.

        Its slots may be used again once they are freed. Allocations that are not in the part are
        under way; see settle().
        """
        self._look_at(part.sections)
        self._run(_fold, base, q.kind, q.pages, q.first, q.slots, part.number, part.time,
                  part.place, part.rows, part.frames, self.holders.of(part))
        if len(part) < len(q.kind):
            missing = q.kind == ALLOC
            missing[part.number - base] = False
            for row in np.flatnonzero(missing).tolist():
                self._under_way[base + row] = int(q.first[row])

    def settle(self, part: Part) -> None:
        """Take in allocations that were under way when their batch was folded."""
        self._look_at(part.sections)
        holders = self.holders.of(part).tolist()
        for row, number in enumerate(part.number.tolist()):
            slot, begin_ns = self._under_way.pop(number), int(part.start_ns[row])
            place, pages = int(part.place[row]), int(part.pages[row])
            frames = part.frames[place : place + pages]
            got = part.rows[row]
            served = bool(got.errno == 0 or got.path == SLEPT) and len(frames) == pages
            self._run(_take_late, under_way(number), slot, pages, served, begin_ns, frames,
                      holders[row])
            self._run(_give_back, number, slot, served, begin_ns, frames, holders[row])
            freed = self._freed[: self._cursor[0].freed]
            left = freed[freed["request"] != number]
            self._freed[: len(left)] = left
            self._cursor[0].freed = len(left)

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """(changes,) of EDGE, by instant, which is their group, and the holder of each; what lives
        now lives to the end, and nothing can be folded any more."""
        for first in range(0, len(self._held), SLOTS_AT_ONCE):
            held = self._held[first : first + SLOTS_AT_ONCE]["frame"] >= 0
            self._run(_leave, np.flatnonzero(held) + first)
        found = self._edges.entries()
        holder = found["group"] % MOST_HOLDERS
        found["group"] //= MOST_HOLDERS
        return found, holder

    def blocks(self) -> np.ndarray:
        """Numbers of the 2 MiB blocks that any frame was of, ascending."""
        return np.ascontiguousarray(self._blocks.entries()["value"])

    def _look_at(self, sections: np.ndarray) -> None:
        if len(sections) != len(self._sections[0]):
            self._sections = by_address(sections)

    def _run(self, kernel: Callable[..., bool], *args: Any) -> None:
        cursor = self._cursor[0]
        cursor.row = cursor.part_row = cursor.page = 0
        while not kernel(self._kept(), self._shift, *args):
            self._make_room()

    def _kept(self) -> Kept:
        _, start, pages = self._sections
        return Kept(self.at, start, start + pages, self._held, self._whose, self._freed,
                    self._edges.seen, self._edges.filled, self._blocks.seen,
                    self._blocks.filled, self._noted, self._cursor)

    def _make_room(self) -> None:
        for table, more in ((self._edges, 2), (self._blocks, 1)):
            if table.full(more):
                table.grow()
        if int(self._cursor[0].freed) == len(self._freed):
            self._freed = np.concatenate((self._freed, np.zeros_like(self._freed)))
