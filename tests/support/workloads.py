"""Small workloads, and costs that tell work apart."""

from __future__ import annotations

import numpy as np
from replay.costs.primitives import Cost
from replay.costs.primitives import COSTED
from replay.costs.profile import Profile
from replay.engine.drive import Workload
from replay.engine.requests import ALLOC, FREE, Requests



def workload(*rows: tuple[int, int, int, list[int] | None]) -> Workload:
    """(time, kind, pages, slots of a free) per request."""
    slots: list[int] = []
    columns: list[list[int]] = [[], [], [], []]
    slot = 0
    for time, kind, pages, freed in rows:
        first = slot if kind == ALLOC else len(slots) if kind == FREE else 0
        for column, value in zip(columns, (time, kind, pages, first), strict=True):
            column.append(value)
        slot += pages if kind == ALLOC else 0
        slots += freed or []
    q = Requests(*(np.array(c, np.int64) for c in (*columns, slots)))
    return Workload(q, slot, slot, np.arange(len(rows)))


def costs(**ns: float) -> Profile:
    return Profile("made up", "", {p: Cost(ns.get(p, 0), 0, 1e9, "made up") for p in COSTED})
