"""The HTML page: figures, tables and provenance in one file that asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replay.base.errors import InputError
from replay.metrics.hazards import CONSEQUENCES
from replay.report.page.document import document, rows_of, vega_lite
from replay.report.page.figure import Figure
from replay.report.page.latency import latency_figures
from replay.report.page.space import space_figures
from replay.report.page.summary_table import summary_table
from replay.report.page.versus import versus_figures
from replay.report.telling.escapes import plain
from replay.report.telling.tables import missing
from replay.runs.run import Run

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
        *([("Began with", "; ".join(h["start"]) or "pages held by callers")]
          if "start" in h else []),
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
        drawn, said = figures(run)
        for figure in drawn:
            specs[f"f{k}-{figure.name}"] = vega_lite(figure.chart)
        parts.append({
            "id": f"r{k}", "name": names[k], "synthetic": run.header["synthetic"],
            "summary": Markup(summary_table(run).replace('id="summary"', f'id="summary{k}"')
                              .replace("#summary ", f"#summary{k} ")),
            "figures": [{"id": f"f{k}-{f.name}", "title": f.title, "said": f.said,
                         "columns": f.data.columns, "rows": rows_of(f.data)} for f in drawn],
            "said": [plain(s) for s in said], "provenance": provenance(run),
            "hazards": hazards(run),
            "lost": missing(int(run.header["records_lost"]), int(run.header["sources_cut"]))})
    return document("page.html.j2", ["draw.js", "page.js"], specs, parts=parts)
