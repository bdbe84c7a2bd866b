"""Who has the lock between requests: the thread, calls that slept, calls that had let go of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.base.compiled import inline, template
from replay.engine.gauges import integrate, settle
from replay.engine.histogram import bucket_of
from replay.engine.lock import P_ARRIVAL, P_HELD_SLOWLY, returned
from replay.engine.outcome import (
    C_ALLOC_PAGE, C_ERRNO, C_LOCK, C_RUNS, C_SERVICE, C_WAIT, MOST_ADDING, NR_WORK, T_ADDING,
    T_BUSY, T_EARLY, T_PASSES, T_SLEEPING, Out,
)  # fmt: skip
from replay.engine.requests import Requests
from replay.engine.state import (
    E_ADDING, E_WAIT, G_HELD, NEVER, R_ADDED_AT, R_ADDS_FREE, R_ADD_NS, R_ADD_PAGES, R_ADD_START,
    R_COUNT, R_CURRENT, R_DIRTY, R_GOT, R_MOVED, R_NOW, R_OWN_LOCK, R_REQUEST, R_RESUME, R_SPLIT,
    R_TARGET, R_THREAD_FREE, R_TOTAL, R_WAKE_AT, W, W_HOTPLUG_PAGE, W_HOTPLUG_SECTION,
)  # fmt: skip
from replay.engine.tracking import frames_returned, frames_taken


@inline
def spent_on(m: np.ndarray, cost: np.ndarray) -> int:
    """Picoseconds of the extra work that the current call reported."""
    total = 0
    for k in range(NR_WORK):
        total += m[W + k] * cost[k]
    return total


@inline
def move_work(m: np.ndarray, into: np.ndarray, at: int) -> None:
    """Add the call's extra work to into[at:], and clear it."""
    for k in range(NR_WORK):
        into[at + k] += m[W + k]
        m[W + k] = 0
    m[R_DIRTY] = 0


@inline
def count_runs(frames: np.ndarray, first: int, count: int) -> int:
    """Runs of neighbouring frames, ascending or descending, in the order returned."""
    runs, before = 0, -2
    for k in range(first, first + count):
        step = frames[k] - before
        if step != 1 and step != -1:
            runs += 1
        before = frames[k]
    return runs


@template
def _thread_pass(wake: Callable[..., int], m: np.ndarray, out: Out, cost: np.ndarray,
                 lock_free: int) -> int:
    """One pass of the background thread, which has asked for its lock; when callers' is free."""
    start = m[R_WAKE_AT] if m[R_OWN_LOCK] else max(m[R_WAKE_AT], lock_free)
    integrate(m, out.area, out.peak, start)
    m[R_NOW] = start
    listed, target, held = m[R_COUNT], m[R_TARGET], m[G_HELD]
    current, total = m[R_CURRENT], m[R_TOTAL]
    split, m[R_SPLIT] = m[R_SPLIT], 0  # the thread's own hot-add keeps the lock
    wake(m, start)
    m[R_SPLIT] = split
    spent = cost[C_LOCK] + spent_on(m, cost)
    move_work(m, out.totals, 0)
    settle(m, out.area, out.peak, start)
    end = m[R_THREAD_FREE] = start + max(1, (spent + 500) // 1000)
    out.totals[NR_WORK + T_PASSES] += 1
    again = m[R_WAKE_AT] <= start
    m[R_WAKE_AT] = max(m[R_WAKE_AT], end)
    if again:
        if (m[R_COUNT] == listed and m[G_HELD] == held and m[R_TARGET] == target
                and m[R_CURRENT] == current and m[R_TOTAL] == total):
            # The thread spins without getting anywhere; it would until something changes.
            out.totals[NR_WORK + T_BUSY] += 1
            m[R_WAKE_AT] = NEVER
    return lock_free if m[R_OWN_LOCK] else end


@inline
def _arrival(q: Requests, r: int) -> Any:
    """When a request came: as recorded, or as its plan has it."""
    return q.time[r] if q.plan.shape[0] == 0 else q.plan[q.plan[P_ARRIVAL] + r]


@template
def _free_early(free: Callable[..., int], m: np.ndarray, out: Out, first: int, count: int) -> None:
    """Give back pages of a woken sleeper whose free has come already."""
    kept = returned = 0
    total = out.totals[NR_WORK + T_EARLY]
    for k in range(total):
        slot = out.early[k]
        if first <= slot < first + count:
            out.scratch[returned] = out.frames[slot]
            returned += 1
        else:
            out.early[kept] = slot
            kept += 1
    out.totals[NR_WORK + T_EARLY] = kept
    if returned > 0:
        frames_returned(m, out.scratch, 0, returned)
        free(m, m[R_NOW], returned, out.scratch, 0)


@inline
def veil(frames: np.ndarray, first: int, count: int) -> None:
    """Mark frames of a sleeping call, which its caller cannot free yet; or unmark them."""
    for k in range(first, first + count):
        frames[k] = -2 - frames[k]


@inline
def fill(frames: np.ndarray, first: int, end: int, value: int) -> None:
    """One value for a range of slots."""
    for k in range(first, end):
        frames[k] = value


@inline
def outside(m: np.ndarray, cost: np.ndarray) -> Any:
    """Picoseconds of a call's work that add_memory_resource() does without the lock."""
    return (m[W_HOTPLUG_PAGE] * cost[W_HOTPLUG_PAGE - W]
            + m[W_HOTPLUG_SECTION] * cost[W_HOTPLUG_SECTION - W])


@inline
def add_later(m: np.ndarray, out: Out, r: int, now: int) -> None:
    """Request r has let go of the lock at `now`; adding takes R_ADD_NS, one region at a time."""
    k = out.totals[NR_WORK + T_ADDING]
    m[R_ADDS_FREE] = max(m[R_ADDS_FREE], now) + m[R_ADD_NS]
    out.totals[NR_WORK + T_ADDING] += 1
    m[R_SPLIT] = int(k + 1 < MOST_ADDING)
    out.adding[k, 0], out.adding[k, 1] = m[R_ADDS_FREE], r
    out.adding[k, 2], out.adding[k, 3] = m[R_ADD_START], m[R_ADD_PAGES]
    m[R_ADDED_AT] = min(m[R_ADDED_AT], m[R_ADDS_FREE])
    m[R_ADD_PAGES] = 0


@inline
def _added(m: np.ndarray, out: Out) -> Any:
    """The request whose memory is added first goes on: of one time, the one that let go first."""
    last = out.totals[NR_WORK + T_ADDING] - 1
    out.totals[NR_WORK + T_ADDING] = last
    at = 0
    while out.adding[at, 0] != m[R_ADDED_AT]:
        at += 1
    r, m[R_ADD_START], m[R_ADD_PAGES] = out.adding[at, 1], out.adding[at, 2], out.adding[at, 3]
    m[R_ADDED_AT], m[R_SPLIT] = NEVER, 1
    for k in range(last):
        if k >= at:
            for column in range(4):
                out.adding[k, column] = out.adding[k + 1, column]
        m[R_ADDED_AT] = min(m[R_ADDED_AT], out.adding[k, 0])
    return r


@template
def _go_on(alloc: Callable[..., int], free: Callable[..., int], m: np.ndarray, q: Requests,
           out: Out, cost: np.ndarray, r: int, start: int) -> Any:
    """A call that slept, or let go of the lock, has it again: (when it leaves it, error)."""
    frames = out.frames
    first, pages, had = q.first[r], q.pages[r], out.rows[r, C_RUNS]
    integrate(m, out.area, out.peak, start)
    veil(frames, first, had)
    m[R_NOW], m[R_REQUEST], m[R_GOT], m[R_RESUME] = start, r, had, 1
    error = alloc(m, start, pages, frames, first)
    m[R_RESUME] = 0
    without = outside(m, cost) if error == -E_ADDING else 0
    spent = cost[C_LOCK] + spent_on(m, cost) - without + (
        pages * cost[C_ALLOC_PAGE] if error == 0 else 0)
    move_work(m, out.work[r], 0)
    lock_free = start + max(1, (spent + 500) // 1000)
    if error == -E_WAIT or error == -E_ADDING:
        out.rows[r, C_RUNS] = m[R_GOT]
        frames_taken(m, frames, first + had, m[R_GOT] - had)
        veil(frames, first, m[R_GOT])
        if error == -E_ADDING:
            m[R_ADD_NS] = (without + 500) // 1000
            out.rows[r, C_SERVICE] += lock_free - start + m[R_ADD_NS]
            add_later(m, out, r, lock_free)
    else:
        out.rows[r, C_SERVICE] += lock_free - start
        came = _arrival(q, r)
        out.rows[r, C_WAIT] = lock_free - came - out.rows[r, C_SERVICE]
        out.rows[r, C_ERRNO] = error
        if error == 0:
            frames_taken(m, frames, first + had, pages - had)
            out.rows[r, C_RUNS] = count_runs(frames, first, pages)
            out.histograms[0, bucket_of(lock_free - came)] += 1
            out.histograms[3, bucket_of(lock_free - came)] += 1
            _free_early(free, m, out, first, pages)
        else:
            # The call gave back what it had got before it slept, too (out_undo).
            frames_returned(m, frames, first, had)
            out.rows[r, C_RUNS] = 0
            fill(frames, first, first + pages, -1)
        if q.plan.shape[0] > 0:
            returned(q.plan, r, lock_free)
    if m[R_MOVED]:
        settle(m, out.area, out.peak, m[R_NOW])
    return lock_free, error


@template
def background(alloc: Any, free: Any, wake: Any, m: np.ndarray, q: Requests, out: Out,
                cost: np.ndarray, lock_free: int, due: int, added_due: int) -> int:
    """All that have the lock before the next request; when it is free then.

    Sleepers, oldest first, once there is anything on the list; calls whose memory was added up to
    `added_due`; passes of the thread that are due up to `due`.
    """
    totals, stuck = out.totals, False
    while True:
        added = m[R_ADDED_AT]
        from_list = totals[NR_WORK + T_SLEEPING] > 0 and m[R_COUNT] > 0 and not stuck
        if not from_list and (added > added_due or m[R_WAKE_AT] <= due and m[R_WAKE_AT] < added):
            if m[R_WAKE_AT] > due:
                return lock_free
            lock_free = _thread_pass(wake, m, out, cost, lock_free)
            if q.plan.shape[0] > 0:
                q.plan[P_HELD_SLOWLY] |= 1 - m[R_OWN_LOCK]
                due = -1
            stuck = False
            continue
        r = out.sleeping[0] if from_list else _added(m, out)
        lock_free, error = _go_on(alloc, free, m, q, out, cost, r,
                                  lock_free if from_list else max(added, lock_free))
        if q.plan.shape[0] > 0:
            q.plan[P_HELD_SLOWLY] = 1
            added_due = -1
        if from_list and error != -E_WAIT:
            totals[NR_WORK + T_SLEEPING] -= 1
            for k in range(totals[NR_WORK + T_SLEEPING]):
                out.sleeping[k] = out.sleeping[k + 1]
        elif not from_list and error == -E_WAIT:
            out.sleeping[totals[NR_WORK + T_SLEEPING]] = r
            totals[NR_WORK + T_SLEEPING] += 1
        stuck = from_list and error == -E_WAIT
