"""What a figure is: a chart, what it shows in words, and the numbers behind it."""

from __future__ import annotations

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


def colours(names: list[str], alt: Any) -> Any:
    """One colour per strategy, the same in every figure."""
    return alt.Scale(domain=names, range=[PALETTE[k % len(PALETTE)] for k in range(len(names))])


def dashes(names: list[str], alt: Any) -> Any:
    """One dash per strategy, so that a curve is not known by its colour alone."""
    return alt.Scale(domain=names, range=[DASHES[k % len(DASHES)] for k in range(len(names))])


NS_LABEL = ("datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' s' : datum.value >= 1e6 ? "
            "format(datum.value / 1e6, '~g') + ' ms' : datum.value >= 1e3 ? "
            "format(datum.value / 1e3, '~g') + ' us' : datum.value + ' ns'")
"""A Vega expression: nanoseconds for a person."""


def ns_axis(alt: Any, title: str) -> Any:
    """A logarithmic axis of modelled time."""
    return alt.Axis(title=title, labelExpr=NS_LABEL, tickCount=6)
