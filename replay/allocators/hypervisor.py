"""hypervisor: the pool draws from guest-physical ranges that the hypervisor names.

static (the default), what was merged: on Arm the extended regions of the device tree become
`xen_resource` (arch/arm/xen/enlighten.c, arch_xen_unpopulated_init, Linux 5.17+); on a PVH dom0 the
list is seeded with the memory map's UNUSABLE ranges (arch/x86/xen/enlighten.c,
arch_xen_unpopulated_init, and enlighten_pvh.c, pvh_reserve_extra_memory, Linux 6.9+).
Without usable ranges the kernel falls back to the balloon driver (Arm) or to iomem_resource (x86).

query, what was proposed as XENMEM_get_unallocated_space (xen-devel, 28 July 2021) and rejected: at
each refill the hypervisor is asked for a range that is unused just now. It may be used by the time
it is mapped: `stale_every=K` makes every K-th answer such a one (assumed; no data exists). A refill
fails where fill_list() does (faults.py); Linux then gives the range up, of which Xen is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from replay.allocators import balloon, pool
from replay.allocators.balloon import page_work
from replay.allocators.pool import (
    add_region, pool_state, prepared, refill_pages, take_with_entries,
)  # fmt: skip
from replay.base.compiled import inline, compiled, unlikely
from replay.base.units import align_down, align_up
from replay.engine.failing import fails
from replay.engine.faults import KZALLOC
from replay.engine.loop import loop
from replay.engine.state import BEYOND_LIST, ENOMEM, SECTION_POOL, SECTION_STALE, set_tree, words
from replay.engine.strategy import Option, Setup, Strategy, own_record
from replay.engine.tracking import take
from replay.physmap.host import unusable_memory
from replay.physmap.model import Physmap
from replay.physmap.resource import EBUSY, find, request

_MODES = ("static", "query")
ASKING = _MODES.index("query")
"""The mode in which each refill asks."""
OPTIONS = pool.OPTIONS | {
    "mode": Option("static", "static: regions fixed at boot; query: asked for at each refill",
                   _MODES),
    "regions": Option(True, "the device tree's extended regions are used (since Linux 5.17)",
                      since="extended_regions"),
    "seeding": Option(True, "PVH: UNUSABLE memory is on the list from boot (since Linux 6.9)",
                      since="unusable_seeding"),
    "stale_every": Option(0, "query: every K-th answer is out of date when used; 0 is never"),
}
OWN, options = own_record(OPTIONS, "fallback", "queries", base=pool.OWN)
"""Whether the balloon serves all calls; how often Xen was asked."""

SCRATCH = "Xen scratch"
"""Name of the pool's resources (fill_list)."""

QUERY_ALIGN = 2 << 20
"""Xen names ranges in 2 MiB granules (add_ext_regions, xen/arch/arm/domain_build.c, 4.16)."""


@compiled
def _query_fill(m: np.ndarray, deficit: int) -> int:
    """Ask Xen for an unused range of whole sections; 0 or -errno."""
    s, own = words(m), options(m)
    section = s.section_pages
    page = s.page_bytes
    nr_pages = refill_pages(m, deficit)
    if fails(m, KZALLOC):  # of the resource
        return -ENOMEM
    own.queries += 1
    s.work.region_query += 1
    s.work.hypercall += 1
    s.dirty |= BEYOND_LIST
    bounds = (s.plug_min, s.plug_max, section * page)
    start, steps = find(m, s.xen_tree, s.unreserved, nr_pages * page, bounds)
    s.work.resource_step += steps
    s.dirty |= BEYOND_LIST
    if start < 0:
        return -EBUSY
    last = start + nr_pages * page - 1
    # In Xen's view the range is taken from now on, whatever Linux then makes of it.
    if request(m, s.xen_tree, start, last) < 0 or request(m, s.tree, start, last) < 0:
        return -EBUSY
    s.work.resource_add += 1
    s.dirty |= BEYOND_LIST
    start = prepared(m, start, nr_pages)
    if start < 0:
        return start
    stale = own.stale_every > 0 and own.queries % own.stale_every == 0
    add_region(m, start, nr_pages, SECTION_STALE if stale else SECTION_POOL)
    return 0


@inline
def _alloc_query(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_unpopulated_pages() whose refill asks Xen."""
    s = words(m)
    if s.count < nr_pages:
        error = _query_fill(m, nr_pages - s.count)
        if error < 0:
            return error
    if unlikely(s.faults.entries != 0):
        return take_with_entries(m, nr_pages, frames, at)
    take(m, nr_pages, frames, at)
    return 0


@compiled
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_unpopulated_pages() with a target named by the hypervisor."""
    own = options(m)
    if own.fallback:
        return balloon.alloc(m, now, nr_pages, frames, at)
    if own.mode == ASKING:
        return _alloc_query(m, now, nr_pages, frames, at)
    return pool.alloc(m, now, nr_pages, frames, at)


@compiled
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_free_unpopulated_pages()."""
    own = options(m)
    if own.fallback:
        return balloon.free(m, now, nr_pages, frames, at)
    return pool.free(m, now, nr_pages, frames, at)


@compiled
def wake(m: np.ndarray, now: int) -> int:
    """The balloon thread: it serves the fallback, and runs beside the pool."""
    own = options(m)
    if own.fallback:
        return balloon.wake(m, now)
    return pool.wake(m, now)


@compiled  # no signature: read from the cache only where it is used
def _run_query(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    return loop(_alloc_query, pool.free, pool.wake, m, q, out, cost)


def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around whichever serves the calls; see alloc()."""
    own = options(m)
    if own.fallback:
        return balloon.run(m, q, out, cost)
    if own.mode == ASKING:
        return _run_query(m, q, out, cost)
    return pool.run(m, q, out, cost)


def usable_regions(machine: Physmap) -> tuple[list[tuple[int, int]], str]:
    """The regions Linux accepts, and why none is where that is so.

    One overlap or one pair out of order disables all of them.
    """
    regions = list(machine.regions)
    for (_, end), (start, _) in zip(regions, regions[1:], strict=False):
        if end > start:
            return [], "extended regions overlap or are out of order: Linux uses none of them"
    return regions, "" if regions else "the hypervisor names no regions"


def _seeded(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    # pvh_arch_setup() alone converts them; a PV dom0 sees its UNUSABLE ranges as RAM.
    seeds = machine.mode == "pvh" and values["seeding"]
    m = pool_state(machine, peak_pages, values, pool.extra_seeds(machine, values))
    pages = sum(end - start for start, end in unusable_memory(machine)) if seeds else 0
    return Setup(m, page_work(machine), (
        _seeding(machine, bool(seeds), pages),
        *(() if pages else pool.notes_of_extra(machine, values))))


def _seeding(machine: Physmap, seeds: bool, pages: int) -> str:
    """What the list begins with, and why."""
    if pages:
        return f"list seeded at boot with {pages} pages of UNUSABLE memory (Linux 6.9+)" + (
            "" if machine.unusable_known else "; more of it may be among the System RAM")
    if machine.mode == "pvh" and not seeds:
        return ("Linux before 6.9 seeds the list with nothing: as the pool, on iomem_resource")
    if seeds and not machine.unusable_known:
        return ("NOT seeded, although this kernel may have been: how much of the System RAM was "
                "UNUSABLE memory at boot is not known (import with --set memory.boot=PAGES): as "
                "the pool, on iomem_resource")
    return "no UNUSABLE memory to seed the list: as the pool, on iomem_resource"


def _fallen_back(machine: Physmap, peak_pages: int, values: Mapping[str, Any], why: str) -> Setup:
    m = balloon.balloon_state(machine, peak_pages, values)
    options(m).fallback = 1
    return Setup(m, page_work(machine), (f"{why}: the balloon driver serves all calls",))


def _query_tree(machine: Physmap) -> tuple[list[tuple[int, int]], int]:
    """What Xen knows to be in use, as merged extents of 2 MiB granules, and the end of the map."""
    taken = [(h.start, h.end) for h in machine.host] + [(c.start, c.end) for c in machine.iomem]
    end = min(machine.iomem_end, machine.pluggable[1])
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(taken):
        start, stop = align_down(start, QUERY_ALIGN), min(align_up(stop, QUERY_ALIGN), end)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif start < stop:
            merged.append((start, stop))
    return merged, end


def _set_up(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    if values["mode"] == "query":
        extra = pool.extra_seeds(machine, {**values, "seeding": False})
        m = pool_state(machine, peak_pages, values, extra)
        taken, end = _query_tree(machine)
        set_tree(m, words(m).xen_tree, taken, 0, end)
        return Setup(m, page_work(machine),
                     ("run-time query: proposed in 2021 and rejected; no kernel has it",))
    if machine.arch == "x86":
        return _seeded(machine, peak_pages, values)
    regions, why = usable_regions(machine) if values["regions"] else (
        [], "Linux before 5.17 reads no extended regions")
    if not regions:
        return _fallen_back(machine, peak_pages, values, why)
    m = pool_state(machine, peak_pages, values)
    holes = [(end, start) for (_, end), (start, _) in zip(regions, regions[1:], strict=False)
             if end < start]
    # A recording that starts in mid-life: what the pool took before is taken in both trees.
    taken = [(c.start, c.end) for c in machine.iomem
             if c.name == SCRATCH and any(a <= c.start and c.end <= b for a, b in regions)]
    s = words(m)
    set_tree(m, s.xen_tree, sorted(holes + taken), regions[0][0], regions[-1][1])
    s.xen_resource = 1
    return Setup(m, page_work(machine))


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    setup = _set_up(machine, peak_pages, values)
    OWN.fill(setup.state, values)
    return setup


STRATEGY = Strategy(
    name="hypervisor",
    summary="the pool on guest-physical ranges that the hypervisor names",
    models="Linux 5.17+ arch/arm/xen/enlighten.c; Linux 6.9+ arch/x86/xen/enlighten.c",
    init=_init, run=run, alloc=alloc, free=free, wake=wake,
    options=OPTIONS,
)
