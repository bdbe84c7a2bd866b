"""Percentiles by nearest rank: the sample of rank ceil(q n) of n, which was really seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

WHOLE = 10_000
"""Shares are given in ten-thousandths: 9,990 is p99.9."""


def rank(count: int, share: int) -> int:
    """How many of `count` ordered samples are at or below the percentile; it is the last of them.
    """
    return -(-count * share // WHOLE)


def at_ranks(values: np.ndarray, counts: np.ndarray, shares: Iterable[int]) -> list[int]:
    """The percentiles, at these shares, of `values` in order, each seen as often as `counts` says.
    """
    below = np.cumsum(counts)
    ranks = [rank(int(below[-1]), share) for share in shares]
    return list(values[np.searchsorted(below, ranks, side="left")].tolist())


def ranked(ordered: pl.Expr, share: int) -> pl.Expr:
    """The percentile of a column that is in order and has no nulls; null of nothing."""
    import polars as pl

    # Lengths are 32 bits wide in polars, and would overflow from 430,000 samples on.
    count = ordered.len().cast(pl.Int64)
    return ordered.get(((count * share + WHOLE - 1) // WHOLE - 1).clip(0), null_on_oob=True)
