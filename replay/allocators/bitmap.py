"""Bitmaps in the state array: 32 bits to a word, so that the sign bit stays out of it."""

from __future__ import annotations

import numpy as np

from replay.base.compiled import inline, lowest_bit

SHIFT = 5
MASK = (1 << 32) - 1
ONES, ZEROS = 0, MASK
"""What next_bit() looks for."""


def words_for(bits: int) -> int:
    """Words that so many bits take."""
    return (bits + 31) >> SHIFT


@inline
def next_bit(m: np.ndarray, at: int, size: int, start: int, what: int) -> int:
    """The first one (or zero) of m[at:] from `start` on; `size` if there is none."""
    if start >= size:
        return size
    k = start >> SHIFT
    word = (m[at + k] ^ what) & MASK & (MASK << (start & 31))
    while word == 0:
        k += 1
        if k << SHIFT >= size:
            return size
        word = (m[at + k] ^ what) & MASK
    return min(size, (k << SHIFT) + lowest_bit(word))


@inline
def flip_bits(m: np.ndarray, at: int, start: int, count: int) -> None:
    """Turn `count` bits over, from `start` on."""
    end = start + count
    while start < end:
        stop = min(end, ((start >> SHIFT) + 1) << SHIFT)
        m[at + (start >> SHIFT)] ^= ((1 << (stop - start)) - 1) << (start & 31)
        start = stop
