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
from replay.base.compiled import inline, compiled
from replay.engine.loop import LOOP, loop
from replay.engine.state import (
    R_XEN_RESOURCE,
    EBUSY,
    R_CLIP,
    R_COUNT,
    R_OPTION,
    R_PAGE_BYTES,
    R_PLUG_MAX,
    R_PLUG_MIN,
    R_PV,
    R_SECTION_PAGES,
    R_TREE,
    R_XEN_TREE,
    SECTION_POOL,
    W_LIST_PUSH,
    W_MEMMAP_PAGE,
    W_P2M_INVALIDATE,
    W_RESOURCE_ADD,
    W_RESOURCE_STEP,
    W_SECTION_MAP,
    did,
    log_section,
    new_state,
)
from replay.engine.strategy import Option, Setup, Strategy
from replay.engine.tracking import hold_range, push, swap_lists, take
from replay.physmap.model import Physmap
from replay.physmap.resource import find, release, request

EINVAL = 22
O_BOUNDED, O_FILL_PAGES = range(R_OPTION + 6, R_OPTION + 8)
"""Search the Xen resource instead of iomem; clip to the pluggable range; refill granule, pages."""

TOP = (1 << 62) - 1


@inline
def map_region(m: np.ndarray, start: int, nr_pages: int, kind: int) -> None:
    """What follows a reserved region: its struct pages."""
    did(m, W_MEMMAP_PAGE, nr_pages)
    did(m, W_SECTION_MAP, (nr_pages + m[R_SECTION_PAGES] - 1) // m[R_SECTION_PAGES])
    log_section(m, start // m[R_PAGE_BYTES], nr_pages, kind)


@inline
def add_region(m: np.ndarray, start: int, nr_pages: int, kind: int) -> None:
    """A reserved region's pages are mapped and go to the list."""
    map_region(m, start, nr_pages, kind)
    hold_range(m, start // m[R_PAGE_BYTES], nr_pages)
    did(m, W_LIST_PUSH, nr_pages)


@inline
def refill_pages(m: np.ndarray, deficit: int) -> int:
    """The deficit in whole granules."""
    granule = m[O_FILL_PAGES]
    return (deficit + granule - 1) // granule * granule


@compiled()
def reserve_region(m: np.ndarray, nr_pages: int) -> int:
    """One contiguous region of whole sections: its first byte, or -errno.

    A region of the Xen resource that iomem_resource refuses is released again, so the next call
    finds the same one first: a failure that lasts although other regions are free.
    """
    section = m[R_SECTION_PAGES]
    page = m[R_PAGE_BYTES]
    low = m[R_PLUG_MIN] if m[O_BOUNDED] else 0
    high = m[R_PLUG_MAX] if m[O_BOUNDED] else TOP
    xen = m[R_XEN_RESOURCE]
    tree = R_XEN_TREE if xen else R_TREE
    start, steps = find(m, tree, R_CLIP, nr_pages * page, (low, high, section * page))
    did(m, W_RESOURCE_STEP, steps)
    did(m, W_RESOURCE_ADD, 2 if xen and start >= 0 else 1)
    if start < 0:
        return -EBUSY
    last = start + nr_pages * page - 1
    if request(m, tree, start, last) < 0:
        return -EBUSY
    if xen and request(m, R_TREE, start, last) < 0:
        did(m, W_RESOURCE_ADD, 1)
        release(m, tree, start)
        return -EBUSY
    if m[R_PV]:
        did(m, W_P2M_INVALIDATE, nr_pages)
    if start < m[R_PLUG_MIN] or last > m[R_PLUG_MAX]:
        # memremap_pages(): mhp_range_allowed() refuses what cannot be mapped.
        did(m, W_RESOURCE_ADD, 2 if xen else 1)
        if xen:
            release(m, R_TREE, start)
        release(m, tree, start)
        return -EINVAL
    return start


@compiled()
def fill_list(m: np.ndarray, deficit: int) -> int:
    """One contiguous region of whole sections for the deficit; 0 or -errno."""
    nr_pages = refill_pages(m, deficit)
    start = reserve_region(m, nr_pages)
    if start < 0:
        return start
    add_region(m, start, nr_pages, SECTION_POOL)
    return 0


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_unpopulated_pages()."""
    if m[R_COUNT] < nr_pages:
        error = fill_list(m, nr_pages - m[R_COUNT])
        if error < 0:
            return error
    take(m, nr_pages, frames, at)
    return 0


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_free_unpopulated_pages(): in index order to the head, so they come back reversed."""
    push(m, frames, at, nr_pages)
    return 0


@compiled()
def wake(m: np.ndarray, now: int) -> int:
    """One pass of the balloon thread on its own list; the pool itself does nothing unasked."""
    swap_lists(m)
    balloon.wake(m, now)
    swap_lists(m)
    return 0


@compiled(LOOP)
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, wake, m, q, out, cost)


OPTIONS = {
    "section_pages": Option(0, "pages per memory section; 0 takes the machine's"),
    "fill_pages": Option(0, "granule of a refill in pages; 0 is one section, as in the kernel"),
    "bounded": Option(True, "search within mhp_get_pluggable_range() (since Linux 5.17)",
                      since="bounded_search"),
    **balloon.OPTIONS,
}


def pool_state(machine: Physmap, peak_pages: int, values: Mapping[str, Any],
               seed_pages: int = 0,
               own: Callable[[int, int], int] = lambda frames, sections: 0) -> np.ndarray:
    """A state ready for the pool's calls on iomem_resource; own: see new_state()."""
    m = new_state(machine, peak_pages + values["fill_pages"],
                  section_pages=values["section_pages"], seed_pages=seed_pages,
                  own_thread=True, own=own)
    section = int(m[R_SECTION_PAGES])
    m[O_FILL_PAGES] = -(-(values["fill_pages"] or section) // section) * section
    m[O_BOUNDED] = int(values["bounded"])
    balloon.set_options(m, machine, values)
    return m


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    notes = () if machine.arch == "x86" else (
        "Linux never used iomem_resource as the pool's target on Arm: the thread feared it",)
    return Setup(pool_state(machine, peak_pages, values), page_work(machine), notes)


STRATEGY = Strategy(
    name="pool",
    summary="ZONE_DEVICE sections from iomem_resource, never released",
    models="Linux 6.1 drivers/xen/unpopulated-alloc.c, target_resource = &iomem_resource",
    init=_init, run=run, alloc=alloc, free=free, wake=wake, options=OPTIONS,
)
