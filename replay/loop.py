"""The one compiled loop: requests in, outcome rows, frames, histograms and integrals out.

Each strategy file compiles it around its own alloc, free and wake: direct calls, cached on disk.

Time here is modelled: requests arrive at recorded times, one mutex per allocator is taken first
come first served, `start = max(arrival, lock free)`, and a call's effects count from its start.
Another order of arrivals or of lock holders is a plan's affair: see queueing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from replay.allocators.state import (
    E_WAIT, G_HELD, G_LIVE, G_WHOLE, R_BLOCK_PAGES, R_BP_STATE, R_COUNT, R_CURRENT, R_DIRTY,
    R_GOT, R_MOVED, R_NOW, R_OWN_LOCK, R_REQUEST, R_RESUME, R_SLEEP_CREDIT, R_TARGET,
    R_THREAD_FREE, R_TOTAL, R_WAKE_AT, T_TOP, W_THREAD_WAKE, WORK, W,
)  # fmt: skip
from replay.allocators.tracking import frames_returned, frames_taken
from replay.histogram import bucket_of
from replay.integrals import (
    A_LARGEST, A_LIVE, A_SINCE, A_UNUSABLE, AREAS as AREAS, NR_AREA_WORDS as NR_AREA_WORDS,
    NR_GAUGES as NR_GAUGES, integrate, settle,
)  # fmt: skip
from replay.kernel import INT, REALS, TABLE, VECTOR, index, inline, template, types
from replay.queueing import (
    NOBODY, P_ARRIVAL, P_DUE, P_HELD_SLOWLY, P_START, P_WAKE_NS, THREAD, choose, returned,
)  # fmt: skip
from replay.stream import (
    ALLOC as ALLOC, FREE as FREE, REQUESTS_TYPE, TARGET as TARGET, Requests as Requests,
)  # fmt: skip

FAST, SLOW, SLEPT = 0, 1, 2
"""Values of the outcome's path: list operations only; more work; slept on a wait queue."""

NR_WORK = len(WORK)
C_LOCK, C_ALLOC_PAGE, C_FREE_PAGE = NR_WORK, NR_WORK + 1, NR_WORK + 2
"""Places in the cost vector (picoseconds) after one entry per primitive."""

ROW = ("wait_ns", "service_ns", "errno", "path", "runs")
C_WAIT, C_SERVICE, C_ERRNO, C_PATH, C_RUNS = range(5)

HISTOGRAMS = ("alloc_latency", "alloc_wait", "alloc_service", "alloc_slow", "free_latency")

T_SLEEPING, T_EARLY, T_BUSY, T_PASSES, T_SKIPPED = range(5)
NR_TALLIES = 8
ASLEEP = -(1 << 62)
"""In Out.frames while a call sleeps: pages it has not got. Those it has are -2 - frame."""


class Out(NamedTuple):
    """What the loop fills; sizes are fixed before it starts."""

    frames: np.ndarray
    """Frame per slot, -1 where none was allocated."""
    rows: np.ndarray
    """(requests, 5): see ROW."""
    work: np.ndarray
    """(requests, NR_WORK): primitives of slow calls; list operations of fast ones are implied."""
    histograms: np.ndarray
    """(HISTOGRAMS, HIST_BUCKETS) counts."""
    totals: np.ndarray
    """Primitives of background passes, then the T_* tallies."""
    sleeping: np.ndarray
    """Requests asleep on a wait queue, oldest first."""
    early: np.ndarray
    """Slots whose free came while their allocation was still asleep."""
    scratch: np.ndarray
    area: np.ndarray
    """Integrals over time, in value x ns; see AREAS."""
    peak: np.ndarray


OUT_TYPE = types.NamedTuple(
    [VECTOR, TABLE, TABLE, TABLE, VECTOR, VECTOR, VECTOR, VECTOR, REALS, REALS], Out)
LOOP = INT(VECTOR, REQUESTS_TYPE, OUT_TYPE, VECTOR)


@inline
def _spent(m: np.ndarray, cost: np.ndarray) -> int:
    """Picoseconds of the extra work that the current call reported."""
    total = 0
    for k in range(NR_WORK):
        total += m[W + k] * cost[k]
    return total


@inline
def _move_work(m: np.ndarray, into: np.ndarray, at: int) -> None:
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
    wake(m, start)
    spent = cost[C_LOCK] + _spent(m, cost)
    _move_work(m, out.totals, 0)
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
            m[R_WAKE_AT] = 1 << 62
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
def _veil(frames: np.ndarray, first: int, count: int) -> None:
    """Mark frames of a sleeping call, which its caller cannot free yet; or unmark them."""
    for k in range(first, first + count):
        frames[k] = -2 - frames[k]


@inline
def _fill(frames: np.ndarray, first: int, end: int, value: int) -> None:
    for k in range(first, end):
        frames[k] = value


@template
def _wake_sleepers(alloc: Callable[..., int], free: Callable[..., int], m: np.ndarray,
                   q: Requests, out: Out, cost: np.ndarray, lock_free: int) -> int:
    """The free list is not empty: sleepers go on, oldest first; new lock-free time."""
    frames = out.frames
    waiting = out.totals[NR_WORK + T_SLEEPING]
    asleep = False
    while waiting > 0 and m[R_COUNT] > 0 and not asleep:
        r = out.sleeping[0]
        first, pages, had = q.first[r], q.pages[r], out.rows[r, C_RUNS]
        integrate(m, out.area, out.peak, lock_free)
        _veil(frames, first, had)
        m[R_NOW], m[R_GOT], m[R_RESUME] = lock_free, had, 1
        error = alloc(m, lock_free, pages, frames, first)
        m[R_RESUME] = 0
        spent = cost[C_LOCK] + _spent(m, cost) + (pages * cost[C_ALLOC_PAGE] if error == 0 else 0)
        _move_work(m, out.work[r], 0)
        lock_free += max(1, (spent + 500) // 1000)
        asleep = error == -E_WAIT
        if asleep:
            out.rows[r, C_RUNS] = m[R_GOT]
            frames_taken(m, frames, first + had, m[R_GOT] - had)
            _veil(frames, first, m[R_GOT])
        else:
            out.rows[r, C_SERVICE] += max(1, (spent + 500) // 1000)
            came = _arrival(q, r)
            out.rows[r, C_WAIT] = lock_free - came - out.rows[r, C_SERVICE]
            out.rows[r, C_ERRNO] = error
            waiting -= 1
            for k in range(waiting):
                out.sleeping[k] = out.sleeping[k + 1]
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
                _fill(frames, first, first + pages, -1)
            if q.plan.shape[0] > 0:
                returned(q.plan, r, lock_free)
        if m[R_MOVED]:
            settle(m, out.area, out.peak, m[R_NOW])
    out.totals[NR_WORK + T_SLEEPING] = waiting
    return lock_free


@template
def loop(alloc: Any, free: Any, wake: Any, m: np.ndarray, q: Requests, out: Out,
         cost: np.ndarray) -> int:
    """Replay all requests; returns the modelled time at which the lock was last released.

    cost: picoseconds per primitive (WORK order), then per lock, per page of alloc and of free.

    The integrals of what moves with every call are kept in locals here (integrate() does the same
    for the rare paths): through memory they cost more than the rest of the loop together.
    """
    times, kinds, counts, firsts, slots, plan = q
    frames, rows, scratch = out.frames, out.rows, out.scratch
    area, peak, totals = out.area, out.peak, out.totals
    work, histograms, early, sleeping = out.work, out.histograms, out.early, out.sleeping
    lock_free = since = live_peak = 0
    live_area = unusable_area = largest_area = unusable_peak = largest_peak = 0.0
    settle(m, area, peak, 0)
    planned, step = plan.shape[0] > 0, -1
    if planned:
        plan[P_DUE], plan[P_WAKE_NS] = -1, (cost[W_THREAD_WAKE - W] + 500) // 1000
    while True:
        step += 1
        # After the last request only sleepers go on: no thread is due before time 0.
        arrival = -1 if planned or step >= times.shape[0] else times[step]
        # A thread with a lock of its own need not wait for its turn among the callers.
        due = max(arrival, lock_free * m[R_OWN_LOCK]) if arrival >= 0 else -1
        if planned:
            due = plan[P_DUE]
        if m[R_WAKE_AT] <= due or (totals[NR_WORK + T_SLEEPING] > 0 and m[R_COUNT] > 0):
            area[A_LIVE], area[A_UNUSABLE], area[A_LARGEST] = live_area, unusable_area, largest_area
            area[A_SINCE] = since
            while True:
                lock_free = _wake_sleepers(alloc, free, m, q, out, cost, lock_free)
                if m[R_WAKE_AT] > due:
                    break
                lock_free = _thread_pass(wake, m, out, cost, lock_free)
                if planned:
                    plan[P_HELD_SLOWLY] |= 1 - m[R_OWN_LOCK]
                    due = -1
            live_area, unusable_area, largest_area = area[A_LIVE], area[A_UNUSABLE], area[A_LARGEST]
            since = int(area[A_SINCE])
        r, start = step, max(arrival, lock_free)
        if planned:
            r = choose(m, plan, kinds, lock_free)
            if r == NOBODY:
                break
            start = plan[P_START]
            if r == THREAD:
                lock_free = max(lock_free, start)
                continue
            arrival = plan[plan[P_ARRIVAL] + r]
        elif r >= times.shape[0]:
            break
        kind, pages, first = kinds[r], counts[r], firsts[r]
        dt = start - since
        since = start
        live = m[G_LIVE]
        listed = m[G_HELD] - live
        live_area += float(live) * dt
        live_peak = max(live_peak, live)
        if listed > 0:
            share = m[R_BLOCK_PAGES] / listed
            unusable = 1.0 - m[G_WHOLE] * share
            largest = m[T_TOP] * share
            unusable_area += unusable * dt
            largest_area += largest * dt
            if unusable > unusable_peak:
                unusable_peak = unusable
            if largest > largest_peak:
                largest_peak = largest
        m[R_NOW], m[R_REQUEST], error = start, r, 0
        spent = cost[C_LOCK]
        path, runs = FAST, 0
        if kind == ALLOC:
            error = alloc(m, start, pages, frames, first)
            if error == 0:
                runs = frames_taken(m, frames, first, pages)
                spent += pages * cost[C_ALLOC_PAGE]
        elif kind == FREE:
            known = 0
            for k in range(index(first), index(first + pages)):
                slot = slots[k]
                frame = frames[index(slot)] if slot >= 0 else -1
                if frame >= 0:
                    scratch[known] = frame
                    known += 1
                elif frame < -1:  # its allocation is asleep
                    early[totals[NR_WORK + T_EARLY]] = slot
                    totals[NR_WORK + T_EARLY] += 1
            frames_returned(m, scratch, 0, known)
            totals[NR_WORK + T_SKIPPED] += pages - known
            if known > 0:
                error = free(m, start, known, scratch, 0)
            spent += known * cost[C_FREE_PAGE]
        else:
            # balloon_set_new_target(): no lock; the thread wakes if balloon_thread_cond() holds,
            # where BP_DONE, 0, stands for a credit of 0.
            m[R_TARGET] = pages
            if pages - m[R_CURRENT] != (m[R_SLEEP_CREDIT] if m[R_BP_STATE] else 0):
                m[R_WAKE_AT] = min(m[R_WAKE_AT], max(start, m[R_THREAD_FREE]))
            spent = 0
        if m[R_DIRTY]:
            path = SLOW
            spent += _spent(m, cost)
            _move_work(m, work[r], 0)
        if m[R_MOVED]:
            settle(m, area, peak, start)
        service = (spent + 500) // 1000
        lock_free = start + service
        rows[r, C_WAIT] = start - arrival
        rows[r, C_SERVICE] = service
        rows[r, C_ERRNO] = error
        rows[r, C_PATH] = path
        rows[r, C_RUNS] = runs
        if kind == ALLOC:
            if error == 0:
                histograms[0, bucket_of(lock_free - arrival)] += 1
                histograms[1, bucket_of(start - arrival)] += 1
                histograms[2, bucket_of(service)] += 1
                if path == SLOW:
                    histograms[3, bucket_of(lock_free - arrival)] += 1
            elif error == -E_WAIT:
                rows[r, C_PATH] = SLEPT
                rows[r, C_RUNS] = m[R_GOT]
                frames_taken(m, frames, first, m[R_GOT])
                _veil(frames, first, m[R_GOT])
                _fill(frames, first + m[R_GOT], first + pages, ASLEEP)
                settle(m, area, peak, start)
                sleeping[totals[NR_WORK + T_SLEEPING]] = r
                totals[NR_WORK + T_SLEEPING] += 1
            else:
                # What a failing call wrote before it gave up is not the caller's.
                _fill(frames, first, first + pages, -1)
        elif kind == FREE:
            histograms[4, bucket_of(lock_free - arrival)] += 1
        if planned:
            if kind != TARGET:
                plan[P_HELD_SLOWLY] = path
            if error != -E_WAIT:
                returned(plan, r, lock_free)
    for k in range(totals[NR_WORK + T_SLEEPING]):
        _fill(frames, firsts[sleeping[k]], firsts[sleeping[k]] + counts[sleeping[k]], -1)
    area[A_LIVE], area[A_UNUSABLE], area[A_LARGEST] = live_area, unusable_area, largest_area
    area[A_SINCE] = since
    peak[A_LIVE] = max(peak[A_LIVE], float(live_peak))
    peak[A_UNUSABLE] = max(peak[A_UNUSABLE], unusable_peak)
    peak[A_LARGEST] = max(peak[A_LARGEST], largest_peak)
    end = max(lock_free, since)
    integrate(m, area, peak, end)
    settle(m, area, peak, end)
    return lock_free
