"""Who has the lock between requests: the thread, calls that slept, calls that had let go of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.base.compiled import inline, template
from replay.costs.primitives import WORK
from replay.engine.gauges import integrate, settle
from replay.engine.histogram import bucket_of
from replay.engine.lock import P_ARRIVAL, P_HELD_SLOWLY, returned
from replay.engine.outcome import (
    C_ALLOC_PAGE, C_ERRNO, C_LOCK, C_RUNS, C_SERVICE, C_WAIT, MOST_ADDING, NR_WORK, T_ADDING,
    T_BUSY, T_EARLY, T_PASSES, T_SLEEPING, Out,
)  # fmt: skip
from replay.engine.requests import Requests
from replay.engine.state import E_ADDING, E_WAIT, FIRST_WORK, NEVER, words
from replay.engine.tracking import frames_returned, frames_taken

COST_OF_PAGE, COST_OF_SECTION = WORK.index("hotplug_page"), WORK.index("hotplug_section")


@inline
def spent_on(m: np.ndarray, cost: np.ndarray) -> int:
    """Picoseconds of the extra work that the current call reported."""
    total = 0
    for k in range(NR_WORK):
        total += m[FIRST_WORK + k] * cost[k]
    return total


@inline
def move_work(m: np.ndarray, into: np.ndarray, at: int) -> None:
    """Add the call's extra work to into[at:], and clear it."""
    s = words(m)
    for k in range(NR_WORK):
        into[at + k] += m[FIRST_WORK + k]
        m[FIRST_WORK + k] = 0
    s.dirty = 0


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
    s = words(m)
    start = s.wake_at if s.own_lock else max(s.wake_at, lock_free)
    integrate(m, out.area, out.peak, start)
    s.now = start
    listed, target, held = s.count, s.target, s.gauge.held
    current, total = s.current, s.total
    split, s.split = s.split, 0  # the thread's own hot-add keeps the lock
    wake(m, start)
    s.split = split
    spent = cost[C_LOCK] + spent_on(m, cost)
    move_work(m, out.totals, 0)
    settle(m, out.area, out.peak, start)
    end = s.thread_free = start + max(1, (spent + 500) // 1000)
    out.totals[NR_WORK + T_PASSES] += 1
    again = s.wake_at <= start
    s.wake_at = max(s.wake_at, end)
    if again:
        if (s.count == listed and s.gauge.held == held and s.target == target
                and s.current == current and s.total == total):
            # The thread spins without getting anywhere; it would until something changes.
            out.totals[NR_WORK + T_BUSY] += 1
            s.wake_at = NEVER
    return lock_free if s.own_lock else end


@inline
def _arrival(q: Requests, r: int) -> Any:
    """When a request came: as recorded, or as its plan has it."""
    return q.time[r] if q.plan.shape[0] == 0 else q.plan[q.plan[P_ARRIVAL] + r]


@template
def _free_early(free: Callable[..., int], m: np.ndarray, out: Out, first: int, count: int) -> None:
    """Give back pages of a woken sleeper whose free has come already."""
    s = words(m)
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
        free(m, s.now, returned, out.scratch, 0)


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
    s = words(m)
    return (s.work.hotplug_page * cost[COST_OF_PAGE]
            + s.work.hotplug_section * cost[COST_OF_SECTION])


@inline
def add_later(m: np.ndarray, out: Out, r: int, now: int) -> None:
    """Request r has let go of the lock at `now`; adding takes `add_ns`, one region at a time."""
    s = words(m)
    k = out.totals[NR_WORK + T_ADDING]
    s.adds_free = max(s.adds_free, now) + s.add_ns
    out.totals[NR_WORK + T_ADDING] += 1
    s.split = int(k + 1 < MOST_ADDING)
    out.adding[k, 0], out.adding[k, 1] = s.adds_free, r
    out.adding[k, 2], out.adding[k, 3] = s.add_start, s.add_pages
    s.added_at = min(s.added_at, s.adds_free)
    s.add_pages = 0


@inline
def _added(m: np.ndarray, out: Out) -> Any:
    """The request whose memory is added first goes on: of one time, the one that let go first."""
    s = words(m)
    last = out.totals[NR_WORK + T_ADDING] - 1
    out.totals[NR_WORK + T_ADDING] = last
    at = 0
    while out.adding[at, 0] != s.added_at:
        at += 1
    r, s.add_start, s.add_pages = out.adding[at, 1], out.adding[at, 2], out.adding[at, 3]
    s.added_at, s.split = NEVER, 1
    for k in range(last):
        if k >= at:
            for column in range(4):
                out.adding[k, column] = out.adding[k + 1, column]
        s.added_at = min(s.added_at, out.adding[k, 0])
    return r


@template
def _go_on(alloc: Callable[..., int], free: Callable[..., int], m: np.ndarray, q: Requests,
           out: Out, cost: np.ndarray, r: int, start: int) -> Any:
    """A call that slept, or let go of the lock, has it again: (when it leaves it, error)."""
    s = words(m)
    frames = out.frames
    first, pages, had = q.first[r], q.pages[r], out.rows[r, C_RUNS]
    integrate(m, out.area, out.peak, start)
    veil(frames, first, had)
    s.now, s.request, s.got, s.resume = start, r, had, 1
    error = alloc(m, start, pages, frames, first)
    s.resume = 0
    without = outside(m, cost) if error == -E_ADDING else 0
    spent = cost[C_LOCK] + spent_on(m, cost) - without + (
        pages * cost[C_ALLOC_PAGE] if error == 0 else 0)
    move_work(m, out.work[r], 0)
    lock_free = start + max(1, (spent + 500) // 1000)
    if error == -E_WAIT or error == -E_ADDING:
        out.rows[r, C_RUNS] = s.got
        frames_taken(m, frames, first + had, s.got - had)
        veil(frames, first, s.got)
        if error == -E_ADDING:
            s.add_ns = (without + 500) // 1000
            out.rows[r, C_SERVICE] += lock_free - start + s.add_ns
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
    if s.moved:
        settle(m, out.area, out.peak, s.now)
    return lock_free, error


@template
def background(alloc: Any, free: Any, wake: Any, m: np.ndarray, q: Requests, out: Out,
                cost: np.ndarray, lock_free: int, due: int, added_due: int) -> int:
    """All that have the lock before the next request; when it is free then.

    Sleepers, oldest first, once there is anything on the list; calls whose memory was added up to
    `added_due`; passes of the thread that are due up to `due`.
    """
    s = words(m)
    totals, stuck = out.totals, False
    while True:
        added = s.added_at
        from_list = totals[NR_WORK + T_SLEEPING] > 0 and s.count > 0 and not stuck
        if not from_list and (added > added_due or s.wake_at <= due and s.wake_at < added):
            if s.wake_at > due:
                return lock_free
            lock_free = _thread_pass(wake, m, out, cost, lock_free)
            if q.plan.shape[0] > 0:
                q.plan[P_HELD_SLOWLY] |= 1 - s.own_lock
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
