"""Which extents of XENMEM_populate_physmap Xen has a page for (xen/common/memory.c)."""

from __future__ import annotations

import numpy as np

from replay.base.compiled import inline, unlikely
from replay.engine.failing import passed
from replay.engine.faults import POPULATE
from replay.engine.state import section_at, words


@inline
def _own(m: np.ndarray, frame: int) -> int:
    """Whether a direct-mapped dom0 has the page of this frame.

    Such a domain gets mfn == gfn and only if the page is its own already (populate_physmap), so a
    hot-added frame fails there.
    """
    s = words(m)
    for k in range(s.section_count):
        added = section_at(m, s.sections, k)
        if added.start_pfn <= frame < added.start_pfn + added.nr_pages:
            return 0
    return 1


@inline
def populated(m: np.ndarray, nr_pages: int, direct_mapped: int) -> int:
    """Of the frames at the list's head, how many are populated before the first that is not.

    Only what Xen allocates a page for can fail for lack of memory, or at d->max_pages.
    """
    s = words(m)
    if direct_mapped:
        done = 0
        while done < nr_pages and _own(m, m[s.list + s.count - 1 - done]):
            done += 1
        return done
    if unlikely(s.faults.max_pages > 0):
        nr_pages = min(nr_pages, max(0, s.faults.max_pages - s.current))
    return passed(m, POPULATE, nr_pages)
