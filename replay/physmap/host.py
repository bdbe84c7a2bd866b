"""Lays overlapping claims on machine memory out as one map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from replay.base.units import align_up
from replay.physmap.iomem import EXTRA_MEMORY, SYSTEM_RAM, UNUSABLE_MEMORY
from replay.physmap.model import HostRange, Physmap, Resource

EXTRA_MEM_RATIO = 10
"""Seeded UNUSABLE memory is at most this many times RAM (arch/x86/xen/setup.c, Linux 6.9)."""


def paint(claims: Sequence[HostRange]) -> list[HostRange]:
    """Disjoint ranges in ascending order; where several claim a byte, the later in the list does.

    So the caller lists the vaguer first: windows in which a BAR may be before RAM.
    """
    known = [r for r in claims if r.start < r.end]
    edges = sorted({edge for r in known for edge in (r.start, r.end)})
    out: list[HostRange] = []
    for low, high in pairwise(edges):
        covering = [r for r in known if r.start <= low and high <= r.end]
        if not covering:
            continue
        best, last = covering[-1], out[-1] if out else None
        if last and last.end == low and (last.type, last.name) == (best.type, best.name):
            out[-1] = HostRange(last.start, high, last.type, last.name)
        else:
            out.append(HostRange(low, high, best.type, best.name))
    return out


def hot_added(machine: Physmap) -> list[Resource]:
    """System RAM that is not dom0's own: what the balloon driver had hot-added when it was read.

    Only of a direct-mapped dom0 can it be told: Xen's log names its banks, and no other page of
    the host is ever populated for it. Empty where the log names none.
    """
    own = [h for h in machine.host if h.type == "ram_dom0"]
    if not machine.direct_mapped or not own:
        return []
    return [c for c in machine.iomem if c.name == "System RAM"
            and not any(h.start < c.end and c.start < h.end for h in own)]


def _extents(machine: Physmap, name: str) -> list[tuple[int, int]]:
    """(first frame, frame behind the last) of the whole pages of the children of a name."""
    page = machine.page_bytes
    found = [(align_up(c.start, page) // page, c.end // page)
             for c in machine.iomem if c.name == name]
    return [(start, end) for start, end in found if start < end]


def extra_memory(machine: Physmap) -> list[tuple[int, int]]:
    """xen_extra_mem[] of a PV domain as extents of frames: numbers without memory behind them, from
    the end of what the domain began with to what Xen lets it have (xen_memory_setup(),
    arch/x86/xen/setup.c)."""
    return _extents(machine, EXTRA_MEMORY) if machine.mode == "pv" else []


def unusable_memory(machine: Physmap) -> list[tuple[int, int]]:
    """UNUSABLE ranges of a PVH dom0's memory map as extents of frames, up to EXTRA_MEM_RATIO x RAM:
    what Linux 6.9 and later make extra memory (pvh_reserve_extra_memory())."""
    if machine.mode != "pvh":
        return []
    room = EXTRA_MEM_RATIO * sum(end - start for start, end in _extents(machine, SYSTEM_RAM))
    extents = []
    for start, end in _extents(machine, UNUSABLE_MEMORY):
        end = min(end, start + room)
        if end > start:
            extents.append((start, end))
            room -= end - start
    return extents
