"""The other forms of a report: Markdown, CSV, text, and figures as SVG or PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from replay.report.page.drawing import drawn
from replay.report.page.page import alone, figures
from replay.report.page.summary_table import MARK, rows_of
from replay.report.telling import markdown as md
from replay.report.telling.escapes import cell, formula_free, plain
from replay.report.telling.telling import told
from replay.report.telling.text import report
from replay.runs.run import Run



def markdown(runs: Sequence[Run]) -> str:
    """What came out, the summary table and what it rests on."""
    lines: list[str] = []
    for run in runs:
        said = told(run.summary)
        lines += [f"# {cell(run.name)}", "", *(f"- {cell(line)}" for line in said.verdict), ""]
        lines += [f"- {cell(name)}: {cell(text)}" for name, text in said.header]
        lines += _listed("Warnings", [f"**{w.label}**: {cell(w.said)}" for w in said.warnings])
        lines += ["", *_figures(run), "",
                  f"{MARK} marks the best of a row. All times are MODELLED."]
        lines += _listed("", [cell(line) for line in said.about("latency") + said.about("memory")])
        lines += _listed("Hazards met", [
            f"{cell(name)}: {count:,} {cell(hazard.name)}: {cell(hazard.of(name))}"
            for hazard in said.hazards for name, count in hazard.counts.items() if count])
        lines += _listed("", [f"none of: {cell(', '.join(said.clear))}"] if said.clear else [])
        lines += _listed("Notes", [cell(line) for line in said.about("strategies")])
        lines.append("")
    return "\n".join(lines)


def _listed(title: str, items: Sequence[str]) -> list[str]:
    head = ["", f"## {title}"] if title else []
    return [*head, "", *(f"- {item}" for item in items)] if items else []


def _figures(run: Run) -> list[str]:
    rows: list[list[str]] = []
    before = ""
    for family, metric, shown, best in rows_of(run):
        if family != before:
            rows.append([f"**{cell(family)}**", *("" for _ in shown)])
            before = family
        rows.append([cell(metric), *(cell(s) + (f" {MARK}" if b else "")
                                     for s, b in zip(shown, best, strict=True))])
    return md.table(["", *(cell(name) for name in run.allocators)], rows,
                    "l" + "r" * len(run.allocators), escape=str)


def table(runs: Sequence[Run]) -> str:
    """CSV, a line per run, allocator and metric, the last column what to mind of it. Texts that a
    spreadsheet would take for a formula have an apostrophe before them."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["run", "allocator", "metric", "unit", "better", "value", "warnings"])
    for run in runs:
        found = told(run.summary).warnings
        mind = {name: formula_free("; ".join(f"{w.label}: {w.said}" for w in found
                                             if w.concerns(plain(name))))
                for name in run.allocators}
        for name, metric, unit, better, value in run.metrics().rows():
            writer.writerow([formula_free(run.name), formula_free(name), metric, unit, better,
                             "" if value is None else f"{value:.12g}", mind[name]])
    return sink.getvalue()


def text(runs: Sequence[Run]) -> str:
    """The tables of `replay run`."""
    return "\n".join(report(run.summary) for run in runs)


def pictures(runs: Sequence[Run], form: str) -> dict[str, bytes]:
    """File names and contents of all figures, as svg or png; the map at its middle instant."""
    charts: dict[str, dict[str, Any]] = {}
    for k, run in enumerate(runs, 1):
        prefix = f"{k}-" if len(runs) > 1 else ""
        charts |= {f"{prefix}{figure.name}.{form}": alone(figure) for figure in figures(run)[0]}
    return dict(zip(charts, drawn(list(charts.values()), form), strict=True))
