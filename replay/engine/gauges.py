"""Gauges integrated over modelled time: exact time-weighted means, not samples."""

from __future__ import annotations

import numpy as np

from replay.base.compiled import inline
from replay.engine.state import FIRST_GAUGE, words

AREAS = (
    "live_pages", "held_pages", "added_pages", "pinned_sections", "given_pages",
    "superpages_broken", "unusable_free_index", "largest_free_run",
)  # fmt: skip
"""Integrated over time: gauges (state.G_*), then ratios. Names of Out.area and Out.peak."""
NR_GAUGES = 6
A_LIVE, A_UNUSABLE, A_LARGEST = 0, 6, 7
A_SINCE, A_SLOW_SINCE, A_BEFORE = 8, 9, 10
"""Up to when the fast and the slow ones are integrated; the slow ones' values since then."""
NR_AREA_WORDS = A_BEFORE + NR_GAUGES


@inline
def integrate(m: np.ndarray, area: np.ndarray, peak: np.ndarray, until: int) -> None:
    """Let the current values of what moves with every call stand until `until`."""
    s = words(m)
    dt = until - int(area[A_SINCE])
    area[A_SINCE] = until
    live = s.gauge.live
    free = s.gauge.held - live
    unusable = largest = 0.0
    if free > 0:
        share = s.block_pages / free
        unusable = 1.0 - s.gauge.whole * share
        largest = s.table.top * share
    area[A_LIVE] += float(live) * dt
    area[A_UNUSABLE] += unusable * dt
    area[A_LARGEST] += largest * dt
    peak[A_LIVE] = max(peak[A_LIVE], float(live))
    peak[A_UNUSABLE] = max(peak[A_UNUSABLE], unusable)
    peak[A_LARGEST] = max(peak[A_LARGEST], largest)


@inline
def settle(m: np.ndarray, area: np.ndarray, peak: np.ndarray, now: int) -> None:
    """Some slow gauge moved at `now`: integrate what it was before, remember what it is."""
    s = words(m)
    dt = now - area[A_SLOW_SINCE]
    area[A_SLOW_SINCE] = now
    for k in range(1, NR_GAUGES):
        area[k] += area[A_BEFORE + k] * dt
        value = float(m[FIRST_GAUGE + k])
        area[A_BEFORE + k] = value
        peak[k] = max(peak[k], value)
    s.moved = 0
