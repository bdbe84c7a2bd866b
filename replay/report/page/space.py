"""Figures of space that stand alone: the physmap as a map with a slider, ages of live pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from replay.base.units import NS_PER_S, human_bytes
from replay.metrics.timeline import (
    CELLS_PER_ROW, DEVICE, INSTANTS, MAP_EVERY, MAP_INSTANTS, NOTHING, OTHER, RAM, Timeline,
    instants, of_map,
)  # fmt: skip
from replay.report.page.figure import Figure
from replay.report.telling.escapes import plain
from replay.runs.run import Run

SECTION_AREA, LIVE, HAZARD = "section, free", "live", "live in a device window or RAM of others"
AREA_COLOURS = {RAM: "#9ecae1", DEVICE: "#fdae6b", OTHER: "#bcbddc", NOTHING: "#d9d9d9",
                SECTION_AREA: "#a1d99b", LIVE: "#08519c"}
"""Of the map: what the address space is, a section's free part, live pages over it."""


def space_figures(run: Run, lines: dict[str, Timeline]) -> list[Figure]:
    """Map and ages, with a slider and a choice of their own; lines: of those that have cells."""
    import altair as alt

    at = _map_instants(lines, int(run.header["modelled_span_ns"]))
    return [_map(alt, run, lines, int(run.header["page_bytes"]), at), _ages(alt, run, lines, at)]


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


def _peak(lines: dict[str, Timeline]) -> int:
    """The instant of the map at which most pages are live."""
    live = [line.gauges["live_pages"].to_numpy()[MAP_EVERY // 2 :: MAP_EVERY]
            for line in lines.values()]
    return int(np.argmax(np.max([one for one in live if len(one) == MAP_INSTANTS], axis=0)))


def _map(alt: Any, run: Run, lines: dict[str, Timeline], page: int, at_ns: np.ndarray) -> Figure:
    names = list(lines)
    cells = _cells(lines, at_ns)
    states = pl.concat([
        line.states.with_columns(strategy=pl.lit(name)) for name, line in lines.items()
    ]).join(cells.select("key", "strategy", "cell", "what"), on=["strategy", "cell"], how="inner")
    at = at_ns / NS_PER_S
    instant = alt.param(name="instant", value=_peak(lines), bind=alt.binding_range(
        min=0, max=MAP_INSTANTS - 1, step=1, name="Time (drag, or arrow keys) "))
    pick = _pick(alt, names, "map_strategy")
    mine = "datum.strategy == map_strategy"
    x = alt.X("column:O", axis=None, scale=alt.Scale(paddingInner=0.08))
    y = alt.Y("place:O", sort=None, title=None)
    data = cells.select("key", "strategy", "place", "column", "what", "since", "nr_pages")
    base = alt.Chart(data).transform_filter(
        mine).transform_calculate(
            kind=f"datum.since <= instant ? '{SECTION_AREA}' : datum.what").mark_rect().encode(
        x=x, y=y, color=alt.Color("kind:N", title=None, scale=alt.Scale(
            domain=list(AREA_COLOURS), range=list(AREA_COLOURS.values())), legend=alt.Legend(
                orient="bottom", columns=3, symbolType="square")),
        tooltip=[alt.Tooltip("place:N", title="row from"),
                 alt.Tooltip("column:O", title="cell"), alt.Tooltip("kind:N", title="is")])
    live = alt.Chart(states.select("key", "from", "to", "live_pages")).transform_filter(
        "datum.from <= instant && instant < datum.to").transform_lookup(
            "key", alt.LookupData(data, "key", ["strategy", "place", "column", "what", "nr_pages"])
        ).transform_filter(mine).transform_calculate(
            share="datum.live_pages / datum.nr_pages",
            hazard=f"datum.what == '{DEVICE}' || datum.what == '{OTHER}'").mark_rect(
                color=AREA_COLOURS[LIVE]).encode(
        x=x, y=y, opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.35, 1]),
                                      legend=None),
        stroke=alt.condition("datum.hazard", alt.value("#cb181d"), alt.value(None)),
        strokeWidth=alt.value(2),
        tooltip=[alt.Tooltip("place:N", title="row from"),
                 alt.Tooltip("column:O", title="cell"), alt.Tooltip("what:N", title="lies in"),
                 alt.Tooltip("live_pages:Q", title="live pages", format=","),
                 alt.Tooltip("share:Q", title="of the cell", format=".1%")])
    clock = alt.Chart(pl.DataFrame({"k": np.arange(MAP_INSTANTS), "s": at.round(6)})
                      ).transform_filter("datum.k == instant").transform_calculate(
        text="'at ' + format(datum.s, ',.3~f') + ' s of modelled time: ' + map_strategy").mark_text(
            align="left", baseline="bottom", fontSize=13, dy=-6).encode(
        x=alt.value(0), y=alt.value(0), text="text:N")
    sizes = sorted(set(cells["nr_pages"].to_list()))
    size = " to ".join(human_bytes(n * page) for n in sorted({sizes[0], sizes[-1]}))
    found = _crosses(alt, _hazards(run, cells, at), mine, x, y)
    chart = alt.layer(base, live, found, clock).add_params(pick, instant).properties(
        height=alt.Step(20), padding={"left": 5, "top": 26, "right": 5, "bottom": 5})
    table = states.group_by("strategy", "what", maintain_order=True).agg(
            pl.col("cell").n_unique().alias("cells that ever held live pages"),
            pl.col("live_pages").max().alias("most live pages in one"))
    return Figure(
        "physmap", "The physmap",
        f"Guest-physical address space, a square per {size}, {CELLS_PER_ROW} to a row, rows named "
        "by their first frame; stretches "
        "that nothing was ever taken from are left out. Darker blue: more of the cell is live. A "
        f"red edge: {HAZARD}. A red cross: where a hazard was first met (the first of each kind).",
        chart, table)


def _crosses(alt: Any, marks: pl.DataFrame, mine: str, x: Any, y: Any) -> Any:
    """Marks of hazards, from the instant on at which each was met."""
    return alt.Chart(marks).transform_filter(
        "datum.from <= instant").transform_filter(mine).mark_point(
            shape="cross", filled=True, size=110, color="#cb181d", stroke="white").encode(
        x=x, y=y, tooltip=[alt.Tooltip("kind:N", title="hazard"),
                           alt.Tooltip("place:N", title="row from"),
                           alt.Tooltip("pfn:N"), alt.Tooltip("other:N", title="meets"),
                           alt.Tooltip("what:N", title="then")])


def _hazards(run: Run, cells: pl.DataFrame, at: np.ndarray) -> pl.DataFrame:
    """Where and from when the hazards lie that the summary tells in full: of each kind the first.
    """
    rows = []
    for name in dict.fromkeys(cells["strategy"]):
        data = run.allocators[name]
        mine = cells.filter(strategy=name)
        start = mine["start_pfn"].to_numpy()
        for example in data["hazard_examples"]:
            pfn, since = example.get("frame"), example["time_ns"]
            if not isinstance(pfn, int) or since is None or not 0 <= pfn < 1 << 62:
                continue
            k = int(np.searchsorted(start, pfn, "right")) - 1
            if k < 0 or pfn >= start[k] + mine["nr_pages"][k]:
                continue
            rows.append({"strategy": name, "place": mine["place"][k], "column": mine["column"][k],
                         "from": int(np.searchsorted(at, since / NS_PER_S)),
                         "kind": plain(example["kind"]).replace("_", " "), "pfn": f"{pfn:#x}",
                         "other": plain(example["other"]), "what": plain(example["what"])})
    return pl.DataFrame(rows, schema={
        "strategy": pl.String, "place": pl.String, "column": pl.Int64, "from": pl.Int64,
        "kind": pl.String, "pfn": pl.String, "other": pl.String, "what": pl.String})


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
