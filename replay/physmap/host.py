"""Lays overlapping claims on machine memory out as one map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from replay.physmap.model import HostRange


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
