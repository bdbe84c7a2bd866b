"""The frames of each request, as one number that differs where they or their order do."""

from __future__ import annotations

import numpy as np

from replay.base.hashes import GAMMA, finalized
from replay.engine.drive import Outcome
from replay.metrics.calls import is_alloc, is_served


def first_pfn(o: Outcome) -> np.ndarray:
    """(requests,) int64: first frame of each allocation that was served, -1 elsewhere."""
    q = o.workload.requests
    found = np.full(len(o.workload), -1, np.int64)
    rows = np.flatnonzero(is_served(o))
    found[rows] = o.frames[q.first[rows]]
    return found


def frames_hash(o: Outcome) -> np.ndarray:
    """(requests,) int64: a hash of the frames of each served allocation, in order; 0 elsewhere.

    base.hashes.finalized() over frame and place, added up modulo 2^64.
    """
    q = o.workload.requests
    found = np.zeros(len(o.workload), np.int64)
    rows = np.flatnonzero(is_alloc(o))
    if not o.workload.nr_slots:
        return found
    place = np.arange(o.workload.nr_slots) - np.repeat(q.first[rows], q.pages[rows])
    mixed = finalized(o.frames.astype(np.uint64) + GAMMA * (place + 1).astype(np.uint64))
    found[rows] = np.add.reduceat(mixed, q.first[rows]).astype(np.int64)
    found[~is_served(o)] = 0
    return found
