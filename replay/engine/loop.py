"""The one compiled loop: requests in, outcome rows, frames, histograms and integrals out.

Each strategy file compiles it around its own alloc, free and wake: direct calls, cached on disk.

Time here is modelled: requests arrive at recorded times, one mutex per allocator is taken first
come first served, `start = max(arrival, lock free)`, and a call's effects count from its start.
Another order of arrivals or of lock holders is a plan's affair: see lock.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import compiled, index, inline, likely, template, unlikely
from replay.engine.between import background
from replay.engine.gauges import areas, free_shares, integrate, settle
from replay.engine.histogram import bucket_of
from replay.engine.lock import NOBODY, choose, header, returned
from replay.engine.outcome import FAST, NO_FRAME, SLEPT, SLOW, Out, tallies
from replay.engine.paused import add_later, cramped, fill, free_later, pause
from replay.engine.requests import ALLOC, FREE, TARGET, Requests
from replay.engine.spending import costs, nanoseconds, note_work, outside, spent_on, wait_once
from replay.engine.state import BEYOND_LIST, E_ADDING, E_WAIT, NEVER, words
from replay.engine.tracking import frames_returned, frames_taken


@inline
def _begin(m: np.ndarray, q: Requests, out: Out, cost: np.ndarray) -> None:
    """Before the first request of all."""
    tallies(out.totals).begun = 1
    settle(m, out, 0)
    # The thread beside a pool takes no lock that callers wait for.
    words(m).split = 1 - words(m).own_lock
    words(m).wake_ns = nanoseconds(costs(cost).wake_latency)
    if q.plan.shape[0] > 0:
        header(q.plan).due = header(q.plan).added_due = -1
        header(q.plan).wake_ns = nanoseconds(costs(cost).thread_wake)


@inline
def _others(m: np.ndarray, out: Out) -> int:
    """When background() must be asked for other calls than the next: at once if any sleeps."""
    return -1 if tallies(out.totals).sleeping > 0 else words(m).added_at


@inline
def _hand_out(frames: np.ndarray, at: int, live: np.ndarray, slot: int, count: int) -> None:
    """The frames of a request go to its slots."""
    if likely(count == 1):
        live[index(slot)] = frames[index(at)]
        return
    for k in range(index(count)):
        live[index(slot) + k] = frames[index(at) + k]


@compiled
def _all_held(slots: np.ndarray, first: int, pages: int, live: np.ndarray,
              scratch: np.ndarray) -> Any:
    """_held() of any number of pages."""
    known = under = 0
    for k in range(index(first), index(first + pages)):
        slot = slots[k]
        if unlikely(slot < 0):
            continue
        frame = live[index(slot)]
        if likely(frame >= 0):
            scratch[index(known)] = frame
            known += 1
        elif frame < NO_FRAME:
            under += 1
    return known, under


@inline
def _held(slots: np.ndarray, first: int, pages: int, live: np.ndarray, scratch: np.ndarray) -> Any:
    """Put the frames of a free's pages into scratch: (how many there are, pages whose allocation
    is under way)."""
    if likely(pages == 1):
        slot = slots[index(first)]
        if likely(slot >= 0):
            frame = live[index(slot)]
            if likely(frame >= 0):
                scratch[index(0)] = frame
                return 1, 0
    return _all_held(slots, first, pages, live, scratch)


@template
def loop(alloc: Any, free: Any, wake: Any, m: np.ndarray, q: Requests, out: Out,
         cost: np.ndarray) -> int:
    """Replay a batch of requests; what is carried on to the next one is in `m` and `out`.

    Returns 0 when it is through, or 1 if `out` needs more room before the next request, see
    paused.cramped(): called again, it goes on from there. cost: the words of spending.COSTS.

    The integrals of what moves with every call are kept in locals here (integrate() does the same
    for the rare paths): through memory they cost more than the rest of the loop together.
    """
    s = words(m)
    times, kinds, counts, firsts, slots, plan = q
    frames, live, scratch, sleeping = out.frames, out.live, out.scratch, out.sleeping
    latencies, waits, services, slow, frees = (
        out.alloc_latency, out.alloc_wait, out.alloc_service, out.alloc_slow, out.free_latency)
    area, peak, counted, price = areas(out.area), areas(out.peak), tallies(out.totals), costs(cost)
    planned, live_peak, unusable_peak, largest_peak = plan.shape[0] > 0, 0, 0.0, 0.0
    if counted.begun == 0:
        _begin(m, q, out, cost)
    step, place, base = counted.step, counted.place, counted.first_request
    lock_free, since, live_area = counted.lock_free, counted.since, area.live_pages
    unusable_area, largest_area = area.unusable_free_index, area.largest_free_run
    others, block_pages = _others(m, out), float(s.block_pages)
    in_order = 0 if planned else times.shape[0]
    full = cramped(out)
    while not full and (step < times.shape[0] or counted.last):
        if likely(step < in_order):
            arrival = added_due = times[index(step)]
            due = start = max(arrival, lock_free)
        elif planned:
            arrival, start, due, added_due = -1, -1, header(plan).due, header(plan).added_due
        else:
            # After the last request only calls that began go on: no thread is due before time 0.
            arrival, start, due, added_due = -1, -1, -1, NEVER - 1
        if unlikely(s.wake_at <= due or others <= added_due):
            area.live_pages, counted.since = live_area, since
            area.unusable_free_index, area.largest_free_run = unusable_area, largest_area
            # A thread with a lock of its own need not wait for its turn among the callers.
            due = due if planned or s.own_lock else arrival
            lock_free = background(alloc, free, wake, m, q, out, cost, lock_free, due, added_due)
            start = max(arrival, lock_free)
            live_area, since = area.live_pages, counted.since
            unusable_area, largest_area = area.unusable_free_index, area.largest_free_run
            others = _others(m, out)
        r = step
        if unlikely(step >= in_order):
            r = choose(m, plan, kinds, lock_free) if planned else NOBODY
            if r == NOBODY:
                counted.last, step = 0, times.shape[0] + 1
                break
            start = header(plan).start
            if r < 0:
                lock_free = max(lock_free, start)
                step += 1
                continue
            arrival, place = plan[header(plan).arrival + r], firsts[index(r)]
        step += 1
        kind, pages, first = kinds[index(r)], counts[index(r)], firsts[index(r)]
        at = place
        dt = start - since
        since = start
        held = s.gauge.live
        listed = s.gauge.held - held
        live_area += float(held) * dt
        live_peak = max(live_peak, held)
        if listed > 0:
            unusable, largest = free_shares(s.gauge.whole, s.table.top, block_pages, listed)
            unusable_area += unusable * dt
            largest_area += largest * dt
            if unusable > unusable_peak:
                unusable_peak = unusable
            if largest > largest_peak:
                largest_peak = largest
        s.now, s.request, error = start, base + r, 0
        spent = price.lock
        path, runs, moved, worked, reason = FAST, 0, 0, 0, 0
        if kind == ALLOC:
            place += pages
            error = alloc(m, start, pages, frames, at)
            if likely(error == 0):
                runs, moved = frames_taken(m, frames, at, pages), pages
                if counted.apart:
                    _hand_out(frames, at, live, first, pages)
                spent += pages * price.alloc_page
        elif kind == FREE:
            known, under = _held(slots, first, pages, live, scratch)
            if unlikely(under > 0):
                free_later(out, slots, first, pages)
                full = True
            frames_returned(m, scratch, 0, known)
            if unlikely(known < pages):
                counted.skipped += pages - known
            if likely(known > 0):
                error = free(m, start, known, scratch, 0)
            spent += known * price.free_page
            moved = known
        else:
            # balloon_set_new_target(): no lock; the thread wakes if balloon_thread_cond() holds,
            # where BP_DONE, 0, stands for a credit of 0. One that runs sees it when it is done.
            s.target = pages
            if pages - s.current != (s.sleep_credit if s.bp_state else 0) and s.thread_pages == 0:
                awake = s.thread_free if start < s.thread_free else start + s.wake_ns
                s.wake_at, s.woken = min(s.wake_at, awake), 1
            spent = 0
        if unlikely(s.dirty != 0):
            path = SLOW if s.dirty & BEYOND_LIST else FAST
            wait_once(m, cost, start)
            spent += spent_on(m, cost)
            if error == -E_ADDING:
                s.add_ns = nanoseconds(outside(m, cost))
                spent -= outside(m, cost)
            worked, full = note_work(m, out, 0), True
            reason, s.faults.reason = s.faults.reason, 0
        if unlikely(s.moved != 0):
            settle(m, out, start)
        service = nanoseconds(spent)
        lock_free = start + service
        row = out.rows[index(r)]
        row.wait_ns = start - arrival
        row.service_ns = service
        row.errno = error
        row.path = path
        row.runs = runs
        row.pages = moved
        row.worked = worked
        if kind == ALLOC:
            if likely(error == 0):
                latencies[bucket_of(lock_free - arrival)] += 1
                waits[bucket_of(start - arrival)] += 1
                services[bucket_of(service)] += 1
                if unlikely(path == SLOW):
                    slow[bucket_of(lock_free - arrival)] += 1
            elif error == -E_WAIT or error == -E_ADDING:
                row.runs, full = s.got, True
                frames_taken(m, frames, at, s.got)
                settle(m, out, start)
                if error == -E_WAIT:
                    row.path = SLEPT
                else:
                    row.service_ns += s.add_ns
                call = out.going[0]
                pause(m, out, call, base + r, pages, first, at, arrival, row)
                if error == -E_WAIT:
                    sleeping[counted.sleeping] = call
                    counted.sleeping += 1
                else:
                    add_later(m, out, call, lock_free)
                others = _others(m, out)
            else:
                # What a failing call wrote before it gave up is not the caller's.
                row.runs = reason
                fill(frames, at, at + pages, NO_FRAME)
                fill(live, first, first + pages, NO_FRAME)
        elif kind == FREE:
            frees[bucket_of(lock_free - arrival)] += 1
        if unlikely(planned):
            if kind != TARGET:
                header(plan).held_slowly = path
            if error != -E_WAIT and error != -E_ADDING:
                returned(plan, r, lock_free)
        if unlikely(full):
            full = cramped(out)
    counted.step, counted.place, counted.lock_free = step, place, lock_free
    area.live_pages, counted.since = live_area, since
    area.unusable_free_index, area.largest_free_run = unusable_area, largest_area
    peak.live_pages = max(peak.live_pages, float(live_peak))
    peak.unusable_free_index = max(peak.unusable_free_index, unusable_peak)
    peak.largest_free_run = max(peak.largest_free_run, largest_peak)
    if step > times.shape[0] and not full:
        end = max(lock_free, since)
        integrate(m, out, end)
        settle(m, out, end)
    return int(full)
