"""The compiled passes over the rows of a batch: each becomes a request, or is told to be wrong.

They read the columns as Arrow lays them out, each value once. Compiled code checks no bounds: that
buffers are as long as they must be, Arrow has been asked before (trace/decode.py); dictionary
numbers, offsets of lists, slots and counts are checked here before they are used.
"""

from __future__ import annotations

import numpy as np

from replay.base.compiled import compiled, index, inline, likely, record, unlikely
from replay.engine.drive import LARGEST_REQUEST
from replay.engine.requests import ALLOC, FREE, TARGET
from replay.trace.columns import NONE
from replay.trace.schema import Flag
from replay.trace.start import BEFORE

RELEASES, NO_REQUEST = 3, -1
"""Of a kind of row, beside ALLOC, FREE and TARGET."""
UNPAIRED = int(Flag.UNPAIRED)

WRONG_ROWS = {
    1: "kind is number {0} of {1}",
    2: "a release of row {0}, which is none of those before it",
    3: "a request of {0} pages, the metadata announces at most {1}",
    4: "a target of {0} pages, the metadata announces at most {1}",
    5: "slots {0} to {1} are not within the number that the metadata announces",
    6: "allocates onto slot {0}, whose page is live",
    7: "frees slot {0}, whose page is not live",
    8: "a free of {0} pages with slots of {1}",
    9: "a run of slots of {1} pages from {0}",
    10: "{0} pages are live, the metadata announces at most {1}",
    11: "{0} pages that were live before are freed, the metadata announces {1}",
}
"""What is wrong with a row, with the two numbers that say it."""

CARRIED = record("event", "last", "live", "peak", "before", "most", "target",
                 "place", "row", "fault", "found", "other")
"""Carried: rows so far that are not releases, time of the last row, pages live and most of them,
pages freed that were live before, largest request, highest target. Of a part: pages that its frees
list. A fault: its row, which it is, and its two numbers."""
ANNOUNCED = record("slots", "live_pages", "request_pages", "target_pages", "before", "last_ns")


@inline
def _fails(at, row, fault, found, other):  # type: ignore[no-untyped-def]
    at.row, at.fault, at.found, at.other = row, fault, found, other
    return -1


@compiled
def filled(values: np.ndarray, known: np.ndarray, null: int, out: np.ndarray) -> None:
    """The values, `null` where the bit of a row says that it has none."""
    for r in range(len(out)):
        has = (known[index(r >> 3)] >> (r & 7)) & 1
        out[index(r)] = values[index(r)] if has else null


@compiled
def in_order(values, last):  # type: ignore[no-untyped-def]
    """The first place whose value is below that of the one before it, -1 if there is none."""
    for r in range(len(values)):
        if values[index(r)] < last:
            return r
        last = values[index(r)]
    return -1


@compiled
def all_ask(kind, kinds, pages, most, carried, asks):  # type: ignore[no-untyped-def]
    """Whether each row is an allocation or a free of at least a page, with no more than `most`
    pages in all; then `asks` says which, and `place` of carried how many pages they free."""
    moved, freed = 0, 0
    for r in range(len(kind)):
        code, nr = np.int64(kind[index(r)]), pages[index(r)]
        if code < 0 or code >= len(kinds) or nr < 1 or nr > most:
            return False
        what = kinds[index(code)]
        if what != ALLOC and what != FREE:
            return False
        moved += nr
        freed += nr if what == FREE else 0
        asks[index(r)] = what
        if moved > most:
            return False
    carried[0].place = freed
    carried[0].event += len(kind)
    return True


@compiled
def select(  # type: ignore[no-untyped-def]
        kind, kinds, pages, flags, goal, value, carried, rows, asks, event):
    """The rows that are requests, what each asks for and its event number; how many, -1 on a fault.

    Calls without a size, which import has left out by name, and targets without a goal are none.
    """
    at = carried[0]
    n, made_up = 0, 0
    for r in range(len(kind)):
        code = np.int64(kind[index(r)])
        if code < 0 or code >= len(kinds):
            return _fails(at, r, 1, code, len(kinds))
        what = kinds[index(code)]
        number = at.event + r - made_up
        if what == RELEASES:
            made_up += 1
            if value[index(r)] < 0 or value[index(r)] >= number:
                return _fails(at, r, 2, value[index(r)], 0)
            number = value[index(r)]
        if what < 0 or (what == TARGET and goal[index(r)] == NONE):
            continue
        if what != TARGET and pages[index(r)] < 1 and flags[index(r)] & UNPAIRED:
            continue
        rows[index(n)], asks[index(n)], event[index(n)] = r, what, number
        n += 1
    at.event += len(kind) - made_up
    return n


@compiled
def gather_texts(codes, numbers, rows, out):  # type: ignore[no-untyped-def]
    """Of each row the number of its text, the last of `numbers` where it has none (code -1); the
    first row whose code is beyond the dictionary, else -1."""
    for n in range(len(rows)):
        code = np.int64(codes[index(rows[index(n)])])
        if code < 0:
            if code != -1:
                return rows[index(n)]
            code = np.int64(len(numbers) - 1)
        elif code >= len(numbers) - 1:
            return rows[index(n)]
        out[index(n)] = numbers[index(code)]
    return -1


@compiled
def listed(asks, rows, pages, begin, most):  # type: ignore[no-untyped-def]
    """Where a part of about `most` pages from request `begin` on ends; pages that it frees."""
    freed, moved = 0, 0
    for n in range(begin, len(rows)):
        nr = pages[index(rows[index(n)])]
        if asks[index(n)] != TARGET and 0 < nr <= LARGEST_REQUEST:
            if n > begin and moved + nr > most:
                return n, freed
            moved += nr
            freed += nr if asks[index(n)] != ALLOC else 0
    return len(rows), freed


@compiled
def moves(  # type: ignore[no-untyped-def]
        asks, rows, column, announced, carried, live, kind, pages, first, slots):
    """What each request of a part moves: kind, pages, first, and slots page by page; -1 on a fault.

    column: the columns nr_pages, target_pages, slot, ends of the lists of slots, and their values.
    live: by slot, whether its page is live.
    """
    nr, goal, slot, ends, runs = column
    at, says = carried[0], announced[0]
    now, peak, most, target, place = at.live, at.peak, at.most, at.target, 0
    at.place = 0
    for n in range(len(rows)):
        r, what = rows[index(n)], asks[index(n)]
        count, where = nr[index(r)], place
        if unlikely(what == TARGET):
            count, where = goal[index(r)], 0
            if count < 0 or count > says.target_pages:
                return _fails(at, r, 4, count, says.target_pages)
            target = max(target, count)
        elif unlikely(count < 1 or count > says.request_pages):
            return _fails(at, r, 3, count, says.request_pages)
        elif what == FREE:
            known = _free(runs, ends[index(r)], ends[index(r + 1)], count, r, at, says, live,
                          slots, place)
            if known < 0:
                return -1
            now -= known
            place += count
            most = max(most, count)
        else:
            where, most = slot[index(r)], max(most, count)
            if unlikely(where < 0 or where > says.slots - count):
                return _fails(at, r, 5, where, where + count - 1)
            if likely(what == ALLOC):
                wrong = _turn(live, where, count, np.uint8(1))
                now += count
                peak = max(peak, now)
                if unlikely(now > says.live_pages):
                    return _fails(at, r, 10, now, says.live_pages)
            else:
                wrong = _turn(live, where, count, np.uint8(0))
                now -= count
                for k in range(count):
                    slots[index(place + k)] = where + k
                where, place = place, place + count
            if unlikely(wrong >= 0):
                return _fails(at, r, 6 if what == ALLOC else 7, wrong, 0)
        kind[index(n)] = FREE if what == RELEASES else what
        pages[index(n)], first[index(n)] = count, where
    at.live, at.peak, at.most, at.target, at.place = now, peak, most, target, place
    return 0


@inline
def _turn(live, first, count, to):  # type: ignore[no-untyped-def]
    """Make slots live or free; the first that is so already, else -1."""
    if likely(count == 1):
        was = live[index(first)]
        live[index(first)] = to
        return first if unlikely(was == to) else -1
    for slot in range(index(first), index(first + count)):
        if unlikely(live[slot] == to):
            return np.int64(slot)
        live[slot] = to
    return -1


@inline
def _free(runs, begin, end, pages, r, at, says, live, slots, place):  # type: ignore[no-untyped-def]
    """A free's slots page by page; of how many something is known, -1 on a fault. Its runs are
    looked at before the first is written."""
    named = 0
    for k in range(begin, end - 1, 2):
        first, count = runs[index(k)], runs[index(k + 1)]
        if unlikely(count == 0 or count > LARGEST_REQUEST or count < -LARGEST_REQUEST
                    or first < BEFORE or (first < 0 and count < 0)):
            return _fails(at, r, 9, first, count)
        size = abs(count)
        low = first if count > 0 else first - size + 1
        if unlikely(first >= 0 and (low < 0 or first >= says.slots or low > says.slots - size)):
            return _fails(at, r, 5, low, low + size - 1)
        named += size
        if named > pages:
            break
    if unlikely(named != pages or (end - begin) & 1):
        return _fails(at, r, 8, pages, named)
    known = 0
    for k in range(begin, end, 2):
        first, count = runs[index(k)], runs[index(k + 1)]
        size, step = abs(count), 1 if count > 0 else -1
        known += size if first != -1 else 0
        if first >= 0:
            for p in range(size):
                one = first + step * p
                if unlikely(live[index(one)] == 0):
                    return _fails(at, r, 7, one, 0)
                live[index(one)] = 0
                slots[index(place + p)] = one
        else:
            if first == BEFORE and at.before + size > says.before:
                return _fails(at, r, 11, at.before + size, says.before)
            for p in range(size):
                slots[index(place + p)] = says.slots + at.before + p if first == BEFORE else -1
            at.before += size if first == BEFORE else 0
        place += size
    return known
