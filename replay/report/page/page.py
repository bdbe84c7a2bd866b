"""The HTML page: figures, tables and provenance in one file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from replay.errors import InputError
from replay.metrics.hazards import CONSEQUENCES
from replay.report.page.figure import Figure
from replay.report.page.latency import latency_figures
from replay.report.page.space import space_figures
from replay.report.page.summary_table import summary_table
from replay.report.page.versus import versus_figures
from replay.report.tables import missing, plain
from replay.runs.run import Run

FOLDER = Path(__file__).parent


def figures(run: Run) -> tuple[list[Figure], list[str]]:
    """All figures of a run, and why some are missing."""
    space: list[Figure] = []
    said: list[str] = []
    try:
        space = space_figures(run)
    except InputError as error:
        said.append(f"No pictures of space over time: {error}")
    return [*latency_figures(run), *space, *versus_figures(run)], said


def provenance(run: Run) -> list[tuple[str, str]]:
    """What the figures rest on, in words; nothing in it is a time of day."""
    h = run.header
    lost = missing(int(h["records_lost"]), int(h["sources_cut"]))
    rows = [
        ("Trace", h["trace"] + (" - SYNTHETIC, recorded nowhere" if h["synthetic"] else "")),
        ("Recorded", "nothing" if h["synthetic"] else
         f"Linux {h['kernel'] or '?'}, Xen {h['xen_version'] or '?'}, allocator "
         f"{h['recorded_strategy'] or 'not known'}; RECORDED times: {h['recorded_times']}"),
        ("Data loss", lost or "none"),
        ("Times", "all MODELLED: work counts x cost profile + waiting; none is measured"),
        ("Costs", (f"{h['profile']}: {h['profile_summary']}; {h['profile_assumed']} of "
                  f"{h['profile_constants']} constants assumed")),
        ("Machine", (f"{h['physmap']}: {h['arch']} dom0 ({h['dom0_mode']}), "
                    f"{h['page_bytes'] >> 10} KiB pages, {h['section_bytes'] >> 20} MiB sections, "
                    f"{'' if h['direct_mapped'] else 'not '}direct-mapped, IOMMU "
                    f"{'on' if h['iommu'] else 'off'}")),
        ("Requests come", h["mode"]),
        ("Version", f"replay {h['replay_version']}"),
    ]
    return [(name, plain(text)) for name, text in rows]


def hazards(run: Run) -> list[tuple[str, str, str]]:
    """(strategy, hazard and count, what it means and an example) of all that was met."""
    found = []
    for name, data in run.allocators.items():
        for kind, count in data["hazards"].items():
            if not count:
                continue
            example = next((e["what"] for e in data["hazard_examples"] if e["kind"] == kind), "")
            found.append((plain(name), f"{count:,} {plain(kind).replace('_', ' ')}",
                          plain(CONSEQUENCES.get(kind, "")
                                + (f". Here: {example}" if example else ""))))
    return found


def spec(figure: Figure, width: str | int = "container", ink: str = "currentColor"
         ) -> dict[str, Any]:
    """The chart as Vega-Lite: as wide as its place and in the page's own colour, or as given."""
    import altair as alt

    with alt.data_transformers.enable("default", max_rows=None, consolidate_datasets=True):
        made: dict[str, Any] = figure.chart.properties(width=width).to_dict()
    made.pop("usermeta", None)
    made["config"] = {
        "background": None, "font": "sans-serif", "view": {"stroke": None},
        "axis": {"labelColor": ink, "titleColor": ink, "domainColor": "#888", "tickColor": "#888",
                 "gridColor": "#8884", "labelFontSize": 12, "titleFontSize": 12,
                 "titleFontWeight": "normal"},
        "legend": {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "orient": "top",
                   "labelLimit": 220, "columns": 3},
        "text": {"fill": ink}, "title": {"color": ink}}
    if width == "container":
        made["autosize"] = {"type": "fit-x", "contains": "padding"}
    else:
        made |= {"background": "white", "title": {"text": figure.title, "anchor": "start"}}
    return made


def script_json(data: Any) -> str:
    """JSON that can stand in a script element, whatever strings it holds."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def rows_of(frame: pl.DataFrame) -> list[list[str]]:
    """A table's cells as text."""
    return [[_cell(value) for value in row] for row in frame.rows()]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else plain(value)


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def titles(runs: Sequence[Run]) -> list[str]:
    """The traces' names, with the folders where two runs share one."""
    called = [run.name for run in runs]
    return [plain(f"{run.name} ({run.folder or 'in memory'})" if called.count(run.name) > 1
                  else run.name) for run in runs]


def page(runs: Sequence[Run]) -> str:
    """One HTML document: a part per run."""
    import vl_convert
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    parts, specs, names = [], {}, titles(runs)
    for k, run in enumerate(runs):
        drawn, said = figures(run)
        for figure in drawn:
            specs[f"f{k}-{figure.name}"] = spec(figure)
        parts.append({
            "id": f"r{k}", "name": names[k], "synthetic": run.header["synthetic"],
            "summary": Markup(summary_table(run).replace('id="summary"', f'id="summary{k}"')
                              .replace("#summary ", f"#summary{k} ")),
            "figures": [{"id": f"f{k}-{f.name}", "title": f.title, "said": f.said,
                         "columns": f.data.columns, "rows": rows_of(f.data)} for f in drawn],
            "said": [plain(s) for s in said], "provenance": provenance(run),
            "hazards": hazards(run),
            "lost": missing(int(run.header["records_lost"]), int(run.header["sources_cut"]))})
    library = vl_convert.javascript_bundle(None)  # type: ignore[arg-type]  # its default
    own = (FOLDER / "page.js").read_text(encoding="utf-8")
    env = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined,
                      trim_blocks=True, lstrip_blocks=True)
    return env.get_template("page.html.j2").render(
        parts=parts, library=Markup(library), own=Markup(own), hashes=[_hash(library), _hash(own)],
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        specs=Markup(script_json(specs))) + "\n"

