"""Modelled latency: percentiles from HDR histograms, and exact ones by caller, size and path.

Everything here is modelled time (work x cost profile + waiting for the one mutex), open loop:
latency = wait + service, from the recorded arrival on, so that a stall is charged to every request
behind it (no coordinated omission: G. Tene, "How NOT to Measure Latency").
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from replay.base.ranks import rank, ranked
from replay.engine.drive import Outcome
from replay.engine.histogram import HIST_BUCKETS, HIST_SUB_BITS
from replay.engine.requests import FREE
from replay.metrics.calls import allocations, is_served, latency_ns

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


def histogram_of(values: np.ndarray) -> np.ndarray:
    """Counts per bucket, as the loop would have filled them."""
    return np.bincount(bucket_index(values), minlength=HIST_BUCKETS).astype(np.int64)


def distribution(histogram: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Percentiles of a histogram, with exact max and mean of the values it counts.

    The percentile q of n samples is the sample of rank ceil(q n) (nearest rank), reported as the
    greatest value of its bucket (as HdrHistogram does), but never more than the maximum.
    `above` is n minus that rank: how many samples stand behind the tail.
    """
    count = int(histogram.sum())
    if count == 0 or len(values) == 0:
        return {"count": 0, "above": {name: 0 for name, _ in PERCENTILES},
                **dict.fromkeys((*(name for name, _ in PERCENTILES), "max", "mean"))}
    seen = np.cumsum(histogram)
    top = int(values.max())
    result: dict[str, Any] = {"count": count, "above": {}}
    for name, share in PERCENTILES:
        at = rank(count, share)
        bucket = int(np.searchsorted(seen, at, side="left"))
        result[name] = min(int(bucket_edges()[1][bucket]), top)
        result["above"][name] = count - at
    result["max"] = top
    exact = top < (1 << 62) // len(values)
    result["mean"] = int(values.sum(dtype=np.int64 if exact else object)) / len(values)
    return result


def latency(o: Outcome) -> dict[str, dict[str, Any]]:
    """Distributions by what they are of: latency_ns (successful allocations), its parts wait_ns
    and service_ns, slow (latency of those off the fast path, with their share), free_latency_ns.

    The loop puts sleepers into the histograms of latency and of slow calls only; their wait and
    service come from the rows.
    """
    served = is_served(o)
    freed = o.workload.requests.kind == FREE
    total = latency_ns(o)
    off_fast = served & (o.rows["path"] != 0)
    parts = {
        "latency_ns": ("alloc_latency", total[served]),
        "wait_ns": ("alloc_wait", o.rows["wait_ns"][served]),
        "service_ns": ("alloc_service", o.rows["service_ns"][served]),
        "slow": ("alloc_slow", total[off_fast]),
        "free_latency_ns": ("free_latency", total[freed]),
    }
    result = {}
    for name, (source, values) in parts.items():
        histogram = o.histograms[source]
        if int(histogram.sum()) != len(values):
            histogram = histogram_of(values)
        result[name] = distribution(histogram, values)
    count = int(served.sum())
    result["slow"]["share"] = int(off_fast.sum()) / count if count else None
    return result


def _ranked(column: str) -> list[pl.Expr]:
    ordered = pl.col(column).sort()
    return [ranked(ordered, share).alias(name) for name, share in PERCENTILES]


def latency_by(o: Outcome, key: str, table: pa.Table | None = None,
               calls: pl.DataFrame | None = None) -> pl.DataFrame:
    """Exact latency percentiles of successful allocations by `caller`, `size` or `path`.

    calls, failed, pages per group; groups in which all failed have null percentiles. `caller`
    needs the trace's table. `calls`: allocations(o, table), where it is at hand.
    """
    calls = allocations(o, table) if calls is None else calls
    served = calls.filter(pl.col("errno") == 0)
    every = calls.group_by(key).agg(
        pl.len().cast(pl.Int64).alias("calls"),
        (pl.col("errno") < 0).sum().cast(pl.Int64).alias("failed"), pl.col("pages").sum())
    times = served.group_by(key).agg(
        *_ranked("latency_ns"), pl.col("latency_ns").max().alias("max"),
        pl.col("latency_ns").mean().alias("mean"))
    order = [key] if key != "caller" else ["calls", "caller"]
    return every.join(times, on=key, how="left").sort(
        order, descending=[key == "caller", *[False] * (len(order) - 1)])
