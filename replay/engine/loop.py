"""The one compiled loop: requests in, outcome rows, frames, histograms and integrals out.

Each strategy file compiles it around its own alloc, free and wake: direct calls, cached on disk.

Time here is modelled: requests arrive at recorded times, one mutex per allocator is taken first
come first served, `start = max(arrival, lock free)`, and a call's effects count from its start.
Another order of arrivals or of lock holders is a plan's affair: see lock.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import INT, VECTOR, index, template
from replay.costs.primitives import WORK
from replay.engine.between import add_later, background, fill, move_work, outside, spent_on, veil
from replay.engine.gauges import A_LARGEST, A_LIVE, A_SINCE, A_UNUSABLE, integrate, settle
from replay.engine.histogram import bucket_of
from replay.engine.lock import (
    NOBODY, P_ADDED_DUE, P_ARRIVAL, P_DUE, P_HELD_SLOWLY, P_START, P_WAKE_NS, choose, returned,
)  # fmt: skip
from replay.engine.outcome import (
    ASLEEP, C_ALLOC_PAGE, C_ERRNO, C_FREE_PAGE, C_LOCK, C_PATH, C_RUNS, C_SERVICE, C_WAIT, FAST,
    NR_WORK, OUT_TYPE, SLEPT, SLOW, T_EARLY, T_SKIPPED, T_SLEEPING, Out,
)  # fmt: skip
from replay.engine.requests import ALLOC, FREE, REQUESTS_TYPE, TARGET, Requests
from replay.engine.state import BEYOND_LIST, E_ADDING, E_WAIT, NEVER, words
from replay.engine.tracking import frames_returned, frames_taken

LOOP = INT(VECTOR, REQUESTS_TYPE, OUT_TYPE, VECTOR)
COST_OF_WAKING = WORK.index("thread_wake")


@template
def loop(alloc: Any, free: Any, wake: Any, m: np.ndarray, q: Requests, out: Out,
         cost: np.ndarray) -> int:
    """Replay all requests; returns the modelled time at which the lock was last released.

    cost: picoseconds per primitive (WORK order), then per lock, per page of alloc and of free.

    The integrals of what moves with every call are kept in locals here (integrate() does the same
    for the rare paths): through memory they cost more than the rest of the loop together.
    """
    s = words(m)
    times, kinds, counts, firsts, slots, plan = q
    frames, rows, scratch = out.frames, out.rows, out.scratch
    area, peak, totals = out.area, out.peak, out.totals
    work, histograms, early, sleeping = out.work, out.histograms, out.early, out.sleeping
    lock_free = since = live_peak = 0
    live_area = unusable_area = largest_area = unusable_peak = largest_peak = 0.0
    settle(m, area, peak, 0)
    # The thread beside a pool takes no lock that callers wait for.
    s.split = 1 - s.own_lock
    planned, step = plan.shape[0] > 0, -1
    if planned:
        plan[P_DUE], plan[P_ADDED_DUE] = -1, -1
        plan[P_WAKE_NS] = (cost[COST_OF_WAKING] + 500) // 1000
    while True:
        step += 1
        # After the last request only calls that began go on: no thread is due before time 0.
        ended = step >= times.shape[0]
        arrival = -1 if planned or ended else times[step]
        # A thread with a lock of its own need not wait for its turn among the callers.
        due = max(arrival, lock_free * s.own_lock) if arrival >= 0 else -1
        added_due = NEVER - 1 if ended else arrival
        if planned:
            due, added_due = plan[P_DUE], plan[P_ADDED_DUE]
        if s.wake_at <= due or s.added_at <= added_due or (
                totals[NR_WORK + T_SLEEPING] > 0 and s.count > 0):
            area[A_LIVE], area[A_UNUSABLE], area[A_LARGEST] = live_area, unusable_area, largest_area
            area[A_SINCE] = since
            lock_free = background(alloc, free, wake, m, q, out, cost, lock_free, due, added_due)
            live_area, unusable_area, largest_area = area[A_LIVE], area[A_UNUSABLE], area[A_LARGEST]
            since = int(area[A_SINCE])
        r, start = step, max(arrival, lock_free)
        if planned:
            r = choose(m, plan, kinds, lock_free)
            if r == NOBODY:
                break
            start = plan[P_START]
            if r < 0:
                lock_free = max(lock_free, start)
                continue
            arrival = plan[plan[P_ARRIVAL] + r]
        elif ended:
            break
        kind, pages, first = kinds[r], counts[r], firsts[r]
        dt = start - since
        since = start
        live = s.gauge.live
        listed = s.gauge.held - live
        live_area += float(live) * dt
        live_peak = max(live_peak, live)
        if listed > 0:
            share = s.block_pages / listed
            unusable = 1.0 - s.gauge.whole * share
            largest = s.table.top * share
            unusable_area += unusable * dt
            largest_area += largest * dt
            if unusable > unusable_peak:
                unusable_peak = unusable
            if largest > largest_peak:
                largest_peak = largest
        s.now, s.request, error = start, r, 0
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
            s.target = pages
            if pages - s.current != (s.sleep_credit if s.bp_state else 0):
                s.wake_at = min(s.wake_at, max(start, s.thread_free))
            spent = 0
        if s.dirty:
            path = SLOW if s.dirty & BEYOND_LIST else FAST
            spent += spent_on(m, cost)
            if error == -E_ADDING:
                s.add_ns = (outside(m, cost) + 500) // 1000
                spent -= outside(m, cost)
            move_work(m, work[r], 0)
        if s.moved:
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
            elif error == -E_WAIT or error == -E_ADDING:
                rows[r, C_RUNS] = s.got
                frames_taken(m, frames, first, s.got)
                veil(frames, first, s.got)
                fill(frames, first + s.got, first + pages, ASLEEP)
                settle(m, area, peak, start)
                if error == -E_WAIT:
                    rows[r, C_PATH] = SLEPT
                    sleeping[totals[NR_WORK + T_SLEEPING]] = r
                    totals[NR_WORK + T_SLEEPING] += 1
                else:
                    rows[r, C_SERVICE] += s.add_ns
                    add_later(m, out, r, lock_free)
            else:
                # What a failing call wrote before it gave up is not the caller's.
                fill(frames, first, first + pages, -1)
        elif kind == FREE:
            histograms[4, bucket_of(lock_free - arrival)] += 1
        if planned:
            if kind != TARGET:
                plan[P_HELD_SLOWLY] = path
            if error != -E_WAIT and error != -E_ADDING:
                returned(plan, r, lock_free)
    for k in range(totals[NR_WORK + T_SLEEPING]):
        fill(frames, firsts[sleeping[k]], firsts[sleeping[k]] + counts[sleeping[k]], -1)
    area[A_LIVE], area[A_UNUSABLE], area[A_LARGEST] = live_area, unusable_area, largest_area
    area[A_SINCE] = since
    peak[A_LIVE] = max(peak[A_LIVE], float(live_peak))
    peak[A_UNUSABLE] = max(peak[A_UNUSABLE], unusable_peak)
    peak[A_LARGEST] = max(peak[A_LARGEST], largest_peak)
    end = max(lock_free, since)
    integrate(m, area, peak, end)
    settle(m, area, peak, end)
    return lock_free
