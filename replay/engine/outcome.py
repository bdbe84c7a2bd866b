"""What the loop fills: sizes are fixed before it starts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.base.compiled import REALS, TABLE, VECTOR, types
from replay.costs.primitives import WORK

FAST, SLOW, SLEPT = 0, 1, 2
"""Values of the outcome's path: list operations only; more work; slept on a wait queue."""

NR_WORK = len(WORK)
C_LOCK, C_ALLOC_PAGE, C_FREE_PAGE = NR_WORK, NR_WORK + 1, NR_WORK + 2
"""Places in the cost vector (picoseconds) after one entry per primitive."""

ROW = ("wait_ns", "service_ns", "errno", "path", "runs")
C_WAIT, C_SERVICE, C_ERRNO, C_PATH, C_RUNS = range(5)

HISTOGRAMS = ("alloc_latency", "alloc_wait", "alloc_service", "alloc_slow", "free_latency")

T_SLEEPING, T_EARLY, T_BUSY, T_PASSES, T_SKIPPED, T_ADDING = range(6)
NR_TALLIES = 8
ADDING = ("due_ns", "request", "start_pfn", "nr_pages")
MOST_ADDING = 64
"""Calls that have let go of the lock while memory is hot-added; one more keeps it."""
ASLEEP = -(1 << 62)
"""In Out.frames while a call sleeps: pages it has not got. Those it has are -2 - frame."""


class Out(NamedTuple):
    """Arrays of one replay."""

    frames: np.ndarray
    """Frame per slot, -1 where none was allocated."""
    rows: np.ndarray
    """(requests, 5): see ROW."""
    work: np.ndarray
    """(requests, NR_WORK): primitives of slow calls; list operations of fast ones are implied."""
    histograms: np.ndarray
    """(HISTOGRAMS, HIST_BUCKETS) counts."""
    totals: np.ndarray
    """Primitives of background passes, then the T_* tallies."""
    sleeping: np.ndarray
    """Requests asleep on a wait queue, oldest first."""
    adding: np.ndarray
    """(MOST_ADDING, 4): see ADDING."""
    early: np.ndarray
    """Slots whose free came while their allocation was still asleep."""
    scratch: np.ndarray
    area: np.ndarray
    """Integrals over time, in value x ns; see AREAS."""
    peak: np.ndarray


OUT_TYPE = types.NamedTuple(
    [VECTOR, TABLE, TABLE, TABLE, VECTOR, VECTOR, TABLE, VECTOR, VECTOR, REALS, REALS], Out)
