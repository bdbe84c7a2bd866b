"""Frames on the move: the free list, and what is kept of every frame for the fragmentation metrics.

Frames come and go in runs of neighbours, so the tables are touched once per 2 MiB block, not once
per page. Frames beyond the tables (placeholders of `verify`) are listed, but not tracked.
"""

from __future__ import annotations

import numpy as np

from replay.base.compiled import index, inline
from replay.engine.state import (
    G_BROKEN,
    G_HELD,
    G_LIVE,
    G_PINNED,
    G_WHOLE,
    R_BLOCK_PAGES,
    R_CAPACITY,
    R_COUNT,
    R_FAULT,
    R_LIST,
    R_MOVED,
    R_OTHER_CAPACITY,
    R_OTHER_COUNT,
    R_OTHER_LIST,
    R_UNTRACKED,
    T_BLOCK_SHIFT,
    T_BLOCKS,
    T_BROKEN,
    T_LIVE,
    T_NR_BLOCKS,
    T_RUN,
    T_RUN_COUNT,
    T_SECTION_SHIFT,
    T_TOP,
    W_SUPERPAGE_BREAK,
    did,
)


@inline
def _block_filled(m: np.ndarray, b: int) -> None:
    """Block `b` became wholly free: join it with the runs on either side (boundary tags)."""
    whole = m[R_BLOCK_PAGES]
    blocks, run, count = m[T_BLOCKS], m[T_RUN], m[T_RUN_COUNT]
    below = m[run + b - 1] if b > 0 and m[blocks + b - 1] == whole else 0
    above = m[run + b + 1] if b + 1 < m[T_NR_BLOCKS] and m[blocks + b + 1] == whole else 0
    joined = below + above + 1
    m[count + below] -= 1
    m[count + above] -= 1
    m[count + joined] += 1
    m[run + b - below] = joined
    m[run + b + above] = joined
    m[T_TOP] = max(m[T_TOP], joined)
    m[G_WHOLE] += 1


@inline
def _block_opened(m: np.ndarray, b: int) -> None:
    """Block `b` is no longer wholly free: split the run it was part of."""
    whole = m[R_BLOCK_PAGES]
    blocks, run, count = m[T_BLOCKS], m[T_RUN], m[T_RUN_COUNT]
    if b + 1 == m[T_NR_BLOCKS] or m[blocks + b + 1] != whole:
        length = m[run + b]
        below = length - 1
    else:
        below = 0
        while below < b and m[blocks + b - below - 1] == whole:
            below += 1
        length = m[run + b - below]
    above = length - below - 1
    m[count + length] -= 1
    m[count + below] += 1
    m[count + above] += 1
    if below > 0:
        m[run + b - below] = below
        m[run + b - 1] = below
    if above > 0:
        m[run + b + 1] = above
        m[run + b + above] = above
    top = m[T_TOP]
    while top > 0 and m[count + top] <= 0:
        top -= 1
    m[T_TOP] = top
    m[G_WHOLE] -= 1


@inline
def _came(m: np.ndarray, b: int, count: int) -> None:
    """`count` frames of block `b` became free."""
    if b < 0 or b >= m[T_NR_BLOCKS]:
        return
    at = m[T_BLOCKS] + b
    free = m[at] + count
    m[at] = free
    if free == m[R_BLOCK_PAGES]:
        _block_filled(m, b)


@inline
def _left(m: np.ndarray, b: int, count: int) -> None:
    """`count` free frames of block `b` are free no longer."""
    if b < 0 or b >= m[T_NR_BLOCKS]:
        return
    at = m[T_BLOCKS] + b
    free = m[at]
    m[at] = free - count
    if free == m[R_BLOCK_PAGES]:
        _block_opened(m, b)


@inline
def _live(m: np.ndarray, b: int, change: int) -> None:
    """Callers have so many frames of block `b` more, or fewer: is its section pinned by them?"""
    if b < 0 or b >= m[T_NR_BLOCKS]:
        return
    at = m[T_LIVE] + (b >> (m[T_SECTION_SHIFT] - m[T_BLOCK_SHIFT]))
    live = m[at] + change
    m[at] = live
    if live == 0:
        m[G_PINNED] -= 1
        m[R_MOVED] = 1
    elif live == change:
        m[G_PINNED] += 1
        m[R_MOVED] = 1


# -- between strategy and caller: the engine calls these ------------------------------------------
@inline
def frames_taken(m: np.ndarray, frames: np.ndarray, first: int, count: int) -> int:
    """Frames went to a caller; returns the runs of neighbouring frames they form.

    A run goes up or down by one frame at a time, in the order returned.
    """
    shift = m[T_BLOCK_SHIFT]
    k, end = index(first), index(first + count)
    runs, before = 0, -2
    while k < end:
        b, since = frames[k] >> shift, k
        while k < end and frames[k] >> shift == b:
            step = frames[k] - before
            before = frames[k]
            runs += (step != 1) & (step != -1)
            k += index(1)
        moved = np.int64(k - since)
        _left(m, b, moved)
        _live(m, b, moved)
    m[G_LIVE] += count
    return runs


@inline
def frames_returned(m: np.ndarray, frames: np.ndarray, first: int, count: int) -> None:
    """Callers gave live frames back."""
    shift = m[T_BLOCK_SHIFT]
    k, end = index(first), index(first + count)
    while k < end:
        b, since = frames[k] >> shift, k
        while k < end and frames[k] >> shift == b:
            k += index(1)
        moved = np.int64(k - since)
        _came(m, b, moved)
        _live(m, b, -moved)
    m[G_LIVE] -= count


# -- on and off the free list: strategies call these ----------------------------------------------
@inline
def push(m: np.ndarray, frames: np.ndarray, first: int, count: int) -> None:
    """Put frames that a caller gave back at the head of the free list, one after the other."""
    listed = m[R_COUNT]
    if listed + count > m[R_CAPACITY]:
        m[R_FAULT] = 1
        return
    head, since = index(m[R_LIST] + listed), index(first)
    for k in range(index(count)):
        m[head + k] = frames[since + k]
    m[R_COUNT] = listed + count


@inline
def take(m: np.ndarray, nr_pages: int, frames: np.ndarray, at: int) -> None:
    """Pop nr_pages frames off the list's head into frames[at:]."""
    count = m[R_COUNT]
    head, first = index(m[R_LIST] + count - 1), index(at)
    for k in range(index(nr_pages)):
        frames[first + k] = m[head - k]
    m[R_COUNT] = count - nr_pages


@inline
def swap_lists(m: np.ndarray) -> None:
    """Change between a pool's list and that of the balloon driver beside it, which callers of the
    pool never see: what happens to its frames shows in the balloon's own statistics alone.
    """
    for here, other in ((R_LIST, R_OTHER_LIST), (R_COUNT, R_OTHER_COUNT),
                        (R_CAPACITY, R_OTHER_CAPACITY)):
        m[here], m[other] = m[other], m[here]
    m[R_UNTRACKED] = 1 - m[R_UNTRACKED]


@inline
def enter_range(m: np.ndarray, start: int, count: int) -> None:
    """Free frames [start, start + count) come under the strategy, whatever list it keeps."""
    if m[R_UNTRACKED]:
        return
    m[G_HELD] += count
    m[R_MOVED] = 1
    shift = m[T_BLOCK_SHIFT]
    end = start + count
    while start < end:
        b = start >> shift
        stop = min(end, (b + 1) << shift)
        _came(m, b, stop - start)
        start = stop


@inline
def leave_range(m: np.ndarray, start: int, count: int) -> None:
    """Free frames [start, start + count) leave the strategy."""
    m[G_HELD] -= count
    m[R_MOVED] = 1
    shift = m[T_BLOCK_SHIFT]
    end = start + count
    while start < end:
        b = start >> shift
        stop = min(end, (b + 1) << shift)
        _left(m, b, stop - start)
        start = stop


@inline
def hold_range(m: np.ndarray, start: int, count: int) -> None:
    """Frames [start, start + count) enter the list from outside, ascending: a new section."""
    listed = m[R_COUNT]
    if listed + count > m[R_CAPACITY]:
        m[R_FAULT] = 1
        return
    head = index(m[R_LIST] + listed)
    for k in range(index(count)):
        m[head + k] = start + np.int64(k)
    m[R_COUNT] = listed + count
    enter_range(m, start, count)


@inline
def hold_words(m: np.ndarray, first: int, count: int) -> None:
    """The frames in m[first:] enter the list from outside, in order: ballooned-out RAM."""
    push(m, m, first, count)
    if m[R_UNTRACKED]:
        return
    m[G_HELD] += count
    m[R_MOVED] = 1
    shift = m[T_BLOCK_SHIFT]
    k, end = index(first), index(first + count)
    while k < end:
        b, since = m[k] >> shift, k
        while k < end and m[k] >> shift == b:
            k += index(1)
        _came(m, b, np.int64(k - since))


@inline
def let_go(m: np.ndarray, count: int) -> None:
    """The first frames of the list leave the strategy: given back to dom0 as RAM."""
    m[R_COUNT] -= count
    if m[R_UNTRACKED]:
        return
    m[G_HELD] -= count
    m[R_MOVED] = 1
    shift = m[T_BLOCK_SHIFT]
    first = m[R_LIST] + m[R_COUNT]
    k, end = index(first), index(first + count)
    while k < end:
        b, since = m[k] >> shift, k
        while k < end and m[k] >> shift == b:
            k += index(1)
        _left(m, b, np.int64(k - since))


@inline
def break_block(m: np.ndarray, b: int) -> None:
    """A 4 KiB change inside block `b`."""
    if b < 0 or b >= m[T_NR_BLOCKS] or m[m[T_BROKEN] + b]:
        return
    m[m[T_BROKEN] + b] = 1
    m[G_BROKEN] += 1
    m[R_MOVED] = 1
    did(m, W_SUPERPAGE_BREAK, 1)


@inline
def break_superpages(m: np.ndarray, first: int, count: int) -> None:
    """4 KiB changes to the frames in m[first:] inside stage-2 superpages: nothing mends those.

    Each is counted the first time.
    """
    shift = m[T_BLOCK_SHIFT]
    before = -1
    for k in range(index(first), index(first + count)):
        b = m[k] >> shift
        if b != before:
            break_block(m, b)
        before = b
