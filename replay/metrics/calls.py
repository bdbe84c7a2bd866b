"""Per-request and per-slot views of an Outcome that several metrics share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from replay.costs.primitives import WORK
from replay.engine.drive import Outcome
from replay.engine.requests import ALLOC, FREE
from replay.trace.columns import encoded

PATHS = ("fast", "slow", "slept")
"""Names of outcome.FAST, SLOW and SLEPT."""

SIZE_CLASSES = ("1", "2-8", "9-64", "65-512", ">512")
SIZE_LIMITS = (1, 8, 64, 512)

PageWork = tuple[tuple[str, ...], tuple[str, ...]]

NO_CALLER = "(not recorded)"


def is_alloc(o: Outcome) -> np.ndarray:
    """Which requests allocate."""
    return np.asarray(o.workload.requests.kind == ALLOC)


def is_served(o: Outcome) -> np.ndarray:
    """Which requests are allocations that got their pages."""
    return np.asarray(is_alloc(o) & (o.rows["errno"] == 0))


def latency_ns(o: Outcome) -> np.ndarray:
    """Modelled latency of each request: wait plus service."""
    return np.asarray(o.rows["wait_ns"] + o.rows["service_ns"])


def start_ns(o: Outcome) -> np.ndarray:
    """Modelled time at which each request had the lock."""
    return np.asarray(o.workload.requests.time + o.rows["wait_ns"])


def work_of(o: Outcome) -> np.ndarray:
    """(requests, len(WORK)) int64: primitives of each request, the list operations of its pages
    included."""
    return with_page_work(o.work, o.workload.requests.kind, o.rows["pages"], o.page_work)


def with_page_work(work: np.ndarray, kind: np.ndarray, pages: np.ndarray,
                   page_work: PageWork) -> np.ndarray:
    """A copy of (requests, len(WORK)) work with that of each page that a request moved added.

    page_work: names of the primitives per page of an allocation, and of a free.
    """
    full = work.copy()
    for names, of in zip(page_work, (ALLOC, FREE), strict=True):
        for name in names:
            full[:, WORK.index(name)] += np.where(kind == of, pages, 0)
    return full


def callers(o: Outcome, table: pa.Table | None) -> tuple[np.ndarray, list[str]]:
    """The calling kernel function of each request, from the trace, as a number in a list of names;
    NO_CALLER where it has none."""
    if table is None or not len(table):
        return np.zeros(len(o.workload), np.int32), [NO_CALLER]
    codes, names = encoded(table, "caller")
    return codes[o.workload.event].astype(np.int32), [name or NO_CALLER for name in names]


def size_class(pages: np.ndarray) -> np.ndarray:
    """Index into SIZE_CLASSES."""
    return np.searchsorted(np.array(SIZE_LIMITS), pages, side="left")


def was_held(o: Outcome) -> np.ndarray:
    """Which requests have, or had, pages: served ones, and those that slept."""
    return np.asarray((o.rows["errno"] == 0) | (o.rows["path"] == PATHS.index("slept")))


def handed_out(o: Outcome, wanted: np.ndarray | bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(slot, request) of each page handed out, in the order of the stream.

    wanted: (slots,) bool, the slots to look at. Pages of failed requests are left out; those that a
    request asleep at the end holds already count.
    """
    slots = np.flatnonzero((o.frames >= 0) & wanted)
    rows = np.flatnonzero(is_alloc(o))
    if not len(slots):
        return slots, slots
    request = np.repeat(rows, o.workload.requests.pages[rows])[slots]
    held = was_held(o)[request]
    return slots[held], request[held]


def lifetimes(o: Outcome, wanted: np.ndarray | bool = True
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(frame, from_ns, to_ns, request) of each page handed out, see handed_out().

    Times are modelled: from the moment the allocation had the lock to the moment the free had it;
    pages never freed live to the end.
    """
    slots, request = handed_out(o, wanted)
    if not len(slots):
        return slots, slots, slots, request
    begin, end = start_ns(o)[request], ends_ns(o)
    return o.frames[slots], begin, np.maximum(end[slots], begin), request


def ends_ns(o: Outcome) -> np.ndarray:
    """By slot, the modelled time at which its page's free had the lock, or the end; the slots of
    pages that were live before the first request come last."""
    q = o.workload.requests
    end = np.full(o.workload.slots, max(o.duration_ns, 0), np.int64)
    frees = np.flatnonzero(q.kind == FREE)
    by = np.repeat(frees, q.pages[frees])
    known = q.slots >= 0
    end[q.slots[known]] = start_ns(o)[by[known]]
    return end
