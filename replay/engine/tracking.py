"""Frames on the move: the free list, and what is kept of every frame for the fragmentation metrics.

Frames come and go in runs of neighbours, so the tables are touched once per 2 MiB block, not once
per page. Frames beyond the tables (placeholders of `verify`) are listed, but not tracked.
"""

from __future__ import annotations

import numpy as np

from replay.base.compiled import compiled, index, inline, likely, lowest_bit, unlikely
from replay.engine.state import BEYOND_LIST, words

CHANGES = 32
"""Frames whose blocks are looked at in one step."""


@inline
def _block_filled(m: np.ndarray, b: int) -> None:
    """Block `b` became wholly free: join it with the runs on either side (boundary tags)."""
    s = words(m)
    whole = s.block_pages
    blocks, run, count = s.table.blocks, s.table.run, s.table.run_count
    below = m[run + b - 1] if b > 0 and m[blocks + b - 1] == whole else 0
    above = m[run + b + 1] if b + 1 < s.table.nr_blocks and m[blocks + b + 1] == whole else 0
    joined = below + above + 1
    m[count + below] -= 1
    m[count + above] -= 1
    m[count + joined] += 1
    m[run + b - below] = joined
    m[run + b + above] = joined
    s.table.top = max(s.table.top, joined)
    s.gauge.whole += 1


@inline
def _block_opened(m: np.ndarray, b: int) -> None:
    """Block `b` is no longer wholly free: split the run it was part of."""
    s = words(m)
    whole = s.block_pages
    blocks, run, count = s.table.blocks, s.table.run, s.table.run_count
    if b + 1 == s.table.nr_blocks or m[blocks + b + 1] != whole:
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
    top = s.table.top
    while top > 0 and m[count + top] <= 0:
        top -= 1
    s.table.top = top
    s.gauge.whole -= 1


@inline
def _tracked(m: np.ndarray, b: int) -> bool:
    """Whether block `b` is in the tables."""
    return 0 <= b < words(m).table.nr_blocks


@inline
def _came(m: np.ndarray, b: int, count: int) -> None:
    """`count` frames of a tracked block became free."""
    s = words(m)
    at = index(s.table.blocks + b)
    free = m[at] + count
    m[at] = free
    if unlikely(free == s.block_pages):
        _block_filled(m, b)


@inline
def _left(m: np.ndarray, b: int, count: int) -> None:
    """`count` free frames of a tracked block are free no longer."""
    s = words(m)
    at = index(s.table.blocks + b)
    free = m[at]
    m[at] = free - count
    if unlikely(free == s.block_pages):
        _block_opened(m, b)


@inline
def _live(m: np.ndarray, b: int, change: int) -> None:
    """Callers have so many frames of a tracked block more, or fewer: is its section pinned by them?
    """
    s = words(m)
    at = index(s.table.live + (b >> (s.table.section_shift - s.table.block_shift)))
    live = m[at] + change
    m[at] = live
    if unlikely(live == 0):
        s.gauge.pinned -= 1
        s.moved = 1
    elif unlikely(live == change):
        s.gauge.pinned += 1
        s.moved = 1


@inline
def _taken(m: np.ndarray, b: int, count: int) -> None:
    """So many free frames of block `b` are callers' now."""
    if likely(_tracked(m, b)):
        _left(m, b, count)
        _live(m, b, count)


@inline
def _returned(m: np.ndarray, b: int, count: int) -> None:
    """So many frames of block `b` are callers' no longer, but free."""
    if likely(_tracked(m, b)):
        _came(m, b, count)
        _live(m, b, -count)


@compiled
def count_runs(frames: np.ndarray, first: int, count: int) -> int:
    """Runs of neighbouring frames, ascending or descending, in the order returned."""
    runs = int(count > 0)
    for k in range(index(first + 1), index(first + count)):
        step = frames[k] - frames[k - index(1)]
        runs += (step != 1) & (step != -1)
    return runs


@inline
def _block_changes(frames: np.ndarray, first: int, count: int, shift: int) -> int:
    """Bit k: whether frame first + k is in another block than the one before it."""
    changes = 0
    for k in range(count):
        apart = frames[index(first + k)] ^ frames[index(first + k - 1)]
        changes |= int(apart >> shift != 0) << k
    return changes


@compiled
def _all_moved(m: np.ndarray, frames: np.ndarray, first: int, count: int, taken: bool) -> None:
    """frames_taken() or frames_returned() of any number of frames, block by block.

    Where blocks end is found without a branch per page: lists that many callers have used
    go from block to block as chance will have it.
    """
    shift = words(m).table.block_shift
    since, k, end = first, first + 1, first + count
    while since < end:
        nr = min(CHANGES, end - k)
        changes = _block_changes(frames, k, nr, shift)
        if k + nr == end:
            changes |= 1 << nr
        while changes != 0:
            stop = k + lowest_bit(changes)
            b = frames[index(since)] >> shift
            if taken:
                _taken(m, b, stop - since)
            else:
                _returned(m, b, stop - since)
            since, changes = stop, changes & (changes - 1)
        k += nr


# -- between strategy and caller: the engine calls these ------------------------------------------
# One page, the commonest request, goes without the loops, here and below: what prepares them costs
# more than its work. More pages are worth a call.
@inline
def frames_taken(m: np.ndarray, frames: np.ndarray, first: int, count: int) -> int:
    """Frames went to a caller; returns the runs of neighbouring frames they form.

    A run goes up or down by one frame at a time, in the order returned.
    """
    s = words(m)
    s.gauge.live += count
    if likely(count == 1):
        _taken(m, frames[index(first)] >> s.table.block_shift, 1)
        return 1
    _all_moved(m, frames, first, count, True)
    return count_runs(frames, first, count)


@inline
def frames_returned(m: np.ndarray, frames: np.ndarray, first: int, count: int) -> None:
    """Callers gave live frames back."""
    s = words(m)
    s.gauge.live -= count
    if likely(count == 1):
        _returned(m, frames[index(first)] >> s.table.block_shift, 1)
    else:
        _all_moved(m, frames, first, count, False)


# -- on and off the free list: strategies call these ----------------------------------------------
@compiled
def _copy(source: np.ndarray, first: int, into: np.ndarray, at: int, count: int) -> None:
    for k in range(index(count)):
        into[index(at) + k] = source[index(first) + k]


@compiled
def _copy_reversed(source: np.ndarray, last: int, into: np.ndarray, at: int, count: int) -> None:
    for k in range(index(count)):
        into[index(at) + k] = source[index(last) - k]


@inline
def push(m: np.ndarray, frames: np.ndarray, first: int, count: int) -> None:
    """Put frames that a caller gave back at the head of the free list, one after the other."""
    s = words(m)
    listed = s.count
    if unlikely(listed + count > s.capacity):
        s.fault = 1
        return
    head = s.list + listed
    s.count = listed + count
    if likely(count == 1):
        m[index(head)] = frames[index(first)]
    else:
        _copy(frames, first, m, head, count)


@inline
def take(m: np.ndarray, nr_pages: int, frames: np.ndarray, at: int) -> None:
    """Pop nr_pages frames off the list's head into frames[at:]."""
    s = words(m)
    count = s.count
    head = s.list + count - 1
    s.count = count - nr_pages
    if likely(nr_pages == 1):
        frames[index(at)] = m[index(head)]
    else:
        _copy_reversed(m, head, frames, at, nr_pages)


@inline
def swap_lists(m: np.ndarray) -> None:
    """Change between a pool's list and that of the balloon driver beside it, which callers of the
    pool never see: what happens to its frames shows in the balloon's own statistics alone.
    """
    s = words(m)
    s.list, s.other_list = s.other_list, s.list
    s.count, s.other_count = s.other_count, s.count
    s.capacity, s.other_capacity = s.other_capacity, s.capacity
    s.untracked = 1 - s.untracked


@inline
def enter_range(m: np.ndarray, start: int, count: int) -> None:
    """Free frames [start, start + count) come under the strategy, whatever list it keeps."""
    s = words(m)
    if s.untracked:
        return
    s.gauge.held += count
    s.moved = 1
    shift = s.table.block_shift
    end = start + count
    while start < end:
        b = start >> shift
        stop = min(end, (b + 1) << shift)
        if _tracked(m, b):
            _came(m, b, stop - start)
        start = stop


@inline
def leave_range(m: np.ndarray, start: int, count: int) -> None:
    """Free frames [start, start + count) leave the strategy."""
    s = words(m)
    s.gauge.held -= count
    s.moved = 1
    shift = s.table.block_shift
    end = start + count
    while start < end:
        b = start >> shift
        stop = min(end, (b + 1) << shift)
        if _tracked(m, b):
            _left(m, b, stop - start)
        start = stop


@inline
def hold_range(m: np.ndarray, start: int, count: int) -> None:
    """Frames [start, start + count) enter the list from outside, ascending: a new section."""
    s = words(m)
    listed = s.count
    if unlikely(listed + count > s.capacity):
        s.fault = 1
        return
    head = index(s.list + listed)
    for k in range(index(count)):
        m[head + k] = start + np.int64(k)
    s.count = listed + count
    enter_range(m, start, count)


@inline
def hold_words(m: np.ndarray, first: int, count: int) -> None:
    """The frames in m[first:] enter the list from outside, in order: ballooned-out RAM."""
    s = words(m)
    push(m, m, first, count)
    if s.untracked:
        return
    s.gauge.held += count
    s.moved = 1
    shift = s.table.block_shift
    k, end = index(first), index(first + count)
    while k < end:
        b, since = m[k] >> shift, k
        while k < end and m[k] >> shift == b:
            k += index(1)
        if _tracked(m, b):
            _came(m, b, np.int64(k - since))


@inline
def let_go(m: np.ndarray, count: int) -> None:
    """The first frames of the list leave the strategy: given back to dom0 as RAM."""
    s = words(m)
    s.count -= count
    if s.untracked:
        return
    s.gauge.held -= count
    s.moved = 1
    shift = s.table.block_shift
    first = s.list + s.count
    k, end = index(first), index(first + count)
    while k < end:
        b, since = m[k] >> shift, k
        while k < end and m[k] >> shift == b:
            k += index(1)
        if _tracked(m, b):
            _left(m, b, np.int64(k - since))


@inline
def break_block(m: np.ndarray, b: int) -> None:
    """A 4 KiB change inside block `b`."""
    s = words(m)
    if b < 0 or b >= s.table.nr_blocks or m[s.table.broken + b]:
        return
    m[s.table.broken + b] = 1
    s.gauge.broken += 1
    s.moved = 1
    s.work.superpage_break += 1
    s.dirty |= BEYOND_LIST


@inline
def break_superpages(m: np.ndarray, first: int, count: int) -> None:
    """4 KiB changes to the frames in m[first:] inside stage-2 superpages: nothing mends those.

    Each is counted the first time.
    """
    s = words(m)
    shift = s.table.block_shift
    before = -1
    for k in range(index(first), index(first + count)):
        b = m[k] >> shift
        if b != before:
            break_block(m, b)
        before = b
