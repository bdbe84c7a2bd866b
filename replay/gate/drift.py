"""The drift lane: changes of level in the history of measured speed and recorded latencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from replay.gate.changes import LEAST_NIGHTS, changes
from replay.gate.history import MEASURED, SERIES, read_history


def drift(folder: Path, recent: int = 14) -> dict[str, Any]:
    """What each series did: nights, changes, and whether one of the last made it slower.

    A day counts once, with the median of its results. `warned` says whether any series is slower
    since one of its last `recent` nights; series that are come first.
    """
    found = [_series(keys, nights, recent) for keys, nights in series_of(folder)]
    found.sort(key=lambda one: (not one["warned"], not one["changes"],
                                *(one[name] for name in SERIES)))
    return {"series": found, "recent_nights": recent, "least_nights": LEAST_NIGHTS,
            "times": "measured: wall clock of benchmarks; recorded: latencies of traces",
            "warned": any(one["warned"] for one in found)}


def series_of(folder: Path) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    """Of each series its keys, as SERIES names them, and its nights: day, seconds, commit, digest.
    """
    return [(keys, part.group_by(pl.col("time").dt.date().alias("day")).agg(
                pl.col("seconds").median(), pl.col("commit").last(),
                pl.col("digest").last()).sort("day"))
            for keys, part in read_history(folder).group_by(SERIES, maintain_order=True)]


def _series(keys: tuple[Any, ...], nights: pl.DataFrame, recent: int) -> dict[str, Any]:
    days, commits = nights["day"].to_list(), nights["commit"].to_list()
    named = dict(zip(SERIES, keys, strict=True))
    digests = nights["digest"].to_list()
    found = [{
        "day": str(days[c.at]), "commit": commits[c.at], "commit_before": commits[c.at - 1],
        "before": c.before, "after": c.after, "noise": c.noise,
        "share": c.after / c.before - 1, "nights_since": len(days) - c.at,
        "recent": len(days) - c.at <= recent,
        "same_results": digests[c.at] == digests[c.at - 1] if named["kind"] == MEASURED else None,
    } for c in changes(nights["seconds"].to_numpy())]
    return {
        **named, "nights": len(days), "first_day": str(days[0]), "last_day": str(days[-1]),
        "seconds": nights["seconds"][-1], "changes": found,
        "warned": any(c["recent"] and c["after"] > c["before"] for c in found)}
