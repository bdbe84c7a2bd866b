"""From a trace's rows to the request stream that every strategy replays, the same for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from replay.base.errors import ReplayError
from replay.engine.drive import Workload, checked
from replay.engine.requests import ALLOC, FREE, Requests, TARGET
from replay.trace.calls import calls_of, releases
from replay.trace.columns import Ragged, ints, ragged
from replay.trace.start import BEFORE, start_of
from replay.trace.store import Trace

MAX_SLOTS = 1 << 32


def to_workload(trace: Trace) -> Workload:
    """The requests in the order of arrival, checked for the compiled loop.

    A page that was live before the recording began appears only in its free, as slot BEFORE; it
    gets a slot of its own behind those of the stream. One of which nothing is known, slot -1, is
    skipped by every strategy alike.
    """
    table, calls = trace.table, calls_of(trace.table)
    alloc, free, nr, pid = calls.alloc, calls.free, calls.pages, calls.pid
    slots, took = ragged(table, "slots"), ints(table, "latency_ns")
    if (nr[alloc | free] < 1).any() or int(nr[alloc].sum(dtype=np.float64)) > MAX_SLOTS:
        raise ReplayError(f"trace {trace.meta.name!r}: a request of no pages, or more than 2^32 "
                          "pages allocated in all")
    if (slots.length[free] != nr[free]).any():
        raise ReplayError(f"trace {trace.meta.name!r}: a free without the slots of its pages; "
                          "import the recording again")
    base = np.cumsum(np.where(alloc, nr, 0)) - np.where(alloc, nr, 0)
    rows = np.flatnonzero(alloc | free | calls.target)
    later, failed = releases(calls.time, calls.pid, calls.alloc & (calls.errno < 0), calls.free)
    times = np.concatenate([calls.time[rows], later])
    events = np.concatenate([rows, failed])
    added = np.arange(len(events)) >= len(rows)
    order = np.argsort(times, kind="stable")
    times, events, added = times[order], events[order], added[order]
    start = start_of(trace.meta.start, trace.meta.recorded_strategy, _live_before(table, slots))
    workload = _assemble(times, events, added, (alloc, free, nr, calls.goal, base), slots, start)
    return replace(workload, task=np.maximum(pid[events], -1),
                   took_ns=np.where(added, -1, np.maximum(took[events], -1)))


def _live_before(table: pa.Table, slots: Ragged) -> dict[int, np.ndarray]:
    """By row, the recorded frames of the pages that were live before the recording, in order of
    the freed slots; -1 where the row does not hold the frame."""
    frames, found = ragged(table, "frames"), {}
    owner = np.repeat(np.arange(len(slots.length)), slots.length)
    for r in np.unique(owner[slots.values == BEFORE]).tolist():
        known = np.full(int(slots.length[r]), -1, np.int64)
        row = frames.row(r)[: len(known)]
        known[: len(row)] = row
        found[r] = known[slots.row(r) == BEFORE]
    return found


def _freed_slots(rows, added, pages, base, slots) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The slots of all frees in a row: the trace's, or for an added free its request's."""
    within = np.arange(int(pages.sum())) - np.repeat(np.cumsum(pages) - pages, pages)
    flat = np.repeat(np.where(added, base[rows], slots.start[rows]), pages) + within
    recorded = np.repeat(~added, pages)
    flat[recorded] = slots.values[flat[recorded]]
    return np.asarray(flat, np.int64)


def _assemble(  # type: ignore[no-untyped-def]
        times, events, added, columns, slots, start) -> Workload:
    alloc, free, nr, goal, base = columns
    is_alloc = alloc[events] & ~added
    is_free = free[events] | added
    kind = np.where(is_alloc, ALLOC, np.where(is_free, FREE, TARGET)).astype(np.int64)
    pages = np.where(kind == TARGET, goal[events], nr[events]).astype(np.int64)
    freed = np.where(is_free, pages, 0)
    offsets = np.cumsum(freed) - freed
    first = np.where(is_alloc, base[events], np.where(is_free, offsets, 0)).astype(np.int64)
    flat = _freed_slots(events[is_free], added[is_free], freed[is_free], base, slots)
    nr_slots = int(pages[is_alloc].sum())
    flat[flat == BEFORE] = nr_slots + np.arange(int((flat == BEFORE).sum()))
    below = np.concatenate(([0], np.cumsum(flat >= 0)))
    known = below[offsets + freed] - below[offsets]
    live = np.cumsum(np.where(is_alloc, pages, 0) - known) + (start.live_pages if start else 0)
    requests = Requests(*(np.ascontiguousarray(c, np.int64)
                          for c in (times, kind, pages, first, flat)))
    peak = int(live.max(initial=start.live_pages if start else 0))
    return checked(Workload(requests, nr_slots, peak, events, start=start))
