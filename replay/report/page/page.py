"""The HTML page: verdict, figures, tables and provenance in one file that asks no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from replay.base.errors import InputError
from replay.metrics.timeline import Timeline
from replay.report.page.document import document, rows_of, vega_lite
from replay.report.page.figure import SEPARATE, Figure
from replay.report.page.heat import heat
from replay.report.page.latency import latency_figures
from replay.report.page.over_time import gauge_figures
from replay.report.page.panels import maps
from replay.report.page.series import Series, series_of
from replay.report.page.space import space_figures
from replay.report.page.summary_table import summary_table
from replay.report.page.versus import versus_figures
from replay.report.page.words import PAGE_WORDS
from replay.report.telling.escapes import plain
from replay.report.telling.next_commands import next_commands
from replay.report.telling.telling import told
from replay.runs.run import Run

SCRIPTS = ("draw.js", "physmap.js", "page.js")
SHOWN_AT_ONCE = ("latency", "by-size", "by-caller", "live-pages", "section-pages")
"""Figures of a page that are not folded."""


@dataclass(frozen=True)
class Drawn:
    """Of a run: its figures, what its maps are drawn from, and why something is missing."""

    figures: list[Figure]
    map: dict[str, Any]
    missing: list[str]


def drawn(run: Run) -> Drawn:
    """All of a run's figures."""
    if not run.kept:
        return Drawn(versus_figures(run), {}, [
            ("No pictures of latency, of space over time, of requests in pairs: the run "
            "keeps its summary alone (--no-outcome).")])
    series = series_of(run)
    found, said = time_lines(series)
    made, space = of_time_lines(series, found) if found else ([], {})
    return Drawn([*latency_figures(run), *made, *versus_figures(run)], space, said)


def figures(run: Run) -> tuple[list[Figure], list[str]]:
    """All figures of a run, as files and notebooks have them, and why some are missing."""
    of = drawn(run)
    lines = {name: run.timeline(name) for name in run.allocators} if of.map else {}
    with_cells = {name: line for name, line in lines.items() if line.cells.height}
    space = space_figures(run, with_cells, of.map) if with_cells else []
    return [*of.figures, *space], of.missing


def time_lines(series: Sequence[Series]) -> tuple[dict[int, Timeline], list[str]]:
    """Time lines by place of their series; none of any where one cannot be read."""
    try:
        return {k: one.run.timeline(one.allocator) for k, one in enumerate(series)}, []
    except InputError as error:
        return {}, [f"No pictures of space over time: {error}"]


def of_time_lines(series: Sequence[Series], found: dict[int, Timeline]
                  ) -> tuple[list[Figure], dict[str, Any]]:
    """Gauges over time, and what the maps are drawn from."""
    space = maps(series, found, int(series[0].run.header["page_bytes"]))
    return gauge_figures(series, found, space["times"][space["open"]] if space else 0.0), space


def alone(figure: Figure) -> dict[str, Any]:
    """A figure as Vega-Lite that stands alone: black on white, with its title."""
    return vega_lite(figure.chart, ink="#1b1b1b") | {
        "background": "white", "title": {"text": figure.title, "anchor": "start"}}


def titles(runs: Sequence[Run]) -> list[str]:
    """The traces' names, with the folders where two runs share one."""
    called = [run.name for run in runs]
    return [plain(f"{run.name} ({run.folder or 'in memory'})" if called.count(run.name) > 1
                  else run.name) for run in runs]


def shown(figure: Figure, part: str, of: str) -> dict[str, Any]:
    """A figure as templates take it; part: before its id; of: whose it is."""
    return {"of": of, "id": f"{part}-{figure.name}", "name": figure.name, "title": figure.title,
            "said": figure.said, "columns": figure.data.columns, "rows": rows_of(figure.data)}


def page(runs: Sequence[Run]) -> str:
    """One HTML document: a part per run."""
    parts = []
    specs: dict[str, Any] = {}
    drawings: dict[str, Any] = {}
    for k, (run, name) in enumerate(zip(runs, titles(runs), strict=True)):
        of, part = drawn(run), f"f{k}"
        vega = [figure for figure in of.figures if figure.name not in SEPARATE]
        specs |= {f"{part}-{figure.name}": vega_lite(figure.chart) for figure in vega}
        drawings[part] = of.map or None
        parts.append(_part(run, name, part, of, [shown(figure, part, name) for figure in vega]))
    return document("page.html.j2", SCRIPTS, {"figures": specs, "maps": drawings}, parts=parts,
                    words=PAGE_WORDS)


def _part(run: Run, name: str, part: str, of: Drawn, vega: list[dict[str, Any]]) -> dict[str, Any]:
    from markupsafe import Markup

    said = told(run.summary)
    rows = heat(run)
    return {
        "id": part, "name": name, "synthetic": run.header["synthetic"], "told": said,
        "command": plain(run.header.get("command", "")),
        "next": [one for one in next_commands(run.summary, run.name, "") if "report" not in one[0]],
        "missing": [plain(line) for line in of.missing], "map": of.map,
        "strategies": [(one.group, one.label) for one in series_of(run)],
        "heat": [(family, [r for r in group if r.first], [r for r in group if not r.first])
                 for family, group in ((f, list(g)) for f, g in groupby(
                     rows, key=lambda row: row.family))],
        "figures": {figure["name"]: figure for figure in vega},
        "open": [name for name in SHOWN_AT_ONCE if name in {f["name"] for f in vega}],
        "summary": Markup(summary_table(run).replace('id="summary"', f'id="summary-{part}"')
                          .replace("#summary ", f"#summary-{part} "))}
