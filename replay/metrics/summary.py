"""The summary of a run: what `summary.json` holds, deterministic to the byte."""

from __future__ import annotations

from typing import Any

import numpy as np

import replay
from replay.allocators.state import SECTION_KINDS, WORK
from replay.engine import Outcome
from replay.loop import ALLOC, C_ERRNO, C_PATH, FREE, SLOW
from replay.metrics.fragmentation import fragmentation
from replay.metrics.hazards import hazards
from replay.metrics.latency import latency
from replay.trace.store import Trace

MAX_SECTIONS = 100
"""Sections listed per strategy; the count is always there."""


def rounded(value: Any) -> Any:
    """Floats to 12 significant digits, so that the last bits of a sum never show."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return value


def work(outcome: Outcome) -> dict[str, int]:
    """Primitives of the whole replay: requests, background passes, and the per-page list work."""
    rows, q = outcome.rows, outcome.workload.requests
    totals = {name: int(count) for name, count in zip(WORK, outcome.work.sum(axis=0), strict=True)}
    for name, count in outcome.background.items():
        totals[name] += count
    got = int(q.pages[(q.kind == ALLOC) & (rows[:, C_ERRNO] == 0)].sum())
    freed = int(q.pages[q.kind == FREE].sum()) - outcome.tallies["frees_skipped"]
    for names, pages in zip(outcome.page_work, (got, freed), strict=True):
        for name in names:
            totals[name] += pages
    return totals


def one(outcome: Outcome, trace: Trace | None = None) -> dict[str, Any]:
    """One strategy's figures. All times are modelled."""
    rows, q = outcome.rows, outcome.workload.requests
    alloc = q.kind == ALLOC
    good = alloc & (rows[:, C_ERRNO] == 0)
    slow = int((rows[good, C_PATH] >= SLOW).sum())
    sections = [{"time_ns": t, "start_pfn": start, "nr_pages": nr, "kind": SECTION_KINDS[kind]}
                for t, start, nr, kind in outcome.sections[:MAX_SECTIONS].tolist()]
    return {
        "requests": int(alloc.sum()), "frees": int((q.kind == FREE).sum()),
        "failed": int((alloc & (rows[:, C_ERRNO] != 0)).sum()),
        "pages_allocated": int(q.pages[good].sum()),
        "slow_requests": slow, "slow_share": slow / max(1, int(good.sum())),
        **latency(outcome), "fragmentation": fragmentation(outcome),
        "hazards": hazards(outcome, trace), "work": work(outcome),
        "background": {k: v for k, v in outcome.background.items() if v},
        "tallies": outcome.tallies, "nr_sections": len(outcome.sections), "sections": sections,
        "frames_digest": outcome.frames_digest(), "options": outcome.options,
        "notes": list(outcome.notes), "broken_invariants": list(outcome.broken),
    }


def header(outcomes: list[Outcome], trace: Trace) -> dict[str, Any]:
    """What the figures rest on."""
    first, meta = outcomes[0], trace.meta
    machine, profile = first.machine, first.profile
    return {
        "replay_version": replay.__version__, "trace": meta.name, "synthetic": meta.synthetic,
        "recorded_strategy": meta.recorded_strategy,
        "recorded_times": "none" if meta.synthetic else
        f"of an emulator ({meta.provenance['emulated']}), not of hardware" if meta.emulated
        else "as recorded",
        "records_lost": meta.lost, "mode": "open-loop, one mutex, first come first served",
        "times": "modelled: work counts x cost profile + waiting",
        "profile": profile.name, "profile_summary": profile.summary,
        "physmap": machine.name, "arch": machine.arch, "dom0_mode": machine.mode,
        "direct_mapped": machine.direct_mapped, "iommu": machine.iommu,
        "page_bytes": machine.page_bytes, "section_bytes": machine.section_bytes,
        "kernel": meta.provenance.get("kernel", ""),
        "xen_version": meta.provenance.get("xen_version", ""),
        "modelled_span_ns": int(np.max([o.duration_ns for o in outcomes])),
    }


def summary(outcomes: list[Outcome], trace: Trace) -> dict[str, Any]:
    """The whole of `summary.json`."""
    return rounded({"run": header(outcomes, trace),
                    "allocators": {o.strategy.name: one(o, trace) for o in outcomes}})
