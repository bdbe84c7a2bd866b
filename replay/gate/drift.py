"""The drift lane: changes of level in the history of measured speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from replay.gate.changes import LEAST_NIGHTS, changes
from replay.gate.history import SERIES, read_history


def drift(folder: Path, recent: int = 14) -> dict[str, Any]:
    """What each series did: nights, changes, and whether one of the last made it slower.

    A day counts once, with the median of its results. `warned` says whether any series is slower
    since one of its last `recent` nights.
    """
    found = [_series(keys, part, recent)
             for keys, part in read_history(folder).group_by(SERIES, maintain_order=True)]
    found.sort(key=lambda one: [one[name] for name in SERIES])
    return {"series": found, "recent_nights": recent, "least_nights": LEAST_NIGHTS,
            "times": "measured, wall clock",
            "warned": any(c["recent"] and c["after"] > c["before"]
                          for one in found for c in one["changes"])}


def _series(keys: tuple[Any, ...], part: pl.DataFrame, recent: int) -> dict[str, Any]:
    nights = part.group_by(pl.col("time").dt.date().alias("day")).agg(
        pl.col("seconds").median(), pl.col("commit").last(), pl.col("digest").last()).sort("day")
    days, commits = nights["day"].to_list(), nights["commit"].to_list()
    digests = nights["digest"].to_list()
    return {
        **dict(zip(SERIES, keys, strict=True)), "nights": len(days),
        "first_day": str(days[0]), "last_day": str(days[-1]), "seconds": nights["seconds"][-1],
        "changes": [{
            "day": str(days[c.at]), "commit": commits[c.at], "commit_before": commits[c.at - 1],
            "before": c.before, "after": c.after, "noise": c.noise,
            "share": c.after / c.before - 1, "nights_since": len(days) - c.at,
            "recent": len(days) - c.at <= recent,
            "same_results": digests[c.at] == digests[c.at - 1],
        } for c in changes(nights["seconds"].to_numpy())]}
