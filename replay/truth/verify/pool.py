"""Verify the pool (on iomem_resource or on hypervisor regions): every frame, every section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.progress import many
from replay.costs import profile
from replay.engine.batches import Fed, feed_all, room
from replay.engine.drive import Workload, checked, largest
from replay.engine.requests import ALLOC, FREE, Requests
from replay.engine.state import SECTION_POOL, section_log, words
from replay.engine.strategy import Setup, Strategy
from replay.metrics.calls import with_page_work
from replay.physmap.model import Physmap
from replay.trace.columns import NONE, ints, is_kind, ragged, strings
from replay.trace.schema import OPEN_ORDER
from replay.trace.start import pages_of
from replay.trace.store import Trace
from replay.truth.verify.result import PLACEHOLDER, Frames, Verification


@dataclass(frozen=True)
class _Stream:
    """Requests in the order of lock holders, with the pages that were live at the start."""

    workload: Workload
    rows: np.ndarray
    first: np.ndarray
    listed: int
    live: int


def _initial_list(table: pa.Table, rows: np.ndarray, alloc: np.ndarray, nr: np.ndarray,
                  unknown: int) -> int:
    """Length of the free list before the first request, from the first length recorded."""
    listed = ints(table, "list_count")
    moved = 0
    for r in rows.tolist():
        if alloc[r] and listed[r] != NONE:
            return max(0, int(listed[r]) - moved)
        moved += -int(nr[r]) if alloc[r] else int(nr[r])
    return unknown


def _stream(trace: Trace) -> _Stream:
    table = trace.table
    alloc, free = is_kind(table, "alloc"), is_kind(table, "free")
    nr, rank = ints(table, "nr_pages", 0), ints(table, "lock_rank")
    slots = ragged(table, "slots")
    rows = np.flatnonzero(alloc | free)
    rows = rows[np.argsort(rank[rows], kind="stable")]
    old_base = np.cumsum(np.where(alloc, nr, 0)) - np.where(alloc, nr, 0)
    frees = [slots.row(r) for r in rows[free[rows]].tolist()]
    flat = np.concatenate([*frees, np.zeros(0, np.int64)])
    live = int((flat < 0).sum())
    counts = np.where(alloc[rows], nr[rows], 0)
    base = live + np.cumsum(counts) - counts
    # Slots were numbered in the order of the rows; here they run in the order of the lock.
    shift = np.zeros(int(np.where(alloc, nr, 0).sum()), np.int64)
    for r, b in zip(rows.tolist(), base.tolist(), strict=True):
        if alloc[r]:
            shift[old_base[r] : old_base[r] + nr[r]] = np.arange(b, b + nr[r])
    unknown = flat < 0
    named = np.where(unknown, np.cumsum(unknown) - 1, shift[np.where(unknown, 0, flat)]
                     if len(shift) else 0)
    sizes = np.where(free[rows], nr[rows], 0)
    first = np.where(alloc[rows], base, np.cumsum(sizes) - sizes)
    lead = [np.array([v]) for v in ((0, ALLOC, live, 0) if live else ())]
    columns = [np.concatenate([*lead[k : k + 1], column]) for k, column in enumerate((
        np.arange(len(rows)), np.where(alloc[rows], ALLOC, FREE), nr[rows], first))]
    facts = trace.meta.start.get("pool", {})
    listed = (pages_of(trace.meta.start, "pool", "listed") if facts
              else _initial_list(table, rows, alloc, nr, 0))
    total = live + int(counts.sum())
    requests = Requests(*(np.ascontiguousarray(c, np.int64) for c in (*columns, named)))
    events = np.concatenate([np.full(1 if live else 0, -1), rows])
    return _Stream(checked(Workload(requests, total, total, events)), rows, first, listed, live)


def _replayed(trace: Trace, strategy: Strategy, machine: Physmap
              ) -> tuple[_Stream, Setup, Fed]:
    """Replay in the order of lock holders on the recorded tree."""
    stream = _stream(trace)
    known = stream.listed + stream.live
    kernel = str(trace.meta.provenance.get("kernel", ""))
    setup = strategy.init(machine, stream.workload.peak_pages + known,
                          strategy.values(strategy.as_of(kernel, {})))
    m = setup.state
    s = words(m)
    # What was on the list at the start is unknown: placeholders, learned at first sight. What
    # init() puts there is among it, where the recording tells how much there was.
    count = 0 if trace.meta.start.get("pool") or stream.listed else int(s.count)
    m[s.list + count : s.list + count + known] = PLACEHOLDER + np.arange(known)
    s.count = count + known
    fed = feed_all(strategy, m, stream.workload.requests,
                   room(stream.workload.slots, largest(stream.workload)),
                   profile.load("x86").vector(setup.page_work))
    return stream, setup, fed


def pool_work(trace: Trace, strategy: Strategy, machine: Physmap
              ) -> tuple[np.ndarray, np.ndarray]:
    """(rows, work): the primitives of each recorded call, as the recorded kernel did them."""
    stream, setup, out = _replayed(trace, strategy, machine)
    lead = len(stream.workload) - len(stream.rows)
    q = stream.workload.requests
    moved = np.where(out.rows["errno"] == 0, q.pages, 0)
    return stream.rows, with_page_work(out.work, q.kind, moved, setup.page_work)[lead:]


def verify_pool(trace: Trace, strategy: Strategy, machine: Physmap) -> Verification:
    """Compare a replay with the recording, frame for frame and section for section."""
    result = Verification(strategy.name)
    stream, setup, out = _replayed(trace, strategy, machine)
    _compare_requests(trace, stream, out, result)
    _compare_sections(trace, setup.state, result)
    found = trace.meta.start.get("pool", {}).get("listed", {}).get("from", "not recorded")
    result.notes.append(f"free list at the start: {stream.listed} pages ({found}), its frames "
                        f"learned; {stream.live} pages were live already")
    return result


def _compare_requests(trace: Trace, stream: _Stream, out: Any, result: Verification) -> None:
    table = trace.table
    alloc, time = is_kind(table, "alloc"), ints(table, "time_ns")
    errno, nr = ints(table, "errno", 0), ints(table, "nr_pages", 0)
    recorded = ragged(table, "frames")
    ambiguous = (ints(table, "flags", 0) & int(OPEN_ORDER)) != 0
    frames = Frames(result)
    lead = 1 if stream.live else 0
    rows = stream.rows.tolist()
    for k, r in enumerate(many(rows, len(rows), "comparing", "calls")):
        result.begin(ambiguous=bool(ambiguous[r]))
        if not alloc[r]:
            continue
        model_errno = int(out.rows[k + lead].errno)
        same = result.compare("errnos", time[r], r, int(errno[r]), model_errno)
        if same and model_errno == 0:
            at = int(stream.first[k])
            frames.check(int(time[r]), r, recorded.row(r), out.frames[at : at + nr[r]])
    result.begin(ambiguous=False)


def _compare_sections(trace: Trace, m: np.ndarray, result: Verification) -> None:
    table = trace.table
    label, time = strings(table, "label"), ints(table, "time_ns")
    start, nr = ints(table, "start_pfn"), ints(table, "nr_pages", 0)
    rows = [r for r in np.flatnonzero(is_kind(table, "section")).tolist()
            if label[r] == "Xen scratch"]
    model = [(int(row.start_pfn), int(row.nr_pages)) for row in section_log(m)
             if row.kind == SECTION_POOL]
    for k, r in enumerate(rows):
        added = model[k] if k < len(model) else None
        result.compare("sections", time[r], r, (int(start[r]), int(nr[r])), added)
    for added in model[len(rows):]:
        result.compare("sections", -1, -1, None, added)
