"""Random machines and request streams from a seed, for the tests that compare models."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from replay.costs.primitives import Cost
from replay.costs.primitives import PRIMITIVES, WAKE_LATENCY
from replay.costs.profile import Profile
from replay.engine.drive import Workload
from replay.engine.requests import ALLOC, FREE, Requests, TARGET
from replay.physmap.model import Physmap

SECOND = 1_000_000_000


def random_workload(rng: random.Random, requests: int, machine: Physmap) -> Workload:
    """Weighted random requests; frees in other batches and orders than the allocations."""
    most = rng.choice([64, 700, 5000])
    calm = rng.choice([0.3, 0.5, 0.7])
    columns = {name: [] for name in ("time", "kind", "pages", "first")}
    slots, live, now, nr_slots, peak = [], [], 0, 0, 0
    if rng.random() < 0.3:
        now = rng.randint(1, SECOND)
    for _ in range(requests):
        now += rng.choice([0, 0, rng.randint(1, 100), rng.randint(1, 10**5),
                           rng.randint(1, 10**8), *([rng.randint(1, 90 * SECOND)] *
                                                    (rng.random() < 0.3))])
        roll = rng.random()
        if roll < 0.06:
            full = machine.memory.current
            kind, first = TARGET, 0
            pages = rng.choice([machine.memory.target, full, max(0, full - rng.randint(0, 900)),
                                full + rng.randint(0, 900)])
        elif live and (roll > calm or len(live) > 9000):
            kind, first = FREE, len(slots)
            pages = rng.choice([1, rng.randint(1, len(live)), min(10, len(live)), len(live)])
            chosen = rng.choice([
                lambda: live[-pages:], lambda: live[:pages], lambda: live[-pages:][::-1],
                lambda: rng.sample(live, pages)])()
            gone = set(chosen)
            live = [slot for slot in live if slot not in gone]
            slots += chosen
        else:
            kind, first = ALLOC, nr_slots
            pages = rng.choice([1, rng.randint(1, 16), rng.choice([64, 256]), rng.randint(1, most)])
            live += range(nr_slots, nr_slots + pages)
            nr_slots += pages
            peak = max(peak, len(live))
        for name, value in zip(columns, (now, kind, pages, first), strict=True):
            columns[name].append(value)
    q = Requests(*(np.array(c, np.int64) for c in (*columns.values(), slots)))
    return Workload(q, nr_slots, peak, np.arange(requests))


def random_profile(rng: random.Random) -> Profile:
    """Made-up costs: what counts is that both sides use the same."""
    costs = {name: Cost(ns, ns, ns, "made up") for name in PRIMITIVES
             for ns in [rng.choice([0, 1, rng.randint(1, 3000) / 1000, rng.randint(1, 20_000)])]}
    wake = rng.choice([0, rng.randint(1, 10**5), rng.randint(1, 10**8), 2 * SECOND])
    return Profile("made-up", "", costs | {WAKE_LATENCY: Cost(wake, wake, wake, "made up")})


def as_requests(workload: Workload) -> list[dict]:
    """The workload for the naive loop."""
    q = workload.requests
    out = []
    for time, kind, pages, first in zip(*(c.tolist() for c in q[:4]), strict=True):
        slots = (list(range(first, first + pages)) if kind == ALLOC else
                 q.slots[first : first + pages].tolist() if kind == FREE else [])
        out.append({"time": time, "kind": kind, "pages": pages, "slots": slots})
    return out


def reseeded(workload: Workload, **columns) -> Workload:
    """The workload with other request columns."""
    return replace(workload, requests=workload.requests._replace(**columns))
