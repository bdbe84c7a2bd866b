"""Who held the allocator's lock when: the order in which requests took effect.

Some probes fire inside the lock and tell the order outright. Others fire at entry, before the lock
is taken, so with several tasks a free may have taken effect after an allocation that was entered
later. The pool is a stack, so the frames that allocations returned tell where such a free belongs:
a search over the few places it can have, step by step, with backtracking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay.anomalies import Anomalies
from replay.kernel import kernel
from replay.schema import Flag
from replay.trace import lock_stack
from replay.trace.columns import NONE, Ragged, encoded, ints, is_kind, numbered, ragged, replace
from replay.trace.lock_search import search
from replay.trace.lock_stack import Requests, Stack

Ints = npt.NDArray[np.int64]
NEVER = 1 << 62
MAX_PAGES = 1 << 28
"""Pages that the search puts on its stack at most."""


def next_of_task(time: Ints, pid: Ints) -> Ints:
    """Per row, the time of the same task's next row, by which the row's call was over."""
    task, count = numbered(pid)
    latest = np.empty(len(time), dtype=np.int64)
    _next_of_task(time, task, np.full(count, NEVER, dtype=np.int64), latest)
    return latest


@kernel()
def _next_of_task(time, task, following, latest):  # type: ignore[no-untyped-def]
    for r in range(len(time) - 1, -1, -1):
        latest[r] = following[task[r]]
        following[task[r]] = time[r]


@kernel()
def _whole_array(  # type: ignore[no-untyped-def]
        rows, alloc, array, nr, start, known, values, of_array):
    """Give a free with too few recorded frames those of the last allocation into the same array.

    rows: in the order of the recording. array: the caller's page array, -1 if unknown.
    """
    for r in rows:
        if array[r] < 0:
            continue
        if alloc[r]:
            of_array[array[r]] = r
            continue
        other = of_array[array[r]]
        if known[r] >= nr[r] or other < 0 or known[other] != nr[r]:
            continue
        same = True
        for k in range(known[r]):
            same = same and values[start[r] + k] == values[start[other] + k]
        if same:
            start[r], known[r] = start[other], nr[r]


@dataclass(frozen=True)
class _Calls:
    """The requests: their rows, and the columns that the search needs, by row of the table."""

    rows: Ints
    alloc: np.ndarray
    entered: Ints
    held: Ints
    latest: Ints
    nr: Ints
    listed: Ints
    frames: Ragged
    sections: list[tuple[int, int, int]]
    """(row of the allocation that added it, first frame, pages)"""


def _calls(table: pa.Table) -> _Calls:
    time, lock, pid = ints(table, "time_ns"), ints(table, "lock_ns"), ints(table, "pid")
    alloc, value = is_kind(table, "alloc"), ints(table, "value")
    rows = np.flatnonzero(alloc | is_kind(table, "free"))
    failed = alloc & (ints(table, "errno", 0) < 0)
    nr = np.where(failed, 0, ints(table, "nr_pages", 0))
    frames = ragged(table, "frames")
    start, known = frames.start.copy(), np.minimum(frames.length, nr)
    array = np.full(len(table), -1, dtype=np.int64)
    numbers, different = numbered(value[rows])
    array[rows] = np.where(value[rows] == NONE, -1, numbers)
    _whole_array(rows, alloc, array, nr, start, known, frames.values,
                 np.full(different, -1, dtype=np.int64))
    held = np.where(lock == NONE, time, lock)
    latest = next_of_task(time, pid)
    return _Calls(rows, alloc, time, held, latest, nr, ints(table, "list_count"),
                  Ragged(start, known, frames.values),
                  _sections(table, rows[alloc[rows]], time, np.maximum(held, latest), pid))


def _sections(table: pa.Table, allocs: Ints, time: Ints, over: Ints,
              pid: Ints) -> list[tuple[int, int, int]]:
    """New sections of the pool, each with the first call of its task that it can belong to."""
    codes, labels = encoded(table, "label")
    ours = np.array([label == "Xen scratch" for label in labels])[codes]
    added = np.flatnonzero(ours & is_kind(table, "section"))
    first, pages = ints(table, "start_pfn"), ints(table, "nr_pages", 0)
    found = []
    for task in np.unique(pid[added]).tolist():
        calls = allocs[pid[allocs] == task]
        ends = np.maximum.accumulate(over[calls]) if len(calls) else calls
        for row in added[pid[added] == task].tolist():
            k = int(np.searchsorted(ends, time[row]))
            if k < len(calls) and time[calls[k]] <= time[row]:
                found.append((int(calls[k]), row))
    kept: list[tuple[int, int, int]] = []
    seen: dict[tuple[int, int], int] = {}
    for call, row in sorted(found):
        section = (int(first[row]), int(pages[row]))
        if seen.setdefault(section, call) == call:
            kept.append((call, *section))
    return kept


def _requests(calls: _Calls, allocs: Ints, frees: Ints) -> Requests:
    rows = np.concatenate((allocs, frees))
    by_row = np.argsort(allocs)
    place = by_row[np.searchsorted(allocs[by_row], [row for row, _, _ in calls.sections])]
    added = sorted((int(a), *section[1:])
                   for a, section in zip(place, calls.sections, strict=True))
    counts = np.bincount([a for a, _, _ in added], minlength=len(allocs))
    return Requests(
        calls.held[rows], calls.latest[rows], calls.listed[rows], calls.nr[rows],
        calls.frames.start[rows], calls.frames.length[rows], calls.frames.values,
        np.searchsorted(calls.held[frees], calls.held[allocs]).astype(np.int64),
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        np.array([s[1:] for s in added], dtype=np.int64).reshape(-1, 2).T.copy())


def _stack(q: Requests) -> Stack | None:
    """An empty stack with the room that all requests can need; None for too many pages."""
    allocs = len(q.reach)
    popped, freed = int(q.nr[:allocs].sum()), int(q.nr[allocs:].sum())
    pushed = freed + int(q.sections[1].sum())
    if max(pushed, popped) > MAX_PAGES:
        return None
    sizes = (pushed, len(q.nr) + q.sections.shape[1], popped, len(q.nr))
    frames, log, taken, order = (np.empty(size, dtype=np.int64) for size in sizes)
    return Stack(frames, log, taken, order, np.zeros(lock_stack.SIZE, dtype=np.int64))


def _first_length(calls: _Calls, allocs: Ints, frees: Ints) -> int:
    """Length of the list before the first request, from what the first allocation read."""
    if not len(allocs) or calls.listed[allocs[0]] == NONE:
        return 0
    over = frees[calls.latest[frees] <= calls.entered[allocs[0]]]
    return int(calls.listed[allocs[0]] - calls.nr[over].sum())


def _order(calls: _Calls, settled: Ints) -> tuple[Ints | None, int]:
    """The rows in an order that explains the frames, None where it takes too long to find one;
    how many allocations nothing explains."""
    alloc = calls.alloc[settled]
    allocs, frees = settled[alloc], settled[~alloc]
    q = _requests(calls, allocs, frees)
    stack = _stack(q)
    if stack is None:
        return None, 0
    stack.at[lock_stack.FREE] = len(allocs)
    stack.at[lock_stack.COUNT] = _first_length(calls, allocs, frees)
    found, contradicted = search(q, stack)
    return None if found is None else np.concatenate((allocs, frees))[found], contradicted


def _ambiguous(calls: _Calls, order: Ints) -> int:
    """Neighbouring frees of different rows whose exchange fits as well: their order stays open."""
    a, b = order[:-1], order[1:]
    both = ~calls.alloc[a] & ~calls.alloc[b]
    return int((both & (calls.held[a] < calls.latest[b]) & (calls.held[b] < calls.latest[a])).sum())


def recover(table: pa.Table, anomalies: Anomalies, *, stack: bool) -> pa.Table:
    """The table with `lock_rank` filled: the place of each request in the order of lock holders.

    stack: the allocator's list changes by these requests alone (the pool), so that the frames
    tell. The balloon thread changes the balloon's list too; there the order of entry is kept.
    """
    calls = _calls(table)
    entered = calls.rows[np.argsort(calls.held[calls.rows], kind="stable")]
    order = entered
    if stack and (ints(table, "lock_ns")[is_kind(table, "free")] == NONE).any():
        found, contradicted = _order(calls, entered)
        anomalies.count("lock_order_contradicted", contradicted)
        if found is None:
            anomalies.count("lock_order_ambiguous", len(entered))
        else:
            order = found
            anomalies.count("lock_order_ambiguous", _ambiguous(calls, order))
    rank, place = np.full(len(table), NONE, np.int64), np.zeros(len(table), np.int64)
    rank[order], place[entered] = np.arange(len(order)), np.arange(len(entered))
    flags = ints(table, "flags", 0)
    moved = order[(rank[order] != place[order]) & ~calls.alloc[order]]
    flags[moved] |= Flag.LOCK_INFERRED
    anomalies.count("lock_order_recovered", len(moved))
    table = replace(table, "lock_rank", pa.array(rank, pa.int64(), mask=rank == NONE))
    return replace(table, "flags", pa.array(flags, pa.int64()))
