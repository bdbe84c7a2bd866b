"""Who gets the lock next, where that is not just the next request of the trace.

A plan is one int64 array: a header (PLAN), then segments. It says how requests come
(recorded times, or their task's last return and its thinking time), who waits, and by which
discipline the lock is passed on:

FIFO: first come, first served.
LIFO: last come, first served: no lock does that; how much fairness is worth at most.
SPIN: mutex_optimistic_spin() of kernel/locking/mutex.c, Linux 6.1. Who comes while the holder runs
    spins, and gets the lock in the order of coming (osq_lock). Who comes, or spins, while the
    holder sleeps, goes to sleep; that a holder off the fast path sleeps is assumed. A release wakes
    the first sleeper, which takes `thread_wake` ns to run; whoever comes or spins meanwhile is
    faster, once: then the lock is handed to it (MUTEX_FLAG_HANDOFF).

A call that let go of the lock while memory is hot-added takes its turn again by time (FIFO), or
before all others once the lock is free (SPIN, LIFO).

A free is not asked for before its pages are: it waits for the allocations that have not returned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import compiled, inline, record, seen_as, words_in
from replay.engine.requests import TARGET
from replay.engine.state import NEVER, words

FIFO, SPIN, LIFO = range(3)
DISCIPLINES = ("fifo", "spin", "lifo")

THREAD, ADDED, NOBODY = -1, -2, -3
"""What `choose` gives instead of a request: the background thread; the call whose memory was
hot-added first, which wants the lock again; nobody is left."""

RING = record("at", "head", "length")
"""Requests in a line: first word of its segment, place of the first in it, how many they are."""

PLAN = record(
    "discipline", "requests",
    # First words of segments with one word per request:
    "arrival",  # when it came, -1 until then
    "after", "think",  # the task's next request or -1; ns from the one before to this one
    "missing", "ready", "turn",  # of a free: allocations to wait for, their end, its task's turn
    "first", "frees",  # the frees that wait for request r: frees[first[r]:first[r + 1]]
    "times", "who", "coming",  # a heap of those that come, by time: two segments, their length
    ("queue", RING),  # those that wait: spinners (SPIN), all (LIFO)
    ("asleep", RING),  # those that sleep (SPIN)
    "awake_at",  # when the first sleeper runs, NEVER if nobody woke it
    "thread_waits", "held_slowly",  # the thread is in a ring; the last holder slept
    "start",  # of `choose`: when that one gets the lock
    "due", "added_due",  # of `choose`: until when the thread, or ADDED, is due; -1 for not at all
    "wake_ns",  # from waking a sleeper to its running
)  # fmt: skip
PLAN_HEADER = words_in(PLAN)
"""Words before the first segment."""
header = seen_as(PLAN)


# -- those that come -------------------------------------------------------------------------------
@inline
def push(p: np.ndarray, time: int, who: int) -> None:
    """Let a request come at a time."""
    plan = header(p)
    p[plan.arrival + who] = time
    times, names, k = plan.times, plan.who, plan.coming
    plan.coming = k + 1
    while k > 0:
        up = (k - 1) >> 1
        if p[times + up] < time or (p[times + up] == time and p[names + up] < who):
            break
        p[times + k], p[names + k] = p[times + up], p[names + up]
        k = up
    p[times + k], p[names + k] = time, who


@inline
def _pop(p: np.ndarray) -> Any:
    """Take the request that comes first."""
    plan = header(p)
    times, names = plan.times, plan.who
    first = p[names]
    size = plan.coming = plan.coming - 1
    time, who = p[times + size], p[names + size]
    k = 0
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (p[times + other] < p[times + child] or (
                p[times + other] == p[times + child] and p[names + other] < p[names + child])):
            child = other
        if time < p[times + child] or (time == p[times + child] and who < p[names + child]):
            break
        p[times + k], p[names + k] = p[times + child], p[names + child]
        k = child
    p[times + k], p[names + k] = time, who
    return first


@inline
def _thread_time(m: np.ndarray, p: np.ndarray) -> Any:
    """When the thread asks for the callers' lock; not once no request is left."""
    s, plan = words(m), header(p)
    left = plan.coming + plan.queue.length + plan.asleep.length
    return NEVER if s.own_lock or plan.thread_waits or left == 0 else s.wake_at


@inline
def _next_time(m: np.ndarray, p: np.ndarray) -> Any:
    """When the next one comes."""
    s, plan = words(m), header(p)
    time = min(_thread_time(m, p), s.added_at)
    return min(p[plan.times], time) if plan.coming > 0 else time


@inline
def _next(m: np.ndarray, p: np.ndarray) -> Any:
    """Take the next one; ADDED and the thread go before a request of the same time."""
    s, plan = words(m), header(p)
    time = _thread_time(m, p)
    if s.added_at < NEVER and s.added_at <= time and (
            plan.coming == 0 or s.added_at <= p[plan.times]):
        return ADDED
    if time < NEVER and (plan.coming == 0 or time <= p[plan.times]):
        return THREAD
    return _pop(p) if plan.coming > 0 else NOBODY


@inline
def _turn(p: np.ndarray, who: int, time: int) -> None:
    """A task gets to a request; a free then waits for its pages."""
    plan = header(p)
    if p[plan.missing + who] == 0:
        push(p, max(time, p[plan.ready + who]), who)
    else:
        p[plan.turn + who] = time


@compiled
def returned(p: np.ndarray, who: int, end: int) -> None:
    """A request has returned: its task goes on, frees of its pages need not wait for it."""
    plan = header(p)
    after = p[plan.after + who]
    if after >= 0:
        _turn(p, after, end + p[plan.think + after])
    for k in range(p[plan.first + who], p[plan.first + who + 1]):
        free = p[plan.frees + k]
        p[plan.missing + free] -= 1
        p[plan.ready + free] = max(p[plan.ready + free], end)
        if p[plan.missing + free] == 0 and p[plan.turn + free] >= 0:
            push(p, max(p[plan.turn + free], p[plan.ready + free]), free)


# -- those that wait -------------------------------------------------------------------------------
@inline
def _line_up(p: np.ndarray, ring: Any, who: int) -> None:
    """To the end of a ring."""
    p[ring.at + (ring.head + ring.length) % (header(p).requests + 1)] = who
    ring.length += 1


@inline
def _leave(p: np.ndarray, ring: Any, last: int) -> Any:
    """The first of a ring, or the last."""
    ring.length -= 1
    if last:
        return p[ring.at + (ring.head + ring.length) % (header(p).requests + 1)]
    who = p[ring.at + ring.head]
    ring.head = (ring.head + 1) % (header(p).requests + 1)
    return who


@inline
def _admit(m: np.ndarray, p: np.ndarray, kinds: np.ndarray, lock_free: int) -> Any:
    """Line up all that came while the lock was held; a new target does not wait for it."""
    plan = header(p)
    while _next_time(m, p) < lock_free:
        who = _next(m, p)
        if who >= 0 and kinds[who] == TARGET:
            return who
        if who == THREAD:
            plan.thread_waits = 1
        _line_up(p, plan.queue, who)
    if plan.discipline == SPIN and plan.held_slowly:
        while plan.queue.length > 0:
            _line_up(p, plan.asleep, _leave(p, plan.queue, 0))
    return NOBODY


@inline
def _spin(m: np.ndarray, p: np.ndarray, lock_free: int) -> Any:
    """The lock is released: an awake sleeper, a spinner, who comes before a sleeper is awake."""
    plan = header(p)
    if plan.asleep.length > 0 and plan.awake_at <= lock_free:
        plan.awake_at = NEVER
        return _leave(p, plan.asleep, 0)
    if plan.asleep.length > 0 and plan.awake_at == NEVER:
        plan.awake_at = lock_free + plan.wake_ns
    if plan.queue.length > 0:
        return _leave(p, plan.queue, 0)
    coming = _next_time(m, p)
    if plan.asleep.length > 0 and plan.awake_at <= coming:
        plan.start, plan.awake_at = plan.awake_at, NEVER
        return _leave(p, plan.asleep, 0)
    plan.start = coming
    return _next(m, p)


@inline
def _choose(m: np.ndarray, p: np.ndarray, kinds: np.ndarray, lock_free: int) -> Any:
    """The same without `due` and `added_due`."""
    s, plan = words(m), header(p)
    waiting = plan.queue.length + plan.asleep.length
    if s.own_lock and s.wake_at <= (
            lock_free if waiting > 0 else max(lock_free, _next_time(m, p))) and (
            waiting > 0 or plan.coming > 0):
        plan.start = lock_free
        return THREAD
    if plan.discipline == FIFO:
        plan.start = max(lock_free, _next_time(m, p))
        return _next(m, p)
    plan.start = lock_free
    if s.added_at <= lock_free:
        return ADDED
    who = _admit(m, p, kinds, lock_free)
    if who >= 0:
        return who
    if plan.discipline == SPIN:
        who = _spin(m, p, lock_free)
    elif plan.queue.length > 0:
        who = _leave(p, plan.queue, 1)
    else:
        plan.start = _next_time(m, p)
        who = _next(m, p)
    if who == THREAD:
        plan.thread_waits = 0
    return who


@compiled
def choose(m: np.ndarray, p: np.ndarray, kinds: np.ndarray, lock_free: int) -> Any:
    """Who gets the lock that was released at `lock_free`, or THREAD, or NOBODY; when: `start`.

    Who comes at the very time of a release finds the lock free, if nobody waited for it.
    """
    s, plan = words(m), header(p)
    who = _choose(m, p, kinds, lock_free)
    plan.due = s.wake_at if who == THREAD else -1
    plan.added_due = s.added_at if who == ADDED else -1
    return who
