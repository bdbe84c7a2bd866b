"""pool: ZONE_DEVICE sections from `iomem_resource`, kept in a linked list, never released.

Models drivers/xen/unpopulated-alloc.c of Linux 6.1 and 6.12: `xen_alloc_unpopulated_pages`,
`xen_free_unpopulated_pages`, `fill_list`; with a Xen resource as target too, for hypervisor.py.
Where the kernel has no target resource it calls the balloon driver instead, and so does this.

The balloon driver runs beside the pool: its thread follows the target, with a list and a lock of
its own (`balloon_mutex`, where the pool has `list_lock`). The two meet in `iomem_resource`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from replay.allocators import balloon
from replay.allocators.balloon import page_work
from replay.allocators.boot import FrameExtents, add_regions, extra_notes, seed
from replay.base.compiled import inline, compiled, unlikely
from replay.engine.failing import fails, passed
from replay.engine.faults import KZALLOC, MEMREMAP, P2M_ENTRY, SET_PHYS_TO_MACHINE
from replay.engine.loop import loop
from replay.engine.state import BEYOND_LIST, ENOMEM, SECTION_POOL, log_section, new_state, words
from replay.engine.strategy import Option, Setup, Strategy, own_record
from replay.engine.tracking import hold_range, push, swap_lists, take
from replay.physmap.host import extra_memory, unusable_memory
from replay.physmap.model import Physmap
from replay.physmap.resource import EBUSY, find, release, request

EINVAL = 22
OPTIONS = {
    "section_pages": Option(0, "pages per memory section; 0 takes the machine's"),
    "fill_pages": Option(0, "granule of a refill in pages; 0 is one section, as in the kernel"),
    "bounded": Option(True, "search within mhp_get_pluggable_range() (since Linux 5.17)",
                      since="bounded_search"),
    "extra_memory": Option(True, "PV: extra memory is on the pool's list from boot, not on the "
                           "balloon's (Linux 5.9 to 5.17, and since 6.9)", since="extra_on_pool"),
    **balloon.OPTIONS,
}
OWN, options = own_record(OPTIONS, "granule", base=balloon.OWN)
"""The balloon driver's words too; how many pages a refill is a multiple of."""

TOP = (1 << 62) - 1


@inline
def map_region(m: np.ndarray, start: int, nr_pages: int, kind: int) -> None:
    """What follows a reserved region: memremap_pages() maps it and makes its struct pages.

    pagemap_range() takes mem_hotplug_lock for writing. A PV domain writes each entry of the direct
    map by a hypercall of its own (init_memory_mapping(), xen_set_pte()).
    """
    s = words(m)
    s.work.grace_period += 1
    if s.pv:
        s.work.direct_map += nr_pages
    s.work.memmap_page += nr_pages
    s.work.section_map += (nr_pages + s.section_pages - 1) // s.section_pages
    s.dirty |= BEYOND_LIST
    log_section(m, start // s.page_bytes, nr_pages, kind)


@inline
def add_region(m: np.ndarray, start: int, nr_pages: int, kind: int) -> None:
    """A reserved region's pages are mapped and go to the list."""
    s = words(m)
    map_region(m, start, nr_pages, kind)
    hold_range(m, start // s.page_bytes, nr_pages)
    s.work.list_push += nr_pages
    s.dirty |= BEYOND_LIST


@inline
def refill_pages(m: np.ndarray, deficit: int) -> int:
    """The deficit in whole granules."""
    granule = options(m).granule
    return (deficit + granule - 1) // granule * granule


@inline
def _requested(m: np.ndarray, start: int, last: int) -> int:
    """The region of the Xen resource, taken in iomem_resource as well: 0 or -errno."""
    s = words(m)
    if fails(m, KZALLOC):
        return -ENOMEM
    s.work.resource_add += 1
    s.dirty |= BEYOND_LIST
    return -EBUSY if request(m, s.tree, start, last) < 0 else 0


@inline
def _released(m: np.ndarray, start: int, error: int) -> int:
    """err_pgmap: the region is free again in each resource that it was taken from."""
    s = words(m)
    if s.xen_resource:
        release(m, s.xen_tree, start)
        s.work.resource_add += 1
    release(m, s.tree, start)
    s.work.resource_add += 1
    s.dirty |= BEYOND_LIST
    return error


@compiled
def reserve_region(m: np.ndarray, nr_pages: int) -> int:
    """One contiguous region of whole sections: its first byte, or -errno.

    A region of the Xen resource that iomem_resource refuses is released again, so the next call
    finds the same one first: a failure that lasts although other regions are free.
    """
    s, own = words(m), options(m)
    section = s.section_pages
    page = s.page_bytes
    low = s.plug_min if own.bounded else 0
    high = s.plug_max if own.bounded else TOP
    xen = s.xen_resource
    tree = s.xen_tree if xen else s.tree
    if fails(m, KZALLOC):
        return -ENOMEM
    start, steps = find(m, tree, s.reserved, nr_pages * page, (low, high, section * page))
    s.work.resource_step += steps
    s.work.resource_add += 1
    s.dirty |= BEYOND_LIST
    if start < 0:
        return -EBUSY
    last = start + nr_pages * page - 1
    if request(m, tree, start, last) < 0:
        return -EBUSY
    if xen:
        error = _requested(m, start, last)
        if error < 0:
            s.work.resource_add += 1
            release(m, tree, start)
            return error
    return prepared(m, start, nr_pages)


@inline
def prepared(m: np.ndarray, start: int, nr_pages: int) -> int:
    """What a reserved region needs before its struct pages: its first byte, or -errno and it is
    released."""
    s = words(m)
    last = start + nr_pages * s.page_bytes - 1
    if fails(m, KZALLOC):  # of the dev_pagemap
        return _released(m, start, -ENOMEM)
    if s.pv:
        invalid = passed(m, SET_PHYS_TO_MACHINE, nr_pages)
        s.work.p2m_invalidate += invalid
        s.dirty |= BEYOND_LIST
        if invalid < nr_pages:
            return _released(m, start, -ENOMEM)
    if fails(m, MEMREMAP):
        return _released(m, start, -ENOMEM)
    if start < s.plug_min or last > s.plug_max:
        # memremap_pages(): mhp_range_allowed() refuses what cannot be mapped.
        return _released(m, start, -EINVAL)
    return start


@compiled
def fill_list(m: np.ndarray, deficit: int) -> int:
    """One contiguous region of whole sections for the deficit; 0 or -errno."""
    nr_pages = refill_pages(m, deficit)
    start = reserve_region(m, nr_pages)
    if start < 0:
        return start
    add_region(m, start, nr_pages, SECTION_POOL)
    return 0


@inline
def lacks_entry(m: np.ndarray, nr_pages: int) -> Any:
    """Whether xen_alloc_p2m_entry() fails for one of the pages of a call."""
    return unlikely(words(m).faults.entries != 0) and passed(m, P2M_ENTRY, nr_pages) < nr_pages


@compiled
def take_with_entries(m: np.ndarray, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """Pages off the list, each with its p2m entry; where one fails, all go back, it too."""
    s = words(m)
    entered = passed(m, P2M_ENTRY, nr_pages)
    taken = min(entered + 1, nr_pages)
    take(m, taken, frames, at)
    if entered == nr_pages:
        return 0
    push(m, frames, at, taken)
    s.work.list_push += taken
    s.work.list_pop += taken
    s.dirty |= BEYOND_LIST
    return -ENOMEM


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_unpopulated_pages()."""
    s = words(m)
    if unlikely(s.count < nr_pages):
        error = fill_list(m, nr_pages - s.count)
        if error < 0:
            return error
    if unlikely(s.faults.entries != 0):
        return take_with_entries(m, nr_pages, frames, at)
    take(m, nr_pages, frames, at)
    return 0


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_free_unpopulated_pages(): in index order to the head, so they come back reversed."""
    push(m, frames, at, nr_pages)
    return 0


@compiled
def wake(m: np.ndarray, now: int) -> int:
    """One pass of the balloon thread on its own list; the pool itself does nothing unasked."""
    swap_lists(m)
    balloon.wake(m, now)
    swap_lists(m)
    return 0


@compiled
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, wake, m, q, out, cost)


def pool_state(machine: Physmap, peak_pages: int, values: Mapping[str, Any],
               seeds: FrameExtents = (),
               own: Callable[[int, int], int] = lambda frames, sections: 0) -> np.ndarray:
    """A state ready for the pool's calls on iomem_resource.

    seeds: extents of frames that are on the pool's list from boot (arch_xen_unpopulated_init()).
    own: see new_state().
    """
    pages = sum(end - start for start, end in (*seeds, *extra_memory(machine)))
    m = new_state(machine, peak_pages + values["fill_pages"],
                  section_pages=values["section_pages"], seed_pages=pages,
                  own_thread=True, own=own)
    seed(m, seeds)
    if not values["extra_memory"]:
        swap_lists(m)
        add_regions(m, extra_memory(machine))
        swap_lists(m)
    s, mine = words(m), options(m)
    section = int(s.section_pages)
    OWN.fill(m, values)
    mine.granule = -(-(values["fill_pages"] or section) // section) * section
    mine.direct_mapped = int(machine.direct_mapped)
    return m


def extra_seeds(machine: Physmap, values: Mapping[str, Any]) -> FrameExtents:
    """Extra memory that the pool's list begins with."""
    extra = extra_memory(machine) if values["extra_memory"] else []
    return extra + (unusable_memory(machine) if values["seeding"] else [])


def notes_of_extra(machine: Physmap, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Whose list has it."""
    seeds = extra_seeds(machine, values)
    return extra_notes(seeds or extra_memory(machine), "pool's" if seeds else "balloon's")


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    notes = () if machine.arch == "x86" else (
        "Linux never used iomem_resource as the pool's target on Arm: the thread feared it",)
    return Setup(pool_state(machine, peak_pages, values, extra_seeds(machine, values)),
                 page_work(machine), (*notes, *notes_of_extra(machine, values)))


STRATEGY = Strategy(
    name="pool",
    summary="ZONE_DEVICE sections from iomem_resource, never released",
    models="Linux 6.1 drivers/xen/unpopulated-alloc.c, target_resource = &iomem_resource",
    init=_init, run=run, alloc=alloc, free=free, wake=wake, options=OPTIONS,
)
