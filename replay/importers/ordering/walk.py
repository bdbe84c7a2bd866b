"""Calls followed event by event, compiled, as long as all states of the free list go the same way.

What is done is what search.py does where there is nothing to choose, so that it goes on from
wherever this stops: at a call that may have come before or after another, and where it is open
which page is the list's first. Several states are followed by what they have in common: the pages
on top that are the same in all. Frees may be waiting, each of which may take effect at any time, as
long as what is read of the list and the pages that allocations get say that they have not yet.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from replay.base.compiled import compiled, inline, record
from replay.importers.ordering.quiet import OPEN_CELL, UNKNOWN, applied, took_effect
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE

ENTER, HOLD, LEAVE = range(3)
"""What happens to a call, in this order where it is at one time."""
MOST_MOMENTS: Final = 3
"""Of a call."""
LOOKED_AT: Final = 64
"""Choices of calls whose pages are added up in about the time that a state takes to be tried."""
PAIR_TRIED, PAIR_LOOKED = 12, 4
"""States and choices that a pair of a free and an allocation takes."""
MOST_WAITING: Final = 3
"""Frees that may be waiting: what the search tries doubles with each."""
TRIED_EACH_STATE: Final = 5
"""States that are tried at one event, at most, for each state that there was."""
NO_BOUND: Final = 1 << 62
"""No bound."""
_EXPLAINED, _UNEXPLAINED, _OPEN = range(3)
PACE = record(
    "tried", "looked",  # states and choices that the search would have tried
    "misread", "contradicted",  # reads and calls that the list does not explain
    "off", "off_known",  # by how much the last such read was off
    "open",  # calls that are not over
    "waiting", "mixed",  # open calls that may take effect at any time: pure frees, and others
    "took",  # calls that took effect
    "at", "stop",  # the call, or the event, to begin with, and the one to end before
    "states",  # that are followed
    "origins",  # whether it is known of allocated pages who freed them last
    "most_took", "most_tried",  # after so many calls, or states, an event is left
)  # fmt: skip
"""What following calls counts; see Search."""


class Moments(NamedTuple):
    """Events of calls in the order of time. calls: whose; what: ENTER, HOLD or LEAVE."""

    calls: Ints
    what: Ints


class Pace(NamedTuple):
    """counts: a PACE. took: the calls that took effect, in their order. done: by call, whether it
    has. waiting: the frees that wait."""

    counts: Any
    took: Ints
    done: np.ndarray
    waiting: Ints


@inline
def _look(n):  # type: ignore[no-untyped-def]
    before = n.looked // LOOKED_AT
    n.looked += n.states << n.waiting
    n.tried += n.looked // LOOKED_AT - before


@inline
def _read(s, listed, head, n):  # type: ignore[no-untyped-def]
    """Whether the list is as long as was read, and begins with that page."""
    if listed == NONE:
        return _EXPLAINED
    if s.size.count == NONE:
        if n.waiting:
            return _OPEN
        s.size.count = listed
        n.tried += n.states
        return _EXPLAINED
    if listed != s.size.count:
        return _UNEXPLAINED
    first = s.cells[s.size.depth - 1] if s.size.depth > 0 else UNKNOWN
    if head >= 0 and (first <= OPEN_CELL or (n.states > 1 and s.size.depth == 0)):
        return _OPEN
    _look(n)
    if head < 0 or first < 0 or first == head:
        n.tried += n.states
        return _EXPLAINED
    return _UNEXPLAINED


@inline
def _resynchronise(s, listed, n):  # type: ignore[no-untyped-def]
    """Where records are missing, lengths stay off by the same: believe the second."""
    n.misread += 1
    off = listed - s.size.count
    if n.off_known and n.off == off:
        s.size.count = listed
    n.off, n.off_known = off, 1


@inline
def _open_cells(q, s, c):  # type: ignore[no-untyped-def]
    """Whether it is open where pages lie that an allocation may take."""
    for k in range(min(q.pops[c], s.size.depth)):
        if s.cells[s.size.depth - 1 - k] <= OPEN_CELL:
            return True
    return False


@inline
def _without_list(q, s, c):  # type: ignore[no-untyped-def]
    """A call that no order explains: nothing is known of the list any more."""
    s.size.depth, s.size.count = 0, q.listed_after[c]
    if q.content[c + 1] > q.content[c]:
        for k in range(q.nr[c]):
            known = k < q.known[c]
            s.content[q.content[c] + k] = q.frames[q.start[c] + k] if known else UNKNOWN


@inline
def _by_array(q, c):  # type: ignore[no-untyped-def]
    """Whether pages of a call may be those of its page array, of which each state has its own."""
    return q.array[c] >= 0 and q.pushes[c] > 0


@inline
def _in_common(q, s, c):  # type: ignore[no-untyped-def]
    """Whether a call has to do only with pages that all states have on top."""
    return q.pops[c] <= s.size.depth and not _by_array(q, c)


@inline
def _force(q, s, c, pace):  # type: ignore[no-untyped-def]
    """A call that no other can precede takes effect; False, and nothing is done, where it is open
    which pages it took."""
    n, depth, count = pace.counts, s.size.depth, s.size.count
    if n.states > 1 and not _in_common(q, s, c):
        return False
    if took_effect(q, s, c):
        n.tried += 2 * n.states
    else:
        s.size.depth, s.size.count = depth, count
        if n.states > 1 or n.waiting or _open_cells(q, s, c):
            return False
        _without_list(q, s, c)
        n.tried += 1
        n.contradicted += 1
    pace.took[n.took] = c
    n.took += 1
    return True


@inline
def _in_hand(q, s, c):  # type: ignore[no-untyped-def]
    """Whether the length read behind a call may be one from within it."""
    if q.held[c] == NONE:
        return False
    added = 0
    for k in range(q.section[c], q.section[c + 1]):
        added += q.sections[k].pages
    before = s.size.count - (q.pushes[c] + added - q.pops[c])
    grown = before + 2 * q.pushes[c] + added
    listed = q.listed_after[c]
    return min(before, s.size.count) <= listed <= max(before, grown)


@inline
def _alone(q, s, c, pace):  # type: ignore[no-untyped-def]
    """Follow a call that overlaps no other; False, and nothing is done, where something is open."""
    if q.held[c] != NONE and q.held[c] < q.entered[c]:
        return False
    n, depth, count = pace.counts, s.size.depth, s.size.count
    tried, looked, misread, contradicted = n.tried, n.looked, n.misread, n.contradicted
    off, off_known, took = n.off, n.off_known, n.took
    found = _read(s, q.listed[c], q.head[c], n)
    if found == _UNEXPLAINED:
        _resynchronise(s, q.listed[c], n)
    if found != _OPEN and _force(q, s, c, pace):
        n.tried += q.held[c] != NONE  # once when it held the lock, and once at its end
        found = _read(s, q.listed_after[c], q.head_after[c], n)
        if found == _UNEXPLAINED and _in_hand(q, s, c):
            n.tried += 1
        elif found == _UNEXPLAINED:
            _resynchronise(s, q.listed_after[c], n)
        if found != _OPEN:
            return True
    s.size.depth, s.size.count = depth, count
    n.tried, n.looked, n.misread, n.contradicted = tried, looked, misread, contradicted
    n.off, n.off_known, n.took = off, off_known, took
    return False


@inline
def _closed(s):  # type: ignore[no-untyped-def]
    """Whether it is not open which page is the first one."""
    return s.size.depth == 0 or s.cells[s.size.depth - 1] > OPEN_CELL


@inline
def _is_certain(q, s, free):  # type: ignore[no-untyped-def]
    """Whether a free and the allocation behind it, which overlap no other call, came in that order
    if they fit in it: the free was over before the allocation had the lock, and the length read at
    the allocation's entry tells that the free had been."""
    alloc = free + 1
    return (q.pushes[free] > 0 and q.held[free] == NONE and q.listed_after[free] == NONE
            and q.pushes[alloc] == 0 and q.held[alloc] != NONE and q.over[free] < q.held[alloc]
            and s.size.count != NONE and q.listed[free] == s.size.count
            and q.listed[alloc] == s.size.count + q.pushes[free]
            and q.listed_after[alloc] != NONE)


@inline
def _pair(q, s, free):  # type: ignore[no-untyped-def]
    """Apply such a free and the allocation; False, and nothing is done, where they do not fit."""
    depth, count = s.size.depth, s.size.count
    if not _is_certain(q, s, free) or not _closed(s):
        return False
    done = applied(q, s, free) and _closed(s) and applied(q, s, free + 1) and _closed(s)
    if not done:
        s.size.depth, s.size.count = depth, count
    return done


@compiled
def quiet(q, s, pairs, pace):  # type: ignore[no-untyped-def]
    """Apply calls from `at` up to `stop`, each of which overlaps no other or makes a pair; the
    first one of which something is open, or stop. Of that one, and of its pair, nothing is done.

    pairs: by call, whether it and the next one overlap, and no other; stop parts none.
    """
    n = pace.counts
    c, n.took = n.at, 0
    while c < n.stop:
        if pairs[c]:
            if not _pair(q, s, c):
                return c
            n.tried += PAIR_TRIED
            for _ in range(PAIR_LOOKED):
                _look(n)
            c += 2
        elif applied(q, s, c) or _alone(q, s, c, pace):
            c += 1
        else:
            return c
    return n.stop


@inline
def _waits(q, c):  # type: ignore[no-untyped-def]
    """Whether a call that may take effect at any time does no more than to push pages."""
    return q.pushes[c] > 0 and q.pops[c] == 0 and q.section[c] == q.section[c + 1]


@inline
def _enters(q, c, pace):  # type: ignore[no-untyped-def]
    n = pace.counts
    n.open += 1
    if q.held[c] != NONE:
        return
    if _waits(q, c) and n.waiting < MOST_WAITING:
        pace.waiting[n.waiting] = c
        n.waiting += 1
    else:
        n.mixed += 1


@inline
def _divides(q, c, n):  # type: ignore[no-untyped-def]
    """Whether an allocation, of which all frames are known, left pages of a free that it took
    others of, or may have."""
    last = q.start[c] + q.pops[c] - 1
    free = q.origin[last]
    if free < 0:
        return n.origins == 0
    return q.known[free] == 0 or q.frames[q.start[free]] != q.frames[last]


@inline
def _comes_first(q, s, c, pace):  # type: ignore[no-untyped-def]
    """Whether a call can only have come before the frees that wait, and how many more states the
    search tries then; -1 if it may have come behind one."""
    n = pace.counts
    first, end = q.start[c], q.start[c] + q.pops[c]
    whole = q.whole[c] or q.pushes[c] > 0 or q.section[c] < q.section[c + 1]
    if whole or q.pops[c] == 0 or q.known[c] < q.pops[c] or s.size.depth <= q.pops[c]:
        return -1
    for k in range(first, end):
        if q.frames[k] < 0:
            return -1
        for w in range(n.waiting):
            if q.origin[k] == pace.waiting[w]:
                return -1
    if q.origin[end - 1] >= 0 and _by_array(q, q.origin[end - 1]):
        return -1
    if not _divides(q, c, n):
        return 0
    # the search tries what waits before it, and finds another page on top
    free = pace.waiting[0]
    last = q.start[free] + q.pushes[free] - 1
    known = q.known[free] == q.pushes[free] and q.frames[last] >= 0
    if n.waiting > 1 or not known or q.frames[last] == q.frames[first]:
        return -1
    return 2


@inline
def _takes_effect(q, s, c, pace):  # type: ignore[no-untyped-def]
    """A call that is done at the latest now; False where another may have come before it."""
    n = pace.counts
    if n.mixed > 0 or (n.waiting > 0 and q.held[c] == NONE):
        return False
    more = 0
    if n.waiting > 0:
        more = _comes_first(q, s, c, pace)
    if more < 0 or not _force(q, s, c, pace):
        return False
    n.tried += more * n.states
    return True


@inline
def _event(q, s, c, what, pace):  # type: ignore[no-untyped-def]
    """One event; False, and nothing is done that counts, where more than one state may follow."""
    n = pace.counts
    if what == ENTER:
        if q.listed[c] != NONE and n.mixed > 0:
            return False
        if _read(s, q.listed[c], q.head[c], n) != _EXPLAINED:
            return False
        _enters(q, c, pace)
        return True
    if what == LEAVE and n.states > 1 and n.open == 1:
        return False  # the states that explain less are given up then
    if pace.done[c]:
        n.tried += n.states
    else:
        if q.held[c] == NONE:
            if n.waiting + n.mixed > 1:
                return False
            n.waiting = n.mixed = 0
        if not _takes_effect(q, s, c, pace):
            return False
    if what == LEAVE:
        if q.listed_after[c] != NONE and n.mixed > 0:
            return False
        if _read(s, q.listed_after[c], q.head_after[c], n) != _EXPLAINED:
            return False
        n.open -= 1
    pace.done[c] = what == HOLD
    return True


@compiled
def walk(q, s, moments, pace):  # type: ignore[no-untyped-def]
    """Follow events from `at` up to `stop`; the first one that more than one state may follow, of
    which nothing is done, or stop."""
    n = pace.counts
    n.took = 0
    for k in range(n.at, n.stop):
        if n.took >= n.most_took or n.tried >= n.most_tried:
            return k
        depth, count, waiting, mixed = s.size.depth, s.size.count, n.waiting, n.mixed
        tried, looked, contradicted, took = n.tried, n.looked, n.contradicted, n.took
        if not _event(q, s, moments.calls[k], moments.what[k], pace):
            s.size.depth, s.size.count, n.waiting, n.mixed = depth, count, waiting, mixed
            n.tried, n.looked, n.contradicted, n.took = tried, looked, contradicted, took
            return k
    return n.stop


def lay_moments(moments: Moments, q: Any, first: int, stop: int) -> int:
    """Put in the events of calls first to stop - 1; how many they are.

    A call that enters at the very time by which another was over came behind it: the two are of one
    task, of whose first call nothing tells the end but the entry of the second.
    """
    held = np.flatnonzero(q.held[first:stop] != NONE) + first
    every = np.arange(first, stop)
    calls = np.concatenate((every, held, every))
    time = np.concatenate((q.entered[first:stop], q.held[held], q.over[first:stop]))
    what = np.repeat((ENTER, HOLD, LEAVE), (len(every), len(held), len(every)))
    before = (what == LEAVE) & (q.over[calls] > np.maximum(q.entered[calls], q.held[calls]))
    order = np.lexsort((calls, np.where(before, -1, what), time))
    moments.calls[: len(order)], moments.what[: len(order)] = calls[order], what[order]
    return len(order)
