"""The buckets of latency histograms: HDR layout, linear up to 2^11 ns, 0.1 % wide above."""

from __future__ import annotations

from replay.base.compiled import inline

HIST_SUB_BITS = 10
HIST_BUCKETS = (64 - HIST_SUB_BITS) << HIST_SUB_BITS


@inline
def bucket_of(value: int) -> int:
    """HDR layout: linear up to 2^11, then 2^10 buckets per octave (0.1 % wide)."""
    shift = 0
    while value >= 2 << HIST_SUB_BITS:
        value >>= 1
        shift += 1
    return (shift << HIST_SUB_BITS) + value
