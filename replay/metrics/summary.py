"""The summary of a run: what `summary.json` holds, deterministic to the byte.

No wall clock and no path of the machine goes into it; floats have 12 significant digits, and what
has no value is null.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import replay
from replay.costs.profile import Profile
from replay.engine.drive import Ended, Outcome
from replay.engine.requests_digest import requests_digest
from replay.engine.state import SECTION_KINDS
from replay.metrics.catalogue import FRAMES, catalogue
from replay.metrics.fragmentation import advertised, contiguity
from replay.metrics.latency import RELATIVE_ERROR, latency_by
from replay.metrics.measured import Measured, measured
from replay.metrics.tally import Tally
from replay.physmap.model import DOM0
from replay.trace.start import sentences
from replay.trace.meta import Meta
from replay.trace.store import Trace

MAX_SECTIONS = 100
"""Sections listed per strategy; the count is always there."""

EXAMPLES = 3
"""Hazards told in full, of each kind the first."""

CALLERS_KEPT = 20
"""Callers listed per strategy, the busiest first."""


def rounded(value: Any) -> Any:
    """Floats to 12 significant digits, so that the last bits of a sum never show; NaN is null."""
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return value


def _tables(tally: Tally) -> dict[str, Any]:
    by_caller = latency_by(tally, "caller")
    return {
        "latency_by_caller": by_caller[:CALLERS_KEPT],
        "nr_callers": len(by_caller),
        "latency_by_size": latency_by(tally, "size"),
        "latency_by_path": latency_by(tally, "path"),
        **({} if tally.exact else {"latency_by_error": RELATIVE_ERROR}),
        "contiguity": contiguity(tally),
    }


def one(m: Measured) -> dict[str, Any]:
    """One strategy's figures: the catalogue's metrics, and what is told beside them. All times are
    modelled."""
    found = {**_groups(m), **_tables(m.tally), **_about(m.ended)}
    for metric in (*catalogue(), FRAMES):
        metric.put(found, m)
    return found


def _groups(m: Measured) -> dict[str, Any]:
    """Groups of figures, of which some are metrics."""
    totals, (_, rows) = m.tally.totals, m.hazards
    sections = [{"time_ns": t, "start_pfn": start, "nr_pages": nr, "kind": SECTION_KINDS[kind]}
                for t, start, nr, kind in m.ended.sections[:MAX_SECTIONS].tolist()]
    return {
        "frees": int(totals.frees), "targets": int(totals.targets),
        "pages_allocated": int(m.tally.groups["served_pages"].sum()),
        **{name: dict(part) for name, part in m.latency.items()},
        "fragmentation": {name: dict(part) for name, part in m.gauges.items()}, **m.singles,
        "hazard_examples": [row for kind in rows.values() for row in kind[:EXAMPLES]],
        "collisions_assumed": sum(row["assumed"] for kind in rows.values() for row in kind),
        "work": m.work, "sections": sections,
    }


def _failed(o: Ended) -> list[str]:
    """How many of the calls that may fail by option did."""
    return [f"{name}: {failed:,} of {calls:,} calls failed by option" if calls else
            f"{name}: it may fail by option, but is never called"
            for name, (failed, calls) in o.failed.items()]


def _about(o: Ended) -> dict[str, Any]:
    """What the replay says of itself."""
    return {
        "background": {k: v for k, v in o.background.items() if v}, "tallies": o.tallies,
        "duration_ns": o.duration_ns, "summary": o.strategy.summary, "models": o.strategy.models,
        "options": o.options, "notes": [*o.notes, *_failed(o)],
        "broken_invariants": list(o.broken),
        **({"failed_calls": {name: failed for name, (failed, _) in o.failed.items()}}
           if o.failed else {}),
    }


def about_costs(profile: Profile) -> dict[str, Any]:
    """What modelled times rest on."""
    assumed = [n for n, c in profile.costs.items() if c.source.lower().startswith("assumed")]
    fitted = profile.fitted
    origin = {} if fitted is None else {
        "profile_fitted_on": {"arch": fitted.arch, "dom0_mode": fitted.mode,
                              "emulated": fitted.emulated}}
    return {"profile": profile.name, "profile_summary": profile.summary, **origin,
            "profile_constants": len(profile.costs), "profile_assumed": len(assumed),
            "costs_ns": {n: {"ns": c.ns, "low": c.low, "high": c.high}
                         for n, c in profile.costs.items()}}


def digest_of(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def about_recording(meta: Meta) -> dict[str, Any]:
    """What a trace says of itself."""
    return {
        "trace": meta.name, "synthetic": meta.synthetic,
        "recorded_strategy": meta.recorded_strategy,
        "recorded_times": "none" if meta.synthetic else
        f"of an emulator ({meta.provenance['emulated']}), not of hardware" if meta.emulated
        else "as recorded",
        "records_lost": meta.lost, "sources_cut": meta.cut,
        **({"losses_unknown": meta.losses_unknown} if meta.losses_unknown else {}),
        **({"rescaled": meta.provenance["rescaled"]} if "rescaled" in meta.provenance else {}),
        **({"trace_cut": meta.provenance["cut"]} if "cut" in meta.provenance else {}),
        "kernel": meta.provenance.get("kernel", ""),
        "xen_version": meta.provenance.get("xen_version", ""),
        "assumed": list(meta.physmap.assumed) if meta.physmap else [],
    }


def header(replays: Sequence[Ended], meta: Meta, requests_digest: str) -> dict[str, Any]:
    """What the figures rest on."""
    first = replays[0]
    machine = first.machine
    return {
        "replay_version": replay.__version__, **about_recording(meta),
        "requests_digest": requests_digest, "machine_digest": digest_of(machine.to_json()),
        **({"start": sentences(meta.start)} if first.start else {}),
        "mode": first.mode,
        "times": "modelled: work counts x cost profile + waiting",
        "percentile_error": RELATIVE_ERROR, **about_costs(first.profile),
        "physmap": machine.name, "arch": machine.arch, "dom0_mode": machine.mode,
        **({"domain": machine.domain} if machine.domain != DOM0 else {}),
        "physmap_of_trace": meta.physmap is not None and meta.physmap.name == machine.name,
        "direct_mapped": machine.direct_mapped, "iommu": machine.iommu,
        "page_bytes": machine.page_bytes, "section_bytes": machine.section_bytes,
        "advertised": advertised(machine), "assumed": list(machine.assumed),
        "modelled_span_ns": int(np.max([o.duration_ns for o in replays])),
    }


def names(replays: Sequence[Ended]) -> list[str]:
    """A name per replay: the strategy's, numbered from the second one of a name on."""
    seen: dict[str, int] = {}
    found = []
    for o in replays:
        seen[o.strategy.name] = seen.get(o.strategy.name, 0) + 1
        again = seen[o.strategy.name]
        found.append(o.strategy.name if again == 1 else f"{o.strategy.name}#{again}")
    return found


def summary_of(replays: Sequence[Measured], meta: Meta, requests_digest: str) -> dict[str, Any]:
    """The whole of `summary.json`; `order` is the order in which the strategies were named."""
    ended = [m.ended for m in replays]
    called = names(ended)
    found: dict[str, Any] = rounded({
        "run": header(ended, meta, requests_digest), "order": called,
        "allocators": {n: one(m) for n, m in zip(called, replays, strict=True)}})
    return found


def summary(outcomes: Sequence[Outcome], trace: Trace) -> dict[str, Any]:
    """The same of replays whose requests are all at hand."""
    first = outcomes[0].workload
    digest = requests_digest(first.requests, first.nr_slots)
    return summary_of([measured(o, trace) for o in outcomes], trace.meta, digest)
