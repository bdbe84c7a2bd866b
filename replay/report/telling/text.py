"""The report of a run in the terminal: strategies side by side, one table per metric family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from replay.base.units import human_bytes
from replay.metrics.calls import PATHS, SIZE_CLASSES
from replay.metrics.catalogue import LATENCY, MEMORY, Metric
from replay.metrics.hazards import CONSEQUENCES
from replay.report.telling.escapes import plain
from replay.report.telling.tables import (
    NONE, best_marked, count, decimal, duration, fitted, heading, missing, notes, pairs, render,
    share, size, table,
)  # fmt: skip

PER_TABLE = 5
"""Strategies side by side before a table is split."""

FEW_SAMPLES = 10
"""A percentile with fewer samples above it is said to rest on few."""

MAX_CALLERS = 6

SHOWN: dict[str, Callable[[float | None], str]] = {
    "ns": duration, "count": count, "pages": count, "bytes": size, "share": share,
    "ratio": decimal}
"""How a person reads each unit of metrics.catalogue."""

Chosen = dict[str, dict[str, Any]]


def _parts(names: Sequence[str], most: int) -> list[list[str]]:
    """The names in groups of nearly one size, so that no table stands with a single column."""
    groups = -(-len(names) // most)
    size_of = -(-len(names) // groups) if groups else 1
    return [list(names[k : k + size_of]) for k in range(0, len(names), size_of)]


def _family(title: str, rows: Sequence[Metric], chosen: Chosen) -> list[RenderableType]:
    """One table of a family; the best of each row is sought among all strategies."""
    marked: list[tuple[str, dict[str, Text]]] = []
    for metric in rows:
        values = [metric.of(data) for data in chosen.values()]
        shown = [SHOWN[metric.unit](value) for value in values]
        cells = (best_marked(values, shown, lowest=metric.better == "lower") if metric.better
                 else [Text(f"{s}  ") for s in shown])
        marked.append((metric.label, dict(zip(chosen, cells, strict=True))))
    return [table(title, ["", *(heading(n, 13, "  ") for n in part)],
                  [[label, *(cells[n] for n in part)] for label, cells in marked])
            for part in _parts(list(chosen), PER_TABLE)]


def _samples(chosen: Chosen) -> list[str]:
    """How far the tails can be trusted."""
    lines = ["percentiles: nearest rank, from buckets 0.1 % wide; max and mean are exact"]
    for label, name in (("p99.9", "p99_9"), ("p99.99", "p99_99")):
        above = [int(data["latency_ns"]["above"][name]) for data in chosen.values()]
        low, high = min(above), max(above)
        few = "; fewer than 10 say little" if low < FEW_SAMPLES else ""
        lines.append(f"samples above {label}: {low:,}" + (f" to {high:,}" if high > low else "")
                     + few)
    for name, data in chosen.items():
        if data["failed"]:
            lines.append(f"{plain(name)} failed {data['failed']:,} of {data['requests']:,} "
                         "requests: its figures are of those it served")
    return lines


def _groups(chosen: Chosen) -> list[RenderableType]:
    """p50 and p99 by request size, path and caller, exact from the rows."""
    callers: dict[str, int] = {}
    for data in chosen.values():
        for row in data["latency_by_caller"]:
            callers.setdefault(row["caller"], row["calls"])
    wanted = [("size", s) for s in SIZE_CLASSES] + [("path", p) for p in PATHS]
    wanted += [("caller", c) for c in list(callers)[:MAX_CALLERS]]
    found = {name: {(key, row[key]): row for key in ("size", "path", "caller")
                    for row in data[f"latency_by_{key}"]} for name, data in chosen.items()}
    words = {"size": "pages {}", "path": "{} path", "caller": "{}"}
    rows = [(fitted(words[key].format(what), 22), (key, what)) for key, what in wanted
            if any((key, what) in rows_of for rows_of in found.values())]

    def cell(row: dict[str, Any] | None) -> str:
        if row is None or row["p50"] is None:
            return NONE
        return f"{duration(row['p50'])}/{duration(row['p99'])}"

    parts: list[RenderableType] = [
        table("Latency by request size, path and caller: p50/p99 (modelled)",
              ["", *(heading(n, 15) for n in part)],
              [[label, *(cell(found[n].get(at)) for n in part)] for label, at in rows])
        for part in _parts(list(chosen), 4)]
    if len(callers) > MAX_CALLERS:
        parts.append(notes([f"{len(callers) - MAX_CALLERS} more callers in summary.json"]))
    return parts


def _counts(title: str, key: str, chosen: Chosen, order: Sequence[str]) -> list[RenderableType]:
    rows = [(name, {n: data[key].get(name, 0) for n, data in chosen.items()}) for name in order]
    shown = [(name, values) for name, values in rows if any(values.values())]
    if not shown:
        return [Text(title, style="bold"), "none\n"]
    return [table(title, ["", *(heading(n, 13) for n in part)],
                  [[name.replace("_", " "), *(count(values[n]) for n in part)]
                   for name, values in shown])
            for part in _parts(list(chosen), PER_TABLE)]


def _hazards(run: dict[str, Any], chosen: Chosen) -> list[RenderableType]:
    met = [k for k in CONSEQUENCES if any(d["hazards"].get(k) for d in chosen.values())]
    lines = []
    for kind in met:
        examples = [e for d in chosen.values() for e in d["hazard_examples"] if e["kind"] == kind]
        then = f". Here: {plain(examples[0]['what'])}" if examples else ""
        lines.append(f"{kind.replace('_', ' ')}: {CONSEQUENCES[kind]}{then}")
    if any(d["collisions_assumed"] for d in chosen.values()):
        lines.append("identity collisions: the recording lacks the machine frames of its grants, "
                     "so they are ASSUMED, spread over the RAM of others")
    clear = [k.replace("_", " ") for k in CONSEQUENCES if k not in met]
    if not (run["direct_mapped"] and run["iommu"]):
        clear = [k for k in clear if k != "identity collision"]
        lines.append("identity collisions cannot happen on this machine: Xen makes 1:1 entries "
                     "only for a direct-mapped dom0 behind an IOMMU")
    if clear:
        lines.append("none of: " + ", ".join(clear))
    title = "Hazards (counts; what the strategy cannot know)"
    return [*_counts(title, "hazards", chosen, list(CONSEQUENCES)), notes(lines)]


def _machine(run: dict[str, Any]) -> str:
    regions = run["advertised"]
    text = (f"{plain(run['physmap'])}: {run['arch']} dom0 ({run['dom0_mode']}), "
            f"{human_bytes(run['page_bytes'])} pages, "
            f"{human_bytes(run['section_bytes'])} sections, "
            f"{'direct-mapped' if run['direct_mapped'] else 'not direct-mapped'}, "
            f"IOMMU {'on' if run['iommu'] else 'off'}")
    if regions["bytes"]:
        text += (f"; extended regions {human_bytes(regions['bytes'])}, of which Linux can use "
                 f"{human_bytes(regions['usable_bytes'])} in whole sections")
    return text + ("" if run["physmap_of_trace"] else "; NOT the machine of the recording")


def _costs(run: dict[str, Any]) -> str:
    text = (f"{plain(run['profile'])}: {plain(run['profile_summary'])}; "
            f"{run['profile_assumed']} of {run['profile_constants']} constants assumed")
    fitted = run.get("profile_fitted_on", run)
    same = fitted["arch"] == run["arch"] and fitted["dom0_mode"] == run["dom0_mode"]
    return text if same else (f"{text}; FITTED ON ANOTHER KIND OF MACHINE "
                              f"({plain(fitted['arch'])}, {plain(fitted['dom0_mode'])})")


def _beginning(run: dict[str, Any]) -> str:
    text = "; ".join(plain(sentence) for sentence in run["start"]) or "pages held by callers"
    here = "" if run["physmap_of_trace"] else (
        ". On this other machine only the pages that callers held are taken over")
    return f"{text}{here}. How each allocator takes it over stands in the notes"


def _header(run: dict[str, Any]) -> list[RenderableType]:
    rows: list[tuple[str, str | Text]] = [
        ("Trace", plain(run["trace"]) + (
            ", SYNTHETIC: a generated workload, no recording" if run["synthetic"] else "")),
        ("Mode", plain(run["mode"])),
        ("Machine", _machine(run)),
        ("Costs", _costs(run)),
        ("Times", ("all MODELLED (work counts x costs + waiting), never measured; "
                   f"{duration(run['modelled_span_ns'])} in all")),
    ]
    if not run["synthetic"]:
        rows.append(("Recorded", (f"Linux {plain(run['kernel']) or 'unknown'}, Xen "
                                  f"{plain(run['xen_version']) or 'unknown'}, allocator "
                                  f"{plain(run['recorded_strategy']) or 'none'}; recorded times: "
                                  f"{plain(run['recorded_times'])}")))
    if "start" in run:
        rows.append(("Began with", _beginning(run)))
    if run["records_lost"] or run["sources_cut"]:
        rows.append(("DATA LOSS", Text(
            f"{missing(run['records_lost'], run['sources_cut'])}; all figures below suffer from it",
            style="bold red")))
    return [pairs(rows)]


def _remarks(chosen: Chosen, failed: dict[str, str]) -> list[RenderableType]:
    lines = ["* marks the best of a row (among all strategies, if a table is split)"]
    for name, data in chosen.items():
        lines.append(f"{plain(name)}: {plain(data['summary'])}; models {plain(data['models'])}")
        options = ", ".join(f"{plain(k)}={plain(v)}" for k, v in sorted(data["options"].items()))
        if options:
            lines.append(f"{plain(name)}: options {options}")
        lines += [f"{plain(name)}: {plain(note)}" for note in data["notes"]]
    broken = [Text(f"BROKEN INVARIANT, {plain(name)}: {plain(b)}", style="bold red")
              for name, d in chosen.items() for b in d["broken_invariants"]]
    broken += [Text(f"FAILED, not in the tables: {plain(sentence)}", style="bold red")
               for sentence in failed.values()]
    return [Text("Notes", style="bold"), notes(lines), *broken]


def report(data: dict[str, Any], *, color: bool = False) -> str:
    """The text of a summary (metrics.summary.summary)."""
    chosen: Chosen = {n: data["allocators"][n] for n in data["order"]}
    works = sorted({name for d in chosen.values() for name in d["work"]})
    return render([
        *_header(data["run"]),
        *_family("Latency of an allocation (modelled)", LATENCY, chosen), notes(_samples(chosen)),
        *_groups(chosen),
        *_family("Fragmentation and memory", MEMORY, chosen),
        notes(["means are exact over modelled time: each gauge is integrated at every change",
               "unusable free index: share of the free frames outside wholly free 2 MiB blocks"]),
        *_hazards(data["run"], chosen),
        *_counts("Work (counts of primitives: requests and background)", "work", chosen, works),
        *_remarks(chosen, data.get("failed_allocators", {})),
    ], color=color)
