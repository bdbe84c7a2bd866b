"""Who held the allocator's lock when: the order in which requests took effect.

Some probes fire inside the lock and tell the order outright. Others fire at entry, before the lock
is taken, so with several tasks a free may have taken effect after an allocation that was entered
later. The pool is a stack, so the frames that allocations returned tell where such a free belongs:
a search over the few places it can have, step by step, with backtracking. Where there is no choice,
which is nearly everywhere, a compiled loop goes on.
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
from replay.trace.columns import NONE, Ragged, encoded, ints, is_kind, ragged, replace
from replay.trace.lock_options import Free, options
from replay.trace.lock_stack import Requests, Stack

Ints = npt.NDArray[np.int64]
NEVER = 1 << 62
MAX_TRIES = 1_000_000
"""Bounds the search, in comparisons, for what explains one allocation."""
MAX_PAGES = 1 << 28
"""Pages that the search puts on its stack at most."""


def next_of_task(time: np.ndarray, pid: np.ndarray) -> np.ndarray:
    """Per row, the time of the same task's next row, by which the row's call was over."""
    latest = np.full(len(time), NEVER, np.int64)
    by_task = np.argsort(pid, kind="stable")
    row, following = by_task[:-1], by_task[1:]
    same = pid[row] == pid[following]
    latest[row[same]] = time[following[same]]
    return latest


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
    different, numbers = np.unique(value[rows], return_inverse=True)
    array[rows] = np.where(value[rows] == NONE, -1, numbers)
    _whole_array(rows, alloc, array, nr, start, known, frames.values,
                 np.full(len(different), -1, dtype=np.int64))
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


@dataclass
class _Choice:
    """One decided allocation: what is left to try, and how to get back. at: see lock_stack.DEPTH,
    before the decision. pending: the frees that were open then."""

    at: Ints
    pending: list[Free]
    left: list[tuple[Free, ...]]


@dataclass
class _Farthest:
    """How far the search came: state, open frees, and the order since the last contradiction."""

    at: Ints
    pending: list[Free]
    order: Ints


class _Search:
    """Looks for an order of all requests that fits the recorded frames."""

    def __init__(self, calls: _Calls, settled: Ints) -> None:
        alloc = calls.alloc[settled]
        self.calls, self.allocs, self.frees = calls, settled[alloc], settled[~alloc]
        self.rows = np.concatenate((self.allocs, self.frees))
        self.q = self._requests()
        pushed = int(calls.nr[self.frees].sum() + self.q.sections[1].sum())
        popped = int(calls.nr[self.allocs].sum())
        self.small = max(pushed, popped) <= MAX_PAGES
        sizes = (pushed, len(self.rows) + self.q.sections.shape[1], popped, len(self.rows))
        frames, log, taken, order = (
            np.empty(size if self.small else 0, dtype=np.int64) for size in sizes)
        self.stack = Stack(frames, log, taken, order, np.zeros(lock_stack.SIZE, dtype=np.int64))
        self.choices: list[_Choice] = []
        self.farthest: _Farthest | None = None
        self.begin = self.began = self.contradicted = 0

    def _requests(self) -> Requests:
        calls, rows = self.calls, self.rows
        place = {row: k for k, row in enumerate(self.allocs.tolist())}
        added = sorted((place[row], first, pages) for row, first, pages in calls.sections)
        counts = np.bincount([a for a, _, _ in added], minlength=len(self.allocs))
        return Requests(
            calls.held[rows], calls.latest[rows], calls.nr[rows], calls.frames.start[rows],
            calls.frames.length[rows], calls.frames.values,
            np.searchsorted(calls.held[self.frees], calls.held[self.allocs]).astype(np.int64),
            np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            np.array([s[1:] for s in added], dtype=np.int64).reshape(-1, 2).T.copy())

    def _first_length(self) -> int:
        """Length of the list before the first request, from what the first allocation read."""
        calls = self.calls
        if not len(self.allocs) or calls.listed[self.allocs[0]] == NONE:
            return 0
        first = self.allocs[0]
        over = self.frees[calls.latest[self.frees] <= calls.entered[first]]
        return int(calls.listed[first] - calls.nr[over].sum())

    def order(self) -> Ints | None:
        """The rows in the order found; None if the search is too long.

        Where no order explains an allocation's frames, what was found until there stays, and the
        list is taken for unknown from there on.
        """
        if not self.small:
            return None
        at = self.stack.at
        left: list[tuple[Free, ...]] | None = None
        at[lock_stack.FREE], at[lock_stack.COUNT] = len(self.allocs), self._first_length()
        pending: list[Free] = []
        while at[lock_stack.ALLOC] < len(self.allocs):
            if left is None and not pending:
                ended = lock_stack.run(self.q, self.stack)
                left = [] if ended == lock_stack.MISFIT else None
                if ended == lock_stack.AT_END:
                    break
            if left is None:
                self._enter(pending)
                left = self._options(pending)
                at[lock_stack.STEPS] += len(left) * max(1, len(pending)) ** 2
            if at[lock_stack.STEPS] > lock_stack.MAX_STEPS:
                return None
            chosen = self._choose(left, pending)
            if chosen is not None:
                pending, left = [f for f in pending if f.number not in chosen], None
                continue
            self._remember(pending)
            back = self._back()
            pending, left = (back.pending, back.left) if back else (self._give_up(), None)
        done = self.stack.order[:at[lock_stack.ORDER]]
        rest = np.array([f.number for f in pending], dtype=np.int64)
        found: Ints = self.rows[np.concatenate(
            (done, rest, np.arange(at[lock_stack.FREE], len(self.rows))))]
        return found

    def _enter(self, pending: list[Free]) -> None:
        """Frees entered before the next allocation held the lock join those that are open."""
        q, at = self.q, self.stack.at
        stop = len(self.allocs) + int(q.reach[at[lock_stack.ALLOC]])
        for f in range(int(at[lock_stack.FREE]), stop):
            pending.append(Free(f, int(q.time[f]), int(q.latest[f]), int(q.nr[f]),
                                int(self.calls.listed[self.rows[f]])))
        at[lock_stack.FREE] = stop

    def _options(self, pending: list[Free]) -> list[tuple[Free, ...]]:
        """The orders that open frees may have had before the next allocation."""
        a = int(self.stack.at[lock_stack.ALLOC])
        since = int(self.q.time[a - 1]) if a else -1
        return options(pending, int(self.q.time[a]), int(self.stack.at[lock_stack.COUNT]), since)

    def _choose(self, left: list[tuple[Free, ...]], pending: list[Free]) -> set[int] | None:
        """Take the first of these orders that fits; which frees it has."""
        before = self.stack.at.copy()
        for n, option in enumerate(left):
            frees = [f.number for f in option]
            if lock_stack.apply(self.q, self.stack, np.array(frees, dtype=np.int64),
                                int(before[lock_stack.ALLOC])):
                self.choices.append(_Choice(before, list(pending), left[n + 1:]))
                return set(frees)
        return None

    def _remember(self, pending: list[Free]) -> None:
        """Keep the order that led to the allocation farthest on, should nothing lead beyond it."""
        at = self.stack.at
        if self.farthest is None or at[lock_stack.ALLOC] > self.farthest.at[lock_stack.ALLOC]:
            order = self.stack.order[self.begin:at[lock_stack.ORDER]].copy()
            at[lock_stack.STEPS] += len(order) // 64
            self.farthest = _Farthest(at.copy(), list(pending), order)

    def _back(self) -> _Choice | None:
        """Undo to the last decision that leaves something to try."""
        steps = self.stack.at[lock_stack.STEPS]
        while self.choices and steps - self.began < MAX_TRIES:
            choice = self.choices.pop()
            if choice.left:
                lock_stack.undo_to(self.stack, int(choice.at[lock_stack.LOG]))
                self.stack.at[:] = choice.at
                self.stack.at[lock_stack.STEPS] = steps
                return choice
        return None

    def _give_up(self) -> list[Free]:
        """Let the farthest allocation take effect though nothing explains it; the open frees."""
        at, far = self.stack.at, self.farthest
        assert far is not None
        steps = at[lock_stack.STEPS]
        at[:] = far.at
        self._enter(far.pending)
        a = int(at[lock_stack.ALLOC])
        order = [*far.order.tolist(), *(f.number for f in far.pending), a]
        self.stack.order[self.begin:self.begin + len(order)] = order
        self.begin += len(order)
        self.contradicted += 1
        at[lock_stack.ORDER], at[lock_stack.ALLOC] = self.begin, a + 1
        at[[lock_stack.DEPTH, lock_stack.LOG, lock_stack.TAKEN]] = 0
        at[lock_stack.COUNT] += sum(f.nr for f in far.pending) - self.q.nr[a]
        at[lock_stack.STEPS] = self.began = steps
        self.choices, self.farthest = [], None
        return []


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
    entered = calls.rows[np.lexsort((calls.rows, calls.held[calls.rows]))]
    order = entered
    if stack and (ints(table, "lock_ns")[is_kind(table, "free")] == NONE).any():
        search = _Search(calls, entered)
        found = search.order()
        anomalies.count("lock_order_contradicted", search.contradicted)
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
