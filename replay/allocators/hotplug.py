"""hotplug: the balloon driver adds a memory section instead of giving up RAM.

Models drivers/xen/balloon.c of Linux 6.1 with sysctl xen.balloon.hotplug_unpopulated = 1. The
pages come when the new block is onlined; where nothing onlines it, or where more was added than is
left on the list, the caller sleeps on balloon_wq, for ever if need be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from replay.allocators.balloon import OPTIONS, alloc, balloon_state, free, page_work, wake
from replay.allocators.boot import extra_extents, extra_notes
from replay.base.compiled import compiled
from replay.engine.loop import loop
from replay.engine.outcome import MOST_ADDING
from replay.engine.strategy import Option, Setup, Strategy
from replay.physmap.model import Physmap


@compiled
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, wake, m, q, out, cost)


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    # Each wait may add a section of its own before the one before it is used.
    extra = extra_extents(machine, values)
    m = balloon_state(machine, 4 * peak_pages + MOST_ADDING * machine.section_pages, values,
                      extra, hotplug_unpopulated=True)
    notes = ["no recording of a working hotplug exists: this strategy follows the source alone",
             *extra_notes(extra, "balloon's")]
    if not values["auto_online"]:
        notes.append("hot-added memory is never onlined here, so callers that need it sleep")
    return Setup(m, page_work(machine), tuple(notes))


STRATEGY = Strategy(
    name="hotplug",
    summary="the balloon driver hot-adds memory sections from iomem_resource",
    models="Linux 6.1 drivers/xen/balloon.c, hotplug_unpopulated=1",
    init=_init, run=run, alloc=alloc, free=free, wake=wake,
    options=OPTIONS | {
        "auto_online": Option(True, "hot-added memory is onlined at once (auto_online_blocks)")},
)
