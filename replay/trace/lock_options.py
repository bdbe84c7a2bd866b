"""The orders that frees which overlap an allocation in time may have taken effect in, compiled.

Frees are numbers among all requests here. A cluster is a run of open frees that overlap in time;
whatever is in an earlier one was over before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.kernel import inline
from replay.trace.columns import NONE
from replay.trace.lock_stack import STEPS, Ints

MAX_ORDERS, MAX_CLUSTER = 200, 100
"""Bounds what is tried for one allocation."""


class Room(NamedTuple):
    """Room to list orders of the `pending` frees, which stand in the order of entry.

    path: places chosen so far; used: whether a place is; following: per depth, the place to try
    next. parts: orders of the clusters one behind the other, as places; begins: of each of them,
    and the end; first: per cluster its first one, and the end; pick: one per cluster. found: orders
    of all, each its length and its frees, in the room of all that are pending.
    """

    pending: Ints
    path: Ints
    used: Ints
    following: Ints
    parts: Ints
    begins: Ints
    first: Ints
    pick: Ints
    found: Ints


def make_room(frees: int, pending: int) -> Room:
    """Room for the orders of so many pending frees, of so many in all."""
    sizes = (frees, pending, pending, pending + 1, MAX_ORDERS * pending,
             MAX_ORDERS * pending + 1, pending + 1, pending, 2 * MAX_ORDERS * (pending + 1))
    return Room(*(np.zeros(size, dtype=np.int64) for size in sizes))


@inline
def _misread(q, o, f, depth, count, since):  # type: ignore[no-untyped-def]
    """Whether a free read a list length, at entry, that cannot have been there.

    The read comes before the lock is taken: it saw the length after some of the frees before it,
    none missing that was over by then. count: length before all of them; since: from when on.
    """
    listed = q.listed[f]
    if listed == NONE or q.time[f] < since:
        return False
    length = count
    seen = length == listed
    for d in range(depth):
        g = o.pending[o.path[d]]
        length += q.nr[g]
        seen = (seen and q.latest[g] > q.time[f]) or length == listed
    return not seen


@inline
def _is_next(q, o, k, first, stop):  # type: ignore[no-untyped-def]
    """Whether nothing that is left of a cluster was over before this one was entered."""
    if o.used[k]:
        return False
    for other in range(first, stop):
        if not o.used[other] and q.latest[o.pending[other]] <= q.time[o.pending[k]]:
            return False
    return True


@inline
def _may_end(q, o, first, stop, at):  # type: ignore[no-untyped-def]
    """Whether all that is left of a cluster may come later than `at`."""
    for k in range(first, stop):
        if not o.used[k] and q.latest[o.pending[k]] <= at:
            return False
    return True


@inline
def _extend(q, s, o, first, stop, at, count, since, strict, row):  # type: ignore[no-untyped-def]
    """List a cluster's orders, those first in which frees come in the order of entry.

    What was over before another was entered comes before it; those not over by `at` may also be
    left out: they come later. Dead ends count as steps of the search. Returns the next row.
    """
    size, last, depth, entered = stop - first, row + MAX_ORDERS, 0, True
    nodes = -MAX_ORDERS * size
    while depth >= 0 and row < last and nodes * size < 1 << 26:
        if entered:
            nodes += 1
            if _may_end(q, o, first, stop, at):
                for d in range(depth):
                    o.parts[o.begins[row] + d] = o.path[d]
                o.begins[row + 1] = o.begins[row] + depth
                row += 1
            o.following[depth] = first
        k = o.following[depth]
        while k < stop and (not _is_next(q, o, k, first, stop) or (
                strict and _misread(q, o, o.pending[k], depth, count, since))):
            k += 1
        entered = k < stop
        if entered:
            o.following[depth], o.path[depth], o.used[k] = k + 1, k, 1
            depth += 1
        else:
            depth -= 1
            if depth >= 0:
                o.used[o.path[depth]] = 0
    for k in range(first, stop):
        o.used[k] = 0
    s.at[STEPS] += max(0, nodes) * size
    return row


@inline
def _product(o, clusters, pending, found):  # type: ignore[no-untyped-def]
    """One order of each cluster behind the other, the last one varying fastest."""
    for c in range(clusters):
        o.pick[c] = o.first[c]
    last, c = found + MAX_ORDERS, 0
    while found < last and c >= 0:
        at = found * (pending + 1)
        length = 0
        for c in range(clusters):
            for k in range(o.begins[o.pick[c]], o.begins[o.pick[c] + 1]):
                length += 1
                o.found[at + length] = o.pending[o.parts[k]]
        o.found[at] = length
        found += 1
        c = clusters - 1
        while c >= 0 and o.pick[c] + 1 == o.first[c + 1]:
            o.pick[c] = o.first[c]
            c -= 1
        if c >= 0:
            o.pick[c] += 1
    return found


@inline
def _orders(q, s, o, pending, at, count, since, strict, found):  # type: ignore[no-untyped-def]
    """Find orders that respect time, cluster by cluster; huge clusters only in order of entry.

    strict: only those that fit the list lengths that were read. Returns how many are found then.
    """
    row = clusters = first = 0
    over = np.int64(-1)
    o.begins[0] = 0
    while first < pending:
        stop, total = first, 0
        while stop < pending and (stop == first or over > q.time[o.pending[stop]]):
            over = max(over, q.latest[o.pending[stop]])
            total += q.nr[o.pending[stop]]
            stop += 1
        o.first[clusters] = row
        if stop - first > MAX_CLUSTER or (
                stop - first == 1 and q.latest[o.pending[first]] <= at):
            for k in range(first, stop):
                o.parts[o.begins[row] + k - first] = k
            o.begins[row + 1] = o.begins[row] + stop - first
            row += 1
        else:
            row = _extend(q, s, o, first, stop, at, count, since, strict, row)
        if row == o.first[clusters]:
            return found
        count, clusters, first = count + total, clusters + 1, stop
    o.first[clusters] = row
    return _product(o, clusters, pending, found)


@inline
def _drop_known(o, pending, strict, found):  # type: ignore[no-untyped-def]
    """Mark, by a length of -1, the orders behind `strict` that stand among those before.

    Both are in one order, so that one walk along both finds them.
    """
    known = 0
    for n in range(strict, found):
        if known == strict:
            return
        a, b = n * (pending + 1), known * (pending + 1)
        same = True
        for k in range(o.found[b] + 1):
            same = same and o.found[a + k] == o.found[b + k]
        if same:
            o.found[a] = -1
            known += 1


@inline
def _put_by_length(o, pending, start, stop, arena, at):  # type: ignore[no-untyped-def]
    """Copy orders, the longest first; where they end."""
    width = pending + 1
    for length in range(pending, -1, -1):
        for n in range(start, stop):
            if o.found[n * width] == length:
                for k in range(width):
                    arena[at + k] = o.found[n * width + k]
                at += width
    return at


@inline
def options(q, s, o, pending, at, count, since, arena, into):  # type: ignore[no-untyped-def]
    """Put orders of pending frees that came before an allocation that held the lock at `at`.

    Those that were over by then must be among them. The likeliest first: those that fit the list
    lengths that were read, then the longest, then those in the order of entry. Returns where they
    end in the arena, which has room for 2 * MAX_ORDERS of them.
    """
    strict = _orders(q, s, o, pending, at, count, since, True, 0)
    found, later = strict, False
    for k in range(pending):
        later = later or q.latest[o.pending[k]] > at
    if strict != 1 or later:
        found = _orders(q, s, o, pending, at, count, since, False, strict)
        _drop_known(o, pending, strict, found)
    return _put_by_length(o, pending, strict, found, arena,
                          _put_by_length(o, pending, 0, strict, arena, into))
