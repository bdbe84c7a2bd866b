"""Figures of gauges over modelled time, marked where the page's slider stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from replay.base.units import NS_PER_S
from replay.metrics.timeline import Timeline
from replay.report.page.figure import Figure
from replay.report.page.series import DRAWN_APART, Series, chosen, lines

GAUGE_HEIGHT = 150
ROWS_SHOWN = 24
"""Of the numbers behind a figure."""

GAUGES_DRAWN = (
    ("live_pages", "Live pages", ("Pages that callers hold. Strategies differ where one refuses "
     "requests, or serves them later."), "pages", "~s"),
    ("section_pages", "Pages of sections", ("Address space taken as sections; each page costs "
     "a struct page of 64 bytes, for ever."), "pages", "~s"),
    ("unusable_free_index", "Unusable free index", ("Share of the free pages of sections that lie "
     "outside wholly free 2 MiB blocks: the lower, the less broken up. Not shown for a strategy "
     "that gives up own RAM."), "share of free pages", "~%"))
"""Column, title, what it says, title of the axis and its format."""

Lines = Mapping[int, Timeline]
"""Time lines by place of their series."""


def gauge_figures(series: Sequence[Series], found: Lines, at_s: float) -> list[Figure]:
    """A figure per gauge that anything has. at_s: where the mark of the slider stands first."""
    import altair as alt

    frame = pl.concat([line.gauges.with_columns(
        k=pl.lit(k, pl.Int64), strategy=pl.lit(series[k].label),
        s=(pl.col("time_ns") / NS_PER_S).round(6)) for k, line in found.items()])
    made = []
    for column, title, said, axis, form in GAUGES_DRAWN:
        shown = frame.filter(pl.col(column).is_not_null()).select("k", "strategy", "s", column)
        if not shown.height or not shown[column].max():
            continue
        wide = shown.pivot("strategy", index="s", values=column)
        made.append(Figure(
            column.replace("_", "-"), f"{title} over time", f"{said} {DRAWN_APART}",
            _chart(alt, shown, series, at_s, column, title, axis, form),
            wide.gather_every(max(1, wide.height // ROWS_SHOWN))))
    return made


def _chart(alt: Any, shown: pl.DataFrame, series: Sequence[Series], at_s: float, column: str,
           title: str, axis: str, form: str) -> Any:
    most, span = _rounded(float(shown[column].max())), float(shown["s"].max())  # type: ignore
    last = dict(shown.group_by("k", maintain_order=True).agg(pl.col(column).last()).iter_rows())
    ends = [1 - float(last[k]) / most if k in last else None for k in range(len(series))]
    time = alt.X("s:Q", title="modelled time, s", scale=alt.Scale(domain=[0, span], nice=False),
                 axis=alt.Axis(labelOverlap="greedy", labelSeparation=8, tickCount=10))
    drawn = lines(
        alt, shown, series, GAUGE_HEIGHT, ends, x=time,
        y=alt.Y(f"{column}:Q", scale=alt.Scale(domain=[0, most], nice=False),
                axis=alt.Axis(title=axis, format=form, tickCount=4)),
        tooltip=["strategy:N", alt.Tooltip("s:Q", title="s, modelled"),
                 alt.Tooltip(f"{column}:Q", title=title, format=",.4~r")])
    mark = alt.Chart(pl.DataFrame({"one": [1]})).transform_calculate(now="at").mark_rule(
        color="#888", strokeWidth=2).encode(x=alt.X("now:Q"))
    return alt.layer(drawn, mark).add_params(
        chosen(alt), alt.param(name="at", value=at_s)).properties(height=GAUGE_HEIGHT)


def _rounded(most: float) -> float:
    """The next number of two digits that is not below."""
    step = 10.0 ** (math.floor(math.log10(most)) - 1)
    return math.ceil(most / step) * step
