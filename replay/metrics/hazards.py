"""Hazards: what a strategy does to the machine without being able to know it.

An allocator sees Linux's resource tree only. Held against the host's memory map, a frame it hands
out can lie on a device's window, on RAM that belongs to another domain, or, on a direct-mapped Arm
dom0 behind an IOMMU, on the identity entry of a granted page.
"""

from __future__ import annotations

import errno

import numpy as np
import polars as pl

from replay.allocators.state import SECTION_HOTPLUG, SECTION_STALE
from replay.engine import Outcome
from replay.loop import ALLOC, C_ERRNO, FREE
from replay.physmap.model import Physmap
from replay.trace.columns import ints, is_kind, ragged
from replay.trace.store import Trace
from replay.units import align_down, align_up

NOTHING = "nothing"
WINDOWS = ("PCI Bus", "PCI ECAM", "pcie@")
"""iomem names of apertures in which a device may appear later."""

CONSEQUENCES = {
    "mmio_window": "the frame lies in a device window: a BAR placed there, or a device passed "
                   "through, is shadowed; on x86 PVH mapping over direct MMIO crashes the domain",
    "ram_of_others": "the frame number is RAM of another domain or of Xen: on a direct-mapped Arm "
                     "dom0 with an IOMMU the identity entry of a grant of that page replaces it",
    "identity_collision": "a grant's identity entry and a live scratch mapping share a frame: Arm "
                          "silently remaps one onto the other (reads or DMA hit the wrong page)",
    "hotplug_over_foreign_ram": "memory hot-added as System RAM over RAM of another domain",
    "hotplug_over_mmio": "memory hot-added as System RAM over a device window or reserved range",
    "stale_region_pages": "pages from a run-time answer that was out of date when used",
    "out_of_memory": "requests refused with -ENOMEM",
    "no_region": "requests refused because no region was found (-EBUSY, -EINVAL)",
    "no_region_while_free": "of these: enough whole free sections existed, but not in one piece",
    "waits_without_end": "requests still asleep on a wait queue at the end",
    "thread_spins": "background thread running without getting anywhere",
}


def host_type(machine: Physmap, frames: np.ndarray) -> np.ndarray:
    """The host's type of each frame number as a machine frame; NOTHING where no range covers it."""
    page = machine.page_bytes
    ranges = sorted((h.start // page, -(-h.end // page), h.type) for h in machine.host)
    ranges += [(c.start // page, -(-c.end // page), "mmio") for c in machine.iomem
               if c.name.startswith(WINDOWS)]
    found = np.full(len(frames), NOTHING, object)
    for start, end, kind in ranges:
        found[(frames >= start) & (frames < end)] = kind
    return found


def _overlap_pages(machine: Physmap, sections: np.ndarray, *types: str) -> int:
    page = machine.page_bytes
    pages = 0
    for _, start, nr, _ in sections.tolist():
        for h in machine.host:
            if h.type in types:
                pages += max(0, min(start + nr, h.end // page) - max(start, h.start // page))
    return pages


def hazards(outcome: Outcome, trace: Trace | None = None) -> dict[str, int]:
    """Counts by kind; CONSEQUENCES says what each means. Frames are counted once each."""
    rows, q, machine = outcome.rows, outcome.workload.requests, outcome.machine
    errors = rows[(q.kind == ALLOC), C_ERRNO]
    counts = dict.fromkeys(CONSEQUENCES, 0)
    counts["out_of_memory"] = int((errors == -errno.ENOMEM).sum())
    refused = (q.kind == ALLOC) & np.isin(rows[:, C_ERRNO], (-errno.EBUSY, -errno.EINVAL))
    counts["no_region"] = int(refused.sum())
    counts["no_region_while_free"] = _while_free(outcome, refused)
    counts["waits_without_end"] = outcome.tallies["sleeping_at_end"]
    counts["thread_spins"] = outcome.tallies["thread_spins"]
    kinds = outcome.sections[:, 3]
    hot = outcome.sections[kinds == SECTION_HOTPLUG]
    if machine.direct_mapped:
        # Elsewhere a guest frame number says nothing about the machine frame behind it.
        counts["hotplug_over_foreign_ram"] = _overlap_pages(machine, hot, "ram_other", "ram_xen")
    counts["hotplug_over_mmio"] = _overlap_pages(machine, hot, "mmio", "reserved")
    counts["stale_region_pages"] = int(outcome.sections[kinds == SECTION_STALE, 2].sum())
    if outcome.page_work[0]:
        frames = np.unique(outcome.frames[outcome.frames >= 0])
        types = host_type(machine, frames)
        counts["mmio_window"] = int((types == "mmio").sum())
        if machine.direct_mapped:
            counts["ram_of_others"] = int(np.isin(types, ("ram_other", "ram_xen")).sum())
    if trace is not None:
        counts["identity_collision"] = len(identity_collisions(outcome, trace))
    return counts


def _free_sections(outcome: Outcome) -> int:
    """Whole free sections within the pluggable range that the strategy's own resource leaves."""
    machine = outcome.machine
    size = machine.section_bytes
    regions = machine.regions if outcome.strategy.name == "hypervisor" else (
        (0, machine.iomem_end),)
    added = {s for _, start, nr, _ in outcome.sections.tolist()
             for s in range(start * machine.page_bytes // size,
                            (start + nr) * machine.page_bytes // size)}
    taken = sorted((c.start, c.end) for c in machine.iomem)
    free = 0
    for start, end in regions:
        low = max(start, machine.pluggable[0])
        high = min(end, machine.pluggable[1])
        for a, b in zip([low, *(e for _, e in taken)], [*(s for s, _ in taken), high], strict=True):
            first = align_up(max(a, low), size) // size
            last = align_down(max(0, min(b, high)), size) // size
            free += max(0, last - first)
            free -= sum(1 for s in added if first <= s < last)
    return free


def _while_free(outcome: Outcome, refused: np.ndarray) -> int:
    """Refused requests that the free sections would cover if they lay in one piece."""
    if not refused.any():
        return 0
    room = _free_sections(outcome) * outcome.machine.section_pages
    return int((outcome.workload.requests.pages[refused] <= room).sum())


def identity_mapped(machine: Physmap) -> bool:
    """Whether a grant gets a second, 1:1 entry: direct-mapped and behind an IOMMU (Xen on Arm)."""
    return machine.arch == "arm64" and machine.direct_mapped and machine.iommu


def _machine_frames(machine: Physmap, count: int, seed: np.ndarray) -> np.ndarray:
    """Assumed machine frames of granted pages: spread over the RAM of others, by a fixed hash."""
    page = machine.page_bytes
    ranges = [(h.start // page, h.end // page) for h in machine.host if h.type == "ram_other"]
    if not ranges or not count:
        return np.full(count, -1, np.int64)
    sizes = np.array([end - start for start, end in ranges])
    ends = np.cumsum(sizes)
    # Multiplicative hashing with the 64-bit golden ratio: stateless, the same on every machine.
    hashed = (seed.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    place = ((hashed >> np.uint64(11)) % np.uint64(int(ends[-1]))).astype(np.int64)
    which = np.searchsorted(ends, place, side="right")
    starts = np.array([start for start, _ in ranges])
    return starts[which] + place - (ends - sizes)[which]


def _grants(trace: Trace, machine: Physmap) -> pl.DataFrame:
    """Identity entries: machine frame, from and to; mfns that are not recorded are assumed."""
    table = trace.table
    time, nr, pid = ints(table, "time_ns"), ints(table, "nr_pages", 0), ints(table, "pid")
    mfns, kinds = ragged(table, "mfns"), is_kind(table, "grant_map")
    ends = {}
    maps, lists = [], []
    for r in np.flatnonzero(kinds | is_kind(table, "grant_unmap")).tolist():
        if kinds[r]:
            maps.append(r)
            ends.setdefault((int(pid[r]), int(nr[r])), []).append(len(maps) - 1)
            known = mfns.row(r)
            lists.append(known if len(known) else _machine_frames(
                machine, min(int(nr[r]), 1 << 16), np.int64(r) * 65536 + np.arange(
                    min(int(nr[r]), 1 << 16))))
    until = np.full(len(maps), np.iinfo(np.int64).max)
    for r in np.flatnonzero(is_kind(table, "grant_unmap")).tolist():
        waiting = ends.get((int(pid[r]), int(nr[r])))
        if waiting:
            until[waiting.pop(0)] = time[r]
    rows = np.repeat(np.arange(len(maps)), [len(x) for x in lists])
    return pl.DataFrame({
        "frame": np.concatenate([*lists, np.zeros(0, np.int64)]).astype(np.int64),
        "mapped_ns": time[np.array(maps, np.int64)][rows], "unmapped_ns": until[rows],
        "assumed": np.array([not mfns.length[r] for r in maps], bool)[rows]})


def identity_collisions(outcome: Outcome, trace: Trace) -> pl.DataFrame:
    """Scratch frames that were live while a grant of the machine page of that number was mapped.

    Columns: frame, alloc_ns, free_ns, mapped_ns, unmapped_ns, assumed (the machine frame is not in
    the recording but assumed). Empty where the machine makes no identity entries.
    """
    machine = outcome.machine
    if not identity_mapped(machine):
        return pl.DataFrame({"frame": []})
    q = outcome.workload.requests
    alloc = q.kind == ALLOC
    start = np.repeat(q.time[alloc], q.pages[alloc])
    end = np.full(len(start), np.iinfo(np.int64).max)
    by = np.repeat(q.time[q.kind == FREE], q.pages[q.kind == FREE])
    known = q.slots >= 0
    end[q.slots[known]] = by[known]
    scratch = pl.DataFrame({"frame": outcome.frames, "alloc_ns": start, "free_ns": end})
    return scratch.filter(pl.col("frame") >= 0).join(_grants(trace, machine), on="frame").filter(
        (pl.col("alloc_ns") < pl.col("unmapped_ns")) & (pl.col("mapped_ns") < pl.col("free_ns"))
    ).sort("alloc_ns", "mapped_ns", "frame")
