"""The buckets of latency histograms: HDR layout, linear up to 2^11 ns, 0.1 % wide above."""

from __future__ import annotations

from typing import Any

from replay.base.compiled import index, inline, likely

HIST_SUB_BITS = 10
HIST_BUCKETS = (64 - HIST_SUB_BITS) << HIST_SUB_BITS


@inline
def bucket_of(value: int) -> Any:
    """HDR layout: linear up to 2^11, then 2^10 buckets per octave (0.1 % wide)."""
    if likely(value < 2 << HIST_SUB_BITS):
        return index(value)
    shift = 0
    while value >= 2 << HIST_SUB_BITS:
        value >>= 1
        shift += 1
    return index((shift << HIST_SUB_BITS) + value)
