"""Linux's resource tree, as far as an allocator searches it: the first-level children of a root.

Models kernel/resource.c, Linux 6.1 and 6.12 (`__find_resource`, renamed `__find_resource_space`;
`__request_resource`, `__release_resource`), and arch/x86/kernel/resource.c
(`arch_remove_reservations`, `remove_e820_regions`).

A tree lives in one int64 array: a record TREE `d`, and rows of RANGE, in bytes and inclusive as in
the kernel, sorted by start. Addresses stay below 2^62 (physmap/model.py checks), so sums cannot
overflow where the kernel relies on wrap-around.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import inline, record, row_at, words_in

TREE = record("at", "count", "room", "start", "last")
"""A resource and its first-level children: the first word of their rows, how many there are and
may be, and the bytes of the root, the last one included."""

RANGE = record("start", "last")
"""A child of a root: its bytes, the last one included."""
RANGE_WORDS = words_in(RANGE)
range_at = row_at(RANGE)

EBUSY = 16


@inline
def _clip(m: np.ndarray, c: Any, start: int, last: int) -> tuple[int, int]:
    """Cut the clip ranges of tree `c` from [start, last], in table order.

    The kernel keeps the part above or below a conflicting range, whichever is larger; the upper
    one when they are equal.
    """
    at = c.at
    for k in range(c.count):
        cut = range_at(m, at, k)
        if last < cut.start or start > cut.last:
            continue
        low = cut.start - start if start < cut.start else 0
        high = last - cut.last if last > cut.last else 0
        if low > high:
            last = cut.start - 1
        else:
            start = cut.last + 1
    return start, last


@inline
def find(m: np.ndarray, d: Any, c: Any, size: int, bounds: tuple[int, int, int]) -> tuple[int, int]:
    """First fit, lowest address first, among the gaps between first-level children.

    d, c: the tree and the clip ranges, see TREE. size: bytes. bounds: (min, max, align),
    max inclusive, align a power of two. Returns (start in bytes or -1, gaps looked at).
    """
    low, high, align = bounds
    at = d.at
    count = d.count
    root_last = d.last
    gap = d.start
    k = 0
    steps = 0
    # A child that begins with the root is passed over: its predecessor gap would be negative.
    if count > 0 and range_at(m, at, k).start == gap:
        gap = range_at(m, at, k).last + 1
        k = 1
    while True:
        last = range_at(m, at, k).start - 1 if k < count else root_last
        if last >= gap:
            steps += 1
            start = max(gap, low)
            last = min(last, high)
            start, last = _clip(m, c, start, last)
            aligned = (start + align - 1) & ~(align - 1)
            if aligned >= start and aligned + size - 1 <= last:
                return aligned, steps
        if k >= count or range_at(m, at, k).last == root_last:
            return -1, steps
        gap = range_at(m, at, k).last + 1
        k += 1


@inline
def _move(m: np.ndarray, at: int, here: int, there: int) -> None:
    """A child takes another place among the children."""
    old, new = range_at(m, at, here), range_at(m, at, there)
    new.start, new.last = old.start, old.last


@inline
def request(m: np.ndarray, d: Any, start: int, last: int) -> int:
    """Insert [start, last] as a first-level child; -EBUSY if it overlaps one or leaves the root."""
    if start < d.start or last > d.last or last < start:
        return -EBUSY
    at = d.at
    count = d.count
    if count >= d.room:
        return -EBUSY
    k = count
    while k > 0 and range_at(m, at, k - 1).start > start:
        k -= 1
    if k > 0 and range_at(m, at, k - 1).last >= start:
        return -EBUSY
    if k < count and range_at(m, at, k).start <= last:
        return -EBUSY
    for j in range(count, k, -1):
        _move(m, at, j - 1, j)
    made = range_at(m, at, k)
    made.start, made.last = start, last
    d.count = count + 1
    return 0


@inline
def release(m: np.ndarray, d: Any, start: int) -> int:
    """Remove the first-level child that begins at `start`; -EBUSY if there is none."""
    at = d.at
    count = d.count
    for k in range(count):
        if range_at(m, at, k).start == start:
            for j in range(k, count - 1):
                _move(m, at, j + 1, j)
            d.count = count - 1
            return 0
    return -EBUSY
