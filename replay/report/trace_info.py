"""What `replay info` tells of a trace: where it comes from, what it holds, what is missing."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import numpy as np
import polars as pl
from rich.console import RenderableType
from rich.text import Text

from replay.base.anomalies import KNOWN, Anomalies
from replay.base.ranks import ranked
from replay.metrics.calls import SIZE_CLASSES, size_class
from replay.report.clocks import relation
from replay.report.sketch import curve, physmap_table
from replay.report.telling.escapes import plain
from replay.report.telling.tables import (
    count, duration, fitted, missing, notes, pairs, render, size, table,
)  # fmt: skip
from replay.trace.columns import NONE, ints, is_kind, ragged, strings
from replay.trace.schema import Flag
from replay.trace.start import BEFORE, pages_of, sentences
from replay.trace.store import Trace, imbalance

CALLERS_TOLD = 12


def live_pages(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(time_ns, pages live after it) at each request, as the recording shows them.

    A free counts the pages whose allocation the recording holds, or that were live before it; rows
    before pairing count all.
    """
    t = trace.table
    nr, slots = ints(t, "nr_pages", 0), ragged(t, "slots")
    good = is_kind(t, "alloc") & (ints(t, "errno", 0) >= 0)
    free = is_kind(t, "free")
    owner = np.repeat(np.arange(len(nr)), slots.length)
    known = np.bincount(owner[(slots.values >= 0) | (slots.values == BEFORE)], minlength=len(nr))
    given = np.where(slots.length > 0, known, nr)
    rows = np.flatnonzero(good | free)
    change = np.where(good, nr, -given)[rows]
    at_start = max(pages_of(trace.meta.start, "live"), int((slots.values == BEFORE).sum()))
    return ints(t, "time_ns")[rows], np.maximum(np.cumsum(change) + at_start, 0)


def sections(trace: Trace) -> list[tuple[int, int, str]]:
    """(first frame, pages, name) of each section that the recording saw added."""
    t = trace.table
    start, nr, label = ints(t, "start_pfn"), ints(t, "nr_pages", 0), strings(t, "label")
    return [(int(start[r]), int(nr[r]), plain(label[r]))
            for r in np.flatnonzero(is_kind(t, "section")) if start[r] != NONE and nr[r] > 0]


def _kinds(trace: Trace) -> dict[str, Counter[int]]:
    """Of each kind that occurs, by name: how many rows have which flags."""
    if trace.stream:
        return trace.stream.kinds
    found: dict[str, Counter[int]] = {}
    both = cast(pl.DataFrame, pl.from_arrow(trace.table.select(["kind", "flags"])))
    for kind, flags, number in both.group_by("kind", "flags").len().iter_rows():
        found.setdefault(str(kind), Counter())[flags or 0] += number
    return dict(sorted(found.items()))


def kinds(trace: Trace) -> dict[str, int]:
    """Rows per kind of event, by name."""
    return {kind: flags.total() for kind, flags in _kinds(trace).items()}


def info(trace: Trace) -> dict[str, Any]:
    """The same facts as the text, for `--json`."""
    _, live = live_pages(trace)
    meta = trace.meta
    return {
        "name": meta.name, "synthetic": meta.synthetic, "description": meta.description,
        "recorded_strategy": meta.recorded_strategy, "sources": meta.sources, "clock": meta.clock,
        "provenance": meta.provenance, "accounting": meta.accounting, "anomalies": meta.anomalies,
        "importer": meta.importer, "options": meta.options, "events": kinds(trace),
        "live_pages_peak": int(live.max(initial=0)), "emulated": meta.emulated,
        "physmap": meta.physmap.name if meta.physmap else None,
        **({"start": meta.start} if meta.start else {}),
    }


def _provenance(trace: Trace) -> list[RenderableType]:
    meta = trace.meta
    kind = "SYNTHETIC trace: generated, no recording" if meta.synthetic else "recording"
    rows: list[tuple[str, str | Text]] = []
    if meta.description:
        rows.append(("description", plain(meta.description)))
    strategy = plain(meta.recorded_strategy) or "none"
    rows.append(("allocator", f"{strategy} (of the recorded kernel)"))
    if meta.emulated:
        emulator = plain(meta.provenance["emulated"])
        rows.append(("times", (f"recorded under emulation ({emulator}): order, counts and frames "
                               "are real, times are not those of hardware")))
    clock = ", ".join(f"{plain(k)} {plain(v)}" for k, v in sorted(meta.clock.items()) if v != "")
    rows.append(("clock", clock or "not stated"))
    if meta.importer:
        rows.append(("made by", plain(meta.importer)))
    rows += [(plain(k), plain(v)) for k, v in sorted(meta.provenance.items()) if k != "emulated"]
    rows += [("began with" if k == 0 else "", plain(sentence))
             for k, sentence in enumerate(sentences(meta.start))]
    rows += [(f"set {plain(k)}", plain(v)) for k, v in sorted(meta.options.items())]
    for source in meta.sources:
        rows.append(("source", plain(
            f"{source.get('file')}: {source.get('format')}, {source.get('bytes')} bytes, "
            f"SHA-256 {source.get('sha256', '')}")))
        if said := relation(source):
            rows.append(("its clock", plain(said)))
    return [Text(f"{plain(meta.name)}: {kind}", style="bold"), Text(), pairs(rows)]


def _events(trace: Trace) -> RenderableType:
    rows = []
    for kind, flags in _kinds(trace).items():
        marks = {f: sum(c for bits, c in flags.items() if bits & f) for f in Flag}
        marked = [f"{f.name.lower().replace('_', ' ')} {marks[f]:,}"
                  for f in Flag if f.name and marks[f]]
        rows.append([plain(kind), count(flags.total()), fitted(", ".join(marked), 70)])
    return table("Events", ["kind", "rows", "of these flagged"], rows, align="lrw")


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _accounting(trace: Trace) -> list[RenderableType]:
    meta = trace.meta
    account = meta.accounting
    skipped = account.get("skipped", {})
    skipped = skipped if isinstance(skipped, dict) else {}
    total, imported = _whole(account.get("records")), _whole(account.get("imported"))
    lost = meta.lost
    rows = [["records in the sources", count(total)], ["imported", count(imported)],
            *([f"skipped: {fitted(k, 50)}", count(_whole(v))] for k, v in sorted(skipped.items())),
            ["besides, lost: as the tracer reports", count(lost)]]
    parts: list[RenderableType] = [_events(trace),
                                   table("Every record accounted for", ["", "records"], rows)]
    problem = imbalance({"records": total, "imported": imported,
                         "skipped": {k: _whole(v) for k, v in skipped.items()}})
    if problem:
        parts.append(notes([problem]))
    if lost or meta.cut:
        parts.append(Text(f"DATA LOSS: {missing(lost, meta.cut)}\n", style="bold red"))
    return parts + _anomalies(trace)


def _anomalies(trace: Trace) -> list[RenderableType]:
    anomalies = Anomalies()
    anomalies.counts.update(trace.meta.anomalies)
    found = [[severity.replace("_", " "), count(number), name.replace("_", " "), what]
             for severity, name, number, what in anomalies.rows()]
    found += [["unknown", count(number), fitted(name, 26), "not known to this version"]
              for name, number in sorted(trace.meta.anomalies.items()) if name not in KNOWN]
    if not found:
        return []
    return [table("Anomalies, the gravest first", ["severity", "count", "what", ""], found,
                  align="lrlw")]


def _calls(trace: Trace, kind: str) -> pl.DataFrame:
    """The recorded calls of a kind: caller, size class, nr of pages, failed, ns (null: unknown)."""
    t = trace.table
    mine = is_kind(t, kind)
    nr, ns = ints(t, "nr_pages", 0)[mine], ints(t, "latency_ns")[mine]
    return pl.DataFrame({
        "caller": pl.Series([str(c) or "(not recorded)" for c in strings(t, "caller")[mine]],
                            dtype=pl.String),
        "size": pl.Series([SIZE_CLASSES[k] for k in size_class(nr)], dtype=pl.Enum(SIZE_CLASSES)),
        "nr": nr, "failed": ints(t, "errno", 0)[mine] < 0,
        "ns": pl.Series([None if v == NONE else v for v in ns.tolist()], dtype=pl.Int64)})


def _requests(trace: Trace) -> list[RenderableType]:
    calls, frees = _calls(trace, "alloc"), _calls(trace, "free")
    if not calls.height:
        return ["No allocator calls in this trace.\n"]
    emulated = ", under emulation: not of hardware" if trace.meta.emulated else ""
    columns = ["calls", "pages", "failed", "p50", "p99", "max"]
    parts: list[RenderableType] = [
        table(f"Allocator calls (latency: RECORDED{emulated})", ["caller", *columns],
              _grouped(calls, "caller")),
        table("", ["pages per call", *columns], _grouped(calls, "size"))]
    if frees["ns"].is_not_null().any():
        parts.append(table("Frees", ["pages per call", *columns], _grouped(frees, "size")))
    sizes = calls.group_by("nr").len().sort("len", "nr", descending=[True, False]).head(8)
    listed = ", ".join(f"{count(r['nr'])} ({count(r['len'])} times)" for r in sizes.to_dicts())
    return [*parts, notes([f"most frequent requests, in pages: {listed}"])]


def _grouped(calls: pl.DataFrame, key: str) -> list[list[str]]:
    ns = pl.col("ns")
    known = ns.drop_nulls().sort()
    order = ["len", key] if key == "caller" else [key]
    groups = calls.group_by(key).agg(
        pl.len(), pl.col("nr").sum(), pl.col("failed").sum().alias("bad"),
        ranked(known, 5_000).alias("p50"), ranked(known, 9_900).alias("p99"), ns.max().alias("max"),
    ).sort(order, descending=[True, False][: len(order)] if key == "caller" else False)
    rows = [[fitted(r[key], 34), count(r["len"]), count(r["nr"]), count(r["bad"]),
             *(duration(r[k]) for k in ("p50", "p99", "max"))]
            for r in groups.head(CALLERS_TOLD).to_dicts()]
    if groups.height > CALLERS_TOLD:
        rows.append([f"{groups.height - CALLERS_TOLD:,} more", *[""] * 6])
    return rows


def trace_info(trace: Trace, *, color: bool = False) -> str:
    """The text of `replay info TRACE`."""
    times, live = live_pages(trace)
    span = duration(float(times[-1])) if len(times) else "0 ns"
    parts = [*_provenance(trace), *_accounting(trace), *_requests(trace),
             Text(f"Live pages over time, as recorded ({span} from left to right)", style="bold"),
             curve(times, live)]
    machine = trace.meta.physmap
    if machine is None:
        parts.append("No physmap: a replay needs --physmap PRESET|FILE.")
    else:
        parts.append(physmap_table(machine, sections(trace)))
        about = ([f"source: {plain(machine.source)}"] if machine.source else [])
        about += [plain(note) for note in machine.notes]
        if about:
            parts.append(notes(about))
    return render(parts, color=color)


def import_report(trace: Trace, file: str, nr_bytes: int) -> str:
    """What `replay import` says: the account, the anomalies, the file."""
    words = "SYNTHETIC trace" if trace.meta.synthetic else "trace"
    what = f"{words} {plain(file)}: {trace.num_rows:,} rows, {size(nr_bytes)}"
    related = [f"Clock of {plain(str(source.get('file')))}: {plain(said)}"
               for source in trace.meta.sources if (said := relation(source))]
    return render([*_accounting(trace), *([notes(related)] if related else []), what])
