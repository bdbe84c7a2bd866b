"""Random machines and request streams from a seed, for the tests that compare models."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from replay.costs.profile import PRIMITIVES, Cost, Profile
from replay.engine import Workload
from replay.loop import ALLOC, FREE, TARGET, Requests
from replay.physmap.model import HostRange, Memory, Physmap, Resource, validated

SECOND = 1_000_000_000


def random_children(rng, page, section, kind):
    """Resources with gaps: aligned or not, tiny or large, at 0 or above."""
    at, children = rng.choice([0, 0, page, section]), []
    names = ["System RAM", "Reserved", "PCI Bus 0000:00"]
    if kind == "pvh":
        names.append("Unusable memory")
    if kind == "arm":
        names.append("Xen scratch")
    for _ in range(rng.randint(1, 12)):
        at += rng.choice([0, 0, page, rng.randint(0, 3 * section) // page * page, section,
                          rng.randint(1, 5) * section])
        size = rng.choice([page, rng.randint(1, 64) * page, section, 3 * section,
                           rng.randint(1, 4 * section // page) * page])
        name = rng.choice(names)
        if name in ("Reserved", "PCI Bus 0000:00") and rng.random() < 0.2:
            size = max(1, size - rng.randint(0, page - 1))  # not page-aligned
        children.append(Resource(at, at + size, name))
        at = -(-(at + size) // page) * page
    return children


def random_regions(rng, page, section, end):
    """Extended regions: ascending, tiny, adjacent; sometimes overlapping or out of order."""
    regions, at = [], rng.randint(0, max(1, end // page)) * page
    for _ in range(rng.randint(0, 6)):
        size = rng.choice([page, section, 2 * section, rng.randint(1, 8 * section // page) * page])
        regions.append((at, at + size))
        at += size + rng.choice([0, page, section, rng.randint(0, 3 * section) // page * page])
    if len(regions) > 1 and rng.random() < 0.15:
        k = rng.randrange(1, len(regions))
        regions[k] = (regions[k - 1][1] - page, regions[k][1])
    if len(regions) > 1 and rng.random() < 0.1:
        regions.reverse()
    return [(a, b) for a, b in regions if a < b]


def random_machine(rng: random.Random) -> Physmap:
    """A machine with holes, misalignment, clips, regions, little RAM, as the seed has it."""
    page = rng.choice([4096, 4096, 16384, 65536])
    section = page * rng.choice([16, 64, 256, 512, 1024])
    arch, mode = rng.choice([("x86", "pv"), ("x86", "pvh"), ("x86", "pvh"), ("arm64", "arm"),
                             ("arm64", "arm")])
    children = random_children(rng, page, section, mode)
    end = -(-children[-1].end // section) * section
    room = rng.choice([0, section, 40 * section, 400 * section, (1 << 40)])
    clip = []
    if arch == "x86":
        for child in children:
            if rng.random() < 0.5:
                clip.append((child.start, child.end))
        for _ in range(rng.randint(0, 3)):
            low = rng.randint(0, end // page + 64) * page
            clip.append((low, low + rng.choice([page, section, 5 * section])))
    ram = sum(c.end // page - -(-c.start // page) for c in children if c.name == "System RAM")
    current = rng.choice([ram, ram, ram + rng.randint(0, 50)])
    memory = Memory(
        available=rng.choice([ram, ram // 2, min(ram, 40), ram + 100, 0]), current=current,
        target=rng.choice([current, current, max(0, current - 60)]), total=current,
        total_reserve=rng.choice([0, 100, 1 << 20]))
    low = rng.choice([0, 0, 0, section, end // 2 // page * page, end + section])
    return validated(Physmap(
        name="random", arch=arch, mode=mode, page_bytes=page, section_bytes=section,
        direct_mapped=arch == "arm64" and rng.random() < 0.7, iommu=False,
        iomem_end=max(end + room, children[-1].end),
        pluggable=(low, low + rng.choice([1 << 44, 1 << 44, 60 * section + end])),
        iomem=tuple(children), clip=tuple(clip),
        regions=tuple(random_regions(rng, page, section, end)) if arch == "arm64" else (),
        host=tuple(HostRange(c.start, c.end, "ram_other") for c in children)
        + ((HostRange(end, end + 3 * section, "mmio"),) if rng.random() < 0.5 else ()),
        memory=memory))


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
    return Profile("made-up", "", {
        name: Cost(ns, ns, ns, "made up") for name in PRIMITIVES
        for ns in [rng.choice([0, 1, rng.randint(1, 3000) / 1000, rng.randint(1, 20_000)])]})


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
