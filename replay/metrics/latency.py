"""Modelled latency: percentiles from HDR histograms, and by caller, size and path.

Everything here is modelled time (work x cost profile + waiting for the one mutex), open loop:
latency = wait + service, from the recorded arrival on, so that a stall is charged to every request
behind it (no coordinated omission: G. Tene, "How NOT to Measure Latency").
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl

from replay.base.ranks import WHOLE, rank
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


def _percentiles(counted: pl.DataFrame, key: str) -> pl.DataFrame:
    """The latency of each of PERCENTILES by group; counted: columns key, latency_ns, count."""
    ordered = counted.group_by(key, "latency_ns").agg(pl.col("count").sum()).sort(
        key, "latency_ns").with_columns(below=pl.col("count").cum_sum().over(key),
                                        samples=pl.col("count").sum().over(key))
    return ordered.group_by(key).agg(
        pl.col("latency_ns").filter(
            pl.col("below") >= (pl.col("samples") * share + WHOLE - 1) // WHOLE
        ).first().alias(name) for name, share in PERCENTILES)


def latency_by(tally: Tally, key: str) -> pl.DataFrame:
    """Latency percentiles of successful allocations by `caller`, `size` or `path`, exact as long
    as Tally.exact is.

    calls, failed, pages per group; groups in which all failed have null percentiles.
    """
    served = pl.col("served").sum()
    every = tally.by_group().group_by(key).agg(
        pl.col("calls").sum(), pl.col("failed").sum(), pl.col("pages").sum(),
        pl.when(served > 0).then(pl.col("most_ns").max()).alias("max"),
        pl.when(served > 0).then(pl.col("sum_ns").sum() / served).alias("mean"))
    found = every.join(_percentiles(tally.by_time(), key), on=key, how="left")
    if not tally.exact:
        found = found.with_columns(pl.min_horizontal(name, "max").alias(name)
                                   for name, _ in PERCENTILES)
    order = [key] if key != "caller" else ["calls", "caller"]
    return found.sort(order, descending=[key == "caller", *[False] * (len(order) - 1)])
