"""The physmap of all strategies side by side at the instant of most live pages, as one picture."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import polars as pl

from replay.metrics.timeline import DEVICE, NOTHING, OTHER, RAM
from replay.report.page.figure import Figure

SECTION_OVER, LIVE, ENDANGERED = "section over it", "live", "live where a device may be"
KIND_COLOURS = {NOTHING: "#ececec", RAM: "#cfe4f3", DEVICE: "#fbc98a", OTHER: "#cbbfe0",
                SECTION_OVER: "#1a5c2e", LIVE: "#0b4a8f", ENDANGERED: "#b3261e"}
BETWEEN_MAPS = 4
"""Columns between two maps; their rows are the same, so that the first one alone names them."""
BODY, BAR = 0.85, 0.6
"""Of a row's height: what is drawn of it, and the bar of a cell that is all live."""
ROW_PIXELS = 15
BOXES = {"x": pl.Float64, "x2": pl.Float64, "y": pl.Float64, "y2": pl.Float64, "kind": pl.String,
         "strategy": pl.String, "pages": pl.Int64, "held": pl.String}


def map_figure(space: dict[str, Any]) -> Figure:
    """space: see panels.maps()."""
    import altair as alt

    tops = _tops(space)
    boxes = [box for k, panel in enumerate(space["panels"])
             for box in _boxes(space, panel, k, tops)]
    frame = pl.DataFrame(boxes, schema=BOXES, orient="row")
    at = {"x": alt.X("x:Q", axis=None, scale=alt.Scale(nice=False, zero=False)), "x2": "x2:Q",
          "y": alt.Y("y:Q", axis=None, scale=alt.Scale(reverse=True, nice=False)), "y2": "y2:Q"}
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(
        domain=list(KIND_COLOURS), range=list(KIND_COLOURS.values())), legend=alt.Legend(
            orient="bottom", columns=4, symbolType="square"))
    tip = [alt.Tooltip("strategy:N"), alt.Tooltip("kind:N", title="is"),
           alt.Tooltip("pages:Q", title="live pages", format=","),
           alt.Tooltip("held:N", title="most of them held by")]
    base = alt.Chart(frame)
    filled = base.transform_filter(f"datum.kind !== '{SECTION_OVER}'").mark_rect().encode(
        color=colour, tooltip=tip, **at)
    sections = base.transform_filter(f"datum.kind === '{SECTION_OVER}'").mark_rect(
        fill=None, stroke=KIND_COLOURS[SECTION_OVER], strokeWidth=1.5).encode(**at)
    texts = pl.DataFrame(_texts(space, tops), schema={
        "x": pl.Float64, "y": pl.Float64, "text": pl.String, "align": pl.String}, orient="row")
    said = [alt.Chart(texts).transform_filter(f"datum.align === '{align}'").mark_text(
        align=align, baseline="middle", fontSize=9 if align != "left" else 12).encode(
            x=at["x"], y=at["y"], text="text:N") for align in ("right", "left", "center")]
    chart = alt.layer(filled, sections, *said).properties(height=ROW_PIXELS * (tops[-1] + 2))
    table = frame.filter(pl.col("pages") > 0).group_by("strategy", "kind", maintain_order=True).agg(
        pl.col("pages").sum().alias("live pages"))
    seconds = space["times"][space["open"]]
    return Figure(
        "physmap", f"The physmap at {seconds:.5g} s of modelled time",
        f"Guest-physical address space, {space['cell']} a cell, {space['columns']} to a row, rows "
        "named by their first frame. A green frame is a section; bars are live pages.", chart,
        table)


def _tops(space: dict[str, Any]) -> list[int]:
    """Where each row begins: one further than the row before, two where something is left out."""
    found, y = [], 1
    for gap in space["left_out"]:
        y += bool(gap)
        found.append(y)
        y += 1
    return found


def _boxes(space: dict[str, Any], panel: dict[str, Any], k: int, tops: list[int]
           ) -> list[tuple[Any, ...]]:
    """Rows of BOXES of one map: what lies there, sections, live pages."""
    columns, seconds = space["columns"], space["times"][space["open"]]
    left, name, areas = k * (columns + BETWEEN_MAPS), panel["name"], panel["areas"]
    found: list[tuple[Any, ...]] = []
    for row, top in enumerate(tops):
        signs = enumerate(areas[row * columns :][:columns])
        for sign, run in groupby(signs, key=lambda one: one[-1]):
            place = [column for column, _ in run]
            if sign != " ":
                found.append((left + place[0], left + place[-1] + 1, top, top + BODY,
                              space["areas"][int(sign)], name, 0, ""))
    live = panel["live"]
    now = max((i for i, at in enumerate(panel["times"]) if at <= seconds), default=-1)
    for i in range(0, len(live), 6):
        cell, since, until, pages, holder, _ = live[i:][:6]
        if since <= now < until:
            x, bottom = left + cell % columns, tops[cell // columns] + BODY
            over = areas[cell]
            found.append((x, x + 1, bottom - BAR * min(1, pages / space["cell_pages"]), bottom,
                          ENDANGERED if over != " " and space["areas"][int(over)] == DEVICE
                          else LIVE, name, pages, panel["holders"][holder]
                          if holder < len(panel["holders"]) else ""))
    for first, last, since in panel["sections"]:
        if since <= seconds:
            top = tops[first // columns]
            found.append((left + first % columns, left + last % columns + 1, top, top + BODY,
                          SECTION_OVER, name, 0, ""))
    return found


def _texts(space: dict[str, Any], tops: list[int]) -> list[tuple[float, float, str, str]]:
    """x, y, text, align: names of strategies and rows, and what is left out."""
    found: list[tuple[float, float, str, str]] = []
    for k, panel in enumerate(space["panels"]):
        left = k * (space["columns"] + BETWEEN_MAPS)
        found.append((left, 0.3, panel["name"], "left"))
        for pfn, gap, top in zip(space["rows"], space["left_out"], tops, strict=True):
            if not k:
                found.append((left - 0.5, top + BODY / 2, f"{pfn:#x}", "right"))
            if gap:
                found.append((left + space["columns"] / 2, top - 0.55, f"~ {gap} left out ~",
                              "center"))
    return found
