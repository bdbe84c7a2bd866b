"""What `replay info` tells of a trace: where it comes from, what it holds, what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from rich.console import RenderableType

from replay.anomalies import Anomalies
from replay.report.sketch import curve, physmap_table
from replay.report.tables import fitted, plain, render, table
from replay.trace.columns import NONE, ints, is_kind, strings
from replay.trace.store import Trace
from replay.units import human_bytes, human_ns


def live_pages(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(time_ns, pages live after it) at each request, as the recording shows them."""
    t = trace.table
    good = is_kind(t, "alloc") & (ints(t, "errno", 0) >= 0)
    free = is_kind(t, "free")
    rows = np.flatnonzero(good | free)
    change = np.where(good, ints(t, "nr_pages", 0), -ints(t, "nr_pages", 0))[rows]
    return ints(t, "time_ns")[rows], np.maximum(np.cumsum(change), 0)


def sections(trace: Trace) -> list[tuple[int, int, str]]:
    """(first frame, pages, name) of each section that the recording saw added."""
    t = trace.table
    start, nr, label = ints(t, "start_pfn"), ints(t, "nr_pages", 0), strings(t, "label")
    return [(int(start[r]), int(nr[r]), plain(label[r]))
            for r in np.flatnonzero(is_kind(t, "section")) if start[r] != NONE]


def info(trace: Trace) -> dict[str, Any]:
    """The same facts as the text, for `--json`."""
    kinds = trace.table["kind"].cast("string").value_counts().to_pylist()
    _, live = live_pages(trace)
    meta = trace.meta
    return {
        "name": meta.name, "synthetic": meta.synthetic, "description": meta.description,
        "recorded_strategy": meta.recorded_strategy, "sources": meta.sources, "clock": meta.clock,
        "provenance": meta.provenance, "accounting": meta.accounting, "anomalies": meta.anomalies,
        "importer": meta.importer, "options": meta.options,
        "events": {k["values"]: k["counts"] for k in sorted(kinds, key=lambda k: k["values"])},
        "live_pages_peak": int(live.max(initial=0)),
        "physmap": meta.physmap.name if meta.physmap else None,
    }


def _provenance(trace: Trace) -> list[RenderableType | str]:
    meta = trace.meta
    kind = "SYNTHETIC trace: generated, no recording" if meta.synthetic else "recording"
    lines = [f"{plain(meta.name)}: {kind}"]
    if meta.description:
        lines.append(plain(meta.description))
    if meta.emulated:
        lines.append(f"Recorded under emulation ({plain(meta.provenance['emulated'])}): order, "
                     "counts and frames are real, times are not those of hardware.")
    rows = [[plain(k), fitted(v, 70)] for k, v in sorted(meta.provenance.items())]
    rows.append(["recorded allocator", meta.recorded_strategy or "none"])
    rows += [["source", fitted(f"{s.get('file')} ({s.get('format')}, "
                               f"{human_bytes(float(s.get('bytes', 0)))}, clock {s.get('clock')})", 70)]
             for s in meta.sources]
    return ["\n".join(lines) + "\n", table("Provenance", ["", ""], rows, left=2)]


def _accounting(trace: Trace) -> list[RenderableType | str]:
    meta = trace.meta
    kinds = info(trace)["events"]
    account = meta.accounting
    skipped = account.get("skipped", {})
    rows = [["records in the sources", f"{int(account.get('records', 0)):,}"],
            ["imported", f"{int(account.get('imported', 0)):,}"],
            *([f"skipped: {fitted(k, 50)}", f"{int(v):,}"] for k, v in sorted(skipped.items())),
            ["lost (reported by the tracer)", f"{int(account.get('lost', 0)):,}"]]
    parts: list[RenderableType | str] = [
        table("Events", ["kind", "rows"], [[plain(k), f"{v:,}"] for k, v in kinds.items()]),
        table("Every record accounted for", ["", "records"], rows)]
    anomalies = Anomalies()
    anomalies.counts.update(meta.anomalies)
    found = [[severity.replace("_", " "), name.replace("_", " "), f"{count:,}", fitted(what, 52)]
             for severity, name, count, what in anomalies.rows()]
    if found:
        parts.append(table("Anomalies, the gravest first", ["severity", "what", "count", ""], found,
                           left=2))
    return parts


def _requests(trace: Trace) -> list[RenderableType | str]:
    t = trace.table
    alloc = is_kind(t, "alloc")
    if not alloc.any():
        return ["No allocator calls in this trace.\n"]
    frame = pl.DataFrame({
        "caller": [plain(c) or "unknown" for c in strings(t, "caller")[alloc]],
        "nr": ints(t, "nr_pages", 0)[alloc], "failed": ints(t, "errno", 0)[alloc] < 0,
        "ns": pl.Series([None if v == NONE else int(v) for v in ints(t, "latency_ns")[alloc]],
                        dtype=pl.Int64)})
    ns = pl.col("ns")
    groups = frame.group_by("caller").agg(
        pl.len(), pl.col("nr").sum(), pl.col("failed").sum().alias("bad"),
        ns.quantile(0.5).alias("p50"), ns.quantile(0.99).alias("p99")).sort(
            "len", "caller", descending=[True, False])
    label = "recorded latency" + (", under emulation" if trace.meta.emulated else "")
    rows = [[fitted(r["caller"], 34), f"{r['len']:,}", f"{r['nr']:,}", f"{r['bad']:,}",
             *("-" if r[k] is None else human_ns(r[k]) for k in ("p50", "p99"))]
            for r in groups.head(12).to_dicts()]
    sizes = frame.group_by("nr").len().sort("len", "nr", descending=[True, False]).head(8)
    listed = ", ".join(f"{r['nr']:,} pages x {r['len']:,}" for r in sizes.to_dicts())
    return [table(f"Allocator calls by caller ({label})",
                  ["caller", "calls", "pages", "failed", "p50", "p99"], rows),
            f"Most frequent sizes: {listed}\n"]


def trace_info(trace: Trace, *, color: bool = False) -> str:
    """The text of `replay info TRACE`."""
    times, live = live_pages(trace)
    span = human_ns(float(times[-1])) if len(times) else "0 ns"
    parts = [*_provenance(trace), *_accounting(trace), *_requests(trace),
             f"Live pages over time, as recorded: peak {int(live.max(initial=0)):,}, "
             f"{span} from left to right", curve(times, live)]
    if trace.meta.physmap:
        parts.append(physmap_table(trace.meta.physmap, sections(trace)))
        parts += [f"  note: {plain(note)}" for note in trace.meta.physmap.notes]
    return render(parts, color=color)


def import_report(trace: Trace, file: str, size: int) -> str:
    """What `replay import` says: the account, the anomalies, the file."""
    parts = _accounting(trace)
    words = "SYNTHETIC trace" if trace.meta.synthetic else "trace"
    parts.append(f"{words} {plain(file)}: {trace.table.num_rows:,} rows, {human_bytes(size)}")
    return render(parts)
