"""What the order of calls tells of their frames: a list on which each page is where it was put.

A probe may read one word of a page array. Once the order is known, an allocation that was recorded
whole says which pages lay on the list, and so which pages a free before it gave back; and what a
free is known to have given back says what a later allocation got. Compiled, one pass.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from replay.base.compiled import compiled, inline, record
from replay.base.scratch import Scratch
from replay.importers.ordering.calls import Calls
from replay.importers.ordering.quiet import UNKNOWN
from replay.importers.source.probes import Ints

WALKED_CALLS: Final = 1 << 14
WALKED_PAGES: Final = 1 << 20
"""Of what is worked on at a time."""

HOT_RANGE = record("next_page", "end", "block")
"""A range that was hot-added to the balloon: its next page to come, its end, and the pages of a
block of it (units.BUDDY_PAGES)."""


class Pages(NamedTuple):
    """The pages of all calls one behind the other; those of call c begin at first[c].

    frame: of each page, UNKNOWN where nothing tells it. same: another page that is known to be the
    same frame, of a call that came before, or -1; so no chain of them returns. list: places of
    listed pages, the head at the end, or -2 - a frame. hot: ranges, a HOT_RANGE each.
    """

    first: Ints
    frame: Ints
    same: Ints
    list: Ints
    hot: np.ndarray


@inline
def _settle(p, place):  # type: ignore[no-untyped-def]
    """The frame of a page, by way of those that are the same."""
    while p.frame[place] < 0 and p.same[place] >= 0:
        place = p.same[place]
    return p.frame[place]


@inline
def _tell(p, place, frame):  # type: ignore[no-untyped-def]
    """A page is this frame, and so are those that it is known to be the same as."""
    while place >= 0 and p.frame[place] < 0:
        p.frame[place] = frame
        place = p.same[place]


@inline
def _onlined(p, depth, frame):  # type: ignore[no-untyped-def]
    """Push hot-added pages up to a block that ends with this frame; the depth then.

    xen_online_page() (drivers/xen/balloon.c) appends a free block of the buddy allocator at once,
    ascending, while callers have the lock in between: so the first page that one gets of a block is
    its last.
    """
    for n in range(len(p.hot)):
        hot = p.hot[n]
        if hot.next_page <= frame < hot.end and (frame + 1) % hot.block == 0:
            for page in range(hot.next_page, frame + 1):
                p.list[depth] = -2 - page
                depth += 1
            hot.next_page = frame + 1
    return depth


@compiled
def _walk(q, p, order, passed, depth):  # type: ignore[no-untyped-def]
    """Follow calls in their order; returns how many pages are on the list then.

    passed: zeros by call, written here. depth: pages on the list before.
    """
    for n in range(len(order)):
        c = order[n]
        for s in range(q.section[c], q.section[c + 1]):
            for k in range(q.sections[s].pages):
                p.list[depth] = -2 - (q.sections[s].first + k)
                depth += 1
        first = p.first[c]
        for k in range(q.nr[c]):
            if k < q.known[c]:
                p.frame[first + k] = q.frames[q.start[c] + k]
        for k in range(q.pushes[c]):
            if q.array[c] >= 0 and passed[q.array[c]]:
                p.same[first + k] = p.first[q.array[c]] + k
                if p.frame[first + k] < 0:
                    p.frame[first + k] = _settle(p, first + k)
                else:
                    _tell(p, p.same[first + k], p.frame[first + k])
            p.list[depth] = first + k
            depth += 1
        for k in range(q.pops[c]):
            mine = p.frame[first + k]
            if mine >= 0:
                depth = _onlined(p, depth, mine)
            if depth == 0:
                break
            depth -= 1
            place = p.list[depth]
            theirs = -2 - place if place <= -2 else _settle(p, place)
            if mine >= 0 and theirs >= 0 and mine != theirs:
                depth = 0  # from here on the list is not known
            elif mine >= 0 and place >= 0:
                _tell(p, place, mine)
            elif mine < 0 and theirs >= 0:
                p.frame[first + k] = theirs
            elif mine < 0 and place >= 0:
                p.same[first + k] = place
        passed[c] = 1
    return depth


@compiled
def _late(p, begin, end):  # type: ignore[no-untyped-def]
    """Frames that became known after a page that is the same was passed."""
    for place in range(begin, end):
        if p.frame[place] < 0:
            p.frame[place] = _settle(p, place)


def learn(q: Calls, order: Ints, added: np.ndarray, scratch: Scratch) -> tuple[Ints, Ints]:
    """(first, frames): the frames of all calls' pages, recorded or told by the order; -1 unknown.

    Those of call c are frames[first[c] : first[c] + q.nr[c]]. added: hot-added ranges, a HOT_RANGE
    each, at its first page.
    """
    first = scratch.array(len(q.nr) + 1)
    np.cumsum(q.nr, out=first[1:])
    size = int(first[-1])
    hot = (added["end"] - added["next_page"]).sum()
    room = int(q.pushes.sum() + q.sections["pages"].sum() + hot) + 1
    pages = Pages(first, scratch.full(size, UNKNOWN), scratch.full(size, -1),
                  np.empty(room, np.int64), added)
    passed, depth = np.zeros(len(order), np.int8), 0
    for at in range(0, len(order), WALKED_CALLS):
        depth = int(_walk(q, pages, order[at : at + WALKED_CALLS], passed, depth))
        scratch.relax()
    for at in range(0, size, WALKED_PAGES):
        _late(pages, at, min(at + WALKED_PAGES, size))
        scratch.relax()
    return first, pages.frame
