"""Who has the lock between requests: the thread, calls that slept, calls that had let go of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.base.compiled import template
from replay.engine.gauges import integrate, settle
from replay.engine.histogram import bucket_of
from replay.engine.lock import header, returned
from replay.engine.outcome import SLEPT, Out, tallies
from replay.engine.paused import add_later, added, freed_early, hand_over, put_row, woken
from replay.engine.requests import Requests
from replay.engine.spending import (
    costs, move_calls_work, move_work, nanoseconds, note_work, outside, spent_on,
    wait_once,
)  # fmt: skip
from replay.engine.state import E_ADDING, E_WAIT, NEVER, words
from replay.engine.tracking import count_runs, frames_returned, frames_taken


@template
def _thread_pass(wake: Callable[..., int], m: np.ndarray, out: Out, cost: np.ndarray,
                 lock_free: int) -> int:
    """One pass of the background thread, which has asked for its lock; when callers' is free.

    A pass that lets go of the lock while it adds memory goes on in another one.
    """
    s, counted = words(m), tallies(out.totals)
    slept_with = s.sleep_credit if s.bp_state else 0
    if s.woken and s.wake_at < s.sleep_until and s.target - s.current == slept_with:
        # What woke it has passed: wait_event_timeout() sleeps on.
        s.wake_at, s.woken = s.sleep_until, 0
        return lock_free
    start = s.wake_at if s.own_lock else max(s.wake_at, lock_free)
    integrate(m, out, start)
    s.now = start
    listed, target, held = s.count, s.target, s.gauge.held
    current, total = s.current, s.total
    counted.passes += s.thread_pages == 0
    s.woken = 0
    s.add_start, s.add_pages, s.thread_pages = s.thread_start, s.thread_pages, 0
    adds = wake(m, start) == -E_ADDING
    s.faults.reason = 0
    wait_once(m, cost, start)
    without = outside(m, cost) if adds else 0
    spent = costs(cost).lock + spent_on(m, cost) - without
    move_work(m, out.totals)
    settle(m, out, start)
    end = s.thread_free = start + max(1, nanoseconds(spent))
    if adds:
        s.wake_at = s.sleep_until = s.adds_free = max(s.adds_free, end) + nanoseconds(without)
        s.thread_start, s.thread_pages, s.add_pages = s.add_start, max(1, s.add_pages), 0
        return end
    again = s.wake_at <= start
    s.sleep_until, s.woken = s.wake_at, 0
    s.wake_at = max(s.wake_at, end)
    if again:
        if (s.count == listed and s.gauge.held == held and s.target == target
                and s.current == current and s.total == total):
            # The thread spins without getting anywhere; it would until something changes.
            counted.busy += 1
            s.wake_at = NEVER
    return lock_free if s.own_lock else end


@template
def _served(free: Callable[..., int], m: np.ndarray, out: Out, call: Any, end: int) -> int:
    """A call that was under way has all its pages; the runs of frames they form."""
    s = words(m)
    frames_taken(m, out.kept, call.kept + call.got, call.pages - call.got)
    out.alloc_latency[bucket_of(end - call.arrival)] += 1
    out.alloc_slow[bucket_of(end - call.arrival)] += 1
    out.alloc_wait[bucket_of(call.wait_ns)] += 1
    out.alloc_service[bucket_of(call.service_ns)] += 1
    hand_over(out, call, True)
    count = freed_early(out, call)
    if count > 0:
        frames_returned(m, out.scratch, 0, count)
        free(m, s.now, count, out.scratch, 0)
    return count_runs(out.kept, call.kept, call.pages)


@template
def _go_on(alloc: Callable[..., int], free: Callable[..., int], m: np.ndarray, q: Requests,
           out: Out, cost: np.ndarray, call: Any, start: int) -> Any:
    """A call that slept, or let go of the lock, has it again: (when it leaves it, error)."""
    s, price, pages = words(m), costs(cost), call.pages
    integrate(m, out, start)
    s.now, s.request, s.got, s.resume = start, call.request, call.got, 1
    error = alloc(m, start, pages, out.kept, call.kept)
    s.resume = 0
    reason, s.faults.reason = s.faults.reason, 0
    wait_once(m, cost, start)
    without = outside(m, cost) if error == -E_ADDING else 0
    spent = price.lock + spent_on(m, cost) - without + (
        pages * price.alloc_page if error == 0 else 0)
    if call.late >= 0:
        move_calls_work(m, out.late_work[call.late], out)
    else:
        row = out.rows[call.request - tallies(out.totals).first_request]
        row.worked = note_work(m, out, row.worked)
    lock_free = start + max(1, nanoseconds(spent))
    if error == -E_WAIT or error == -E_ADDING:
        frames_taken(m, out.kept, call.kept + call.got, s.got - call.got)
        call.got = s.got
        if error == -E_ADDING:
            s.add_ns = nanoseconds(without)
            call.service_ns += lock_free - start + s.add_ns
            add_later(m, out, call, lock_free)
        else:
            # What it added did not help: from here on it sleeps as any other does.
            call.errno, call.path = error, SLEPT
        put_row(out, call, call.errno, call.got, 0)
    else:
        call.service_ns += lock_free - start
        call.wait_ns = lock_free - call.arrival - call.service_ns
        runs = reason
        if error == 0:
            runs = _served(free, m, out, call, lock_free)
        else:
            # The call gave back what it had got before it slept, too (out_undo).
            frames_returned(m, out.kept, call.kept, call.got)
            hand_over(out, call, False)
        put_row(out, call, error, runs, pages if error == 0 else 0)
        if q.plan.shape[0] > 0:
            returned(q.plan, call.request, lock_free)
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
        due_add = s.added_at
        from_list = counted.sleeping > 0 and s.count > 0 and not stuck
        if not from_list and (due_add > added_due or s.wake_at <= due and s.wake_at < due_add):
            if s.wake_at > due:
                return lock_free
            lock_free = _thread_pass(wake, m, out, cost, lock_free)
            if q.plan.shape[0] > 0:
                header(q.plan).held_slowly |= 1 - s.own_lock
                due = -1
            stuck = False
            continue
        if not from_list:
            added(m, out)
            lock_free = max(due_add, lock_free)
        call = out.sleeping[0] if from_list else out.going[0]
        lock_free, error = _go_on(alloc, free, m, q, out, cost, call, lock_free)
        if q.plan.shape[0] > 0:
            header(q.plan).held_slowly = 1
            added_due = -1
        if from_list and error != -E_WAIT:
            woken(out)
        elif not from_list and error == -E_WAIT:
            out.sleeping[counted.sleeping] = call
            counted.sleeping += 1
        stuck = from_list and error == -E_WAIT
