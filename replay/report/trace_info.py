"""What `replay info` tells of a trace: where it comes from, what it holds, what is missing."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.console import RenderableType
from rich.text import Text

from replay.base.ranks import WHOLE
from replay.metrics.calls import SIZE_CLASSES, size_class
from replay.report.clocks import relation
from replay.report.import_report import accounting
from replay.report.sketch import curve, physmap_table
from replay.report.telling.escapes import plain
from replay.report.telling.tables import (
    count, duration, fitted, notes, pairs, render, size, table,
)  # fmt: skip
from replay.report.trace_facts import Facts
from replay.trace.meta import Meta
from replay.trace.rescale import page_bytes_of
from replay.trace.start import sentences

CALLERS_TOLD = 12


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
    parts = [*_provenance(facts.meta), *accounting(facts.meta, facts.kinds), *_requests(facts),
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
