"""What the maps are drawn from: one layout for all, sections and areas, breaks, bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay.metrics.timeline import (
    CELLS_PER_ROW, DEVICE, INSTANTS, MAP_CELLS, MAP_INSTANTS, NOTHING, Timeline, instants,
)  # fmt: skip
from replay.report.page import panels
from replay.report.page.map_figure import map_figure
from replay.report.page.panels import maps
from replay.report.page.series import Series, series_of
from replay.runs.run import Run, read_run

from driving import ROOT, cli  # isort: skip

ROW = 512 * CELLS_PER_ROW


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("panels")
    assert cli("run", ROOT / "traces/pvh-dom0.arrow", "--out", folder).code == 0
    return read_run(folder)


def lines(run: Run) -> tuple[list[Series], dict[int, Timeline]]:
    series = series_of(run)
    return series, {k: run.timeline(one.allocator) for k, one in enumerate(series)}


def made(rows: list[int], live: list[tuple[int, int, int, int]], size: int = 512,
         what: str = NOTHING, holders: int = 1) -> Timeline:
    """A time line of rows of cells, by their first frame; live: cell, from, to, pages."""
    cells = [(k, r, c, start + c * size, size, what, -1)
             for r, start in enumerate(rows) for c, k in
             enumerate(range(r * CELLS_PER_ROW, (r + 1) * CELLS_PER_ROW))]
    names = ("cell", "row", "column", "start_pfn", "nr_pages", "what", "added_ns")
    at = instants(10**9, INSTANTS)
    return Timeline({
        "gauges": {"time_ns": at, "live_pages": at * 0, "section_pages": at * 0,
                   "live_in_sections": at * 0, "unusable_free_index": [None] * INSTANTS},
        "cells": {name: [cell[k] for cell in cells] for k, name in enumerate(names)},
        "states": {"cell": [c for c, *_ in live], "from": [a for _, a, _, _ in live],
                   "to": [b for _, _, b, _ in live], "live_pages": [n for *_, n in live],
                   "holder": [k % holders for k in range(len(live))],
                   "holder_pages": [n for *_, n in live]},
        "holders": {"caller": [f"f{k}" for k in range(holders)], "size": ["1"] * holders},
        "ages": {"instant": [0], "row": [0], "live_pages": [1], "age_s": [2.0]}})


def of(run: Run, *given: Timeline) -> dict[str, Any]:
    one = series_of(run)[0]
    return maps([replace(one, label=str(k)) for k in range(len(given))], dict(enumerate(given)), 4096)


def spans(panel: dict[str, Any]) -> list[list[int]]:
    """cell, from, to, pages, holder, its pages of each."""
    return np.array(panel["live"]).reshape(-1, 6).tolist()


def test_the_pools_section_lies_in_the_window_with_whole_rows_around_it(run: Run) -> None:
    found = maps(*lines(run), 4096)
    pool = found["panels"][2]
    row = found["rows"].index(0xC0000)
    assert pool["sections"] == [[row * 64, row * 64 + 63, 0.000152]]
    device = str(found["areas"].index(DEVICE))
    assert pool["areas"][row * 64 :][:64] == device * 64
    assert {0xC0000 - ROW, 0xC0000 + ROW} <= set(found["rows"])
    assert all(panel["areas"] == pool["areas"] for panel in found["panels"])
    assert " " not in pool["areas"]


def test_it_opens_where_most_pages_are_live(run: Run) -> None:
    found = maps(*lines(run), 4096)
    totals = [panel["total"] for panel in found["panels"]]
    assert max(map(max, totals)) == totals[0][found["open"]] == 16933
    gauges = run.timeline("pool").gauges
    near = (gauges["time_ns"] - round(found["times"][found["open"]] * 1e9)).abs().arg_min()
    assert gauges["live_pages"][near] == 16933


def test_breaks_tell_how_much_is_left_out(run: Run) -> None:
    found = of(run, made([2 * ROW, 3 * ROW, 7 * ROW], [(0, 0, 48, 1)]))
    assert found["left_out"] == ["256 MiB", "", "384 MiB"]
    assert of(run, made([0, ROW], [(0, 0, 48, 1)]))["left_out"] == ["", ""]


def test_marks_say_what_a_hazard_is(run: Run) -> None:
    marks = maps(*lines(run), 4096)["panels"][2]["marks"]
    cell, since, said = marks[0]
    assert (cell % 64, since) == (63, 0.000152)
    assert said.startswith("mmio window at pfn 0xc7ffe (PCI Bus 0000:00), by alloc_empty_pages: ")
    assert "domain_crash()" in said


def test_cells_of_other_sizes_come_to_one_layout(run: Run) -> None:
    """Pages of small cells add up in a large one; who holds most of it is told as a lower bound."""
    fine = made([0, ROW], [(0, 0, 10, 5), (1, 4, 20, 7), (64, 0, 48, 3)], holders=3)
    coarse = made([0], [(0, 0, 48, 9)], size=1024)
    found = of(run, fine, coarse)
    assert found["cell_pages"] == 1024
    assert found["rows"] == [0]
    small, large = found["panels"]
    assert (small["exact"], large["exact"]) == (False, True)
    assert spans(small) == [[0, 0, 4, 5, 0, 5], [0, 4, 10, 12, 1, 7], [0, 10, 20, 7, 1, 7],
                            [32, 0, 48, 3, 2, 3]]
    assert spans(large) == [[0, 0, 48, 9, 0, 9]]
    assert small["total"][:5] == [8, 8, 8, 8, 15]
    assert small["ages"] == [0, 0, 2.0, 1]


def test_a_long_run_gives_a_small_map(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most that time lines may hold: every cell changes at every instant."""
    rows = [k * 4 * ROW for k in range(MAP_CELLS // CELLS_PER_ROW)]
    every = [(cell, k, k + 1, 1 + (cell + k) % 512) for cell in range(MAP_CELLS)
             for k in range(MAP_INSTANTS)]
    found = of(run, *[made(rows, every)] * 4)
    assert sum(len(spans(panel)) for panel in found["panels"]) <= panels.MOST_SPANS
    assert len(json.dumps(found)) < 1_500_000
    total = [sum(n for _, a, b, n, *_ in spans(found["panels"][0]) if a <= k < b)
             for k in range(MAP_INSTANTS)]
    assert total == found["panels"][0]["total"]


def test_times_stand_in_where_a_file_has_few_instants(run: Run) -> None:
    line = made([0], [(0, 0, 48, 1)])
    cut = Timeline({**line.tables, "gauges": {k: v[:3] for k, v in line.tables["gauges"].items()}})
    found = of(run, cut)
    assert len(found["times"]) == MAP_INSTANTS
    assert found["times"] == sorted(found["times"])


def test_without_cells_there_is_no_map(run: Run) -> None:
    assert of(run, made([], [])) == {}


def test_the_picture_shows_what_the_map_of_the_page_does(run: Run) -> None:
    found = maps(*lines(run), 4096)
    figure = map_figure(found)
    pool = figure.data.filter(strategy="pool")
    assert pool.rows() == [("pool", "live where a device may be", 16933)]
    rows = figure.data.filter(strategy="balloon")
    assert rows.rows() == [("balloon", "live", 16933)]
    drawn = json.dumps(figure.chart.to_dict())
    assert drawn.count('"0xc0000"') == 1
    assert "1.25 GiB left out" in drawn


def test_no_machine_tells_of_anothers_address_space(run: Run, tmp_path: Path) -> None:
    """Of two runs each keeps what it knows itself."""
    one = series_of(run)[0]
    summary = {**run.summary, "run": {**run.header, "machine_digest": "other"}}
    other = replace(one, run=replace(run, summary=summary))
    found = maps([one, other], {0: made([0], [(0, 0, 48, 1)]),
                                1: made([ROW], [(0, 0, 48, 1)], what=DEVICE)}, 4096)
    a, b = (panel["areas"] for panel in found["panels"])
    assert a == "0" * 64 + " " * 64
    assert b == " " * 64 + "2" * 64
