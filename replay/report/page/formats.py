"""The other forms of a report: Markdown, CSV, text, and figures as SVG or PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from replay.report.page.page import alone, figures, hazards, provenance
from replay.report.page.summary_table import MARK, rows_of
from replay.report.telling.escapes import cell
from replay.report.telling.escapes import plain
from replay.report.telling.text import report
from replay.runs.run import Run

SCALE = 2.0
"""Pixels of a PNG to each of a figure's."""


def markdown(runs: Sequence[Run]) -> str:
    """The summary table and what it rests on."""
    lines: list[str] = []
    for run in runs:
        lines += [f"# {cell(run.name)}", ""]
        lines += [f"- {cell(name)}: {cell(text)}" for name, text in provenance(run)]
        lines += ["", "| | " + " | ".join(cell(n) for n in run.allocators) + " |",
                  "|---|" + "--:|" * len(run.allocators)]
        before = ""
        for family, metric, shown, best in rows_of(run):
            if family != before:
                lines.append(f"| **{cell(family)}** |" + " |" * len(shown))
                before = family
            lines.append(f"| {cell(metric)} | " + " | ".join(
                cell(s) + (f" {MARK}" if b else "") for s, b in zip(shown, best, strict=True))
                + " |")
        lines += ["", f"{MARK} marks the best of a row. All times are MODELLED.", ""]
        lines += [f"- {cell(name)}: {cell(count)}: {cell(what)}"
                  for name, count, what in hazards(run)]
        lines.append("")
    return "\n".join(lines)


def table(runs: Sequence[Run]) -> str:
    """CSV, a line per run, allocator and metric. Texts that a spreadsheet would take for a formula
    have an apostrophe before them."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["run", "allocator", "metric", "unit", "better", "value"])
    for run in runs:
        for name, metric, unit, better, value in run.metrics().rows():
            writer.writerow([_harmless(run.name), _harmless(name), metric, unit, better,
                             "" if value is None else f"{value:.12g}"])
    return sink.getvalue()


def _harmless(text: str) -> str:
    shown = plain(text)
    return f"'{shown}" if shown[:1] in tuple("=+-@") else shown


def text(runs: Sequence[Run]) -> str:
    """The tables of `replay run`."""
    return "\n".join(report(run.summary) for run in runs)


def pictures(runs: Sequence[Run], form: str) -> dict[str, bytes]:
    """File names and contents of all figures, as svg or png; the map at its middle instant."""
    import vl_convert

    found: dict[str, bytes] = {}
    for k, run in enumerate(runs, 1):
        prefix = f"{k}-" if len(runs) > 1 else ""
        for figure in figures(run)[0]:
            made = alone(figure)
            found[f"{prefix}{figure.name}.{form}"] = (
                vl_convert.vegalite_to_svg(made).encode() if form == "svg"
                else vl_convert.vegalite_to_png(made, scale=SCALE))
    return found
