"""The physmap of all strategies side by side, as numbers that a page draws: the same rows of the
address space in each, what lies there, sections over it, and live pages over both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from replay.base.units import NS_PER_S, human_bytes
from replay.metrics.holders import MOST_HOLDERS
from replay.metrics.timeline import (
    CELLS_PER_ROW, DEVICE, INSTANTS, MAP_INSTANTS, NOTHING, OTHER, RAM, Timeline, instants,
    most_of, of_map, spans, summed,
)  # fmt: skip
from replay.report.page.series import Series
from replay.report.telling.escapes import plain
from replay.runs.run import Run

AREA_KINDS = (NOTHING, RAM, DEVICE, OTHER)
"""What the address space is, by the digit that stands for it; a blank: not looked at."""
MOST_ROWS_DRAWN = 64
MOST_SPANS = 40_000
"""Of all panels; a map of more is drawn in larger cells, so that a page stays small."""


@dataclass(frozen=True)
class Layout:
    """Cells of `size` pages in rows that begin at these multiples of a row's size."""

    size: int
    rows: np.ndarray

    @property
    def cells(self) -> int:
        """How many."""
        return len(self.rows) * CELLS_PER_ROW

    def find(self, pfn: np.ndarray) -> np.ndarray:
        """The cell that each frame lies in; its row must be there."""
        width = self.size * CELLS_PER_ROW
        return (np.searchsorted(self.rows, pfn // width) * CELLS_PER_ROW
                + pfn % width // self.size)


def maps(series: Sequence[Series], found: Mapping[int, Timeline], page_bytes: int
         ) -> dict[str, Any]:
    """All that is drawn: rows, instants in s, the one of most live pages, and a panel per series
    that has a time line. {} where no frame was ever handed out and no section added."""
    with_cells = {k: line for k, line in found.items() if line.cells.height}
    if not with_cells:
        return {}
    layout, lives = _fitting(list(with_cells.values()))
    panels = [_panel(k, series[k], line, layout, live)
              for (k, line), live in zip(with_cells.items(), lives, strict=True)]
    _tell_each_other(panels, [series[k].run for k in with_cells])
    times = max((panel["times"] for panel in panels), key=lambda at: at[-1])
    peak = max(panels, key=lambda panel: max(panel["total"]))
    at = peak["times"][int(np.argmax(peak["total"]))]
    cell = layout.size * page_bytes
    return {
        "rows": [int(row) * CELLS_PER_ROW * layout.size for row in layout.rows],
        "left_out": _left_out(layout, cell * CELLS_PER_ROW), "columns": CELLS_PER_ROW,
        "cell_pages": layout.size, "cell": human_bytes(cell), "areas": list(AREA_KINDS),
        "times": times, "open": int(np.searchsorted(times, at)), "panels": panels,
        "identity": all(bool(one.run.header["direct_mapped"] and one.run.header["iommu"])
                        for one in series)}


def _tell_each_other(panels: Sequence[dict[str, Any]], runs: Sequence[Run]) -> None:
    """What one panel knows of the address space holds for all on the same machine."""
    for machine in {run.header["machine_digest"] for run in runs}:
        own = [panel for panel, run in zip(panels, runs, strict=True)
               if run.header["machine_digest"] == machine]
        known = "".join(next((sign for sign in signs if sign != " "), " ")
                        for signs in zip(*(panel["areas"] for panel in own), strict=True))
        for panel in own:
            panel["areas"] = known


def _left_out(layout: Layout, row_bytes: int) -> list[str]:
    """Before each row, how much of the address space is not drawn; "" where nothing is missing."""
    gaps = np.diff(layout.rows, prepend=0) - 1
    gaps[0] = layout.rows[0]
    return [human_bytes(int(gap) * row_bytes) if gap > 0 else "" for gap in gaps]





def _fitting(found: Sequence[Timeline]) -> tuple[Layout, list[Any]]:
    """The smallest cells with which a page stays small, and the spans of each time line."""
    size = max(int(line.cells["nr_pages"][0]) for line in found)
    while True:
        starts = np.concatenate([line.cells["start_pfn"].to_numpy() for line in found])
        layout = Layout(size, np.unique(starts // (size * CELLS_PER_ROW)))
        lives = [_live(line, layout) for line in found]
        if len(layout.rows) <= 1 or (len(layout.rows) <= MOST_ROWS_DRAWN and sum(
                len(table["cell"]) for _, table in lives) <= MOST_SPANS):
            return layout, lives
        size *= 2


def _live(line: Timeline, layout: Layout) -> tuple[np.ndarray, Any]:
    """(instants, cells) live pages, and their spans, with who holds most of each."""
    states = line.states
    start = line.cells["start_pfn"].to_numpy()
    cell = layout.find(start[states["cell"].to_numpy().clip(0, len(start) - 1)])
    since, until = states["from"].to_numpy(), states["to"].to_numpy()
    live, held = states["live_pages"].to_numpy(), states["holder_pages"].to_numpy()
    ends = until < MAP_INSTANTS
    at = np.concatenate([since, until[ends]])
    cells = np.concatenate([cell, cell[ends]])
    whose = np.concatenate([states["holder"].to_numpy(), states["holder"].to_numpy()[ends]])
    total = summed(at, cells, np.concatenate([live, -live[ends]]), MAP_INSTANTS, layout.cells)
    who = most_of(at, cells * MOST_HOLDERS + whose, np.concatenate([held, -held[ends]]),
                  layout.cells)
    return total, spans(total, *who)


def _panel(k: int, one: Series, line: Timeline, layout: Layout, live: tuple[np.ndarray, Any]
           ) -> dict[str, Any]:
    total, table = live
    at = line.gauges["time_ns"].to_numpy()
    at = of_map(at) if len(at) == INSTANTS else instants(
        max(1, int(one.run.header["modelled_span_ns"])), MAP_INSTANTS)
    columns = [np.asarray(table[name]) for name in
               ("cell", "from", "to", "live_pages", "holder", "holder_pages")]
    return {
        "k": k, "name": one.label, "group": one.group, "colour": one.colour,
        "times": (at / NS_PER_S).round(6).tolist(), "total": total.sum(axis=1).tolist(),
        "exact": layout.size == int(line.cells["nr_pages"][0]),
        "areas": _areas(line, layout), "sections": _sections(line, layout),
        "live": np.stack(columns, axis=1).ravel().tolist(),
        "holders": [_held(*row) for row in line.holders.rows()],
        "ages": _ages(line, layout), "marks": _marks(one, layout)}


def _held(caller: str, size: str) -> str:
    if not size:
        return plain(caller)
    return f"{plain(caller)}, {plain(size)} page{'' if size == '1' else 's'} at once"


def _areas(line: Timeline, layout: Layout) -> str:
    """A sign per cell; of a larger one what lies at its middle."""
    cells = line.cells
    own = int(cells["nr_pages"][0])
    found = np.full(layout.cells, " ", object)
    digits = {name: str(k) for k, name in enumerate(AREA_KINDS)}
    signs = np.array([digits.get(what, " ") for what in cells["what"].to_list()], object)
    start = cells["start_pfn"].to_numpy()
    middle = (start % layout.size) == layout.size // 2 // own * own
    found[layout.find(start[middle])] = signs[middle]
    return "".join(found.tolist())


def _sections(line: Timeline, layout: Layout) -> list[list[float]]:
    """[first cell, last cell, since when, in s] of runs within a row."""
    cells = line.cells.filter(line.cells["added_ns"] >= 0)
    place = layout.find(cells["start_pfn"].to_numpy())
    added: dict[int, int] = {}
    for cell, ns in zip(place.tolist(), cells["added_ns"].to_list(), strict=True):
        added[cell] = min(ns, added.get(cell, ns))
    runs: list[list[float]] = []
    for cell, ns in sorted(added.items()):
        since = round(ns / NS_PER_S, 6)
        if runs and runs[-1][1] == cell - 1 and runs[-1][-1] == since and cell % CELLS_PER_ROW:
            runs[-1][1] = cell
        else:
            runs.append([cell, cell, since])
    return runs


def _ages(line: Timeline, layout: Layout) -> list[float]:
    """instant, row, mean age in s and live pages of each, one behind the other."""
    first = line.cells.filter(line.cells["column"] == 0)
    row_of = dict(zip(first["row"].to_list(), (
        layout.find(first["start_pfn"].to_numpy()) // CELLS_PER_ROW).tolist(), strict=True))
    merged: dict[tuple[int, int], tuple[float, int]] = {}
    for instant, row, pages, age in line.ages.iter_rows():
        if row in row_of:
            key = instant, row_of[row]
            before, there = merged.get(key, (0.0, 0))
            both = there + pages
            merged[key] = (before * there + age * pages) / both if both else age, both
    return [value for (instant, row), (age, pages) in sorted(merged.items())
            for value in (instant, row, float(f"{age:.4g}"), pages)]


def _marks(one: Series, layout: Layout) -> list[list[Any]]:
    """[cell, since when in s, sentence] of the hazards that the summary tells in full."""
    width = layout.size * CELLS_PER_ROW
    known = set(layout.rows.tolist())
    found: list[list[Any]] = []
    for row in one.run.summary["allocators"][one.allocator]["hazard_examples"]:
        pfn, ns = row.get("frame"), row["time_ns"]
        if not isinstance(pfn, int) or ns is None or not 0 <= pfn < 1 << 62 or (
                pfn // width not in known):
            continue
        where = f" ({plain(row['other'])})" if row["other"] else ""
        found.append([
            int(layout.find(np.array([pfn]))[0]), round(ns / NS_PER_S, 6),
            (f"{plain(row['kind']).replace('_', ' ')} at pfn {pfn:#x}{where}, by "
            f"{plain(row['user'])}: {plain(row['what'])}")])
    return found
