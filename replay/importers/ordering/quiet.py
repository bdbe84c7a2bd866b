"""The free list as far as it is settled, and calls applied to it one after the other, compiled."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from replay.base.compiled import inline, record
from replay.base.scratch import Scratch
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE

UNKNOWN: Final = -1
"""A frame that is not known."""
OPEN_CELL: Final = -2
"""Cells from here down stand for pages whose arrangement is open (states.Group)."""

LIST_SIZE = record(
    "depth",  # cells
    "count",  # pages that are listed, NONE while that is unknown
)  # fmt: skip
"""How long a list is."""


class List(NamedTuple):
    """The free list, its head at the end of `cells`: frames, UNKNOWN, or OPEN_CELL and below.

    Beneath the first cell lies what was listed before the recording. content: the pages that each
    allocation got. size: a LIST_SIZE.
    """

    cells: Ints
    content: Ints
    size: Any


def empty(q, scratch: Scratch) -> List:  # type: ignore[no-untyped-def]
    """A list of which nothing is known, with room for all that the calls push: of that no more is
    in memory than the longest that it becomes."""
    room = int(q.pushes.sum() + q.sections["pages"].sum()) + 1
    content = scratch.full(int(q.content[-1]) + 1, UNKNOWN)
    return List(np.empty(room, np.int64), content, np.array([(0, NONE)], LIST_SIZE)[0])


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
    count, depth = s.size.count, s.size.depth
    if q.listed[c] != NONE and count != NONE and q.listed[c] != count:
        return False
    if q.head[c] >= 0 and depth > 0 and s.cells[depth - 1] >= 0:
        return q.head[c] == s.cells[depth - 1]
    return True


@inline
def _read_after(q, s, c):  # type: ignore[no-untyped-def]
    count, depth = s.size.count, s.size.depth
    if q.listed_after[c] != NONE and count != NONE and q.listed_after[c] != count:
        return False
    if q.head_after[c] >= 0 and depth > 0 and s.cells[depth - 1] >= 0:
        return q.head_after[c] == s.cells[depth - 1]
    return True


@inline
def _pop(q, s, c):  # type: ignore[no-untyped-def]
    """Take the allocation's pages off the list; False if they are not what lies there."""
    n, depth, first = q.pops[c], s.size.depth, q.start[c]
    for k in range(n):
        frame = q.frames[first + k] if k < q.known[c] else UNKNOWN
        origin = q.origin[first + k] if k < q.known[c] else UNKNOWN
        cell = s.cells[depth - 1 - k] if k < depth else UNKNOWN
        if cell <= OPEN_CELL or not fits(cell, frame, origin):
            return False
    for k in range(q.nr[c]):
        frame = q.frames[first + k] if k < q.known[c] else UNKNOWN
        if frame < 0 and k < min(n, depth):
            frame = s.cells[depth - 1 - k]
        if q.content[c + 1] > q.content[c]:
            s.content[q.content[c] + k] = frame
    s.size.depth = max(0, depth - n)
    if s.size.count != NONE:
        s.size.count -= n
    return True


@inline
def _push(q, s, c):  # type: ignore[no-untyped-def]
    depth = s.size.depth
    for k in range(q.pushes[c]):
        frame = q.frames[q.start[c] + k] if k < q.known[c] else UNKNOWN
        if frame < 0 and q.array[c] >= 0:
            frame = s.content[q.content[q.array[c]] + k]
        s.cells[depth + k] = frame
    s.size.depth = depth + q.pushes[c]
    if s.size.count != NONE:
        s.size.count += q.pushes[c]


@inline
def add_sections(q, s, c):  # type: ignore[no-untyped-def]
    """Push the sections that a call added, ascending (fill_list(), unpopulated-alloc.c)."""
    for n in range(q.section[c], q.section[c + 1]):
        depth, pages = s.size.depth, q.sections[n].pages
        for k in range(pages):
            s.cells[depth + k] = q.sections[n].first + k
        s.size.depth += pages
        if s.size.count != NONE:
            s.size.count += pages


@inline
def took_effect(q, s, c):  # type: ignore[no-untyped-def]
    """Apply a call, whatever was read of the list; False, and the list's size may be wrong, where
    its pages do not fit."""
    add_sections(q, s, c)
    if q.whole[c]:
        if s.size.count == NONE:
            s.size.count = q.pops[c]
        done = s.size.count == q.pops[c]
    else:
        done = s.size.count == NONE or s.size.count >= q.pops[c]
    done = done and _pop(q, s, c)
    if done:
        _push(q, s, c)
    return done


@inline
def applied(q, s, c):  # type: ignore[no-untyped-def]
    """Apply a call; False, and nothing is done, where it does not fit."""
    depth, count = s.size.depth, s.size.count
    if not _readable(q, s, c):
        return False
    if count == NONE and q.listed[c] != NONE:
        s.size.count = q.listed[c]
    done = took_effect(q, s, c) and _read_after(q, s, c)
    if not done:
        s.size.depth, s.size.count = depth, count
    return done
