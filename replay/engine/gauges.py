"""Gauges integrated over modelled time: exact time-weighted means, not samples."""

from __future__ import annotations

import numpy as np

from replay.base.compiled import inline, record, seen_as
from replay.engine.outcome import Out, tallies
from replay.engine.state import gauge_words, words

AREAS = (
    "live_pages", "held_pages", "added_pages", "pinned_sections", "given_pages",
    "superpages_broken", "unusable_free_index", "largest_free_run",
)  # fmt: skip
"""Integrated over time: gauges (state.GAUGES), then ratios. Names of Out.area and Out.peak."""
AREA = record(*((name, np.float64) for name in AREAS))
areas = seen_as(AREA)
NR_GAUGES = 6
"""How many of them are gauges. Live pages, the first, move with every call as the ratios do."""


@inline
def free_shares(whole: int, longest: int, block_pages: int, free: int) -> tuple[float, float]:
    """(unusable free index, largest free run) of `free` pages, as shares of them.

    whole: wholly free 2 MiB blocks. longest: blocks of the longest run of such.
    """
    share = block_pages / free
    return 1.0 - whole * share, longest * share


@inline
def integrate(m: np.ndarray, out: Out, until: int) -> None:
    """Let the current values of what moves with every call stand until `until`."""
    s, counted, area, peak = words(m), tallies(out.totals), areas(out.area), areas(out.peak)
    dt = until - counted.since
    counted.since = until
    live = s.gauge.live
    free = s.gauge.held - live
    unusable = largest = 0.0
    if free > 0:
        unusable, largest = free_shares(s.gauge.whole, s.table.top, s.block_pages, free)
    area.live_pages += float(live) * dt
    area.unusable_free_index += unusable * dt
    area.largest_free_run += largest * dt
    peak.live_pages = max(peak.live_pages, float(live))
    peak.unusable_free_index = max(peak.unusable_free_index, unusable)
    peak.largest_free_run = max(peak.largest_free_run, largest)


@inline
def settle(m: np.ndarray, out: Out, now: int) -> None:
    """Some other gauge moved at `now`: integrate what it was before, remember what it is."""
    s, counted, gauges = words(m), tallies(out.totals), gauge_words(m)
    dt = now - counted.settled
    counted.settled = now
    for k in range(1, NR_GAUGES):
        out.area[k] += out.before[k] * dt
        value = float(gauges[k])
        out.before[k] = value
        out.peak[k] = max(out.peak[k], value)
    s.moved = 0
