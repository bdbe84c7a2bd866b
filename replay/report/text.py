"""The report of a run in the terminal: strategies side by side, one table per metric family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from replay.metrics.hazards import CONSEQUENCES
from replay.report.tables import best_marked, fitted, plain, render, table
from replay.units import human_bytes, human_ns

PER_TABLE = 5
"""Strategies side by side before a table is split."""

Getter = Callable[[dict[str, Any]], float | None]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _plain_number(value: float) -> str:
    return f"{value:.2f}"


def _get(*path: str) -> Getter:
    def get(data: dict[str, Any]) -> float | None:
        for name in path:
            data = data[name]
        return None if data is None else float(data)  # type: ignore[arg-type]
    return get


LATENCY: list[tuple[str, Getter, Callable[[float], str], bool | None]] = [
    ("requests", _get("requests"), _count, None),
    ("failed", _get("failed"), _count, True),
    *((f"latency {label}", _get("latency_ns", name), human_ns, True) for label, name in (
        ("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p99_9"), ("p99.99", "p99_99"),
        ("max", "max"), ("mean", "mean"))),
    ("  of it waiting, p99", _get("wait_ns", "p99"), human_ns, True),
    ("  of it waiting, max", _get("wait_ns", "max"), human_ns, True),
    ("slow path, share", _get("slow", "share"), _share, True),
    ("slow path, p50", _get("slow", "p50"), human_ns, True),
    ("free latency, p99", _get("free_latency_ns", "p99"), human_ns, True),
]

FRAGMENTATION: list[tuple[str, Getter, Callable[[float], str], bool | None]] = [
    ("live pages, peak", _get("fragmentation", "live_pages", "peak"), _count, None),
    ("held pages, peak", _get("fragmentation", "held_pages", "peak"), _count, True),
    ("unusable free index, mean", _get("fragmentation", "unusable_free_index", "mean"), _share, True),
    ("unusable free index, end", _get("fragmentation", "unusable_free_index", "end"), _share, True),
    ("largest free run, mean", _get("fragmentation", "largest_free_run", "mean"), _share, False),
    ("runs per request, mean", _get("fragmentation", "runs_per_request", "mean"), _plain_number, True),
    ("sections added", _get("nr_sections"), _count, True),
    ("pages of sections, end", _get("fragmentation", "added_pages", "end"), _count, True),
    ("section use, mean", _get("fragmentation", "section_use", "mean"), _share, False),
    ("struct pages, end", _get("fragmentation", "memmap_overhead_bytes", "end"), human_bytes, True),
    ("own RAM given up, mean", _get("fragmentation", "ram_given_bytes", "mean"), human_bytes, True),
    ("own RAM given up, peak", _get("fragmentation", "ram_given_bytes", "peak"), human_bytes, True),
    ("superpages broken", _get("fragmentation", "superpages_broken", "end"), _count, True),
]


def _family(title: str, rows: list[Any], chosen: dict[str, dict[str, Any]]) -> list[Table]:
    names = list(chosen)
    made = []
    for k in range(0, len(names), PER_TABLE):
        part = names[k : k + PER_TABLE]
        cells = []
        for label, get, show, lowest in rows:
            values = [get(chosen[name]) for name in part]
            shown = ["-" if value is None else show(value) for value in values]
            cells.append([label, *([Text(f"{s}  ") for s in shown] if lowest is None else
                                   best_marked(list(values), shown, lowest=lowest))])
        made.append(table(title, ["", *(fitted(n, 16) for n in part)], cells))
    return made


def _counts(title: str, key: str, chosen: dict[str, dict[str, Any]],
            order: list[str]) -> list[Table | str]:
    rows = [(name, [data[key].get(name, 0) for data in chosen.values()]) for name in order]
    shown = [[name.replace("_", " "), *(_count(v) for v in values)]
             for name, values in rows if any(values)]
    if not shown:
        return [f"{title}: none\n"]
    return [table(title, ["", *(fitted(n, 16) for n in chosen)], shown)]


def _header(run: dict[str, Any]) -> list[str]:
    synthetic = " SYNTHETIC: a generated workload, no recording." if run["synthetic"] else ""
    lines = [
        f"Trace    {plain(run['trace'])}.{synthetic}",
        f"Replay   {run['mode']}",
        f"Physmap  {plain(run['physmap'])}: {run['arch']} {run['dom0_mode']} dom0, "
        f"{human_bytes(run['section_bytes'])} sections, "
        f"{'direct-mapped' if run['direct_mapped'] else 'not direct-mapped'}, "
        f"IOMMU {'on' if run['iommu'] else 'off'}",
        f"Costs    {plain(run['profile'])}: {plain(run['profile_summary'])}",
        "Times    all MODELLED: work counts x cost profile + waiting; "
        "most constants are assumed",
    ]
    if not run["synthetic"]:
        lines.append(f"Recorded Linux {plain(run['kernel']) or 'unknown'}, Xen "
                     f"{plain(run['xen_version']) or 'unknown'}, allocator "
                     f"{run['recorded_strategy'] or 'none'}; times {plain(run['recorded_times'])}")
    if run["records_lost"]:
        lines.append(f"WARNING  DATA LOSS: {run['records_lost']:,} records of the recording are "
                     "missing; all figures below suffer from it")
    return [fitted(line, 100) for line in lines]


def report(data: dict[str, Any], *, color: bool = False) -> str:
    """The text of a summary (metrics.summary.summary)."""
    chosen = data["allocators"]
    parts: list[RenderableType | str] = ["\n".join(_header(data["run"])) + "\n"]
    parts += _family("Latency of an allocation (modelled)", LATENCY, chosen)
    parts += _family("Fragmentation and memory (exact over modelled time)", FRAGMENTATION, chosen)
    parts += _counts("Hazards", "hazards", chosen, list(CONSEQUENCES))
    met = [k for k in CONSEQUENCES if any(d["hazards"].get(k) for d in chosen.values())]
    parts += [Text(f"  {k.replace('_', ' ')}: {CONSEQUENCES[k]}") for k in met]
    work = list(next(iter(chosen.values()))["work"])
    parts.append("")
    parts += _counts("Work (counts of primitives, requests and background)", "work", chosen, work)
    notes = [Text(f"  {name}: {plain(note)}") for name, d in chosen.items() for note in d["notes"]]
    broken = [Text(f"  BROKEN INVARIANT, {name}: {plain(b)}")
              for name, d in chosen.items() for b in d["broken_invariants"]]
    parts += [Text("Notes  (* marks the best of a row)", style="bold"), *notes, *broken]
    return render(parts, color=color)
