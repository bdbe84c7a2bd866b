"""Events at the taking and the release of an allocator's lock, compiled; see record/inside.py.

What they read is exact: nobody else can change the list meanwhile. The chain of the list's first
pages is sound as far as the list is long; what an event holds beyond is stale memory.
"""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.joining import state as j
from replay.importers.joining.frames import ARRAY_TRUNCATED
from replay.importers.joining.frees import undoes
from replay.importers.joining.row import fill_before, hold, put

TAKEN, RELEASED = 1, 2
"""In C_LOCKED."""


@inline
def link(p, s, index, k):  # type: ignore[no-untyped-def]
    """The frame of an event's k-th page of the chain; -1 for none."""
    return j.frame_of(p.arrays[p.streams[j.S_FRAMES, s] + index * p.streams[j.S_FRAMES_WIDTH, s]
                               + k], p.base)


@inline
def chained(p, s, index, listed):  # type: ignore[no-untyped-def]
    """How many pages of the list an event tells, of `listed` that the list has."""
    if p.streams[j.S_FRAMES, s] < 0 or listed == j.MISSING:
        return 0
    length = min(p.whole[p.streams[j.S_FRAMES_WHOLE, s] + index], listed)
    known = 0
    while known < length and link(p, s, index, known) >= 0:
        known += 1
    return known


@inline
def taken(p, w, r, time, a):  # type: ignore[no-untyped-def]
    """The lock has been taken: the list as it was before the call. Whether for the first time."""
    if w.rows[j.C_LOCKED, r] != j.MISSING:
        return False
    w.rows[j.C_LOCKED, r], w.rows[j.C_LOCK, r] = TAKEN, time
    fill_before(p, w, a, r)
    w.rows[j.C_HEAD, r] = p.args[a + j.A_HEAD]
    return True


@inline
def alloc_locked(p, w, s, index, r, pool, time, a):  # type: ignore[no-untyped-def]
    """An allocation has the lock: it takes the first pages of the list, the head first, unless it
    adds a section to the pool before."""
    if not taken(p, w, r, time, a):
        return
    nr, listed = w.rows[j.C_NR, r], w.rows[j.C_LIST, r]
    known = min(nr, chained(p, s, index, listed))
    if known <= 0 or (pool and listed < nr):
        return
    w.rows[j.C_FRAMES, r], w.rows[j.C_FRAMES_COUNT, r] = w.counts[j.N_FRAMES], known
    for k in range(known):
        w.frames[w.counts[j.N_FRAMES]] = link(p, s, index, k)
        w.counts[j.N_FRAMES] += 1


@inline
def left(p, w, r, a):  # type: ignore[no-untyped-def]
    """The lock is about to be released: the list as the call leaves it."""
    put(w, j.C_LIST_AFTER, r, p.args[a + j.A_LIST_LEFT])
    w.rows[j.C_HEAD_AFTER, r] = p.args[a + j.A_HEAD_LEFT]


@inline
def _freeing(p, w, s, t):  # type: ignore[no-untyped-def]
    """The row of the free that a task is in; -1, and counted, if there is none."""
    r, function = w.tasks[j.T_FREE, t], p.streams[j.S_FUNCTION, s]
    if r >= 0 and w.tasks[j.T_FREE_FUNCTION, t] == function and w.rows[j.C_END, r] == j.MISSING:
        return r
    if undoes(p, w, function, j.MISSING, t):
        w.counts[j.N_NESTED] += 1
    else:
        w.skips[j.X_INSIDE, s] += 1
    return -1


@inline
def free_locked(p, w, s, t, time, a):  # type: ignore[no-untyped-def]
    """A free has the lock."""
    r = _freeing(p, w, s, t)
    if r >= 0:
        taken(p, w, r, time, a)


@inline
def free_unlock(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """A free is about to release the lock: its last pages are the list's first, the last one first.

    Its other pages are those that its entry told, the first ones; -1 for what lies between.
    """
    r = _freeing(p, w, s, t)
    if r < 0:
        return
    hold(w, r, time)
    left(p, w, r, a)
    if w.rows[j.C_LOCKED, r] == RELEASED:
        return  # there is room for its pages once
    w.rows[j.C_LOCKED, r] = RELEASED
    nr, before, after = w.rows[j.C_NR, r], w.rows[j.C_LIST, r], w.rows[j.C_LIST_AFTER, r]
    known = min(nr, chained(p, s, index, after))
    # a page array may have empty places, which the balloon's driver passes over
    if known <= 0 or before == j.MISSING or after - before != nr:
        return
    had, first = max(0, w.rows[j.C_FRAMES_COUNT, r]), w.rows[j.C_FRAMES, r]
    if known < nr and not p.holes:
        return
    start = w.counts[j.N_FRAMES]
    for k in range(nr):
        if k >= nr - known:
            w.frames[start + k] = link(p, s, index, nr - 1 - k)
        else:
            w.frames[start + k] = w.frames[first + k] if k < had else -1
    w.counts[j.N_FRAMES] += nr
    w.rows[j.C_FRAMES, r], w.rows[j.C_FRAMES_COUNT, r] = start, nr
    if had < nr - known:
        w.rows[j.C_FLAGS, r] |= ARRAY_TRUNCATED
        w.counts[j.N_TRUNCATED] += 1


@inline
def pass_locked(w, t, event):  # type: ignore[no-untyped-def]
    """The balloon thread has the lock."""
    w.tasks[j.T_PASS, t], w.tasks[j.T_PASS_ROW, t] = event, -1


@inline
def in_pass(p, w, t, r):  # type: ignore[no-untyped-def]
    """A hypercall, of the balloon thread's if the task is that: the list is as at its lock."""
    event = w.tasks[j.T_PASS, t]
    if event < 0:
        return
    s = p.which[event]
    a = p.streams[j.S_ARGS, s] + (event - p.streams[j.S_FIRST, s]) * p.streams[j.S_WIDTH, s]
    taken(p, w, r, p.events[j.E_TIME, event], a)
    w.tasks[j.T_PASS_ROW, t] = r


@inline
def pass_unlock(p, w, t, a):  # type: ignore[no-untyped-def]
    """The balloon thread is about to release the lock."""
    r = w.tasks[j.T_PASS_ROW, t]
    if r >= 0:
        left(p, w, r, a)
    w.tasks[j.T_PASS, t] = w.tasks[j.T_PASS_ROW, t] = -1
