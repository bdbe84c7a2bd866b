"""Passes over the frames of all requests, compiled: there are many pages to a request."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.base.compiled import compiled, index, inline, record, unlikely
from replay.engine.requests import ALLOC
from replay.metrics.counted import Counted, full, place_of
from replay.metrics.part import Part
from replay.metrics.ranges import Ranges

FRAME = record("group", "value", "count", "request", "begin_ns", "caller")
"""A frame (value): how often it was handed out, and the first request of those that got it, when it
had the lock and who asked. The group is 0."""
FIRST = record("request", "begin_ns", "caller")
"""Of a frame whose place tells which it is, who got it first."""
BLOCK_BITS = 12
BLOCK_FRAMES = 1 << BLOCK_BITS
"""Frames of a block: those of a section are handed out together, so that all frames of a while are
of a few blocks."""
RECENT = record("block", "place", "all_within")
NR_RECENT = 64
"""Blocks that were met last, by their lowest bits: in these nothing has to be searched."""
MET_BLOCK = record("group", "value", "count", "place", "all_within")
"""A block (value) that was met: where its frames begin among those kept, -1 where none of them is
in a range; whether all of them are in one."""
AT = record("row", "page", "blocks")
"""Where a pass is: a row and a page of its request, which it takes next; blocks kept so far."""


@inline
def _range_of(frame: int, low: Any, high: Any) -> int:
    """Which range holds a frame, -1 if none."""
    a, b = 0, low.shape[0]
    while a < b:
        middle = (a + b) >> 1
        if low[middle] <= frame:
            a = middle + 1
        else:
            b = middle
    return a - 1 if a > 0 and frame < high[a - 1] else -1


@inline
def _meets(block: int, low: Any, high: Any) -> int:
    """2 if all frames of a block are in one range, 1 if some are in any, else 0."""
    first, last = block << BLOCK_BITS, (block << BLOCK_BITS) + BLOCK_FRAMES - 1
    begins, ends = _range_of(first, low, high), _range_of(last, low, high)
    if begins >= 0 or ends >= 0:
        return 2 if begins == ends else 1
    for k in range(low.shape[0]):
        if first < low[k] <= last and high[k] > low[k]:
            return 1
    return 0


class Ledger(NamedTuple):
    """What compiled code goes by, and fills."""

    low: np.ndarray
    """First frame of each range, ascending."""
    high: np.ndarray
    """The first frame behind each."""
    at: np.ndarray
    """(1,) of AT."""
    recent: np.ndarray
    """(NR_RECENT,) of RECENT."""
    blocks: np.ndarray
    """MET_BLOCK, a hash table, see counted.py."""
    filled: np.ndarray
    counts: np.ndarray
    """By place, how often its frame was handed out."""
    firsts: np.ndarray
    """FIRST by place."""


@inline
def _look_up(kept: Ledger, nr_block: int, known: Any) -> bool:
    """Note where a block's frames are kept; False if a table must grow before."""
    at = kept.at[0]
    if (full(kept.blocks, kept.filled[0], 1)
            or (at.blocks + 1) * BLOCK_FRAMES > kept.counts.shape[0]):
        return False
    block = kept.blocks[place_of(kept.blocks, 0, nr_block)]
    if block.count == 0:
        kept.filled[0] += 1
        meets = _meets(nr_block, kept.low, kept.high)
        block.value, block.count, block.place = nr_block, 1, -1
        block.all_within = int(meets == 2)
        if meets:
            block.place = at.blocks * BLOCK_FRAMES
            at.blocks += 1
    known.block, known.place, known.all_within = nr_block, block.place, block.all_within
    return True


@compiled
def _find(kept: Ledger, kind: Any, rows: Any, place: Any, pages: Any, frames: Any, number: Any,
          time: Any, caller: Any, late: bool) -> int:
    """Take requests in from a place on; 0 when it is through, else 1: a table must grow.

    late: whether any of them comes before one that was taken in; of others no frame that was met
    needs to be told who got it first, and only its count is looked at.
    """
    at = kept.at[0]
    for r in range(at.row, rows.shape[0]):
        row = rows[r]
        if kind[r] != ALLOC or row.errno != 0:
            continue
        request, begin_ns, asker = number[r], time[r] + row.wait_ns, caller[r]
        for k in range(at.page, pages[r]):
            frame = frames[index(place[r] + k)]
            known = kept.recent[index((frame >> BLOCK_BITS) & (NR_RECENT - 1))]
            if unlikely(known.block != frame >> BLOCK_BITS
                        and not _look_up(kept, frame >> BLOCK_BITS, known)):
                at.row, at.page = r, k
                return 1
            if known.place < 0 or (not known.all_within
                                   and _range_of(frame, kept.low, kept.high) < 0):
                continue
            met = index(known.place + (frame & (BLOCK_FRAMES - 1)))
            if unlikely(kept.counts[met] == 0 or late):
                first = kept.firsts[met]
                if kept.counts[met] == 0 or request < first.request:
                    first.request, first.begin_ns, first.caller = request, begin_ns, asker
            kept.counts[met] += 1
        at.page = 0
    at.row = 0
    return 0


class FramesWithin:
    """Distinct frames handed out inside ranges."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges, self._blocks, self._at = ranges, Counted(MET_BLOCK), np.zeros(1, AT)
        self._recent, self._next = np.full(NR_RECENT, -1, RECENT), 0
        self._counts, self._firsts = np.zeros(0, np.int64), np.zeros(0, FIRST)

    def fold(self, part: Part) -> None:
        """Take a part in."""
        if not len(self.ranges.start) or not len(part):
            return
        late = int(part.number[0]) < self._next
        self._next = max(self._next, int(part.number[-1]) + 1)
        while _find(self._ledger(), part.kind, part.rows, part.place, part.pages, part.frames,
                    part.number, part.time, part.caller, late):
            if self._blocks.full():
                self._blocks.grow()
            if (int(self._at[0]["blocks"]) + 1) * BLOCK_FRAMES > len(self._counts):
                more = max(len(self._counts), BLOCK_FRAMES)
                self._counts = np.concatenate((self._counts, np.zeros(more, np.int64)))
                self._firsts = np.concatenate((self._firsts, np.zeros(more, FIRST)))

    def _ledger(self) -> Ledger:
        return Ledger(self.ranges.start, self.ranges.end, self._at, self._recent,
                      self._blocks.seen, self._blocks.filled, self._counts, self._firsts)

    def entries(self) -> np.ndarray:
        """(distinct frames,) of FRAME, by frame."""
        blocks = self._blocks.entries()
        blocks = np.sort(blocks[blocks["place"] >= 0], order="value")
        counts = self._counts.reshape(-1, BLOCK_FRAMES)[blocks["place"] >> BLOCK_BITS].ravel()
        used = np.flatnonzero(counts)
        block, within = used >> BLOCK_BITS, used & (BLOCK_FRAMES - 1)
        found = np.zeros(len(used), FRAME)
        found["value"] = (blocks["value"][block] << BLOCK_BITS) + within
        found["count"] = counts[used]
        firsts = self._firsts[blocks["place"][block] + within]
        for name in FIRST.names:
            found[name] = firsts[name]
        return found
