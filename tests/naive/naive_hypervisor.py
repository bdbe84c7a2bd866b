"""The naive model of `hypervisor`: the pool on what Xen names, at boot or when asked.

From arch/arm/xen/enlighten.c (Linux 6.1) and arch/x86/xen/enlighten_pvh.c (Linux 6.12).
"""

from __future__ import annotations

import itertools

from naive_allocators import EBUSY, NaiveBalloon, NaivePool, NaiveResource
from naive_models import Model

BALLOON = ("memory_hotplug", "auto_online", "scrub", "max_retry_count", "max_schedule_delay")


class NaiveHypervisor(NaivePool):
    """unpopulated-alloc.c with arch_xen_unpopulated_init() of Arm, and of x86 on a PVH dom0."""

    def __init__(self, machine, **options):
        super().__init__(machine, **options)
        if machine.arch == "x86":
            self.seed()
            return
        regions = [(a, b - 1) for a, b in machine.regions]
        self.xen = NaiveResource(min(a for a, _ in regions), max(b for _, b in regions))
        for (_, end), (start, _) in itertools.pairwise(regions):
            if end + 1 != start:
                assert self.xen.request(end + 1, start - 1)
        for child in machine.iomem:
            if child.name == "Xen scratch" and any(
                    a <= child.start and child.end - 1 <= b for a, b in regions):
                assert self.xen.request(child.start, child.end - 1)

    def seed(self):
        """pvh_reserve_extra_memory(): UNUSABLE memory, at most ten times RAM."""
        if self.machine.mode != "pvh":
            return
        page = self.page
        extra = 10 * sum(c.end // page - -(-c.start // page) for c in self.machine.iomem
                         if c.name == "System RAM")
        for child in self.machine.iomem:
            if child.name != "Unusable memory":
                continue
            first = -(-child.start // page)
            pages = min(extra, child.end // page - first)
            extra -= pages
            if pages > 0:
                self.log(first * page, pages, "seed")
                self.free_list += range(first, first + pages)


class NaiveQuery(NaivePool):
    """The rejected run-time query: Xen names a range that neither view has in use."""

    def __init__(self, machine, *, stale_every=0, **options):
        super().__init__(machine, **options)
        grain, end = 2 << 20, min(machine.iomem_end, machine.pluggable[1])
        used = set()
        for extent in (*machine.host, *machine.iomem):
            used |= set(range(extent.start // grain, -(-extent.end // grain)))
        # Neighbours in use are one entry of Xen's map.
        starts = sorted(g for g in used if g - 1 not in used and g * grain < end)
        ends = sorted(g + 1 for g in used if g + 1 not in used)
        self.map = NaiveResource(0, end - 1, [
            (first * grain, min(last * grain, end) - 1)
            for first, last in zip(starts, ends, strict=False)])
        self.stale_every, self.queries = stale_every, 0

    def fill_list(self, deficit):
        pages = -(-deficit // self.granule) * self.granule
        self.queries += 1
        size = pages * self.page
        address, steps = self.map.find(size, self.low, self.high, self.section * self.page)
        self.did(region_query=1, hypercall=1, resource_step=steps)
        if address is None:
            return -EBUSY
        last = address + size - 1
        assert self.map.request(address, last)
        if not self.iomem.request(address, last):
            return -EBUSY
        self.did(resource_add=1, p2m_invalidate=pages if self.pv else 0)
        stale = self.stale_every and self.queries % self.stale_every == 0
        self.map_pages(address, pages, "stale" if stale else "pool")
        return 0


def make(machine, options):
    """As Linux falls back: without regions in order, Arm has the balloon alone."""
    options = dict(options)
    if options.pop("mode", "static") == "query":
        return NaiveQuery(machine, **options)
    options.pop("stale_every", None)
    ordered = all(b <= c for (_, b), (c, _) in
                  zip(machine.regions, machine.regions[1:], strict=False))
    if machine.arch != "x86" and not (machine.regions and ordered):
        return NaiveBalloon(machine, **{k: v for k, v in options.items() if k in BALLOON})
    return NaiveHypervisor(machine, **options)


MODEL = Model(make, (
    {}, {"auto_online": True, "scrub": False}, {"mode": "query"},
    {"mode": "query", "stale_every": 3}, {"fill_pages": 5000}))
