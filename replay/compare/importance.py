"""Which differences of a comparison matter most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, log
from typing import Any

from replay.metrics.catalogue import catalogue, families

FOREMOST = frozenset(
    {one.name for one in catalogue() if one.first} | {one.name for one in families()["hazards"]})
"""Metrics that come before all others: those of the short table of a run, and hazards."""


def by_importance(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Rows of effects.compared()["metrics"] that differ: those that matter, the most important
    first, and those whose every change is negligible. What is equal on all sides is in neither."""
    moved = [row for row in rows if any(e["verdict"] != "equal" for e in row["effects"])]
    ranked = sorted(moved, key=lambda row: (row["metric"] not in FOREMOST, -_size(row)))
    matters = [row for row in ranked
               if any(e["size"] not in ("negligible", "none") for e in row["effects"])]
    return matters, [row for row in ranked if row not in matters]


def _size(row: Mapping[str, Any]) -> float:
    """The largest change as |ln(value / base)|; from or to zero it is beyond all others."""
    return max(0.0 if not e["change"] else abs(log(e["ratio"])) if e["ratio"] else inf
               for e in row["effects"])
