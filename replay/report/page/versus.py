"""Figures of strategies against each other: each metric against its best, each request in pairs."""

from __future__ import annotations

from itertools import product
from typing import Any

import polars as pl

from replay.compare.effects import paired
from replay.compare.sides import Side
from replay.report.page.figure import Figure
from replay.report.page.heat import BEYOND, heat
from replay.runs.run import Run

def versus_figures(run: Run) -> list[Figure]:
    """Nothing where a run has a single strategy; pairs of requests where it keeps them."""
    import altair as alt

    if len(run.allocators) < 2:
        return []
    return [_factors(alt, run), *([_pairs(alt, run)] if run.kept else [])]


def _factors(alt: Any, run: Run) -> Figure:
    names = list(run.allocators)
    rows = [{"strategy": name, "metric": row.metric.label, "family": row.family,
             "factor": None if cell.factor is None else min(cell.factor, BEYOND),
             "shown": cell.shown}
            for row in heat(run) for name, cell in zip(names, row.cells, strict=True)]
    frame = pl.DataFrame(rows, schema={"strategy": pl.String, "metric": pl.String,
                                       "family": pl.String, "factor": pl.Float64,
                                       "shown": pl.String})
    order = frame["metric"].unique(maintain_order=True).to_list()
    base = alt.Chart(frame).encode(
        x=alt.X("strategy:N", sort=names, title=None, axis=alt.Axis(orient="top", labelAngle=0)),
        y=alt.Y("metric:N", sort=order, title=None, axis=alt.Axis(labelLimit=190)),
        tooltip=[alt.Tooltip("metric:N"), alt.Tooltip("strategy:N"), alt.Tooltip("shown:N"),
                 alt.Tooltip("factor:Q", title="times worse than the best", format=",.3~r")])
    cells = base.mark_rect().encode(color=alt.Color(
        "factor:Q", scale=alt.Scale(type="log", domain=[1, 30, BEYOND],
                                    range=["#fff7ec", "#fc8d59", "#7f0000"]),
        legend=alt.Legend(title="times worse than the best", orient="bottom", format="~s")))
    text = base.mark_text(fontSize=11).encode(
        text="shown:N", color=alt.condition("datum.factor > 80", alt.value("white"),
                                            alt.value("#222")))
    wide = frame.pivot("strategy", index="metric", values="shown")
    return Figure(
        "factors", "Strategy against strategy, on each metric",
        "The palest cell of a row is the best; the darker, the more times worse (a thousand times "
        "or more is the darkest, and what is worse than nothing at all). Metrics on which all are "
        "equal are left out.", (cells + text).properties(height=20 * max(1, len(order))), wide)


def _pairs(alt: Any, run: Run) -> Figure:
    names = list(run.allocators)
    rows = []
    for a, b in product(names, names):
        found = None if a == b else paired(Side(b, run, b), Side(a, run, a))
        rows.append({"strategy": a, "against": b,
                     "faster": found["faster"] if found else None,
                     "slower": found["slower"] if found else None,
                     "equal": found["equal"] if found else None,
                     "lead": found["faster"] - found["slower"] if found else None})
    frame = pl.DataFrame(rows, schema={
        "strategy": pl.String, "against": pl.String, "faster": pl.Float64, "slower": pl.Float64,
        "equal": pl.Float64, "lead": pl.Float64})
    base = alt.Chart(frame.filter(pl.col("lead").is_not_null())).encode(
        x=alt.X("against:N", sort=names, title="than", axis=alt.Axis(orient="top", labelAngle=0)),
        y=alt.Y("strategy:N", sort=names, title=None),
        tooltip=[alt.Tooltip("strategy:N"), alt.Tooltip("against:N"),
                 alt.Tooltip("faster:Q", format=".3~%"), alt.Tooltip("slower:Q", format=".3~%"),
                 alt.Tooltip("equal:Q", format=".3~%")])
    cells = base.mark_rect().encode(color=alt.Color(
        "lead:Q", title="faster less slower", legend=alt.Legend(orient="bottom", format="~%"),
        scale=alt.Scale(domain=[-1, 0, 1], range=["#d95f02", "#f7f7f7", "#1b7837"])))
    text = base.mark_text(fontSize=12).encode(
        text=alt.Text("faster:Q", format=".3~%"),
        color=alt.condition("abs(datum.lead) > 0.7", alt.value("white"), alt.value("#222")))
    return Figure(
        "pairs", "The same requests in pairs",
        "All strategies serve the same requests: the share of them that the strategy of the row "
        "served faster than that of the column (modelled).",
        (cells + text).properties(height=34 * len(names)),
        frame.filter(pl.col("lead").is_not_null()).drop("lead"))
