"""The frames of each request, as one number that differs where they or their order do."""

from __future__ import annotations

import numpy as np

from replay.engine.drive import Outcome
from replay.metrics.calls import is_alloc, is_served

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def first_pfn(o: Outcome) -> np.ndarray:
    """(requests,) int64: first frame of each allocation that was served, -1 elsewhere."""
    q = o.workload.requests
    found = np.full(len(o.workload), -1, np.int64)
    rows = np.flatnonzero(is_served(o))
    found[rows] = o.frames[q.first[rows]]
    return found


def frames_hash(o: Outcome) -> np.ndarray:
    """(requests,) int64: a hash of the frames of each served allocation, in order; 0 elsewhere.

    The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", 2014) over frame and place, added up modulo 2^64.
    """
    q = o.workload.requests
    found = np.zeros(len(o.workload), np.int64)
    rows = np.flatnonzero(is_alloc(o))
    if not o.workload.nr_slots:
        return found
    place = np.arange(o.workload.nr_slots) - np.repeat(q.first[rows], q.pages[rows])
    mixed = _mixed(o.frames.astype(np.uint64) + MULTIPLIER * (place + 1).astype(np.uint64))
    found[rows] = np.add.reduceat(mixed, q.first[rows]).astype(np.int64)
    found[~is_served(o)] = 0
    return found


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
