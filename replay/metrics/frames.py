"""Passes over the frames of all requests, compiled: there are many pages to a request."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import INT, VECTOR, compiled, inline
from replay.base.hashes import GAMMA, finalized
from replay.engine.drive import Outcome
from replay.metrics.calls import is_alloc, is_served, was_held
from replay.metrics.ranges import Ranges

_finalized = inline(finalized)


def first_pfn(o: Outcome) -> np.ndarray:
    """(requests,) int64: first frame of each allocation that was served, -1 elsewhere."""
    q = o.workload.requests
    found = np.full(len(o.workload), -1, np.int64)
    rows = np.flatnonzero(is_served(o))
    found[rows] = o.frames[q.first[rows]]
    return found


@compiled(INT(VECTOR, VECTOR, VECTOR, VECTOR, VECTOR))
def _hash(rows: Any, first: Any, pages: Any, frames: Any, found: Any) -> int:
    for r in rows:
        total = np.uint64(0)
        for k in range(pages[r]):
            total += _finalized(np.uint64(frames[first[r] + k]) + GAMMA * np.uint64(k + 1))
        found[r] = np.int64(total)
    return 0


def frames_hash(o: Outcome) -> np.ndarray:
    """(requests,) int64: a hash of the frames of each served allocation, in order; 0 elsewhere.

    base.hashes.finalized() over frame and place, added up modulo 2^64.
    """
    q, found = o.workload.requests, np.zeros(len(o.workload), np.int64)
    _hash(np.flatnonzero(is_served(o)), q.first, q.pages, o.frames, found)
    return found


@compiled(INT(VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, VECTOR))
def _within(rows: Any, first: Any, pages: Any, frames: Any, start: Any, end: Any, slots: Any,
            request: Any) -> int:
    """Fill slots and request as far as they go; how many pages there are."""
    count = 0
    for r in rows:
        for slot in range(first[r], first[r] + pages[r]):
            frame = frames[slot]
            low, high = 0, start.shape[0]
            while low < high:
                middle = (low + high) >> 1
                if start[middle] <= frame:
                    low = middle + 1
                else:
                    high = middle
            if low > 0 and frame < end[low - 1]:
                if count < slots.shape[0]:
                    slots[count], request[count] = slot, r
                count += 1
    return count


def handed_out_within(o: Outcome, ranges: Ranges) -> tuple[np.ndarray, np.ndarray]:
    """(slot, request) of each page handed out inside disjoint, ascending ranges, in the order of
    the stream; of those that calls.handed_out() gives."""
    q, rows = o.workload.requests, np.flatnonzero(is_alloc(o) & was_held(o))
    slots = request = np.zeros(0, np.int64)
    if not len(ranges.start):
        return slots, request
    size = _within(rows, q.first, q.pages, o.frames, ranges.start, ranges.end, slots, request)
    slots, request = np.zeros(size, np.int64), np.zeros(size, np.int64)
    _within(rows, q.first, q.pages, o.frames, ranges.start, ranges.end, slots, request)
    return slots, request
