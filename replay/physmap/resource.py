"""Linux's resource tree, as far as an allocator searches it: the first-level children of a root.

Models kernel/resource.c, Linux 6.1 and 6.12 (`__find_resource`, renamed `__find_resource_space`;
`__request_resource`, `__release_resource`), and arch/x86/kernel/resource.c
(`arch_remove_reservations`, `remove_e820_regions`).

A tree lives in one int64 array: a descriptor of TREE_WORDS words at index `d`, and rows of
(start, last), both in bytes and inclusive as in the kernel, sorted by start. Addresses stay below
2^62 (physmap/model.py checks), so sums cannot overflow where the kernel relies on wrap-around.
"""

from __future__ import annotations

import numpy as np

from replay.base.compiled import inline

TREE_AT, TREE_COUNT, TREE_CAPACITY, TREE_START, TREE_LAST = range(5)
TREE_WORDS = 5

ROW_WORDS = 2
EBUSY = 16


@inline
def _clip(m: np.ndarray, c: int, start: int, last: int) -> tuple[int, int]:
    """Cut the clip ranges of descriptor `c` from [start, last], in table order.

    The kernel keeps the part above or below a conflicting range, whichever is larger; the upper
    one when they are equal.
    """
    at = m[c + TREE_AT]
    for k in range(m[c + TREE_COUNT]):
        low_end = m[at + 2 * k]
        high_end = m[at + 2 * k + 1]
        if last < low_end or start > high_end:
            continue
        low = low_end - start if start < low_end else 0
        high = last - high_end if last > high_end else 0
        if low > high:
            last = low_end - 1
        else:
            start = high_end + 1
    return start, last


@inline
def find(m: np.ndarray, d: int, c: int, size: int, bounds: tuple[int, int, int]) -> tuple[int, int]:
    """First fit, lowest address first, among the gaps between first-level children.

    d, c: descriptors of the tree and of the clip ranges. size: bytes. bounds: (min, max, align),
    max inclusive, align a power of two. Returns (start in bytes or -1, gaps looked at).
    """
    low, high, align = bounds
    at = m[d + TREE_AT]
    count = m[d + TREE_COUNT]
    root_last = m[d + TREE_LAST]
    gap = m[d + TREE_START]
    k = 0
    steps = 0
    # A child that begins with the root is passed over: its predecessor gap would be negative.
    if count > 0 and m[at] == gap:
        gap = m[at + 1] + 1
        k = 1
    while True:
        last = m[at + 2 * k] - 1 if k < count else root_last
        if last >= gap:
            steps += 1
            start = max(gap, low)
            last = min(last, high)
            start, last = _clip(m, c, start, last)
            aligned = (start + align - 1) & ~(align - 1)
            if aligned >= start and aligned + size - 1 <= last:
                return aligned, steps
        if k >= count or m[at + 2 * k + 1] == root_last:
            return -1, steps
        gap = m[at + 2 * k + 1] + 1
        k += 1


@inline
def request(m: np.ndarray, d: int, start: int, last: int) -> int:
    """Insert [start, last] as a first-level child; -EBUSY if it overlaps one or leaves the root."""
    if start < m[d + TREE_START] or last > m[d + TREE_LAST] or last < start:
        return -EBUSY
    at = m[d + TREE_AT]
    count = m[d + TREE_COUNT]
    if count >= m[d + TREE_CAPACITY]:
        return -EBUSY
    k = count
    while k > 0 and m[at + 2 * (k - 1)] > start:
        k -= 1
    if k > 0 and m[at + 2 * (k - 1) + 1] >= start:
        return -EBUSY
    if k < count and m[at + 2 * k] <= last:
        return -EBUSY
    for j in range(count, k, -1):
        m[at + 2 * j] = m[at + 2 * j - 2]
        m[at + 2 * j + 1] = m[at + 2 * j - 1]
    m[at + 2 * k] = start
    m[at + 2 * k + 1] = last
    m[d + TREE_COUNT] = count + 1
    return 0


@inline
def release(m: np.ndarray, d: int, start: int) -> int:
    """Remove the first-level child that begins at `start`; -EBUSY if there is none."""
    at = m[d + TREE_AT]
    count = m[d + TREE_COUNT]
    for k in range(count):
        if m[at + 2 * k] == start:
            for j in range(k, count - 1):
                m[at + 2 * j] = m[at + 2 * j + 2]
                m[at + 2 * j + 1] = m[at + 2 * j + 3]
            m[d + TREE_COUNT] = count - 1
            return 0
    return -EBUSY
