"""What `replay info` tells of a trace: where it comes from, what it holds, what is missing."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.console import RenderableType
from rich.text import Text

from replay.base.anomalies import KNOWN, Anomalies
from replay.base.ranks import WHOLE
from replay.metrics.calls import SIZE_CLASSES, size_class
from replay.report.clocks import relation
from replay.report.sketch import curve, physmap_table
from replay.report.telling.escapes import plain
from replay.report.telling.tables import (
    count, duration, fitted, losses, missing, notes, pairs, render, size, table,
)  # fmt: skip
from replay.report.trace_facts import Facts, Kinds, kinds_in
from replay.trace.meta import Meta
from replay.trace.rescale import page_bytes_of
from replay.trace.schema import Flag
from replay.trace.start import sentences
from replay.trace.opening import imbalance
from replay.trace.store import Trace

CALLERS_TOLD = 12


def kinds(trace: Trace) -> dict[str, int]:
    """Rows per kind of event, by name."""
    return {kind: flags.total() for kind, flags in _kinds(trace).items()}


def _kinds(trace: Trace) -> Kinds:
    return trace.stream.kinds if trace.stream else kinds_in(trace.table)


def info(facts: Facts) -> dict[str, Any]:
    """The same facts as the text, for `--json`."""
    meta = facts.meta
    return {
        "name": meta.name, "synthetic": meta.synthetic, "description": meta.description,
        "recorded_strategy": meta.recorded_strategy, "sources": meta.sources, "clock": meta.clock,
        "provenance": meta.provenance, "accounting": meta.accounting, "anomalies": meta.anomalies,
        "importer": meta.importer, "options": meta.options,
        "events": {kind: flags.total() for kind, flags in facts.kinds.items()},
        "live_pages_peak": facts.peak, "emulated": meta.emulated,
        "physmap": meta.physmap.name if meta.physmap else None,
        **({"start": meta.start} if meta.start else {}),
    }


def _provenance(meta: Meta) -> list[RenderableType]:
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
    rows += [(plain(k), plain(v)) for k, v in sorted(meta.provenance.items())
             if k not in ("emulated", "cut")]
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


def _events(kinds: Kinds) -> RenderableType:
    rows = []
    for kind, flags in kinds.items():
        marks = {f: sum(c for bits, c in flags.items() if bits & f) for f in Flag}
        marked = [f"{f.name.lower().replace('_', ' ')} {marks[f]:,}"
                  for f in Flag if f.name and marks[f]]
        rows.append([plain(kind), count(flags.total()), fitted(", ".join(marked), 70)])
    return table("Events", ["kind", "rows", "of these flagged"], rows, align="lrw")


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _accounting(meta: Meta, kinds: Kinds) -> list[RenderableType]:
    account = meta.accounting
    skipped = account.get("skipped", {})
    skipped = skipped if isinstance(skipped, dict) else {}
    total, imported = _whole(account.get("records")), _whole(account.get("imported"))
    lost = meta.lost
    rows = [["records in the sources", count(total)], ["imported", count(imported)],
            *([f"skipped: {fitted(k, 50)}", count(_whole(v))] for k, v in sorted(skipped.items())),
            ["besides, lost: as the tracer reports", losses(lost, meta.losses_unknown)]]
    parts: list[RenderableType] = [_events(kinds),
                                   table("Every record accounted for", ["", "records"], rows)]
    problem = imbalance({"records": total, "imported": imported,
                         "skipped": {k: _whole(v) for k, v in skipped.items()}})
    if problem:
        parts.append(notes([problem]))
    if said := missing(lost, meta.cut, meta.provenance.get("cut", ""),
                       unknown=meta.losses_unknown):
        parts.append(Text(f"DATA LOSS: {said}\n", style="bold red"))
    return parts + _anomalies(meta)


def _anomalies(meta: Meta) -> list[RenderableType]:
    anomalies = Anomalies()
    anomalies.counts.update(meta.anomalies)
    found = [[severity.replace("_", " "), losses(number, meta.losses_unknown)
              if name == "records_lost" else count(number), name.replace("_", " "), what]
             for severity, name, number, what in anomalies.rows()]
    found += [["unknown", count(number), fitted(name, 26), "not known to this version"]
              for name, number in sorted(meta.anomalies.items()) if name not in KNOWN]
    if not found:
        return []
    return [table("Anomalies, the gravest first", ["severity", "count", "what", ""], found,
                  align="lrlw")]


def _requests(facts: Facts) -> list[RenderableType]:
    sized = facts.calls.with_columns(size=pl.Series(
        [SIZE_CLASSES[k] for k in size_class(facts.calls["nr"].to_numpy())],
        dtype=pl.Enum(SIZE_CLASSES)))
    calls, frees = sized.filter(~pl.col("free")), sized.filter("free")
    if not calls.height:
        return ["No allocator calls in this trace.\n"]
    emulated = ", under emulation: not of hardware" if facts.meta.emulated else ""
    columns = ["calls", "pages", "failed", "p50", "p99", "max"]
    parts: list[RenderableType] = [
        table(f"Allocator calls (latency: RECORDED{emulated})", ["caller", *columns],
              _grouped(calls, "caller")),
        table("", ["pages per call", *columns], _grouped(calls, "size"))]
    if frees["ns"].is_not_null().any():
        parts.append(table("Frees", ["pages per call", *columns], _grouped(frees, "size")))
    sizes = calls.group_by("nr").agg(pl.col("calls").sum())
    sizes = sizes.sort("calls", "nr", descending=[True, False]).head(8)
    listed = ", ".join(f"{count(r['nr'])} ({count(r['calls'])} times)" for r in sizes.to_dicts())
    pages = f"pages of {size(page_bytes_of(facts.meta))}"
    return [*parts, notes([f"most frequent requests, in {pages}: {listed}"])]


def _grouped(calls: pl.DataFrame, key: str) -> list[list[str]]:
    times, ns = pl.col("calls"), pl.col("ns")
    known = times.filter(ns.is_not_null()).cum_sum()

    def at(share: int) -> pl.Expr:
        """A percentile: the first latency up to which as many calls lie, null if none is known."""
        wanted = (known.last() * share + WHOLE - 1) // WHOLE
        return ns.drop_nulls().filter(known >= wanted).first()

    groups = calls.sort("ns").group_by(key).agg(
        times.sum().alias("len"), (times * pl.col("nr")).sum().alias("nr"),
        times.filter("failed").sum().alias("bad"), at(5_000).alias("p50"), at(9_900).alias("p99"),
        ns.max().alias("max"),
    ).sort(*(["len", key] if key == "caller" else [key]),
           descending=[True, False] if key == "caller" else False)
    rows = [[fitted(r[key], 34), count(r["len"]), count(r["nr"]), count(r["bad"]),
             *(duration(r[k]) for k in ("p50", "p99", "max"))]
            for r in groups.head(CALLERS_TOLD).to_dicts()]
    if groups.height > CALLERS_TOLD:
        rows.append([f"{groups.height - CALLERS_TOLD:,} more", *[""] * 6])
    return rows


def trace_info(facts: Facts, *, color: bool = False) -> str:
    """The text of `replay info TRACE`."""
    span = duration(float(facts.end_ns))
    parts = [*_provenance(facts.meta), *_accounting(facts.meta, facts.kinds), *_requests(facts),
             Text(f"Live pages over time, as recorded ({span} from left to right)", style="bold"),
             curve(facts.tops)]
    machine = facts.meta.physmap
    if machine is None:
        parts.append("No physmap: a replay needs --physmap PRESET|FILE.")
    else:
        parts.append(physmap_table(machine, facts.sections))
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
    return render([*_accounting(trace.meta, _kinds(trace)),
                   *([notes(related)] if related else []), what])
