"""Who gets the lock next, where that is not just the next request of the trace.

A plan is one int64 array: a header (the words below), then segments. It says how requests come
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

from replay.base.compiled import inline, compiled
from replay.engine.requests import TARGET
from replay.engine.state import NEVER, words

FIFO, SPIN, LIFO = range(3)
DISCIPLINES = ("fifo", "spin", "lifo")

THREAD, ADDED, NOBODY = -1, -2, -3
"""What `choose` gives instead of a request: the background thread; the call whose memory was
hot-added first, which wants the lock again; nobody is left."""

(
    P_DISCIPLINE, P_REQUESTS,
    P_ARRIVAL,  # when each request came, -1 until then
    P_AFTER, P_THINK,  # the task's next request or -1; ns from the one before to this one
    P_MISSING, P_READY, P_TURN,  # of a free: allocations to wait for, their end, its task's turn
    P_FIRST, P_FREES,  # the frees that wait for request r: FREES[FIRST[r]:FIRST[r + 1]]
    P_TIMES, P_WHO, P_COMING,  # a heap of those that come, by time: two segments, their length
    P_QUEUE, P_HEAD, P_WAITING,  # a ring of those that wait: spinners (SPIN), all (LIFO)
    P_ASLEEP, P_ASLEEP_HEAD, P_SLEEPING,  # a ring of those that sleep (SPIN)
    P_AWAKE_AT,  # when the first sleeper runs, NEVER if nobody woke it
    P_THREAD_WAITS, P_HELD_SLOWLY,  # the thread is in a ring; the last holder slept
    P_START,  # of `choose`: when that one gets the lock
    P_DUE, P_ADDED_DUE,  # of `choose`: until when the thread, or ADDED, is due; -1 for not at all
    P_WAKE_NS,  # from waking a sleeper to its running
) = range(26)  # fmt: skip
PLAN_HEADER = 26


# -- those that come -------------------------------------------------------------------------------
@inline
def push(p: np.ndarray, time: int, who: int) -> None:
    """Let a request come at a time."""
    p[p[P_ARRIVAL] + who] = time
    times, names, k = p[P_TIMES], p[P_WHO], p[P_COMING]
    p[P_COMING] = k + 1
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
    times, names = p[P_TIMES], p[P_WHO]
    first = p[names]
    size = p[P_COMING] = p[P_COMING] - 1
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
    s = words(m)
    left = p[P_COMING] + p[P_WAITING] + p[P_SLEEPING]
    return NEVER if s.own_lock or p[P_THREAD_WAITS] or left == 0 else s.wake_at


@inline
def _next_time(m: np.ndarray, p: np.ndarray) -> Any:
    """When the next one comes."""
    s = words(m)
    time = min(_thread_time(m, p), s.added_at)
    return min(p[p[P_TIMES]], time) if p[P_COMING] > 0 else time


@inline
def _next(m: np.ndarray, p: np.ndarray) -> Any:
    """Take the next one; ADDED and the thread go before a request of the same time."""
    s = words(m)
    time = _thread_time(m, p)
    if s.added_at < NEVER and s.added_at <= time and (
            p[P_COMING] == 0 or s.added_at <= p[p[P_TIMES]]):
        return ADDED
    if time < NEVER and (p[P_COMING] == 0 or time <= p[p[P_TIMES]]):
        return THREAD
    return _pop(p) if p[P_COMING] > 0 else NOBODY


@inline
def _turn(p: np.ndarray, who: int, time: int) -> None:
    """A task gets to a request; a free then waits for its pages."""
    if p[p[P_MISSING] + who] == 0:
        push(p, max(time, p[p[P_READY] + who]), who)
    else:
        p[p[P_TURN] + who] = time


@compiled()
def returned(p: np.ndarray, who: int, end: int) -> None:
    """A request has returned: its task goes on, frees of its pages need not wait for it."""
    after = p[p[P_AFTER] + who]
    if after >= 0:
        _turn(p, after, end + p[p[P_THINK] + after])
    for k in range(p[p[P_FIRST] + who], p[p[P_FIRST] + who + 1]):
        free = p[p[P_FREES] + k]
        p[p[P_MISSING] + free] -= 1
        p[p[P_READY] + free] = max(p[p[P_READY] + free], end)
        if p[p[P_MISSING] + free] == 0 and p[p[P_TURN] + free] >= 0:
            push(p, max(p[p[P_TURN] + free], p[p[P_READY] + free]), free)


# -- those that wait -------------------------------------------------------------------------------
@inline
def _line_up(p: np.ndarray, ring: int, who: int) -> None:
    """To the end of a ring: P_QUEUE or P_ASLEEP, with its head and its length behind."""
    p[p[ring] + (p[ring + 1] + p[ring + 2]) % (p[P_REQUESTS] + 1)] = who
    p[ring + 2] += 1


@inline
def _leave(p: np.ndarray, ring: int, last: int) -> Any:
    """The first of a ring, or the last."""
    p[ring + 2] -= 1
    if last:
        return p[p[ring] + (p[ring + 1] + p[ring + 2]) % (p[P_REQUESTS] + 1)]
    who = p[p[ring] + p[ring + 1]]
    p[ring + 1] = (p[ring + 1] + 1) % (p[P_REQUESTS] + 1)
    return who


@inline
def _admit(m: np.ndarray, p: np.ndarray, kinds: np.ndarray, lock_free: int) -> Any:
    """Line up all that came while the lock was held; a new target does not wait for it."""
    while _next_time(m, p) < lock_free:
        who = _next(m, p)
        if who >= 0 and kinds[who] == TARGET:
            return who
        if who == THREAD:
            p[P_THREAD_WAITS] = 1
        _line_up(p, P_QUEUE, who)
    if p[P_DISCIPLINE] == SPIN and p[P_HELD_SLOWLY]:
        while p[P_WAITING] > 0:
            _line_up(p, P_ASLEEP, _leave(p, P_QUEUE, 0))
    return NOBODY


@inline
def _spin(m: np.ndarray, p: np.ndarray, lock_free: int) -> Any:
    """The lock is released: an awake sleeper, a spinner, who comes before a sleeper is awake."""
    if p[P_SLEEPING] > 0 and p[P_AWAKE_AT] <= lock_free:
        p[P_AWAKE_AT] = NEVER
        return _leave(p, P_ASLEEP, 0)
    if p[P_SLEEPING] > 0 and p[P_AWAKE_AT] == NEVER:
        p[P_AWAKE_AT] = lock_free + p[P_WAKE_NS]
    if p[P_WAITING] > 0:
        return _leave(p, P_QUEUE, 0)
    coming = _next_time(m, p)
    if p[P_SLEEPING] > 0 and p[P_AWAKE_AT] <= coming:
        p[P_START], p[P_AWAKE_AT] = p[P_AWAKE_AT], NEVER
        return _leave(p, P_ASLEEP, 0)
    p[P_START] = coming
    return _next(m, p)


@inline
def _choose(m: np.ndarray, p: np.ndarray, kinds: np.ndarray, lock_free: int) -> Any:
    """The same without P_DUE."""
    s = words(m)
    waiting = p[P_WAITING] + p[P_SLEEPING]
    if s.own_lock and s.wake_at <= (
            lock_free if waiting > 0 else max(lock_free, _next_time(m, p))) and (
            waiting > 0 or p[P_COMING] > 0):
        p[P_START] = lock_free
        return THREAD
    if p[P_DISCIPLINE] == FIFO:
        p[P_START] = max(lock_free, _next_time(m, p))
        return _next(m, p)
    p[P_START] = lock_free
    if s.added_at <= lock_free:
        return ADDED
    who = _admit(m, p, kinds, lock_free)
    if who >= 0:
        return who
    if p[P_DISCIPLINE] == SPIN:
        who = _spin(m, p, lock_free)
    elif p[P_WAITING] > 0:
        who = _leave(p, P_QUEUE, 1)
    else:
        p[P_START] = _next_time(m, p)
        who = _next(m, p)
    if who == THREAD:
        p[P_THREAD_WAITS] = 0
    return who


@compiled()
def choose(m: np.ndarray, p: np.ndarray, kinds: np.ndarray, lock_free: int) -> Any:
    """Who gets the lock that was released at `lock_free`, or THREAD, or NOBODY; p[P_START]: when.

    Who comes at the very time of a release finds the lock free, if nobody waited for it.
    """
    s = words(m)
    who = _choose(m, p, kinds, lock_free)
    p[P_DUE] = s.wake_at if who == THREAD else -1
    p[P_ADDED_DUE] = s.added_at if who == ADDED else -1
    return who
