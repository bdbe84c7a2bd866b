"""Figures of latency: percentile curves, by request size and caller, wait against service."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from replay.base.alike import Counts
from replay.report.page.figure import Figure, colours, decades, ns_axis
from replay.report.page.series import DRAWN_APART, Series, chosen, lines, series_of
from replay.report.telling.tables import fitted
from replay.runs.run import Run

POINTS = 160
"""Of one curve."""
CURVE_HEIGHT = 300
CURVES = {"k": pl.Int64, "strategy": pl.String, "part": pl.String, "tail": pl.Float64,
          "percent": pl.Float64, "ns": pl.Int64}
"""Columns of curves()."""

SHARE_LABELS = ("datum.value <= 1 ? '0 %' : format(100 * (1 - 1 / datum.value), '~r') + ' %'")
LATENCY_PARTS = {"latency_ns": "latency", "wait_ns": "waiting for the lock",
                 "service_ns": "in the lock"}


def curve(values: Counts) -> tuple[np.ndarray, np.ndarray]:
    """(1 / (1 - q), value at q) by nearest rank, at even steps of the tail's logarithm.

    Behind the greatest of n samples there is none; it is drawn as if half a sample were.
    """
    n = len(values)
    ranks = np.ceil(n * (1 - 1 / np.geomspace(1, n, POINTS))).astype(np.int64)
    ranks = np.unique(np.append(ranks, n).clip(1, n))
    return n / np.maximum(n - ranks, 0.5), values.at(ranks)


def curves(series: Sequence[Series]) -> pl.DataFrame:
    """k and label of a series, part, tail = 1 / (1 - q), share below in %, ns (modelled), of
    served allocations."""
    frames = []
    for k, one in enumerate(series):
        columns = one.run.rows(one.allocator).served(list(LATENCY_PARTS))
        for part, values in zip(LATENCY_PARTS.values(), columns, strict=True):
            if not len(values):
                continue
            tail, ns = curve(values)
            frames.append(pl.DataFrame({
                "k": k, "strategy": one.label, "part": part, "tail": tail.round(4),
                "percent": (100 * (1 - 1 / tail)).round(5), "ns": ns}, schema=CURVES))
    return pl.concat(frames) if frames else pl.DataFrame(schema=CURVES)


def latency_curves(alt: Any, series: Sequence[Series], frame: pl.DataFrame, part: str) -> Any:
    """Curves of one part, of frames as curves() gives them."""
    shown = frame.filter(pl.col("part") == part).with_columns(
        pl.col("ns").clip(lower_bound=1)).drop("part")
    at = decades(shown["ns"].to_list())
    low, high = math.log10(at[0]), math.log10(at[-1])
    last = dict(shown.group_by("k", maintain_order=True).agg(pl.col("ns").last()).iter_rows())
    ends = [(high - math.log10(last[k])) / (high - low) if k in last else None
            for k in range(len(series))]
    return lines(
        alt, shown, series, CURVE_HEIGHT, ends,
        x=alt.X("tail:Q", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(
            title="share of allocations below (logarithmic tail)", labelExpr=SHARE_LABELS,
            labelOverlap="greedy", labelSeparation=8,
            values=[1, 2, 10, 100, 1_000, 10_000, 100_000, 1_000_000])),
        y=alt.Y("ns:Q", scale=alt.Scale(type="log", domain=[at[0], at[-1]], nice=False),
                axis=ns_axis(alt, f"{part} (modelled)", at)),
        tooltip=[alt.Tooltip("strategy:N"), alt.Tooltip("percent:Q", title="% below"),
                 alt.Tooltip("ns:Q", title="ns, modelled", format=",")],
    ).add_params(chosen(alt))


def percentiles(frame: pl.DataFrame, part: str) -> pl.DataFrame:
    """The usual percentiles, a column per strategy."""
    chosen = (50, 90, 99, 99.9, 99.99, 100)
    rows = []
    for percent in chosen:
        row: dict[str, Any] = {"% below": f"{percent:g}"}
        for (name,), group in frame.filter(pl.col("part") == part).group_by(
                "strategy", maintain_order=True):
            tail = group["tail"].to_numpy()
            at = np.searchsorted(tail, 1 / (1 - percent / 100) if percent < 100 else tail[-1])
            row[f"{name}, ns"] = int(group["ns"][int(min(at, len(group) - 1))])
        rows.append(row)
    return pl.DataFrame(rows)


def latency_figures(run: Run) -> list[Figure]:
    """Curves of latency, of its two parts, and p50 and p99 by group."""
    import altair as alt

    series = series_of(run)
    frame = curves(series)
    if not frame.height:
        return []
    found = [Figure(
        "latency", "Latency of an allocation (modelled)",
        "How many allocations took at most how long: the further right, the rarer. A curve that "
        "rises late has a short tail. The last step of each curve is its longest call. "
        + DRAWN_APART,
        latency_curves(alt, series, frame, "latency"), percentiles(frame, "latency"))]
    waited = bool(frame.filter(part="waiting for the lock")["ns"].max())
    if waited:
        found.append(Figure(
            "waiting", "Waiting for the lock (modelled)",
            "Time before the allocator's lock was had, behind other callers and the allocator's "
            "own thread. 1 ns stands for none.",
            latency_curves(alt, series, frame, "waiting for the lock"),
            percentiles(frame, "waiting for the lock")))
    found.append(Figure(
        "in-the-lock", "In the lock (modelled)", "What the allocator itself did. " + (
            "The rest of the latency is waiting." if waited else
            "No allocation waited for the lock, so this is the whole of the latency."),
        latency_curves(alt, series, frame, "in the lock"), percentiles(frame, "in the lock")))
    return found + [figure for key, title in (("size", "request size"), ("caller", "caller"))
                    if (figure := _groups(alt, run, key, title))]


def _groups(alt: Any, run: Run, key: str, title: str) -> Figure | None:
    frame = run.latency_by(key)
    if not frame.height:
        return None
    frame = frame.filter(pl.col("p50").is_not_null()).with_columns(
        pl.col(key).cast(pl.String).map_elements(lambda v: fitted(v, 32), return_dtype=pl.String))
    names = list(run.allocators)
    long = frame.select("allocator", key, "calls", "p50", "p99").unpivot(
        ["p50", "p99"], index=["allocator", key, "calls"], variable_name="percentile",
        value_name="ns").with_columns(pl.col("ns").clip(lower_bound=1))
    at = decades(long["ns"].to_list())
    order = frame[key].unique(maintain_order=True).to_list()
    what = "pages per request" if key == "size" else "calling function"
    chart = alt.Chart(long).mark_point(filled=True, size=90, opacity=0.9).encode(
        x=alt.X("ns:Q", scale=alt.Scale(type="log", domain=[at[0], at[-1]], nice=False),
                axis=ns_axis(alt, "latency (modelled)", at)),
        y=alt.Y(f"{key}:N", title=what, sort=order, axis=alt.Axis(labelLimit=210)),
        yOffset=alt.YOffset("allocator:N", sort=names),
        color=alt.Color("allocator:N", scale=colours(names, alt), title=None),
        shape=alt.Shape("percentile:N", scale=alt.Scale(
            domain=["p50", "p99"], range=["circle", "triangle-right"]), title=None),
        tooltip=[alt.Tooltip("allocator:N", title="strategy"), alt.Tooltip(f"{key}:N", title=what),
                 alt.Tooltip("percentile:N"), alt.Tooltip("ns:Q", title="ns, modelled",
                                                          format=","),
                 alt.Tooltip("calls:Q", format=",")],
    ).properties(height=len(order) * (9 * len(names) + 8))
    return Figure(
        f"by-{key}", f"Latency by {title} (modelled)",
        f"Median (circle) and 99th percentile (triangle) of each {title}, a line per strategy.",
        chart, frame.select("allocator", key, "calls", "failed", "pages", "p50", "p90", "p99",
                            "max"))
