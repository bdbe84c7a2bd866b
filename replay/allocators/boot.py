"""Extra memory: frames without memory behind them that a list begins with at boot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from replay.engine.state import SECTION_SEED, log_section, words
from replay.engine.tracking import hold_range
from replay.physmap.host import extra_memory, unusable_memory
from replay.physmap.model import Physmap

FrameExtents = Sequence[tuple[int, int]]
"""(first frame, frame behind the last)."""


def seed(m: np.ndarray, extents: FrameExtents) -> int:
    """Frames without memory behind them go to the list at boot, one by one, ascending; how many."""
    for start, end in extents:
        if not words(m).untracked:
            log_section(m, start, end - start, SECTION_SEED)
        hold_range(m, start, end - start)
    return sum(end - start for start, end in extents)


def add_regions(m: np.ndarray, extents: FrameExtents) -> None:
    """balloon_add_regions(): extra memory that no pool took is on the balloon's list from boot."""
    if pages := seed(m, extents):
        words(m).total = max(words(m).total, words(m).current + pages)


def extra_extents(machine: Physmap, values: Mapping[str, Any]) -> FrameExtents:
    """xen_extra_mem[]: a PV domain's, and what a PVH dom0's kernel makes of UNUSABLE ranges."""
    return extra_memory(machine) + (unusable_memory(machine) if values["seeding"] else [])


def extra_notes(extents: FrameExtents, whose: str) -> tuple[str, ...]:
    """Whose list extra memory is on from boot, where there is any."""
    pages = sum(end - start for start, end in extents)
    note = (f"{pages} pages of extra memory (xen_extra_mem), with nothing behind them, are on the "
            f"{whose} list from boot")
    return (note,) if pages else ()
