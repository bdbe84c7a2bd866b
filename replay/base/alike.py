"""Many rows of whole numbers, those that are alike counted together as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import polars as pl

LOOSE_ROWS = 1 << 18
"""Rows that are put together only when there are more of them."""


class Alike:
    """names: of the columns. What is kept grows with the rows that differ, not with all."""

    def __init__(self, *names: str) -> None:
        import polars as pl

        self._names = names
        self._parts = [pl.DataFrame(schema=dict.fromkeys((*names, "count"), pl.Int64))]
        self._rows, self._limit = 0, LOOSE_ROWS

    def add(self, *columns: np.ndarray) -> None:
        """The next rows: int64 columns, all of one length."""
        import polars as pl

        part = pl.DataFrame(dict(zip(self._names, columns, strict=True))).group_by(
            self._names).agg(pl.len().cast(pl.Int64).alias("count"))
        self._parts.append(part)
        self._rows += part.height
        if self._rows > self._limit:
            self._parts = [_together(self._parts, self._names)]
            self._rows = self._parts[0].height
            self._limit = max(LOOSE_ROWS, 2 * self._rows)

    def all(self) -> pl.DataFrame:
        """The columns, in order by them, and `count`."""
        self._parts = [_together(self._parts, self._names).sort(self._names)]
        return self._parts[0]


def _together(parts: Sequence[pl.DataFrame], names: Sequence[str]) -> pl.DataFrame:
    import polars as pl

    return pl.concat(parts).group_by(names).agg(pl.col("count").sum())


class Counts:
    """Whole numbers and how often each was seen, the least first: (distinct,) int64 each."""

    def __init__(self, values: np.ndarray, counts: np.ndarray) -> None:
        self.values, self.counts = values, counts
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        """How many were seen, each as often as it was."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, ranks: np.ndarray) -> np.ndarray:
        """Those of these ranks, from 1 on, in ascending order of all that were seen."""
        return np.asarray(self.values[np.searchsorted(self._ends, ranks, side="left")])

    def up_to(self, values: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
        """How many are below each value; side `right`: or equal to it."""
        before = np.concatenate(([0], self._ends))
        return np.asarray(before[np.searchsorted(self.values, values, side)])

    def median(self) -> float:
        """The middle one, or the mean of the middle two."""
        low, high = self.at(np.array([(len(self) + 1) // 2, len(self) // 2 + 1])).tolist()
        return float((low + high) / 2)


class Counting:
    """Takes whole numbers as they come."""

    def __init__(self) -> None:
        self._seen = Alike("value")

    def add(self, values: np.ndarray) -> None:
        """The next ones, int64."""
        self._seen.add(values)

    def counts(self) -> Counts:
        """All of them."""
        found = self._seen.all()
        return Counts(found["value"].to_numpy(), found["count"].to_numpy())
