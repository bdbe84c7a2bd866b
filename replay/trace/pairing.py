"""Pairing: frees become lifetimes at page grain, once, so that a replay needs no dictionary.

Each allocated page gets a slot number (its place in the stream of allocated pages, in the order of
the rows); a free names slots. Real callers free other batches than they allocated, so the tie is
the recorded frame. Where a recording holds fewer frames than pages, the rest is inferred and says
so: from the caller's page array (its address is recorded on x86), or from an allocation of the same
size with the same recorded frames.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa

from replay.anomalies import Anomalies
from replay.schema import Flag
from replay.trace.columns import NONE, Ragged, ints, is_kind, lists, ragged, replace, strings

UNKNOWN = -1
"""The slot of a page that the recording never saw allocated."""


class _Pairing:
    """The live pages while walking the requests in the order of lock holders."""

    def __init__(self, table: pa.Table, anomalies: Anomalies) -> None:
        self.anomalies = anomalies
        self.nr = ints(table, "nr_pages", 0)
        self.errno = ints(table, "errno", 0)
        self.pid = ints(table, "pid")
        self.value = ints(table, "value")
        self.flags = ints(table, "flags", 0)
        self.task = strings(table, "task")
        self.frames: Ragged = ragged(table, "frames")
        alloc = is_kind(table, "alloc")
        pages = np.where(alloc, self.nr, 0)
        self.base = np.cumsum(pages) - pages
        self.alloc = alloc
        self.row_of_slot = np.repeat(np.arange(len(pages)), pages)
        self.slot_of_frame: dict[int, int] = {}
        self.frame_of_slot: dict[int, int] = {}
        self.row_of_array: dict[int, int] = {}
        self.live_rows: dict[int, int] = {}  # allocation row -> its pages still live
        self.whole: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self.slots: dict[int, np.ndarray] = {}

    def signature(self, r: int) -> tuple[int, ...]:
        """What identifies a truncated request: its size, and the frames that are recorded."""
        recorded = self.frames.row(r)
        last = int(self.value[r]) if self.flags[r] & Flag.ARRAY_TRUNCATED else NONE
        return (int(self.nr[r]), *map(int, recorded[:64]), last)

    def take(self, r: int) -> None:
        """A successful allocation: its pages live from here."""
        if self.errno[r] < 0:
            return
        base = int(self.base[r])
        recorded = self.frames.row(r)
        for k, frame in enumerate(recorded[: self.nr[r]].tolist()):
            if frame in self.slot_of_frame:
                self.anomalies.count("pages_already_live")
                self.frame_of_slot.pop(self.slot_of_frame[frame], None)
            self.slot_of_frame[frame] = base + k
            self.frame_of_slot[base + k] = frame
        self.live_rows[r] = int(self.nr[r])
        if self.value[r] != NONE:
            self.row_of_array[int(self.value[r])] = r
        if len(recorded) < self.nr[r]:
            self.whole[self.signature(r)].append(r)

    def _whole_request(self, r: int) -> int:
        """The live allocation that this free returns whole, where frames are missing; or -1."""
        row = self.row_of_array.get(int(self.value[r]), -1)
        same_array = row >= 0 and self.nr[row] == self.nr[r] and self.live_rows.get(row)
        if same_array and self._first_agrees(row, r):
            return row
        rows = self.whole.get(self.signature(r), [])
        while rows:
            row = rows.pop()
            if self.live_rows.get(row) == self.nr[r]:
                return row
        return -1

    def _first_agrees(self, row: int, r: int) -> bool:
        ours, theirs = self.frames.row(row), self.frames.row(r)
        return len(ours) == 0 or len(theirs) == 0 or ours[0] == theirs[0]

    def give(self, r: int) -> None:
        """A free: find the slots of its pages."""
        nr = int(self.nr[r])
        recorded = self.frames.row(r)[:nr]
        slots = np.full(nr, UNKNOWN, np.int64)
        row = self._whole_request(r) if len(recorded) < nr else -1
        if row >= 0:
            slots[:] = np.arange(self.base[row], self.base[row] + nr)
            self.flags[r] |= Flag.PAIRING_INFERRED
            self.anomalies.count("frames_inferred", nr - len(recorded))
        else:
            for k, frame in enumerate(recorded.tolist()):
                slots[k] = self.slot_of_frame.get(frame, UNKNOWN)
            if len(recorded) < nr:
                self.flags[r] |= Flag.PAIRING_INFERRED
        self._end_lives(r, slots)
        self.slots[r] = slots

    def _end_lives(self, r: int, slots: np.ndarray) -> None:
        unknown = int((slots == UNKNOWN).sum())
        if unknown:
            self.anomalies.count("pages_unknown_freed", unknown)
            self.flags[r] |= Flag.UNPAIRED
        for slot in slots[slots >= 0].tolist():
            frame = self.frame_of_slot.pop(slot, None)
            if frame is not None:
                self.slot_of_frame.pop(frame, None)
            row = int(self.row_of_slot[slot])
            self.live_rows[row] = self.live_rows.get(row, 0) - 1


def pair(table: pa.Table, anomalies: Anomalies) -> pa.Table:
    """The table with `slots` filled for every free, in the order of `lock_rank`."""
    requests = np.flatnonzero(is_kind(table, "alloc", "free"))
    rank = ints(table, "lock_rank")[requests]
    walk = _Pairing(table, anomalies)
    for r in requests[np.argsort(rank, kind="stable")].tolist():
        if walk.alloc[r]:
            walk.take(r)
        else:
            walk.give(r)
    live = sum(pages for pages in walk.live_rows.values() if pages > 0)
    anomalies.count("pages_live_at_end", live)
    table = replace(table, "slots", lists(walk.slots, len(walk.nr)))
    return replace(table, "flags", pa.array(walk.flags, pa.int64()))
