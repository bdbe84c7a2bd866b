"""The calls that change the allocator's free list, as the search for their order needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from replay.base.compiled import compiled, record
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE, encoded, ints, is_kind, numbered, ragged
from replay.trace.schema import BALLOON_TASK
from replay.trace.start import MOST_FRAME, MOST_PAGES

NEVER: Final = 1 << 62

ADDED_SECTION = record("first", "pages")
"""A section that a call added to the pool: its first frame, and how many."""


class Calls(NamedTuple):
    """Calls in the order of entry; every column has one element per call.

    pops, pushes: pages that leave and reach the list. entered: entry; held: a time within the lock,
    NONE if unknown; over: by when it had let the lock go. whole: pages popped are all that was
    listed. listed, head, listed_after, head_after: what was read of the list, NONE if nothing.
    start, known: its frames within `frames`, in the order of its page array, -1 if unknown; of
    nr pages the others are unknown. origin: like frames; for a page that an allocation got, the
    call that freed it last; -1 if none was seen, or not all allocations are recorded whole. array:
    for a free, the allocation into
    the same page array, or -1. content: first place of an allocation's pages among all allocated
    ones. section: its first one in `sections`, an ADDED_SECTION each; one more at the end.
    """

    pops: Ints
    pushes: Ints
    nr: Ints
    entered: Ints
    held: Ints
    over: Ints
    whole: Ints
    listed: Ints
    head: Ints
    listed_after: Ints
    head_after: Ints
    start: Ints
    known: Ints
    frames: Ints
    origin: Ints
    array: Ints
    content: Ints
    section: Ints
    sections: np.ndarray


@dataclass(frozen=True)
class Table:
    """The calls with what does not go into compiled loops: the trace's row of each, whether it is
    an allocation or a free (the balloon thread's passes are neither), and which.
    """

    calls: Calls
    rows: Ints
    request: np.ndarray
    alloc: np.ndarray


def next_of_task(time: Ints, pid: Ints) -> Ints:
    """Per row, the time of the same task's next row, by which the row's call was over."""
    task, count = numbered(pid)
    latest = np.empty(len(time), dtype=np.int64)
    _next_of_task(time, task, np.full(count, NEVER, dtype=np.int64), latest)
    return latest


@compiled()
def _next_of_task(time, task, following, latest):  # type: ignore[no-untyped-def]
    for r in range(len(time) - 1, -1, -1):
        latest[r] = following[task[r]]
        following[task[r]] = time[r]


@compiled()
def _arrays(calls, alloc, array, of_array, found):  # type: ignore[no-untyped-def]
    """For each free of a whole page array, the last allocation into it; -1 if there is none.

    Where both have recorded frames they agree, or the array is another one at the same address.
    """
    for c in range(len(alloc)):
        found[c] = -1
        if array[c] < 0:
            continue
        if alloc[c]:
            of_array[array[c]] = c if calls.nr[c] > 0 else -1
            continue
        other = of_array[array[c]]
        if other < 0 or calls.nr[other] != calls.nr[c] or calls.over[other] > calls.entered[c]:
            continue
        same = True
        for k in range(min(calls.known[c], calls.known[other])):
            ours, theirs = calls.frames[calls.start[c] + k], calls.frames[calls.start[other] + k]
            same = same and (ours == theirs or ours < 0 or theirs < 0)
        of_array[array[c]] = -1
        if same:
            found[c] = other


@compiled()
def _origins(calls, alloc, events, freed_by, number):  # type: ignore[no-untyped-def]
    """Of each allocated page the call that freed it last; events: frees at their entry as -1 - c,
    allocations when over. number: of each frame; freed_by: per number, -1 at the start."""
    for n in range(len(events)):
        c = events[n]
        free = c < 0
        if free:
            c = -1 - c
        first, known = calls.start[c], calls.known[c]
        if free and calls.array[c] >= 0 and known < calls.nr[c]:
            first, known = calls.start[calls.array[c]], calls.known[calls.array[c]]
        for k in range(known):
            f = number[first + k]
            if calls.frames[first + k] < 0:
                continue
            if free:
                freed_by[f] = c
            else:
                calls.origin[first + k] = freed_by[f]
                freed_by[f] = -1


def _nested(table: pa.Table, rows: Ints, over: Ints) -> Ints:
    """Pages of the decrease hypercalls made within each call of the balloon driver."""
    time, pid, nr = ints(table, "time_ns"), ints(table, "pid"), ints(table, "nr_pages", 0)
    pages = np.zeros(len(rows), np.int64)
    inner = np.flatnonzero(is_kind(table, "decrease"))
    order = np.lexsort((time[rows], pid[rows]))
    key = pid[rows][order]
    for r in inner.tolist():
        low, high = np.searchsorted(key, pid[r]), np.searchsorted(key, pid[r], side="right")
        k = low + int(np.searchsorted(time[rows[order[low:high]]], time[r], side="right")) - 1
        if k >= low and time[r] <= over[order[k]]:
            pages[order[k]] += nr[r]
    return pages


def _sections(table: pa.Table, rows: Ints, alloc: np.ndarray, over: Ints
              ) -> dict[int, list[tuple[int, int]]]:
    """New sections of the pool, by the call that added each: the first of its task around it."""
    codes, labels = encoded(table, "label")
    ours = np.array([label == "Xen scratch" for label in labels])[codes]
    added = np.flatnonzero(ours & is_kind(table, "section"))
    time, pid = ints(table, "time_ns"), ints(table, "pid")
    first, pages = ints(table, "start_pfn"), ints(table, "nr_pages", 0)
    found: dict[int, list[tuple[int, int]]] = {}
    seen: set[tuple[int, int]] = set()
    for row in added.tolist():
        mine = np.flatnonzero(alloc & (pid[rows] == pid[row]) & (time[rows] <= time[row])
                              & (over >= time[row]))
        section = (int(first[row]), int(pages[row]))
        possible = 0 <= first[row] <= MOST_FRAME and 0 < pages[row] <= MOST_PAGES
        if len(mine) and possible and section not in seen:
            seen.add(section)
            found.setdefault(int(mine[0]), []).append(section)
    return found


def collect(table: pa.Table, *, balloon: bool) -> Table:
    """The calls of a trace whose recorded allocator is the pool, or the balloon driver."""
    time, lock, nr = ints(table, "time_ns"), ints(table, "lock_ns"), ints(table, "nr_pages", 0)
    took, pid, errno = ints(table, "latency_ns"), ints(table, "pid"), ints(table, "errno", 0)
    kinds = ("alloc", "free", *(("increase", "decrease") if balloon else ()))
    rows = np.flatnonzero(is_kind(table, *kinds) & (nr > 0))
    request = is_kind(table, "alloc", "free")[rows]
    if balloon:
        codes, names = encoded(table, "task")
        thread = np.array([name == BALLOON_TASK for name in names])[codes]
        rows, request = rows[request | thread[rows]], request[request | thread[rows]]
    entry = np.where(request | (lock[rows] == NONE), time[rows], np.minimum(time, lock)[rows])
    order = np.argsort(entry, kind="stable")
    rows, request, entry = rows[order], request[order], entry[order]
    alloc = is_kind(table, "alloc")[rows]
    grows = is_kind(table, "free", "decrease")[rows]
    held = np.where(request, lock[rows], time[rows])
    over = np.where(took[rows] != NONE, time[rows] + took[rows], next_of_task(time, pid)[rows])
    over = np.maximum(over, np.maximum(entry, held))
    # a hypercall returns how many extents it did, and only so many pages move
    done = np.where(request | (ints(table, "errno")[rows] < 0), nr[rows], errno[rows])
    size = np.where(alloc & (errno[rows] < 0), 0, np.minimum(nr[rows], done))
    nested = _nested(table, rows, over) if balloon else np.zeros(len(rows), np.int64)
    fresh = np.where(alloc, np.minimum(nested, size), 0)
    reads = [ints(table, name)[rows] for name in
             ("list_count", "list_head", "list_count_after", "list_head_after")]
    if balloon:  # where the pool falls back, these are the pool's, whose list stays empty
        reads = [np.where(request & (held != NONE), read, NONE) for read in reads]
    frames = ragged(table, "frames")
    known = np.minimum(frames.length[rows], size)
    added = _sections(table, rows, alloc, over) if not balloon else {}
    counts = np.array([len(added.get(c, ())) for c in range(len(rows))], np.int64)
    sections = np.array([s for c in sorted(added) for s in added[c]], ADDED_SECTION)
    calls = Calls(
        np.where(grows, 0, size - fresh), np.where(grows, size, 0), size, entry, held, over,
        (fresh > 0).astype(np.int64), reads[0], reads[1], reads[2], reads[3],
        frames.start[rows], known, np.maximum(frames.values, -1),
        np.full(len(frames.values), -1, np.int64), np.full(len(rows), -1, np.int64),
        np.concatenate(([0], np.cumsum(np.where(alloc, size, 0)))),
        np.concatenate(([0], np.cumsum(counts))), sections)
    _tie(table, calls, rows, alloc, request & ~alloc)
    return Table(calls, rows, request, alloc)


def _tie(table: pa.Table, calls: Calls, rows: Ints, alloc: np.ndarray, free: np.ndarray) -> None:
    """Fill `array` and `origin`: which pages of frees and allocations are the same."""
    value = ints(table, "value")[rows]
    numbers, different = numbered(value)
    array = np.where((value == NONE) | ~(alloc | free), -1, numbers)
    _arrays(calls, alloc, array, np.full(different, -1, np.int64), calls.array)
    free_at = np.flatnonzero(free)
    alloc_at = np.flatnonzero(alloc)
    # allocations first: what a task frees at once after a call it got by that call
    codes = np.concatenate((alloc_at, -1 - free_at))
    took = ints(table, "latency_ns")[rows]
    got = np.where(calls.held != NONE, calls.held,
                   np.where(took != NONE, calls.over, calls.entered))
    moments = np.concatenate((got[alloc_at], calls.entered[free_at]))
    events = codes[np.argsort(moments, kind="stable")]
    if (calls.known[alloc] < calls.nr[alloc]).any():
        return  # a page may have been allocated and freed again unseen
    number, count = numbered(calls.frames)
    _origins(calls, alloc, events, np.full(count, -1, np.int64), number)


