"""Figures of space that stand alone: the physmap at its peak, ages of live pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from replay.base.units import NS_PER_S
from replay.metrics.timeline import INSTANTS, MAP_INSTANTS, Timeline, instants, of_map
from replay.report.page.figure import Figure
from replay.report.page.map_figure import map_figure
from replay.runs.run import Run

def space_figures(run: Run, lines: dict[str, Timeline], space: dict[str, Any]) -> list[Figure]:
    """Map and ages. lines: of those that have cells; space: see panels.maps()."""
    import altair as alt

    at = _map_instants(lines, int(run.header["modelled_span_ns"]))
    return [map_figure(space), _ages(alt, run, lines, at)]


def _map_instants(lines: dict[str, Timeline], span: int) -> np.ndarray:
    """(MAP_INSTANTS,) int64, in ns: those of the strategy whose requests went on for longest.

    span: of the run, which stands in where files do not say.
    """
    full = [of_map(line.gauges["time_ns"].to_numpy()) for line in lines.values()
            if line.gauges.height == INSTANTS]
    return max(full, key=lambda at: int(at[-1]), default=instants(max(span, 1), MAP_INSTANTS))


def _label(cells: pl.DataFrame) -> pl.Series:
    """The first frame of each cell's row."""
    firsts = cells.group_by("row", maintain_order=True).first()
    label = dict(zip(firsts["row"].to_list(), firsts["start_pfn"].to_list(), strict=True))
    return pl.Series("place", [f"pfn {label[row]:#x}" for row in cells["row"].to_list()],
                     dtype=pl.String)


def _pick(alt: Any, names: list[str], name: str) -> Any:
    return alt.param(name=name, value=names[min(2, len(names) - 1)],
                     bind=alt.binding_select(options=names, name="Strategy "))


def _cells(lines: dict[str, Timeline], at: np.ndarray) -> pl.DataFrame:
    """Cells of all strategies, by a key; since: first instant at which it is a section's."""
    frames = []
    for name, line in lines.items():
        added = line.cells["added_ns"].to_numpy()
        since = np.where(added >= 0, np.searchsorted(at, added), MAP_INSTANTS + 1)
        frames.append(line.cells.with_columns(_label(line.cells), strategy=pl.lit(name),
                                              since=pl.Series(since)))
    return pl.concat(frames).with_row_index("key")


def _ages(alt: Any, run: Run, lines: dict[str, Timeline], at_ns: np.ndarray) -> Figure:
    names = list(lines)
    cells = _cells(lines, at_ns)
    at = at_ns / NS_PER_S
    frame = pl.concat([line.ages.with_columns(strategy=pl.lit(name))
                       for name, line in lines.items()]).join(
        cells.group_by("strategy", "row", maintain_order=True).agg(pl.col("place").first()),
        on=["strategy", "row"], how="inner").with_columns(
        s=pl.col("instant").replace_strict(np.arange(MAP_INSTANTS), at.round(6)),
        age=pl.col("age_s").clip(lower_bound=1e-6))
    chart = alt.Chart(frame.select("strategy", "place", "s", "age", "live_pages")).transform_filter(
        "datum.strategy == age_strategy").mark_rect().encode(
        x=alt.X("s:O", title="modelled time, s", scale=alt.Scale(domain=at.round(6).tolist()),
                axis=alt.Axis(labelExpr="format(datum.value, ',.3~r')", labelAngle=0,
                              values=at.round(6).tolist()[::8])),
        y=alt.Y("place:O", sort=None, title=None),
        color=alt.Color("age:Q", title="mean age, s", scale=alt.Scale(
            type="log", scheme="cividis", reverse=True), legend=alt.Legend(orient="bottom")),
        tooltip=[alt.Tooltip("place:N", title="row from"), alt.Tooltip("s:Q", title="at, s"),
                 alt.Tooltip("age:Q", title="mean age, s", format=",.4~r"),
                 alt.Tooltip("live_pages:Q", title="live pages", format=",")],
    ).add_params(_pick(alt, names, "age_strategy")).properties(height=alt.Step(18))
    table = frame.group_by("strategy", maintain_order=True).agg(
        pl.col("age").max().round(3).alias("oldest mean age of a row, s"),
        pl.col("place").n_unique().alias("rows that held live pages"))
    return Figure(
        "ages", "How long live pages have been live",
        "Mean age of the live pages of each row of the map, over time: dark rows are held for "
        "long and pin their sections; light ones come and go.", chart, table)
