"""What figures show side by side: one strategy of one run each, and what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replay.report.page.figure import DASHES, PALETTE
from replay.report.telling.escapes import plain
from replay.runs.run import Run

PIXELS_APART = 2.5
"""Between curves that have one value."""
DRAWN_APART = "Curves that lie on each other are drawn a few pixels apart."

LINE_HEIGHT = 15
"""Of labels, in pixels."""
LEADER = 16
"""From the end of a curve to its label, in pixels."""


@dataclass(frozen=True)
class Series:
    """label: for a reader. group: place of its strategy among those that the page lets one choose
    from."""

    label: str
    run: Run
    allocator: str
    group: int
    colour: str
    dash: Sequence[int]


def series_of(run: Run) -> list[Series]:
    """The strategies of a run, one colour and one dash each, the same in every figure."""
    return [Series(plain(name), run, name, k, PALETTE[k % len(PALETTE)], DASHES[k % len(DASHES)])
            for k, name in enumerate(run.allocators)]


def chosen(alt: Any) -> Any:
    """The parameter that the page sets: place of the strategy to show, -1 for all."""
    return alt.param(name="only", value=-1)


def lines(alt: Any, frame: Any, series: Sequence[Series], height: int, ends: Sequence[float | None],
          **encoded: Any) -> Any:
    """Curves, each with its name at its end, a few pixels apart, so that none hides another.

    frame: has a column `k`, the place of a series. ends: last value of each, as a share of the
    height from the top; None where it has none. encoded: x, y, tooltip.
    """
    import polars as pl

    base = alt.Chart(frame)
    layers = []
    for k, one in enumerate(series):
        layers.append(base.transform_filter(f"datum.k === {k}").mark_line(
            interpolate="step-after", strokeWidth=2, color=one.colour, strokeDash=list(one.dash),
            yOffset=_offset(k, len(series)), clip=False).encode(
            opacity=_seen(alt, one.group), **encoded))
    known = [k for k, end in enumerate(ends) if end is not None]
    at = [float(ends[k] or 0) * height + _offset(k, len(series)) for k in known]
    labels = pl.DataFrame({
        "from": at, "to": apart(at, LINE_HEIGHT, height), "label": [series[k].label for k in known],
        "k": known}, schema={"from": pl.Float64, "to": pl.Float64, "label": pl.String,
                             "k": pl.Int64})
    for k in known:
        own = alt.Chart(labels).transform_filter(f"datum.k === {k}")
        raw = alt.Y("to:Q", scale=None, axis=None)
        edge = alt.value(alt.expr("width"))
        layers.append(own.mark_rule(strokeWidth=2, color=series[k].colour,
                                    strokeDash=list(series[k].dash)).encode(
            x=edge, x2=alt.value(alt.expr(f"width + {LEADER}")),
            y=alt.Y("from:Q", scale=None, axis=None), y2="to:Q",
            opacity=_seen(alt, series[k].group)))
        layers.append(own.mark_text(align="left", baseline="middle", dx=LEADER + 4, fontSize=12,
                                    limit=110).encode(
            x=edge, y=raw, text="label:N", opacity=_seen(alt, series[k].group)))
    return alt.layer(*layers).properties(height=height)


def _offset(k: int, count: int) -> float:
    return (k - (count - 1) / 2) * min(PIXELS_APART, 12 / max(count, 1))


def _seen(alt: Any, group: int) -> Any:
    return alt.condition(f"only < 0 || only === {group}", alt.value(1), alt.value(0.15))


def apart(places: Sequence[float], least: float, height: float) -> list[float]:
    """The same places, moved until none is nearer to another than `least`, and within 0 to
    `height` where there is room."""
    order = sorted(range(len(places)), key=lambda k: (places[k], k))
    moved = [0.0] * len(places)
    below = -least
    for k in order:
        below = moved[k] = max(places[k], below + least)
    above = height + least
    for k in reversed(order):
        above = moved[k] = min(moved[k], above - least)
    return moved
