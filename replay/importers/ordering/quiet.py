"""Calls that overlap no other: applied to the free list one after the other, compiled."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.base.compiled import inline, compiled
from replay.trace.columns import NONE

Ints = npt.NDArray[np.int64]
UNKNOWN: Final = -1
"""A frame that is not known."""
OPEN: Final = -2
"""Cells from here down stand for pages whose arrangement is open (lock_search.Group)."""

DEPTH, COUNT, SIZE = range(3)


class List(NamedTuple):
    """The free list, its head at the end of `cells`: frames, UNKNOWN, or OPEN and below.

    Beneath the first cell lies what was listed before the recording. content: the pages that each
    allocation got. at: DEPTH cells, of COUNT pages listed (NONE while that is unknown).
    """

    cells: Ints
    content: Ints
    at: Ints


def empty(q) -> List:  # type: ignore[no-untyped-def]
    """A list of which nothing is known, with room for all that the calls push."""
    room = int(q.pushes.sum() + q.sections[1].sum()) + 1
    content = np.full(int(q.content[-1]) + 1, UNKNOWN, np.int64)
    return List(np.empty(room, np.int64), content, np.array([0, NONE], np.int64))


@inline
def fits(cell, frame, origin):  # type: ignore[no-untyped-def]
    """Whether a listed page can be the one that an allocation got.

    An unknown cell is a page that nobody was seen to free.
    """
    if frame < 0 or cell == frame:
        return True
    return cell == UNKNOWN and origin < 0


@inline
def _readable(q, s, c):  # type: ignore[no-untyped-def]
    """Whether what was read at entry is what is there."""
    count, depth = s.at[COUNT], s.at[DEPTH]
    if q.listed[c] != NONE and count != NONE and q.listed[c] != count:
        return False
    if q.head[c] >= 0 and depth > 0 and s.cells[depth - 1] >= 0:
        return q.head[c] == s.cells[depth - 1]
    return True


@inline
def _read_after(q, s, c):  # type: ignore[no-untyped-def]
    count, depth = s.at[COUNT], s.at[DEPTH]
    if q.listed_after[c] != NONE and count != NONE and q.listed_after[c] != count:
        return False
    if q.head_after[c] >= 0 and depth > 0 and s.cells[depth - 1] >= 0:
        return q.head_after[c] == s.cells[depth - 1]
    return True


@inline
def _pop(q, s, c):  # type: ignore[no-untyped-def]
    """Take the allocation's pages off the list; False if they are not what lies there."""
    n, depth, first = q.pops[c], s.at[DEPTH], q.start[c]
    for k in range(n):
        frame = q.frames[first + k] if k < q.known[c] else UNKNOWN
        origin = q.origin[first + k] if k < q.known[c] else UNKNOWN
        cell = s.cells[depth - 1 - k] if k < depth else UNKNOWN
        if cell <= OPEN or not fits(cell, frame, origin):
            return False
    for k in range(q.nr[c]):
        frame = q.frames[first + k] if k < q.known[c] else UNKNOWN
        if frame < 0 and k < min(n, depth):
            frame = s.cells[depth - 1 - k]
        if q.content[c + 1] > q.content[c]:
            s.content[q.content[c] + k] = frame
    s.at[DEPTH] = max(0, depth - n)
    if s.at[COUNT] != NONE:
        s.at[COUNT] -= n
    return True


@inline
def _push(q, s, c):  # type: ignore[no-untyped-def]
    depth = s.at[DEPTH]
    for k in range(q.pushes[c]):
        frame = q.frames[q.start[c] + k] if k < q.known[c] else UNKNOWN
        if frame < 0 and q.array[c] >= 0:
            frame = s.content[q.content[q.array[c]] + k]
        s.cells[depth + k] = frame
    s.at[DEPTH] = depth + q.pushes[c]
    if s.at[COUNT] != NONE:
        s.at[COUNT] += q.pushes[c]


@inline
def add_sections(q, s, c):  # type: ignore[no-untyped-def]
    """Push the sections that a call added, ascending (fill_list(), unpopulated-alloc.c)."""
    for n in range(q.section[c], q.section[c + 1]):
        depth, pages = s.at[DEPTH], q.sections[1, n]
        for k in range(pages):
            s.cells[depth + k] = q.sections[0, n] + k
        s.at[DEPTH] += pages
        if s.at[COUNT] != NONE:
            s.at[COUNT] += pages


@compiled()
def quiet(q, s, first, stop):  # type: ignore[no-untyped-def]
    """Apply calls first to stop - 1; returns the first one that does not fit, or stop.

    Of that one nothing is done.
    """
    for c in range(first, stop):
        depth, count = s.at[DEPTH], s.at[COUNT]
        if not _readable(q, s, c):
            return c
        if count == NONE and q.listed[c] != NONE:
            s.at[COUNT] = q.listed[c]
        add_sections(q, s, c)
        if q.whole[c]:
            if s.at[COUNT] == NONE:
                s.at[COUNT] = q.pops[c]
            done = s.at[COUNT] == q.pops[c]
        else:
            done = s.at[COUNT] == NONE or s.at[COUNT] >= q.pops[c]
        done = done and _pop(q, s, c)
        if done:
            _push(q, s, c)
            done = _read_after(q, s, c)
        if not done:
            s.at[DEPTH], s.at[COUNT] = depth, count
            return c
    return stop
