"""Hazards: what a strategy does to the machine without being able to know it.

An allocator sees Linux's resource tree only. Held against the host's memory map, a frame it hands
out can lie in a device's window, on RAM that belongs to another domain, or, on a direct-mapped Arm
dom0 behind an IOMMU, on the 1:1 entry of a granted page. What follows on a real machine is from
xen/arch/arm/p2m.c, xen/arch/x86/mm/p2m.c (p2m_add_page) and xen/common/memory.c of Xen 4.13-4.21.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from replay.engine.drive import Outcome
from replay.engine.requests import ALLOC, FREE
from replay.engine.state import E_WAIT, SECTION_HOTPLUG, SECTION_STALE
from replay.metrics.calls import (
    NO_CALLER,
    callers,
    handed_out,
    is_alloc,
    is_served,
    lifetimes,
    start_ns,
)
from replay.metrics.fragmentation import free_sections, section_pages
from replay.metrics.identity import identities, needs_identity, overlaps
from replay.physmap.host import paint
from replay.physmap.model import HostRange, Physmap
from replay.trace.store import Trace

WINDOWS = ("PCI ", "pcie@", "pci@")
"""iomem names of apertures in which a device may appear later."""

CONSEQUENCES = {
    "identity_collision": "a scratch page and the 1:1 entry of a granted page had one frame number "
                          "at the same time: one silently replaced the other",
    "mmio_window": "frames handed out inside a device window: a BAR placed there later, or a "
                   "device passed through, meets them",
    "ram_of_others": "frames handed out that are machine RAM of another domain or of Xen "
                     "(direct-mapped dom0 only)",
    "hotplug_over_foreign_ram": "pages hot-added as System RAM over RAM of another domain or of "
                                "Xen (direct-mapped dom0 only)",
    "hotplug_over_mmio": "pages hot-added as System RAM over a device window or reserved range",
    "stale_region_pages": "pages from a run-time answer that was out of date when used",
    "out_of_memory": "requests refused with -ENOMEM",
    "no_region": "requests refused because no region was found (-EBUSY, -EINVAL)",
    "no_region_while_free": "of these: whole free sections would have covered the request, but "
                            "not in one piece or not where the search looks first",
    "waits_without_end": "requests still asleep on a wait queue at the end",
    "thread_spins": "passes of a background thread that got nowhere and would repeat at once",
}
"""What each count is of; a frame number counts once, however often it is handed out."""

SCHEMA: dict[str, Any] = {
    "kind": pl.String, "time_ns": pl.Int64, "frame": pl.Int64, "count": pl.Int64,
    "user": pl.String, "other": pl.String, "what": pl.String, "assumed": pl.Boolean}
MAX_FRAMES = 1000
"""Frames listed per kind; the count is exact."""
MAX_PAIRS = 100_000
"""Colliding pairs listed in the frame; the count is exact."""

SCRATCH_FIRST = ("the grant's 1:1 entry silently replaced the scratch mapping: the caller reads "
                 "and writes the wrong page")
ENTRY_FIRST = ("the scratch mapping silently replaced the 1:1 entry: device DMA of the grant hits "
               "the wrong page")


def _rows(kind: str, **columns: Any) -> pl.DataFrame:
    size = max((len(v) for v in columns.values() if not isinstance(v, str | bool)), default=0)
    return pl.DataFrame({
        name: pl.Series(name, [v] * size if isinstance(v, str | bool) or v is None else list(v),
                        dtype=dtype)
        for name, dtype in SCHEMA.items()
        for v in ((kind,) if name == "kind" else (columns.get(name),))})


class Ranges:
    """Disjoint ranges of the host's map, to find frames in: which one, and its name."""

    def __init__(self, machine: Physmap, claims: Iterable[HostRange]) -> None:
        page = machine.page_bytes
        self.painted = paint(list(claims))
        self.start = np.array([r.start // page for r in self.painted], np.int64)
        self.end = np.array([-(-r.end // page) for r in self.painted], np.int64)

    def find(self, frames: np.ndarray) -> np.ndarray:
        """Index of the range that holds each frame, -1 where none does."""
        at = np.searchsorted(self.start, frames, side="right") - 1
        if not len(self.start):
            return at
        return np.where((at >= 0) & (frames < self.end[np.maximum(at, 0)]), at, -1)

    def name(self, at: int) -> str:
        """What a range is: its name, else its type."""
        return self.painted[at].name or self.painted[at].type


def windows(machine: Physmap) -> Ranges:
    """Device memory: the host's MMIO ranges, and the PCI windows of Linux's tree."""
    apertures = [HostRange(c.start, c.end, "mmio", c.name) for c in machine.iomem
                 if c.name.startswith(WINDOWS)]
    return Ranges(machine, [*apertures, *(h for h in machine.host if h.type == "mmio")])


def ram_of_others(machine: Physmap) -> Ranges:
    """Machine RAM that is not dom0's."""
    return Ranges(machine, [h for h in machine.host if h.type in ("ram_other", "ram_xen")])


def _at_window(machine: Physmap) -> str:
    if machine.arch == "arm64":
        return "a device mapped there later silently replaces the scratch page, or the reverse"
    if machine.mode == "pv":
        return "the frame's p2m entry shadows the device address in dom0's pseudo-physical map"
    return ("a device mapped there first: domain_crash() (p2m_add_page over direct MMIO); one that "
            "appears later is shadowed by the scratch page")


def _at_ram(machine: Physmap) -> str:
    if needs_identity(machine):
        return "a grant of exactly this machine frame silently replaces the scratch page"
    return "harmless as long as no IOMMU is used: no grant gets a 1:1 entry"


def _distinct(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """np.unique with first index and count; by table look-up where the frames lie close together,
    which takes a tenth of the time of sorting them."""
    low = int(frames.min()) if len(frames) else 0
    span = int(frames.max()) - low + 1 if len(frames) else 0
    if span > 4 * len(frames) + (1 << 20):
        return np.unique(frames, return_index=True, return_counts=True)
    count = np.bincount(frames - low, minlength=span)
    first = np.zeros(span, np.int64)
    first[frames[::-1] - low] = np.arange(len(frames) - 1, -1, -1)
    found = np.flatnonzero(count)
    return found + low, first[found], count[found]


def _handed_out(o: Outcome, ranges: Ranges, kind: str, what: str,
                who: np.ndarray) -> tuple[int, pl.DataFrame]:
    """Distinct frames inside the ranges, and a row for each of the first MAX_FRAMES of them.

    A row holds the first time and user, and how often the frame was handed out.
    """
    slots, request = handed_out(o, ranges.find(o.frames) >= 0)
    number, first, count = _distinct(o.frames[slots])
    begin = start_ns(o)[request[first]]
    early = np.sort(np.argsort(begin, kind="stable")[:MAX_FRAMES])
    return len(number), _rows(
        kind, time_ns=begin[early], frame=number[early], count=count[early],
        user=who[request[first[early]]].tolist(),
        other=[ranges.name(k) for k in ranges.find(number[early]).tolist()],
        what=what, assumed=False)


def _collisions(o: Outcome, trace: Trace, who: np.ndarray) -> tuple[int, pl.DataFrame]:
    """Pairs of a scratch page and a 1:1 entry that share a frame at one time; how many, and rows.

    Scratch pages live in modelled time, grants at their recorded times.
    """
    theirs = identities(o.machine, trace.table, o.duration_ns)
    frame, begin, end, request = lifetimes(o, np.isin(o.frames, theirs.frame))
    count, low, order = overlaps(frame, begin, end, theirs)
    total = int(count.sum())
    met = np.repeat(np.arange(len(count)), count)
    within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    ours = order[low[met] + within]
    since = np.maximum(begin[ours], theirs.from_ns[met])
    picked = np.lexsort((frame[ours], since))[:MAX_PAIRS]
    met, ours, since = met[picked], ours[picked], since[picked]
    scratch_first = begin[ours] <= theirs.from_ns[met]
    return total, _rows(
        "identity_collision", time_ns=since, frame=frame[ours], count=np.ones(len(ours), np.int64),
        user=who[request[ours]].tolist(), other=[f"domain {d}" for d in theirs.domid[met].tolist()],
        what=[SCRATCH_FIRST if s else ENTRY_FIRST for s in scratch_first.tolist()],
        assumed=theirs.assumed[met].tolist())


def _sections_over(o: Outcome, kind: str, types: tuple[str, ...], what: str) -> pl.DataFrame:
    """Hot-added sections that overlap host ranges of these types: one row each, pages counted."""
    page = o.machine.page_bytes
    rows = []
    for time, start, nr, sort in o.sections.tolist():
        if sort != SECTION_HOTPLUG:
            continue
        over = [(max(0, min(start + nr, h.end // page) - max(start, h.start // page)), h)
                for h in o.machine.host if h.type in types]
        pages = sum(n for n, _ in over)
        if pages:
            names = sorted({h.name or h.type for n, h in over if n})
            rows.append((time, start, pages, ", ".join(names[:4])))
    time_ns, frame, count, other = zip(*rows, strict=True) if rows else ((), (), (), ())
    return _rows(kind, time_ns=time_ns, frame=frame, count=count, user="balloon driver",
                 other=other, what=what, assumed=False)


def _stale(o: Outcome) -> pl.DataFrame:
    found = o.sections[o.sections[:, 3] == SECTION_STALE]
    return _rows("stale_region_pages", time_ns=found[:, 0], frame=found[:, 1], count=found[:, 2],
                 user=NO_CALLER, other="what Xen placed there meanwhile",
                 what="the mapping is refused, or replaces the newer use", assumed=False)


def _refused(o: Outcome, kind: str, rows: np.ndarray, what: str, who: np.ndarray) -> pl.DataFrame:
    return _rows(kind, time_ns=start_ns(o)[rows], count=o.workload.requests.pages[rows],
                 user=who[rows].tolist(), other="", what=what, assumed=False)


def _searched(o: Outcome) -> list[tuple[int, int]]:
    """Where the strategy looks for regions: the extended ones, or all of the resource tree."""
    static = o.options.get("mode") == "static" and o.machine.arch == "arm64"
    return list(o.machine.regions) if static else [(0, o.machine.iomem_end)]


def while_free(o: Outcome) -> np.ndarray:
    """Requests refused for want of a region although free whole sections would cover the deficit.

    Free are whole sections within the pluggable range that neither a child of iomem_resource, nor
    a range the architecture clips, nor a section added by then overlaps. The deficit is the
    request less what was listed: pages of sections added by then less live ones.
    """
    q, errors = o.workload.requests, o.rows["errno"]
    refused = np.flatnonzero(is_alloc(o) & np.isin(errors, (-errno.EBUSY, -errno.EINVAL)))
    if not len(refused):
        return refused
    size, page = section_pages(o), o.machine.page_bytes
    change = np.where(is_served(o), q.pages, 0)
    known = (q.slots >= 0) & (o.every_frame[np.maximum(q.slots, 0)] >= 0)
    freeing = np.repeat(np.flatnonzero(q.kind == FREE), q.pages[q.kind == FREE])
    change -= np.bincount(freeing[known], minlength=len(change)).astype(np.int64)
    live = np.cumsum(change) + (o.workload.start.live_pages if o.workload.start else 0)
    taken = [(c.start, c.end) for c in o.machine.iomem] + list(o.machine.clip)
    by_then = np.searchsorted(o.sections[:, 0], start_ns(o)[refused], side="right")
    room: dict[int, tuple[int, int]] = {}
    for n in np.unique(by_then).tolist():
        added = [(s * page, (s + nr) * page) for _, s, nr, _ in o.sections[:n].tolist()]
        free = free_sections(_searched(o), o.machine.pluggable, size * page, taken + added)
        room[n] = sum(b - a for a, b in free) // page, int(o.sections[:n, 2].sum())
    free_pages = np.array([room[n][0] for n in by_then.tolist()])
    listed = np.array([room[n][1] for n in by_then.tolist()]) - live[refused]
    deficit = q.pages[refused] - np.maximum(listed, 0)
    return np.asarray(refused[-(-deficit // size) * size <= free_pages])


def _failures(o: Outcome, who: np.ndarray) -> list[tuple[str, int, pl.DataFrame]]:
    errors, asked = o.rows["errno"], is_alloc(o)
    found = []
    for kind, rows, what in (
        ("out_of_memory", np.flatnonzero(asked & (errors == -errno.ENOMEM)),
         "the mapping fails with -ENOMEM"),
        ("no_region", np.flatnonzero(asked & np.isin(errors, (-errno.EBUSY, -errno.EINVAL))),
         'the mapping fails ("Cannot allocate new IOMEM resource")'),
        ("no_region_while_free", while_free(o), "fails for good: the search finds the same again"),
        ("waits_without_end", np.flatnonzero(asked & (errors == -E_WAIT)), "the task hangs"),
    ):
        found.append((kind, len(rows), _refused(o, kind, rows, what, who)))
    return found


def _frames_and_sections(o: Outcome, who: np.ndarray) -> list[tuple[str, int, pl.DataFrame]]:
    machine = o.machine
    found = []
    if o.page_work[0]:  # a strategy without list operations hands out no frames of this machine
        found.append(("mmio_window", *_handed_out(
            o, windows(machine), "mmio_window", _at_window(machine), who)))
    if o.page_work[0] and machine.direct_mapped:
        found.append(("ram_of_others", *_handed_out(
            o, ram_of_others(machine), "ram_of_others", _at_ram(machine), who)))
    sections = [_sections_over(o, "hotplug_over_mmio", ("mmio", "reserved"), _at_window(machine)),
                _stale(o)]
    if machine.direct_mapped:
        sections.append(_sections_over(
            o, "hotplug_over_foreign_ram", ("ram_other", "ram_xen"),
            "populate fails (the page is not dom0's); as scratch space it meets 1:1 entries"))
    return found + [(rows["kind"][0], int(rows["count"].sum()), rows)
                    for rows in sections if rows.height]


def examine(o: Outcome, trace: Trace | None = None) -> tuple[dict[str, int], pl.DataFrame]:
    """Counts by kind, see CONSEQUENCES, and a row per hazard (of frames the first MAX_FRAMES).

    Identity collisions need the trace's grants. The rows hold the time (modelled), the frame, both
    users and what a real machine would do; `count` is how often the frame was handed out, or the
    pages of a section or of a refused request; `assumed` says that the machine frame of the grant
    is not in the recording but drawn from the RAM of others.
    """
    who = callers(o, None if trace is None else trace.table)
    found = [*_frames_and_sections(o, who), *_failures(o, who)]
    if trace is not None and needs_identity(o.machine):
        total, rows = _collisions(o, trace, who)
        found.append(("identity_collision", total, rows))
    counts = dict.fromkeys(CONSEQUENCES, 0)
    counts["thread_spins"] = o.tallies["thread_spins"]
    counts.update({kind: number for kind, number, _ in found})
    table = pl.concat([rows for _, _, rows in found])
    return counts, table.sort("time_ns", "kind", "frame", nulls_last=True)


def hazards(o: Outcome, trace: Trace | None = None) -> dict[str, int]:
    """Counts by kind; see examine()."""
    return examine(o, trace)[0]


def failed(o: Outcome) -> int:
    """Allocations that got no pages: refused, or asleep to the end."""
    return int((o.rows["errno"][o.workload.requests.kind == ALLOC] < 0).sum())
