"""Modelled latency: percentiles from HDR histograms, and by caller, size and path.

Everything here is modelled time (work x cost profile + waiting for the one mutex), open loop:
latency = wait + service, from the recorded arrival on, so that a stall is charged to every request
behind it (no coordinated omission: G. Tene, "How NOT to Measure Latency").
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from replay.base.ranks import at_ranks, rank
from replay.engine.drive import Ended
from replay.engine.histogram import HIST_BUCKETS, HIST_SUB_BITS
from replay.metrics.tally import LIMB, TIMES, Tally

PERCENTILES = (("p50", 5000), ("p90", 9000), ("p99", 9900), ("p99_9", 9990), ("p99_99", 9999))
"""Name, and rank in ten-thousandths: ranks are computed in whole numbers."""

RELATIVE_ERROR = 2.0 ** -HIST_SUB_BITS
"""A percentile is at most this share above the sample of its rank (0.1 %); exact below 2 us."""

@cache
def bucket_edges() -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value of each bucket of histogram.bucket_of().

    Linear up to 2^11 ns, then 2^10 buckets per octave: the layout of HdrHistogram with ten
    sub-bucket bits (hdrhistogram.org).
    """
    index = np.arange(HIST_BUCKETS, dtype=np.int64)
    shift = np.maximum((index >> HIST_SUB_BITS) - 1, 0)
    low = (index - (shift << HIST_SUB_BITS)) << shift
    return low, low + (np.int64(1) << shift) - 1


def bucket_index(values: np.ndarray) -> np.ndarray:
    """histogram.bucket_of() over an array of values from 0 to 2^53."""
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bits - (HIST_SUB_BITS + 1), 0)
    return (shift << HIST_SUB_BITS) + (values >> shift)


def distribution(histogram: np.ndarray, total: Any) -> dict[str, Any]:
    """Percentiles of a histogram, with exact max and mean of the values it counts.

    total: a tally.SUM of these values. The percentile q of n samples is the sample of rank
    ceil(q n) (nearest rank), reported as the greatest value of its bucket (as HdrHistogram does),
    but never more than the maximum. `above` is n minus that rank: how many samples stand behind the
    tail.
    """
    count, top = int(total.count), int(total.most)
    if count == 0:
        return {"count": 0, "above": {name: 0 for name, _ in PERCENTILES},
                **dict.fromkeys((*(name for name, _ in PERCENTILES), "max", "mean"))}
    seen = np.cumsum(histogram)
    result: dict[str, Any] = {"count": count, "above": {}}
    for name, share in PERCENTILES:
        at = rank(count, share)
        bucket = int(np.searchsorted(seen, at, side="left"))
        result[name] = min(int(bucket_edges()[1][bucket]), top)
        result["above"][name] = count - at
    result["max"] = top
    result["mean"] = ((int(total.high) << LIMB) + int(total.low)) / count
    return result


HISTOGRAM_OF = {"latency_ns": "alloc_latency", "wait_ns": "alloc_wait",
                "service_ns": "alloc_service", "slow": "alloc_slow",
                "free_latency_ns": "free_latency"}
"""Which of the loop's histograms counts the times of a sum of tally.TIMES."""


def latency(ended: Ended, tally: Tally) -> dict[str, dict[str, Any]]:
    """Distributions by what they are of: latency_ns (successful allocations), its parts wait_ns
    and service_ns, slow (latency of those off the fast path, with their share), free_latency_ns.
    """
    result = {name: distribution(ended.histograms[HISTOGRAM_OF[name]], tally.totals[name])
              for name in TIMES}
    served, slow = result["latency_ns"]["count"], result["slow"]
    slow["share"] = slow["count"] / served if served else None
    return result


def latency_by(tally: Tally, key: str) -> list[dict[str, Any]]:
    """Latency percentiles of successful allocations by `caller`, `size` or `path`, exact as long
    as Tally.exact is.

    A row each: its name under `key`, calls, failed, pages, max, mean, percentiles in ns; of a group
    in which all failed these are None. Callers: the busiest first.
    """
    met, seen = np.flatnonzero(tally.groups["calls"]), tally.times.entries()
    codes = tally.codes(met, key)
    groups, of_group = _sorted(tally.groups[met], codes, codes)
    codes = tally.codes(seen["group"], key)
    times, of_time = _sorted(seen, codes, seen["value"])
    found = [{key: tally.names(key)[code], **_of_groups(groups[within(of_group, code)]),
              **_percentiles(times[within(of_time, code)])}
             for code in sorted(set(of_group.tolist()))]
    if not tally.exact:
        for row in found:
            row.update({name: min(row[name], row["max"]) for name, _ in PERCENTILES
                        if row[name] is not None})
    if key == "caller":
        found.sort(key=lambda row: (-row["calls"], row["caller"]))
    return found


def _sorted(rows: np.ndarray, codes: np.ndarray, then: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in order by their codes, then by another column; and the codes."""
    order = np.lexsort((then, codes))
    return rows[order], codes[order]


def within(codes: np.ndarray, code: int) -> slice:
    """Where a code stands among codes in order."""
    begin, end = np.searchsorted(codes, (code, code + 1)).tolist()
    return slice(begin, end)


def _of_groups(groups: np.ndarray) -> dict[str, Any]:
    """Counts, greatest and mean latency of groups of tally.OF_GROUP together."""
    took = groups["took"]
    served = int(took["count"].sum())
    total = sum((high << LIMB) + low for high, low in took[["high", "low"]].tolist())
    return {**{name: int(groups[name].sum()) for name in ("calls", "failed", "pages")},
            "max": int(took["most"].max()) if served else None,
            "mean": total / served if served else None}


def _percentiles(times: np.ndarray) -> dict[str, int | None]:
    """Of latencies in order, each with how often it was seen."""
    if not len(times):
        return {name: None for name, _ in PERCENTILES}
    found = at_ranks(times["value"], times["count"], [share for _, share in PERCENTILES])
    return {name: value for (name, _), value in zip(PERCENTILES, found, strict=True)}
