"""Who has the lock between requests: the thread, calls that slept, calls that had let go of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.base.compiled import inline, template
from replay.engine.gauges import integrate, settle
from replay.engine.histogram import bucket_of
from replay.engine.lock import header, returned
from replay.engine.outcome import MOST_ADDING, Out, tallies
from replay.engine.requests import Requests
from replay.engine.spending import costs, move_work, nanoseconds, outside, spent_on
from replay.engine.state import E_ADDING, E_WAIT, NEVER, words
from replay.engine.tracking import frames_returned, frames_taken


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
    s, counted = words(m), tallies(out.totals)
    start = s.wake_at if s.own_lock else max(s.wake_at, lock_free)
    integrate(m, out, start)
    s.now = start
    listed, target, held = s.count, s.target, s.gauge.held
    current, total = s.current, s.total
    split, s.split = s.split, 0  # the thread's own hot-add keeps the lock
    wake(m, start)
    s.split = split
    spent = costs(cost).lock + spent_on(m, cost)
    move_work(m, out.totals)
    settle(m, out, start)
    end = s.thread_free = start + max(1, nanoseconds(spent))
    counted.passes += 1
    again = s.wake_at <= start
    s.wake_at = max(s.wake_at, end)
    if again:
        if (s.count == listed and s.gauge.held == held and s.target == target
                and s.current == current and s.total == total):
            # The thread spins without getting anywhere; it would until something changes.
            counted.busy += 1
            s.wake_at = NEVER
    return lock_free if s.own_lock else end


@inline
def _arrival(q: Requests, r: int) -> Any:
    """When a request came: as recorded, or as its plan has it."""
    return q.time[r] if q.plan.shape[0] == 0 else q.plan[header(q.plan).arrival + r]


@template
def _free_early(free: Callable[..., int], m: np.ndarray, out: Out, first: int, count: int) -> None:
    """Give back pages of a woken sleeper whose free has come already."""
    s, counted = words(m), tallies(out.totals)
    kept = returned = 0
    total = counted.early
    for k in range(total):
        slot = out.early[k]
        if first <= slot < first + count:
            out.scratch[returned] = out.frames[slot]
            returned += 1
        else:
            out.early[kept] = slot
            kept += 1
    counted.early = kept
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
def add_later(m: np.ndarray, out: Out, r: int, now: int) -> None:
    """Request r has let go of the lock at `now`; adding takes `add_ns`, one region at a time."""
    s, counted = words(m), tallies(out.totals)
    call = out.adding[counted.adding]
    s.adds_free = max(s.adds_free, now) + s.add_ns
    counted.adding += 1
    s.split = int(counted.adding < MOST_ADDING)
    call.due_ns, call.request = s.adds_free, r
    call.start_pfn, call.nr_pages = s.add_start, s.add_pages
    s.added_at = min(s.added_at, s.adds_free)
    s.add_pages = 0


@inline
def _added(m: np.ndarray, out: Out) -> Any:
    """The request whose memory is added first goes on: of one time, the one that let go first."""
    s, counted = words(m), tallies(out.totals)
    counted.adding -= 1
    at = 0
    while out.adding[at].due_ns != s.added_at:
        at += 1
    call = out.adding[at]
    r, s.add_start, s.add_pages = call.request, call.start_pfn, call.nr_pages
    s.added_at, s.split = NEVER, 1
    for k in range(counted.adding):
        if k >= at:
            out.adding[k] = out.adding[k + 1]
        s.added_at = min(s.added_at, out.adding[k].due_ns)
    return r


@template
def _go_on(alloc: Callable[..., int], free: Callable[..., int], m: np.ndarray, q: Requests,
           out: Out, cost: np.ndarray, r: int, start: int) -> Any:
    """A call that slept, or let go of the lock, has it again: (when it leaves it, error)."""
    s, row = words(m), out.rows[r]
    frames = out.frames
    first, pages, had = q.first[r], q.pages[r], row.runs
    integrate(m, out, start)
    veil(frames, first, had)
    s.now, s.request, s.got, s.resume = start, r, had, 1
    error = alloc(m, start, pages, frames, first)
    s.resume = 0
    without = outside(m, cost) if error == -E_ADDING else 0
    spent = costs(cost).lock + spent_on(m, cost) - without + (
        pages * costs(cost).alloc_page if error == 0 else 0)
    move_work(m, out.work[r])
    lock_free = start + max(1, nanoseconds(spent))
    if error == -E_WAIT or error == -E_ADDING:
        row.runs = s.got
        frames_taken(m, frames, first + had, s.got - had)
        veil(frames, first, s.got)
        if error == -E_ADDING:
            s.add_ns = nanoseconds(without)
            row.service_ns += lock_free - start + s.add_ns
            add_later(m, out, r, lock_free)
    else:
        row.service_ns += lock_free - start
        came = _arrival(q, r)
        row.wait_ns = lock_free - came - row.service_ns
        row.errno = error
        if error == 0:
            frames_taken(m, frames, first + had, pages - had)
            row.runs = count_runs(frames, first, pages)
            out.alloc_latency[bucket_of(lock_free - came)] += 1
            out.alloc_slow[bucket_of(lock_free - came)] += 1
            _free_early(free, m, out, first, pages)
        else:
            # The call gave back what it had got before it slept, too (out_undo).
            frames_returned(m, frames, first, had)
            row.runs = 0
            fill(frames, first, first + pages, -1)
        if q.plan.shape[0] > 0:
            returned(q.plan, r, lock_free)
    if s.moved:
        settle(m, out, s.now)
    return lock_free, error


@template
def background(alloc: Any, free: Any, wake: Any, m: np.ndarray, q: Requests, out: Out,
               cost: np.ndarray, lock_free: int, due: int, added_due: int) -> int:
    """All that have the lock before the next request; when it is free then.

    Sleepers, oldest first, once there is anything on the list; calls whose memory was added up to
    `added_due`; passes of the thread that are due up to `due`.
    """
    s = words(m)
    counted, stuck = tallies(out.totals), False
    while True:
        added = s.added_at
        from_list = counted.sleeping > 0 and s.count > 0 and not stuck
        if not from_list and (added > added_due or s.wake_at <= due and s.wake_at < added):
            if s.wake_at > due:
                return lock_free
            lock_free = _thread_pass(wake, m, out, cost, lock_free)
            if q.plan.shape[0] > 0:
                header(q.plan).held_slowly |= 1 - s.own_lock
                due = -1
            stuck = False
            continue
        r = out.sleeping[0] if from_list else _added(m, out)
        lock_free, error = _go_on(alloc, free, m, q, out, cost, r,
                                  lock_free if from_list else max(added, lock_free))
        if q.plan.shape[0] > 0:
            header(q.plan).held_slowly = 1
            added_due = -1
        if from_list and error != -E_WAIT:
            counted.sleeping -= 1
            for k in range(counted.sleeping):
                out.sleeping[k] = out.sleeping[k + 1]
        elif not from_list and error == -E_WAIT:
            out.sleeping[counted.sleeping] = r
            counted.sleeping += 1
        stuck = from_list and error == -E_WAIT
