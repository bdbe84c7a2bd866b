"""The report of a run in the terminal: what came out, and one table; or all tables, one per family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from replay.base.width import fitting
from replay.metrics.calls import PATHS, SIZE_CLASSES
from replay.metrics.catalogue import Metric, catalogue, families
from replay.report.telling.figures import TITLES, Row, rows_of
from replay.report.telling.tables import (
    NO_VALUE, best_marked, count, duration, fitted, heading, notes, pairs, render, table,
    warning_rows,
)  # fmt: skip
from replay.report.telling.telling import Told, told

CALLERS_SHOWN = 6
SHORT_TABLE_ROWS = 20
"""Of the short table."""
SHORT_HEADER = ("Trace", "Machine", "Costs", "Began with")

Chosen = dict[str, dict[str, Any]]


def _parts(names: Sequence[str], label: int, each: int) -> list[list[str]]:
    """The names in groups that fit side by side, of nearly one size, so that no table stands with
    a single column."""
    most = fitting(label, each)
    groups = -(-len(names) // most)
    size_of = -(-len(names) // groups) if groups else 1
    return [list(names[k : k + size_of]) for k in range(0, len(names), size_of)]


def _family(title: str, rows: Sequence[Metric], chosen: Chosen) -> list[RenderableType]:
    """One table of a family; the best of each row is sought among all strategies."""
    return _rows(title, rows_of([metric for metric in rows if metric.in_tables], chosen), chosen)


def _rows(title: str, rows: Sequence[Row], chosen: Chosen) -> list[RenderableType]:
    if not rows:
        return []
    marked: list[tuple[str, dict[str, Text]]] = []
    for row in rows:
        cells = (best_marked(row.values, row.shown, lowest=row.metric.better == "lower")
                 if row.metric.better else [Text(f"{s}  ") for s in row.shown])
        marked.append((row.metric.label, dict(zip(chosen, cells, strict=True))))
    return [table(title, ["", *(heading(n, 13, "  ") for n in part)],
                  [[label, *(cells[n] for n in part)] for label, cells in marked])
            for part in _parts(list(chosen), 28, 14)]


def _first(chosen: Chosen) -> list[Row]:
    """The rows of the short table: those that say something, then hazards as far as there is room.
    """
    hazards = {metric.name for metric in families()["hazards"]}
    found = [row for row in rows_of(catalogue(), chosen)
             if (row.metric.first or row.metric.name in hazards) and any(row.values)]
    return found[:SHORT_TABLE_ROWS]


def _groups(chosen: Chosen) -> list[RenderableType]:
    """p50 and p99 by request size, path and caller, exact from the rows."""
    callers: dict[str, int] = {}
    for data in chosen.values():
        for row in data["latency_by_caller"]:
            callers.setdefault(row["caller"], row["calls"])
    wanted = [("size", s) for s in SIZE_CLASSES] + [("path", p) for p in PATHS]
    wanted += [("caller", c) for c in list(callers)[:CALLERS_SHOWN]]
    found = {name: {(key, row[key]): row for key in ("size", "path", "caller")
                    for row in data[f"latency_by_{key}"]} for name, data in chosen.items()}
    words = {"size": "pages {}", "path": "{} path", "caller": "{}"}
    rows = [(fitted(words[key].format(what), 22), (key, what)) for key, what in wanted
            if any((key, what) in rows_of for rows_of in found.values())]

    def cell(row: dict[str, Any] | None) -> str:
        if row is None or row["p50"] is None:
            return NO_VALUE
        return f"{duration(row['p50'])}/{duration(row['p99'])}"

    parts: list[RenderableType] = [
        table("Latency by request size, path and caller: p50/p99 (modelled)",
              ["", *(heading(n, 15) for n in part)],
              [[label, *(cell(found[n].get(at)) for n in part)] for label, at in rows])
        for part in _parts(list(chosen), 24, 18)]
    if len(callers) > CALLERS_SHOWN:
        parts.append(notes([f"{len(callers) - CALLERS_SHOWN} more callers in summary.json"]))
    return parts


def _counts(title: str, key: str, chosen: Chosen, order: Sequence[str]) -> list[RenderableType]:
    rows = [(name, {n: data[key].get(name, 0) for n, data in chosen.items()}) for name in order]
    shown = [(name, values) for name, values in rows if any(values.values())]
    if not shown:
        return [Text(title, style="bold"), "none\n"]
    return [table(title, ["", *(heading(n, 13) for n in part)],
                  [[name.replace("_", " "), *(count(values[n]) for n in part)]
                   for name, values in shown])
            for part in _parts(list(chosen), 28, 14)]


def _hazards(said: Told, chosen: Chosen) -> list[RenderableType]:
    lines = []
    for hazard in said.hazards:
        first = next((name for name, e in hazard.examples.items() if e), next(iter(hazard.counts)))
        lines.append(f"{hazard.name}: {hazard.of(first)}")
    if said.clear:
        lines.append("none of: " + ", ".join(said.clear))
    return [*_counts(TITLES["hazards"], "hazards", chosen, [h.kind for h in said.hazards]),
            notes(lines)]


def _verdict(said: Told) -> list[RenderableType]:
    return [Text("Verdict", style="bold"), notes(said.verdict, style="")] if said.verdict else []


def _warnings(said: Told) -> list[RenderableType]:
    return warning_rows([(w.label, w.said, w.fails) for w in said.warnings])


def brief(data: dict[str, Any], *, after: Sequence[tuple[str, str]] = (), color: bool = False
          ) -> str:
    """What came out, one table of at most SHORT_TABLE_ROWS rows, warnings. after: commands to go on
    with, and what each answers."""
    said = told(data)
    chosen: Chosen = {n: data["allocators"][n] for n in data["order"]}
    return render([
        pairs([(name, text) for name, text in said.header if name in SHORT_HEADER]),
        *_verdict(said),
        *_rows("Allocations and memory (times modelled; * marks the best of a row)",
               _first(chosen), chosen),
        *_warnings(said),
        *([Text("Next", style="bold"), pairs(after)] if after else []),
        *(Text(line, style="bold red") for line in said.failures),
    ], color=color)


def report(data: dict[str, Any], *, color: bool = False) -> str:
    """All of a summary (metrics.summary.summary)."""
    said = told(data)
    chosen: Chosen = {n: data["allocators"][n] for n in data["order"]}
    works = sorted({name for d in chosen.values() for name in d["work"]})
    of = families()
    return render([
        pairs(said.header), *_verdict(said), *_warnings(said),
        *_family(TITLES["latency"], of["latency"], chosen), notes(said.about("latency")),
        *_groups(chosen),
        *_family(TITLES["memory"], of["memory"], chosen), notes(said.about("memory")),
        *_hazards(said, chosen),
        *_counts(TITLES["work"], "work", chosen, works),
        *_family("Work, further figures", of["work"], chosen),
        Text("Notes", style="bold"),
        notes(["* marks the best of a row (among all strategies, if a table is split)",
               *said.about("strategies")]),
        *(Text(line, style="bold red") for line in said.failures),
    ], color=color)
