"""What the loop fills: sizes are fixed before it starts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.base.compiled import REALS, TABLE, VECTOR, record, rows_of, seen_as, types
from replay.costs.primitives import WORK

FAST, SLOW, SLEPT = 0, 1, 2
"""Values of the outcome's path: list operations only; more work; slept on a wait queue."""

NR_WORK = len(WORK)
ROW = record("wait_ns", "service_ns", "errno", "path", "runs")
"""What a request had: times in ns, modelled; a negative errno or 0; its path; runs of frames."""

HISTOGRAMS = ("alloc_latency", "alloc_wait", "alloc_service", "alloc_slow", "free_latency")

TALLIES = record(
    ("work", record(*WORK)),  # primitives of background passes
    "sleeping", "early", "adding",  # how many there are in the vectors of these names
    "busy", "passes",  # passes of the thread, and those that got nowhere
    "skipped",  # pages of frees of which no frame was known
    "since", "settled",  # up to when what moves with every call, and the rest, is integrated
)  # fmt: skip
tallies = seen_as(TALLIES)
"""What the loop counts beside the requests, in Out.totals."""

ADDING = record("due_ns", "request", "start_pfn", "nr_pages")
MOST_ADDING = 64
"""Calls that have let go of the lock while memory is hot-added; one more keeps it."""
ASLEEP = -(1 << 62)
"""In Out.frames while a call sleeps: pages it has not got. Those it has are -2 - frame."""


class Out(NamedTuple):
    """Arrays of one replay."""

    frames: np.ndarray
    """Frame per slot, -1 where none was allocated."""
    rows: np.ndarray
    """(requests,) of ROW."""
    work: np.ndarray
    """(requests, NR_WORK): primitives of slow calls; list operations of fast ones are implied."""
    alloc_latency: np.ndarray
    """This and the other HISTOGRAMS: counts of modelled ns by histogram.bucket_of()."""
    alloc_wait: np.ndarray
    alloc_service: np.ndarray
    alloc_slow: np.ndarray
    free_latency: np.ndarray
    totals: np.ndarray
    """The words of TALLIES."""
    sleeping: np.ndarray
    """Requests asleep on a wait queue, oldest first."""
    adding: np.ndarray
    """(MOST_ADDING,) of ADDING."""
    early: np.ndarray
    """Slots whose free came while their allocation was still asleep."""
    scratch: np.ndarray
    area: np.ndarray
    """Integrals over time, in value x ns, as words of gauges.AREA."""
    peak: np.ndarray
    """The highest values, in the same order."""
    before: np.ndarray
    """The gauges as they were when they were settled; see gauges.settle()."""


OUT_TYPE = types.NamedTuple(
    [VECTOR, rows_of(ROW), TABLE, *(VECTOR for _ in HISTOGRAMS),
     VECTOR, VECTOR, rows_of(ADDING), VECTOR, VECTOR, REALS, REALS, REALS], Out)
