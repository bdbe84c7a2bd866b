"""Bins of free runs by length, as far as they know nothing of the runs: two-level segregated fit
(Masmano et al., "TLSF", ECRTS 2004). The bitmap of bins in use begins the strategy's own words.
"""

from __future__ import annotations

import numpy as np

from replay.allocators.bitmap import ONES, next_bit, words_for
from replay.base.compiled import inline
from replay.engine.state import words

NR_BINS = 16 + 8 * 30
BITMAP_WORDS = words_for(NR_BINS)
"""Words of the bitmap."""


@inline
def bin_of(length: int) -> int:
    """The bin of a run: one per length below 16, then eight per power of two."""
    if length < 16:
        return length
    log = 4
    while length >> (log + 1) > 0:
        log += 1
    return min(16 + 8 * (log - 4) + ((length >> (log - 3)) & 7), NR_BINS - 1)


@inline
def next_used(m: np.ndarray, k: int) -> int:
    """The first bin in use from k on; NR_BINS if none."""
    s = words(m)
    found = next_bit(m, s.own_words, NR_BINS, k, ONES)
    s.work.array_word += (min(found, NR_BINS - 1) >> 6) - (k >> 6) + 1
    return found


@inline
def longest(m: np.ndarray) -> int:
    """The last bin in use. Some bin is."""
    s = words(m)
    k = NR_BINS - 1
    while next_bit(m, s.own_words, k + 1, k, ONES) > k:
        k -= 1
    s.work.array_word += ((NR_BINS - 1) >> 6) - (k >> 6) + 1
    return k
