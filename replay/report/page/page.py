"""The HTML page: figures, tables and provenance in one file that asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replay.base.errors import InputError
from replay.report.page.document import document, rows_of, vega_lite
from replay.report.page.figure import Figure
from replay.report.page.latency import latency_figures
from replay.report.page.space import space_figures
from replay.report.page.summary_table import summary_table
from replay.report.page.versus import versus_figures
from replay.report.telling.escapes import plain
from replay.report.telling.telling import told
from replay.runs.run import Run


def figures(run: Run) -> tuple[list[Figure], list[str]]:
    """All figures of a run, and why some are missing."""
    space: list[Figure] = []
    said: list[str] = []
    if not run.kept:
        said.append("No pictures of latency, of space over time, of requests in pairs: the run "
                    "keeps its summary alone (--no-outcome).")
        return versus_figures(run), said
    try:
        space = space_figures(run)
    except InputError as error:
        said.append(f"No pictures of space over time: {error}")
    return [*latency_figures(run), *space, *versus_figures(run)], said


def alone(figure: Figure) -> dict[str, Any]:
    """A figure as Vega-Lite that stands alone: black on white, with its title."""
    return vega_lite(figure.chart, ink="#1b1b1b") | {
        "background": "white", "title": {"text": figure.title, "anchor": "start"}}


def titles(runs: Sequence[Run]) -> list[str]:
    """The traces' names, with the folders where two runs share one."""
    called = [run.name for run in runs]
    return [plain(f"{run.name} ({run.folder or 'in memory'})" if called.count(run.name) > 1
                  else run.name) for run in runs]


def page(runs: Sequence[Run]) -> str:
    """One HTML document: a part per run."""
    from markupsafe import Markup

    parts, specs, names = [], {}, titles(runs)
    for k, run in enumerate(runs):
        (drawn, missing), said = figures(run), told(run.summary)
        for figure in drawn:
            specs[f"f{k}-{figure.name}"] = vega_lite(figure.chart)
        parts.append({
            "id": f"r{k}", "name": names[k], "synthetic": run.header["synthetic"],
            "told": said, "missing": [plain(line) for line in missing],
            "summary": Markup(summary_table(run).replace('id="summary"', f'id="summary{k}"')
                              .replace("#summary ", f"#summary{k} ")),
            "figures": [{"id": f"f{k}-{f.name}", "title": f.title, "said": f.said,
                         "columns": f.data.columns, "rows": rows_of(f.data)} for f in drawn]})
    return document("page.html.j2", ["draw.js", "page.js"], specs, parts=parts)
