"""How much strategies differ, metric by metric, and request by request where they served the same.

The first side is the base; every other one is held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from replay.base.alike import Counting, Counts
from replay.base.progress import advance, step
from replay.compare.sides import Side
from replay.metrics.catalogue import Metric, catalogue
from replay.metrics.summary import rounded
from replay.report.telling.escapes import plain
from replay.report.telling.telling import WARNING_KINDS, told
from replay.report.telling.verdict import alike, verdict
from replay.runs.rows import Rows, is_served, side_by_side

SIZES = ((0.01, "negligible"), (0.1, "small"), (1.0, "moderate"))
"""Upper bound of |ln(value / base)| or, from or to zero, none: what is above is large. Below 1 % a
change is negligible, below 10.5 % small, below a factor of e = 2.7 moderate."""

CLIFF = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))
"""Bounds of |delta|: Romano et al., "Appropriate statistics for ordinal level data", 2006."""

SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
"""Of equal values: before and behind."""

PROVENANCE = (
    "trace", "synthetic", "requests_digest", "physmap", "machine_digest", "arch", "dom0_mode",
    "direct_mapped", "iommu", "page_bytes", "section_bytes", "mode", "profile", "costs_ns",
    "kernel", "xen_version", "recorded_strategy", "recorded_times", "records_lost", "sources_cut",
    "replay_version")
"""What two runs may differ in before any strategy does, in the order in which it matters."""


@dataclass(frozen=True)
class Effect:
    """One metric of one side against the base.

    change: value - base. ratio: value / base, None where either is zero or unknown. verdict:
    better, worse, equal, differs (neither way is better) or unknown. size: see SIZES.
    """

    metric: Metric
    base: float | None
    value: float | None
    change: float | None
    ratio: float | None
    verdict: str
    size: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the metric by its name, unit and direction."""
        return {"metric": self.metric.name, "label": self.metric.label, "unit": self.metric.unit,
                "better": self.metric.better, "base": self.base, "value": self.value,
                "change": self.change, "ratio": self.ratio, "verdict": self.verdict,
                "size": self.size}


def effect(metric: Metric, base: float | None, value: float | None) -> Effect:
    """Direction and size of one change."""
    if base is None or value is None:
        same = base is value
        return Effect(metric, base, value, None, None, "equal" if same else "unknown",
                      "none" if same else "unknown")
    change = value - base
    if not change:
        return Effect(metric, base, value, 0, 1.0 if base else None, "equal", "none")
    ratio = value / base if base > 0 and value > 0 else None
    size = "large"
    if ratio is not None:
        size = next((name for most, name in SIZES if abs(float(np.log(ratio))) < most), "large")
    if not metric.better:
        verdict = "differs"
    else:
        verdict = "better" if (change < 0) == (metric.better == "lower") else "worse"
    return Effect(metric, base, value, change, ratio, verdict, size)


def values_of(metric: Metric, sides: Sequence[Side]) -> tuple[Metric, list[float | None]]:
    """The metric and its value on each side; numbers of pages that are not alike, in bytes."""
    values = [metric.of(side.figures) for side in sides]
    pages = [int(side.run.header["page_bytes"]) for side in sides]
    if metric.unit != "pages" or len(set(pages)) == 1:
        return metric, values
    return replace(metric, unit="bytes"), [
        None if value is None else value * page for value, page in zip(values, pages, strict=True)]


def provenance(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """What the runs differ in, beside the strategies themselves: name, and a value per side."""
    found = []
    for name in PROVENANCE:
        values = [side.run.header.get(name) for side in sides]
        if any(value != values[0] for value in values):
            found.append({"name": name, "values": [_told(name, v, values[0]) for v in values]})
    options = [side.figures["options"] for side in sides]
    if len({side.allocator for side in sides}) == 1 and any(o != options[0] for o in options):
        found.append({"name": "options", "values": [_pairs(o, options) for o in options]})
    return found


def _told(name: str, value: Any, base: Any) -> str:
    if name == "costs_ns":
        return _pairs({k: v["ns"] for k, v in (value or {}).items()},
                      [{k: v["ns"] for k, v in (base or {}).items()}]) or "as the first"
    return str(value)[:16] if name.endswith("_digest") else str(value)


def _pairs(given: Any, others: Sequence[Any]) -> str:
    """The entries that not all share."""
    return ", ".join(f"{k}={v}" for k, v in sorted(given.items())
                     if any(o.get(k) != v for o in others))


def warnings(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """What to mind of the runs, each once: kind, label, sentence, and the sides it concerns."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for side in sides:
        for w in told(side.run.summary).warnings:
            if w.concerns(plain(side.allocator)):
                found.setdefault((w.kind, w.label, w.text), []).append(side.label)
    order = list(WARNING_KINDS)
    return [{"kind": kind, "label": label, "text": text, "sides": labels}
            for (kind, label, text), labels in sorted(
                found.items(), key=lambda one: order.index(one[0][0]))]


def said_first(sides: Sequence[Side]) -> list[str]:
    """What came out, see telling.verdict; the order of all work only where the costs are the same.
    Nothing of sides that came to the same, or count in pages of other sizes."""
    headers = [side.run.header for side in sides]
    chosen = dict(zip(_shortest([s.label for s in sides]), (s.figures for s in sides), strict=True))
    if len({h["page_bytes"] for h in headers}) > 1 or len(chosen) < len(sides):
        return []
    if len(alike(chosen)) == 1:
        return []
    first = dict(headers[0])
    if any(h.get("costs_ns") != first.get("costs_ns") for h in headers):
        first.pop("costs_ns", None)
    return list(verdict(first, chosen))


def _shortest(labels: Sequence[str]) -> list[str]:
    """Labels without the trace or the strategy that all of them share."""
    parts = [label.rpartition(":")[::2] for label in labels]
    traces, strategies = zip(*parts, strict=True)
    if not all(traces):
        return list(labels)
    if len(set(traces)) == 1:
        return list(strategies)
    return list(traces if len(set(strategies)) == 1 else labels)


def unpaired(base: Side, other: Side) -> str:
    """Why requests of two sides cannot be held against each other; "" if they can."""
    if base.run.header["requests_digest"] != other.run.header["requests_digest"]:
        return "other requests"
    return "" if base.run.kept and other.run.kept else "not kept"


def paired(base: Side, other: Side) -> dict[str, Any] | None:
    """The same requests under both: which side was faster how often, and by how much.

    None where unpaired() says why. faster, slower, equal: shares of the allocations that both
    served, seen from `other`. median_change_ns: of the differences. cliffs_delta: share of
    pairs of calls, one of each side, in which other is slower, less those in which it is faster.
    """
    if unpaired(base, other):
        return None
    a, b = (side.run.rows(side.allocator) for side in (base, other))
    if a.number != b.number:
        return None
    x, y, change = _latencies(a, b)
    calls = len(change)
    if not calls:
        return None
    faster, not_slower = (int(change.up_to(np.zeros(1), side)[0]) for side in SIDES)
    found: dict[str, Any] = rounded({
        "calls": calls, "faster": faster / calls, "slower": (calls - not_slower) / calls,
        "equal": (not_slower - faster) / calls, "median_change_ns": change.median(),
        "cliffs_delta": cliffs_delta(x, y)})
    found["size"] = next((name for most, name in CLIFF if abs(found["cliffs_delta"]) < most),
                         "large")
    return found


def _latencies(a: Rows, b: Rows) -> tuple[Counts, Counts, Counts]:
    """Latencies of the allocations that both served, and how much more b's is; ns, modelled."""
    found = Counting(), Counting(), Counting()
    with step("comparing", a.number, "requests"):
        for _, p, q in side_by_side(a, b, ("kind", "errno", "latency_ns")):
            keep = is_served(p) & is_served(q)
            x, y = (part["latency_ns"].to_numpy()[keep] for part in (p, q))
            for counting, values in zip(found, (x, y, y - x), strict=True):
                counting.add(values)
            advance(p.num_rows)
    x, y, change = (counting.counts() for counting in found)
    return x, y, change


def cliffs_delta(base: Counts, value: Counts) -> float:
    """P(value > base) - P(value < base) over all pairs of samples; -1 to 1.

    Cliff, "Dominance statistics: ordinal analyses to answer ordinal questions", 1993.
    """
    below, not_above = (int((base.up_to(value.values, side) * value.counts).sum())
                        for side in SIDES)
    total = len(base) * len(value)
    return float((below - (total - not_above)) / total)


def compared(sides: Sequence[Side]) -> dict[str, Any]:
    """All that `replay compare` prints of one table, as plain values."""
    base = sides[0]
    return {
        "sides": [{"label": s.label, "trace": s.run.name, "allocator": s.allocator}
                  for s in sides],
        "verdict": said_first(sides), "provenance": provenance(sides), "warnings": warnings(sides),
        "metrics": [
            {"metric": metric.name, "label": metric.label, "unit": metric.unit,
             "better": metric.better, "values": values,
             "effects": [effect(metric, values[0], value).as_dict() for value in values[1:]]}
            for metric, values in (values_of(metric, sides) for metric in catalogue())],
        "same_frames": [s.figures["frames_digest"] == base.figures["frames_digest"]
                        for s in sides[1:]],
        "paired": [paired(base, s) for s in sides[1:]],
        "unpaired": [unpaired(base, s) for s in sides[1:]],
    }
