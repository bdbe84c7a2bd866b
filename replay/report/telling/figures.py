"""How figures are shown: titles of their families, their units for a reader, the best of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replay.metrics.catalogue import Metric
from replay.report.telling.tables import best, count, decimal, duration, share, size

SHOWN: dict[str, Callable[[float | None], str]] = {
    "ns": duration, "count": count, "pages": count, "bytes": size, "share": share,
    "ratio": decimal}
"""How a person reads each unit of metrics.catalogue."""

TITLES = {"latency": "Latency of an allocation (modelled)", "memory": "Fragmentation and memory",
          "hazards": "Hazards (counts; what the strategy cannot know)",
          "work": "Work (counts of primitives: requests and background)"}
"""Of the families of metrics.catalogue."""


@dataclass(frozen=True)
class Row:
    """One metric of strategies side by side. best: which of them to mark, see tables.best()."""

    metric: Metric
    values: list[float | None]
    shown: list[str]
    best: list[bool]


def rows_of(metrics: Iterable[Metric], chosen: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row per metric."""
    found = []
    for metric in metrics:
        values: Sequence[float | None] = [metric.of(data) for data in chosen.values()]
        shown = [SHOWN[metric.unit](value) for value in values]
        marked = (best(values, shown, lowest=metric.better == "lower") if metric.better
                  else [False] * len(shown))
        found.append(Row(metric, list(values), shown, marked))
    return found
