"""Lays overlapping claims on machine memory out as one map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from replay.physmap.model import HostRange, Physmap, Resource


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
