"""Writes the rows of allocations, frees and targets, and counts what they come to."""

from __future__ import annotations

from typing import Any

from replay.base.compiled import index, inline
from replay.trace.schema import KINDS
from replay.trace.slots import give, take
from replay.trace.synthetic.state import World

ALLOC_KIND, FREE_KIND, TARGET_KIND = map(KINDS.index, ("alloc", "free", "target"))

NO_SLOT = -1
"""Of a row that takes none; as stored.py leaves it, so that both give the same bytes."""


@inline
def _row(w: World, k: int, now: int, kind: int, pages: int, slot: int) -> Any:
    """The counts, with a row more."""
    c, actor, rows = w.counts[0], w.actors[k], w.rows
    c.first = now if c.first < 0 else c.first
    c.last = now - c.first
    at = index(c.rows)
    rows.time[at], rows.kind[at] = c.last, kind
    rows.task[at], rows.pid[at], rows.caller[at] = actor.task, actor.pid, actor.caller
    rows.pages[at], rows.slot[at], rows.ends[at] = pages, slot, c.words
    c.rows += 1
    return c


@inline
def alloc(w: World, k: int, now: int, pages: int) -> int:
    """Actor k asks for pages; the first of their slots, which are free: see simulation.py."""
    slot = take(w.arena, pages)
    c = _row(w, k, now, ALLOC_KIND, pages, slot)
    c.allocs += 1
    c.live += pages
    c.live_peak = max(c.live_peak, c.live)
    c.most_pages = max(c.most_pages, pages)
    return slot


@inline
def _run(w: World, first: int, count: int) -> None:
    """Slots in a row are free again, `count` of them upwards from the first, or -count down."""
    c = w.counts[0]
    w.rows.runs[c.words], w.rows.runs[c.words + 1] = first, count
    c.words += 2
    if count > 0:
        give(w.arena, first, count)
    else:
        give(w.arena, first + count + 1, -count)


@inline
def _freed(w: World, k: int, now: int, pages: int) -> None:
    c = _row(w, k, now, FREE_KIND, pages, NO_SLOT)
    c.frees += 1
    c.live -= pages
    c.most_pages = max(c.most_pages, pages)


@inline
def free(w: World, k: int, now: int, slot: int, pages: int) -> None:
    """Actor k returns a whole allocation."""
    _run(w, slot, pages)
    _freed(w, k, now, pages)


@inline
def free_last(w: World, k: int, now: int, stack: Any, count: int, pages: int) -> None:
    """Actor k returns the last `pages` slots of a stack of `count`, the last one first."""
    first, length = stack[count - 1], 1
    for at in range(count - 2, count - 1 - pages, -1):
        slot = stack[at]
        if slot == first + length:
            length += 1 if length > 0 else -1
        elif length == 1 and slot == first - 1:
            length = -2
        else:
            _run(w, first, length)
            first, length = slot, 1
    _run(w, first, length)
    _freed(w, k, now, pages)


@inline
def target(w: World, k: int, now: int, pages: int) -> None:
    """The toolstack sets dom0's target."""
    c = _row(w, k, now, TARGET_KIND, pages, NO_SLOT)
    c.targets += 1
    c.most_target = max(c.most_target, pages)
