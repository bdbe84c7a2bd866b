"""What a figure is: a chart, what it shows in words, and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B58900", "#56B4E9", "#8C6BB1", "#7F7F7F")
"""After Okabe and Ito, "Color Universal Design", 2008: told apart by most colour-blind readers."""

DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 1], [1, 3], [10, 4], [3, 6])


@dataclass(frozen=True)
class Figure:
    """One figure. name: its id in the page. said: what it shows and how to read it, one or two
    sentences. chart: an altair chart. data: the numbers behind it, as a table for reading."""

    name: str
    title: str
    said: str
    chart: Any
    data: pl.DataFrame


SEPARATE = ("factors", "physmap", "ages")
"""Figures that a page draws in a way of its own, with the same numbers."""


def colours(names: list[str], alt: Any) -> Any:
    """One colour per strategy, the same in every figure."""
    return alt.Scale(domain=names, range=[PALETTE[k % len(PALETTE)] for k in range(len(names))])


NS_LABEL = ("datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' s' : datum.value >= 1e6 ? "
            "format(datum.value / 1e6, '~g') + ' ms' : datum.value >= 1e3 ? "
            "format(datum.value / 1e3, '~g') + ' us' : datum.value + ' ns'")
"""A Vega expression: nanoseconds for a person."""


def decades(values: Sequence[float]) -> list[float]:
    """The powers of ten around positive values, at least two."""
    low = math.floor(math.log10(min(values, default=1)))
    high = max(math.ceil(math.log10(max(values, default=1))), low + 1)
    return [10.0 ** k for k in range(low, high + 1)]


def ns_axis(alt: Any, title: str, at: Sequence[float]) -> Any:
    """A logarithmic axis of modelled time, labelled at these decades."""
    return alt.Axis(title=title, labelExpr=NS_LABEL, values=list(at), labelOverlap="greedy",
                    labelSeparation=8)
