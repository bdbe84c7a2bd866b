"""What the loop fills: sizes are fixed before it starts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.base.compiled import record, seen_as
from replay.costs.primitives import WORK

FAST, SLOW, SLEPT = 0, 1, 2
"""Values of the outcome's path: list operations only; more work; slept on a wait queue."""

ROW = record("wait_ns", "service_ns", ("errno", np.int16), ("path", np.int16), *(
    (name, np.int32) for name in ("runs", "pages", "worked")))
"""What a request had: times in ns, modelled; a negative errno or 0; its path; runs of frames, or of
an allocation that failed the fault that it met plus one (FAULT_WORDS.reason); pages
that it got or gave back (a free: without those it did not have, or whose call is under way); the
place of its work in Out.work plus one, 0 if it reported none. Half words and less where they do: a
loop over requests of one page waits for the memory that it writes."""

HISTOGRAMS = ("alloc_latency", "alloc_wait", "alloc_service", "alloc_slow", "free_latency")

TALLIES = record(
    ("work", record(*WORK)),  # primitives of background passes
    ("of_calls", record(*WORK)),  # those of calls, without the list operations of their pages
    "sleeping", "early", "adding",  # how many there are in the vectors of these names
    "busy", "passes",  # passes of the thread, and those that got nowhere
    "skipped",  # pages of frees of which no frame was known
    # Carried from batch to batch:
    "begun", "lock_free",  # whether there was one before; when the lock was last released
    "since", "settled",  # up to when what moves with every call, and the rest, is integrated
    "first_request", "last",  # number of the batch's first request; whether it is the last batch
    "step", "place",  # requests of the batch that are done, pages in Out.frames
    "worked",  # rows of Out.work that are in use
    "apart",  # whether Out.frames and Out.live are two arrays
    "kept",  # words of Out.kept that are in use
)  # fmt: skip
tallies = seen_as(TALLIES)
"""What the loop counts beside the requests, in Out.totals."""
FIRST_OF_CALLS = len(WORK)
"""Where the words of `of_calls` begin, for loops over all of them."""

PAUSED = record(
    "request", "pages", "slot",  # its number in the whole stream, its first slot
    "place",  # in Out.frames, as long as its batch is the current one
    "arrival", "got", "kept",  # pages that it has got, first word of them in Out.kept
    "late",  # its row in Out.late, -1 while its batch is the current one
    "wait_ns", "service_ns", "errno", "path",  # of its row so far
    "due_ns", "start_pfn", "nr_pages",  # what it adds, and when that is done
)  # fmt: skip
"""A call under way that has not got the lock, see paused.py."""
EARLY = record("request", "slot")
LATE = record("request", "touched", "kept", "pages", ("row", ROW))
"""What came of a request in a batch after its own: whether anything; if served, its frames as
`pages` words of Out.kept from `kept` on; its row, which stands in place of the one given out."""
MOST_ADDING = 64
"""Calls that have let go of the lock while memory is hot-added; one more keeps it."""
NO_FRAME = -1
"""In Out.frames and Out.live: no page."""


class Out(NamedTuple):
    """Arrays of one replay: of the batch, then those that are carried on to the next one."""

    frames: np.ndarray
    """Frames of the batch's allocations, request by request, -1 where there is none."""
    rows: np.ndarray
    """(requests,) of ROW."""
    work: np.ndarray
    """(some, NR_WORK): primitives of the calls that reported any, see ROW; list operations of the
    others are implied."""
    late: np.ndarray
    """(calls under way at the start of the batch,) of LATE."""
    late_work: np.ndarray
    """(the same, NR_WORK): to be added to the work of their requests."""
    live: np.ndarray
    """Frame per slot; NO_FRAME, or paused.under_way(request)."""
    alloc_latency: np.ndarray
    """This and the other HISTOGRAMS: counts of modelled ns by histogram.bucket_of()."""
    alloc_wait: np.ndarray
    alloc_service: np.ndarray
    alloc_slow: np.ndarray
    free_latency: np.ndarray
    totals: np.ndarray
    """The words of TALLIES."""
    sleeping: np.ndarray
    """PAUSED, oldest first: calls asleep on a wait queue."""
    adding: np.ndarray
    """(MOST_ADDING,) of PAUSED."""
    going: np.ndarray
    """(1,) of PAUSED: the one of `adding` that has the lock again."""
    kept: np.ndarray
    """Frames of calls under way."""
    early: np.ndarray
    """EARLY: slots whose free came while their allocation was under way."""
    scratch: np.ndarray
    """Room for the pages of one request."""
    area: np.ndarray
    """Integrals over time, in value x ns, as words of gauges.AREA."""
    peak: np.ndarray
    """The highest values, in the same order."""
    before: np.ndarray
    """The gauges as they were when they were settled; see gauges.settle()."""
