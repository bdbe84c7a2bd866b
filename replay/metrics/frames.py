"""Passes over the frames of all requests, compiled: there are many pages to a request."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import INT, VECTOR, compiled, inline, record
from replay.base.hashes import GAMMA, finalized
from replay.metrics.counted import Counted, full, place_of
from replay.metrics.part import Part
from replay.metrics.ranges import Ranges

_finalized = inline(finalized)


def first_pfn(part: Part) -> np.ndarray:
    """(requests,) int64: first frame of each allocation that was served, -1 elsewhere."""
    found = np.full(len(part), -1, np.int64)
    rows = part.served
    found[rows] = part.frames[part.place[rows]]
    return found


@compiled(INT(VECTOR, VECTOR, VECTOR, VECTOR, VECTOR))
def _hash(rows: Any, place: Any, pages: Any, frames: Any, found: Any) -> int:
    for r in rows:
        total = np.uint64(0)
        for k in range(pages[r]):
            total += _finalized(np.uint64(frames[place[r] + k]) + GAMMA * np.uint64(k + 1))
        found[r] = np.int64(total)
    return 0


def frames_hash(part: Part) -> np.ndarray:
    """(requests,) int64: a hash of the frames of each served allocation, in order; 0 elsewhere.

    base.hashes.finalized() over frame and place, added up modulo 2^64.
    """
    found = np.zeros(len(part), np.int64)
    _hash(part.served, part.place, part.pages, part.frames, found)
    return found


FRAME = record("group", "value", "count", "request", "begin_ns", "caller")
"""A frame (value): how often it was handed out, and the first request of those that got it, when it
had the lock and who asked. The group is 0."""


@compiled()
def _find(begin: int, rows: Any, place: Any, pages: Any, frames: Any, number: Any, start_ns: Any,
          caller: Any, low: Any, high: Any, seen: Any, filled: Any) -> int:
    """Take requests in from the row at `begin` on; up to which, before the table must grow."""
    for at in range(begin, rows.shape[0]):
        r = rows[at]
        if full(seen, filled[0], pages[r]):
            return at
        for k in range(place[r], place[r] + pages[r]):
            frame = frames[k]
            a, b = 0, low.shape[0]
            while a < b:
                middle = (a + b) >> 1
                if low[middle] <= frame:
                    a = middle + 1
                else:
                    b = middle
            if a == 0 or frame >= high[a - 1]:
                continue
            entry = seen[place_of(seen, 0, frame)]
            if entry.count == 0 or number[r] < entry.request:
                filled[0] += int(entry.count == 0)
                entry.value, entry.request = frame, number[r]
                entry.begin_ns, entry.caller = start_ns[r], caller[r]
            entry.count += 1
    return rows.shape[0]


class FramesWithin:
    """Distinct frames handed out inside ranges."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges, self.found = ranges, Counted(FRAME)

    def fold(self, part: Part) -> None:
        """Take a part in."""
        if not len(self.ranges.start):
            return
        rows, done = part.served, 0
        while done < len(rows):
            done = _find(done, rows, part.place, part.pages, part.frames, part.number,
                         part.start_ns, part.caller, self.ranges.start, self.ranges.end,
                         self.found.seen, self.found.filled)
            while done < len(rows) and self.found.full(int(part.pages[rows[done]])):
                self.found.grow()

    def entries(self) -> np.ndarray:
        """(distinct frames,) of FRAME, by frame."""
        return self.found.entries()
