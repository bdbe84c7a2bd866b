"""Events at the taking and the release of an allocator's lock, compiled; see record/inside.py.

What they read is exact: nobody else can change the list meanwhile. The chain of the list's first
pages is sound as far as the list is long; what an event holds beyond is stale memory.
"""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.joining.frames import ARRAY_TRUNCATED
from replay.importers.joining.frees import undoes
from replay.importers.joining.operations import before, left
from replay.importers.joining.row import fill_before, hold, newer
from replay.importers.joining.state import frame_of
from replay.importers.source.probes import MISSING

TAKEN, RELEASED = 1, 2
"""In a row's `locked`."""


@inline
def link(p, stream, index, k):  # type: ignore[no-untyped-def]
    """The frame of an event's k-th page of the chain; -1 for none."""
    array = stream.frames
    return frame_of(p.arrays[array.at + index * array.width + k], p.base)


@inline
def chained(p, stream, index, listed):  # type: ignore[no-untyped-def]
    """How many pages of the list an event tells, of `listed` that the list has."""
    if stream.frames.at < 0 or listed == MISSING:
        return 0
    length = min(p.whole[stream.frames.whole + index], listed)
    known = 0
    while known < length and link(p, stream, index, known) >= 0:
        known += 1
    return known


@inline
def taken(row, time, args):  # type: ignore[no-untyped-def]
    """The lock has been taken: the list as it was before the call. Whether for the first time."""
    if row.locked != MISSING:
        return False
    row.locked = TAKEN
    row.lock = time
    fill_before(row, args)
    row.list_head = args.list_head
    return True


@inline
def alloc_locked(p, w, stream, index, row, pool, time, a):  # type: ignore[no-untyped-def]
    """An allocation has the lock: it takes the first pages of the list, the head first, unless it
    adds a section to the pool before."""
    if not taken(row, time, before(p.args, a)):
        return
    nr, listed = row.nr_pages, row.list_count
    known = min(nr, chained(p, stream, index, listed))
    if known <= 0 or (pool and listed < nr):
        return
    row.frames_at = w.counts.frames
    row.frames_count = known
    for k in range(known):
        w.frames[w.counts.frames] = link(p, stream, index, k)
        w.counts.frames += 1


@inline
def leave(row, args):  # type: ignore[no-untyped-def]
    """The lock is about to be released: the list as the call leaves it."""
    row.list_count_after = newer(args.list_count_after, row.list_count_after)
    row.list_head_after = args.list_head_after


@inline
def _freeing(p, w, s, t):  # type: ignore[no-untyped-def]
    """The row of the free that a task is in; -1, and counted, if there is none."""
    task, function = w.tasks[t], p.streams[s].function
    r = task.free_row
    if r >= 0 and task.free_function == function and w.rows[r].end == MISSING:
        return r
    if undoes(p, w, function, MISSING, t):
        w.counts.nested_calls += 1
    else:
        w.skips[s].inside += 1
    return -1


@inline
def free_locked(p, w, s, t, time, a):  # type: ignore[no-untyped-def]
    """A free has the lock."""
    r = _freeing(p, w, s, t)
    if r >= 0:
        taken(w.rows[r], time, before(p.args, a))


@inline
def free_unlock(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """A free is about to release the lock: its last pages are the list's first, the last one first.

    Its other pages are those that its entry told, the first ones; -1 for what lies between.
    """
    r = _freeing(p, w, s, t)
    if r < 0:
        return
    stream, row = p.streams[s], w.rows[r]
    hold(row, time)
    leave(row, left(p.args, a))
    if row.locked == RELEASED:
        return  # there is room for its pages once
    row.locked = RELEASED
    nr, listed = row.nr_pages, row.list_count
    known = min(nr, chained(p, stream, index, row.list_count_after))
    # a page array may have empty places, which the balloon's driver passes over
    if known <= 0 or listed == MISSING or row.list_count_after - listed != nr:
        return
    had, first = max(0, row.frames_count), row.frames_at
    if known < nr and not p.holes:
        return
    start = w.counts.frames
    for k in range(nr):
        if k >= nr - known:
            w.frames[start + k] = link(p, stream, index, nr - 1 - k)
        else:
            w.frames[start + k] = w.frames[first + k] if k < had else -1
    w.counts.frames += nr
    row.frames_at = start
    row.frames_count = nr
    if had < nr - known:
        row.flag_bits |= ARRAY_TRUNCATED
        w.counts.arrays_truncated += 1


@inline
def pass_locked(p, w, t, time, a):  # type: ignore[no-untyped-def]
    """The balloon thread has the lock."""
    task, args = w.tasks[t], before(p.args, a)
    task.pass_time = time
    task.pass_found.list_count = args.list_count
    task.pass_found.list_head = args.list_head
    task.pass_found.current_pages = args.current_pages
    task.pass_found.target_pages = args.target_pages
    task.pass_found.target_unpopulated = args.target_unpopulated
    task.pass_row = -1


@inline
def in_pass(w, t, r):  # type: ignore[no-untyped-def]
    """A hypercall, of the balloon thread's if the task is that: the list is as at its lock."""
    task = w.tasks[t]
    if task.pass_time == MISSING:
        return
    taken(w.rows[r], task.pass_time, task.pass_found)
    task.pass_row = r


@inline
def pass_unlock(p, w, t, a):  # type: ignore[no-untyped-def]
    """The balloon thread is about to release the lock."""
    task = w.tasks[t]
    if task.pass_row >= 0:
        leave(w.rows[task.pass_row], left(p.args, a))
    task.pass_time = MISSING
    task.pass_row = -1
