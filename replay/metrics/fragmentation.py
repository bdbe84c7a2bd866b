"""Fragmentation and memory: end, peak and exact time-weighted mean of each gauge.

The loop integrates every gauge at each change (gauges.AREAS), so mean = integral / duration, and no
sampling is involved. A ratio of two gauges has as its mean the ratio of their integrals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from replay.base.ranks import at_ranks
from replay.base.units import NS_PER_S, SUPERPAGE_BYTES, align_down, align_up
from replay.engine.drive import Ended
from replay.engine.state import SECTION_HOTPLUG
from replay.metrics.tally import Tally
from replay.physmap.model import Physmap

STRUCT_PAGE_BYTES = 64
"""sizeof(struct page) on 64-bit Linux: 1.56 % of the memory described."""

REPORTED = (
    "unusable_free_index", "largest_free_run", "live_pages", "held_pages", "idle_pages",
    "added_pages", "pinned_sections", "pinned_section_use", "section_use",
    "memmap_overhead_bytes", "ram_given_bytes", "superpages_broken", "runs_per_request",
)


def _three(o: Ended, name: str, scale: float = 1.0) -> dict[str, float | None]:
    mean = o.areas[name] / o.duration_ns if o.duration_ns > 0 else o.ends[name]
    return {"end": o.ends[name] * scale, "peak": o.peaks[name] * scale, "mean": mean * scale}


def _ratio(over: float, under: float) -> float | None:
    return over / under if under > 0 else None


def fragmentation(o: Ended, tally: Tally) -> dict[str, dict[str, float | None]]:
    """Each of REPORTED as {end, peak, mean}; null where a value has no meaning.

    unusable_free_index: share of the free frames that cannot serve a 2 MiB block (Gorman and
    Whitcroft, "The What, The Why and the Where To of Anti-Fragmentation", OLS 2006, at one order).
    It and largest_free_run are 0 while nothing is free. Peaks of ratios are not tracked.
    section_use is null where live pages may be own RAM, or where the balloon hot-added sections
    beside a pool's: the gauge does not tell them apart.
    runs_per_request is over successful requests: peak is the worst one, it has no end.
    """
    page = o.machine.page_bytes
    result = {name: _three(o, name) for name in (
        "unusable_free_index", "largest_free_run", "live_pages", "held_pages", "added_pages",
        "pinned_sections", "superpages_broken")}
    result["memmap_overhead_bytes"] = _three(o, "added_pages", STRUCT_PAGE_BYTES)
    result["ram_given_bytes"] = _three(o, "given_pages", page)
    live, held = result["live_pages"], result["held_pages"]
    result["idle_pages"] = {
        "end": o.ends["held_pages"] - o.ends["live_pages"], "peak": None,
        "mean": _minus(held["mean"], live["mean"])}
    kinds = set(o.sections["kind"].tolist())
    mixed = o.peaks["given_pages"] > 0 or (SECTION_HOTPLUG in kinds and len(kinds) > 1)
    result["section_use"] = {"end": None, "peak": None, "mean": None} if mixed else {
        "end": _ratio(o.ends["live_pages"], o.ends["added_pages"]), "peak": None,
        "mean": _ratio(o.areas["live_pages"], o.areas["added_pages"])}
    section = section_pages(o.machine, o.options)
    result["pinned_section_use"] = {
        "end": _ratio(o.ends["live_pages"], o.ends["pinned_sections"] * section), "peak": None,
        "mean": _ratio(o.areas["live_pages"], o.areas["pinned_sections"] * section)}
    groups, served = tally.groups, int(tally.totals.latency_ns.count)
    result["runs_per_request"] = {
        "end": None, "peak": float(groups["most_runs"].max()) if served else None,
        "mean": _ratio(int(groups["runs"].sum()), served)}
    return {name: result[name] for name in REPORTED}


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def section_pages(machine: Physmap, options: Mapping[str, Any]) -> int:
    """Pages of a section in a replay: the strategy's option, else the machine's."""
    return int(options.get("section_pages") or machine.section_pages)


def singles(o: Ended) -> dict[str, float | None]:
    """Single numbers: the integral of RAM given up, and the high water against what was live.

    high_water_ratio: peak of held pages / time-weighted mean of live pages; the pool never shrinks,
    so its high water stays.
    """
    live = o.areas["live_pages"] / o.duration_ns if o.duration_ns > 0 else o.ends["live_pages"]
    return {
        "ram_given_byte_seconds": o.areas["given_pages"] * o.machine.page_bytes / NS_PER_S,
        "high_water_pages": o.peaks["held_pages"],
        "high_water_ratio": _ratio(o.peaks["held_pages"], live),
    }


def contiguity(tally: Tally) -> list[dict[str, Any]]:
    """Runs of neighbouring frames (up or down by one) per successful request, by size class.

    pages_per_run: all pages / all runs of the class; one_run: share of requests served in one run.
    """
    met, seen = np.flatnonzero(tally.groups["took"]["count"]), tally.runs.entries()
    seen = seen[np.lexsort((seen["value"], seen["group"]))]
    sizes, found = tally.codes(met, "size"), []
    for code in sorted(set(sizes.tolist())):
        groups, spread = tally.groups[met[sizes == code]], seen[seen["group"] == code]
        p50, p90 = at_ranks(spread["value"], spread["count"], (5_000, 9_000))
        calls, pages, runs = (int(n.sum()) for n in (
            groups["took"]["count"], groups["served_pages"], groups["runs"]))
        found.append({
            "size": tally.names("size")[code], "calls": calls, "pages": pages, "runs": runs,
            "mean": runs / calls, "max": int(groups["most_runs"].max()),
            "pages_per_run": pages / runs if runs else None, "p50": p50, "p90": p90,
            "one_run": int(spread["count"][spread["value"] == 1].sum()) / calls})
    return found


def free_sections(extents: Sequence[tuple[int, int]], bounds: tuple[int, int], step: int,
                  taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of whole aligned granules of `step` bytes within extents and bounds, free of `taken`."""
    found: list[tuple[int, int]] = []
    blockers = sorted(taken)
    for start, end in extents:
        low, high = align_up(max(start, bounds[0]), step), align_down(min(end, bounds[1]), step)
        for a, b in blockers:
            if b <= low or a >= high:
                continue
            if align_down(a, step) > low:
                found.append((low, align_down(a, step)))
            low = max(low, align_up(b, step))
        if low < high:
            found.append((low, high))
    return found


def advertised(machine: Physmap) -> dict[str, Any]:
    """How much of the extended regions Linux can use: a property of the machine, not of a replay.

    Xen names ranges at a grain of 2 MiB (add_ext_regions, xen/arch/arm/domain_build.c, 4.16);
    Linux takes whole sections, within mhp_get_pluggable_range(), that no child of iomem_resource
    overlaps (fill_list, drivers/xen/unpopulated-alloc.c). One overlap or one pair out of order
    disables all regions (arch_xen_unpopulated_init, arch/arm/xen/enlighten.c).
    """
    rows = []
    taken = [(child.start, child.end) for child in machine.iomem if child.name != "Xen scratch"]
    everything = (0, 1 << 62)
    in_order = all(a[1] <= b[0] for a, b in zip(machine.regions, machine.regions[1:], strict=False))
    for start, end in machine.regions:
        fine = free_sections([(start, end)], everything, SUPERPAGE_BYTES, ())
        whole = free_sections([(start, end)], machine.pluggable, machine.section_bytes, taken)
        usable = sum(b - a for a, b in whole) if in_order else 0
        below = max(0, min(end, machine.pluggable[0]) - start)
        rows.append({"start": start, "end": end, "bytes": end - start,
                     "bytes_2mib": sum(b - a for a, b in fine), "usable_bytes": usable,
                     "below_pluggable_bytes": below})
    total = {name: int(np.sum([r[name] for r in rows], dtype=object)) if rows else 0
             for name in ("bytes", "bytes_2mib", "usable_bytes", "below_pluggable_bytes")}
    return {**total, "unusable_bytes": total["bytes_2mib"] - total["usable_bytes"],
            "in_order": in_order, "regions": rows}
