"""The pool's free list while the order of lock holders is searched, compiled: a stack with undo."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from replay.kernel import inline, kernel

Ints = npt.NDArray[np.int64]
MAX_STEPS = 50_000_000
"""Bounds the search, in comparisons, on a recording that contradicts the stack."""
AT_END, OPEN, MISFIT, TOO_LONG = range(4)
"""How a stretch ended: no allocation left; several orders are possible; the recorded frames are
not on the stack; the search is too long."""

# places in `at`
DEPTH, LOG, TAKEN, ORDER, ALLOC, FREE, COUNT, STEPS, SIZE = range(9)


class Requests(NamedTuple):
    """Allocations by the time they held the lock, then frees by the time of entry.

    time: when an allocation held the lock, a free was entered. latest: by when it was over. listed:
    length of the list as read at entry, before the lock; NONE if not recorded. start, known: the
    recorded frames within `frames`; of nr pages the others are unknown. reach: per
    allocation, how many frees were entered before it held the lock. section: per allocation, its
    first one in `sections` (first frame, pages); one more at the end.
    """

    time: Ints
    latest: Ints
    listed: Ints
    nr: Ints
    start: Ints
    known: Ints
    frames: Ints
    reach: Ints
    section: Ints
    sections: Ints


class Stack(NamedTuple):
    """Known frames on top of an unknown remainder. log: pages pushed, or -1 - pages popped;
    taken: the popped ones. order: requests in the order decided so far. at: see DEPTH.
    """

    frames: Ints
    log: Ints
    taken: Ints
    order: Ints
    at: Ints


@inline
def _logged(s, change):  # type: ignore[no-untyped-def]
    s.log[s.at[LOG]] = change
    s.at[LOG] += 1


@inline
def _push_free(q, s, f):  # type: ignore[no-untyped-def]
    """Freed frames to the head, in this order; -1 for those that are unknown."""
    depth = s.at[DEPTH]
    for k in range(q.nr[f]):
        s.frames[depth + k] = q.frames[q.start[f] + k] if k < q.known[f] else -1
    s.at[DEPTH] += q.nr[f]
    s.at[COUNT] += q.nr[f]
    _logged(s, q.nr[f])


@inline
def _push_sections(q, s, a):  # type: ignore[no-untyped-def]
    for n in range(q.section[a], q.section[a + 1]):
        first, pages, depth = q.sections[0, n], q.sections[1, n], s.at[DEPTH]
        for k in range(pages):
            s.frames[depth + k] = first + k
        s.at[DEPTH] += pages
        s.at[COUNT] += pages
        _logged(s, pages)


@inline
def _fits(q, s, a):  # type: ignore[no-untyped-def]
    """Whether the head gives the allocation's frames; one recorded as unknown (-1) fits any."""
    top = s.at[DEPTH] - 1
    for k in range(min(q.nr[a], s.at[DEPTH], q.known[a])):
        ours, theirs = s.frames[top - k], q.frames[q.start[a] + k]
        if ours != theirs and ours >= 0 and theirs >= 0:
            return False
    return True


@inline
def _pop(s, nr):  # type: ignore[no-untyped-def]
    """Take pages off the head; what lies beneath the known ones is unknown."""
    known = min(nr, s.at[DEPTH])
    s.at[DEPTH] -= known
    for k in range(known):
        s.taken[s.at[TAKEN] + k] = s.frames[s.at[DEPTH] + k]
    s.at[TAKEN] += known
    s.at[COUNT] -= nr
    _logged(s, -1 - known)


@inline
def undo_to(s, length):  # type: ignore[no-untyped-def]
    """Back to an earlier length of the log; the count is the caller's to restore."""
    while s.at[LOG] > length:
        s.at[LOG] -= 1
        change = s.log[s.at[LOG]]
        if change >= 0:
            s.at[DEPTH] -= change
        else:
            known = -1 - change
            s.at[TAKEN] -= known
            for k in range(known):
                s.frames[s.at[DEPTH] + k] = s.taken[s.at[TAKEN] + k]
            s.at[DEPTH] += known


@inline
def _took(q, s, a):  # type: ignore[no-untyped-def]
    """Add the allocation's sections and pop its pages, if they fit."""
    _push_sections(q, s, a)
    if not _fits(q, s, a):
        return False
    _pop(s, q.nr[a])
    s.order[s.at[ORDER]] = a
    s.at[ORDER] += 1
    s.at[ALLOC] = a + 1
    return True


@inline
def apply(q, s, frees, start, stop):  # type: ignore[no-untyped-def]
    """Push these frees, then take the next allocation; False, and undone, where it cannot be."""
    length, count, order = s.at[LOG], s.at[COUNT], s.at[ORDER]
    for k in range(start, stop):
        _push_free(q, s, frees[k])
        s.order[s.at[ORDER]] = frees[k]
        s.at[ORDER] += 1
    if _took(q, s, s.at[ALLOC]):
        return True
    undo_to(s, length)
    s.at[COUNT], s.at[ORDER] = count, order
    return False


@inline
def _one_order(q, first, stop, a):  # type: ignore[no-untyped-def]
    """Whether frees were over one before the other, and all before the allocation."""
    over = -1
    for f in range(first, stop):
        if over > q.time[f] or q.latest[f] > q.time[a]:
            return False
        over = max(over, q.latest[f])
    return True


@kernel()
def run(q, s):  # type: ignore[no-untyped-def]
    """Take all allocations whose place leaves no choice, from s.at[ALLOC] and s.at[FREE] on.

    Returns how it ended; where it is not AT_END, nothing of that allocation is done.
    """
    allocs = len(q.reach)
    while s.at[ALLOC] < allocs:
        a, first = s.at[ALLOC], s.at[FREE]
        stop = allocs + q.reach[a]
        if not _one_order(q, first, stop, a):
            return OPEN
        s.at[STEPS] += max(1, stop - first) ** 2
        if s.at[STEPS] > MAX_STEPS:
            return TOO_LONG
        length, count, order = s.at[LOG], s.at[COUNT], s.at[ORDER]
        for f in range(first, stop):
            _push_free(q, s, f)
            s.order[s.at[ORDER]] = f
            s.at[ORDER] += 1
        s.at[FREE] = stop
        if not _took(q, s, a):
            undo_to(s, length)
            s.at[COUNT], s.at[ORDER], s.at[FREE] = count, order, first
            return MISFIT
    return AT_END
