"""Strategy against strategy: every metric on which they differ, each value against the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from replay.metrics.catalogue import Metric, families
from replay.report.telling.figures import SHOWN, TITLES
from replay.runs.run import Run

BEYOND = 1000.0
"""Factors are shown up to this."""
LEVELS = 6
"""Of colour, beside that of the best."""
ALIKE = 1.05
"""A row in which no factor is above this is folded."""


@dataclass(frozen=True)
class Cell:
    """A value as shown. factor: how many times worse than the best, inf where that is none, None
    where nothing can be said; level: 0 (best) to LEVELS."""

    shown: str
    factor: float | None

    @property
    def level(self) -> int:
        """Even steps of the factor's logarithm."""
        if self.factor is None or self.factor <= 1:
            return 0
        steps = LEVELS * math.log(min(self.factor, BEYOND)) / math.log(BEYOND)
        return 1 + min(LEVELS - 1, int(steps))

    @property
    def times(self) -> str:
        """The factor for a reader; "" where it is next to one, or the best is none."""
        if self.factor is None or self.factor < ALIKE or math.isinf(self.factor):
            return ""
        if self.factor >= BEYOND:
            return f"×{BEYOND:,.0f}+"
        return f"×{self.factor:.0f}" if self.factor >= 10 else f"×{self.factor:.2g}"


@dataclass(frozen=True)
class HeatRow:
    """A metric and its cells, a strategy each."""

    family: str
    hazard: bool
    metric: Metric
    cells: Sequence[Cell]

    @property
    def first(self) -> bool:
        """Whether it is among those that say most, and they are not next to equal."""
        alike = all(cell.factor is not None and cell.factor < ALIKE for cell in self.cells)
        return (self.metric.first or self.hazard) and not alike


def _factor(value: float | None, best: float) -> float | None:
    """How many times worse than the best, see Cell."""
    if value is None:
        return None
    if value == best:
        return 1.0
    low, high = sorted((value, best))
    return math.inf if low <= 0 else min(high / low, BEYOND)


def heat(run: Run) -> list[HeatRow]:
    """A row per metric that has a better side and on which the strategies are not all equal."""
    found = []
    for family, metrics in families().items():
        for metric in metrics:
            values = [metric.of(figures) for figures in run.allocators.values()]
            known = [v for v in values if v is not None]
            if not metric.better or len(set(known)) < 2:
                continue
            best = min(known) if metric.better == "lower" else max(known)
            found.append(HeatRow(TITLES[family], family == "hazards", metric, [
                Cell(SHOWN[metric.unit](value), _factor(value, best)) for value in values]))
    return found
