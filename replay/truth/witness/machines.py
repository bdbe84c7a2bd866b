"""Random machines from a seed: holes, misalignment, clips, regions in any order, little RAM."""

from __future__ import annotations

import random
from typing import Any

from replay.physmap.model import HostRange, Memory, Physmap, Resource, validated


def random_children(rng: random.Random, page: int, section: int, kind: str) -> list[Resource]:
    """Resources with gaps: aligned or not, tiny or large, at 0 or above."""
    at, children = rng.choice([0, 0, page, section]), []
    names = ["System RAM", "Reserved", "PCI Bus 0000:00"]
    if kind == "pvh":
        names.append("Unusable memory")
    if kind == "pv":
        names.append("Extra memory")
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


def random_regions(rng: random.Random, page: int, section: int, end: int
                   ) -> list[tuple[int, int]]:
    """Extended regions: ascending, tiny, adjacent; sometimes overlapping or out of order."""
    regions, at = [], rng.randint(0, max(1, end // page)) * page
    for _ in range(rng.randint(0, 6)):
        size = rng.choice([page, section, 2 * section, rng.randint(1, 8 * section // page) * page,
                           rng.randint(20, 400) * section])
        regions.append((at, at + size))
        at += size + rng.choice([0, page, section, rng.randint(0, 3 * section) // page * page])
    if len(regions) > 1 and rng.random() < 0.15:
        k = rng.randrange(1, len(regions))
        regions[k] = (regions[k - 1][1] - rng.choice([1, page]), regions[k][1])
    if rng.random() < 0.2:  # nothing promises page alignment
        regions = [(a + rng.choice([0, 0, 1, 2048]), b - rng.choice([0, 0, 1, 2048]))
                   for a, b in regions]
    if len(regions) > 1 and rng.random() < 0.1:
        regions.reverse()
    return [(a, b) for a, b in regions if a < b]


def _middle(rng: random.Random, start: int, end: int, page: int) -> tuple[int, int]:
    """A range that leaves as much of [start, end) below it as above it."""
    edge = rng.randint(1, (end - start) // page // 2 - 1) * page
    return start + edge, end - edge


def random_machine(rng: random.Random) -> Physmap:
    """A machine with holes, misalignment, clips, regions, little RAM, as the seed has it."""
    page = rng.choice([4096, 4096, 16384, 65536])
    section = page * rng.choice([16, 64, 256, 512, 1024])
    kinds: list[tuple[Any, Any]] = [("x86", "pv"), ("x86", "pv"), ("x86", "pvh"), ("x86", "pvh"),
                                    ("x86", "hvm"), ("arm64", "arm"), ("arm64", "arm")]
    arch, mode = rng.choice(kinds)
    children = random_children(rng, page, section, mode)
    end = -(-children[-1].end // section) * section
    room = rng.choice([0, section, 40 * section, 400 * section, (1 << 40)])
    clip = []
    if arch == "x86":
        for child in children:
            if rng.random() < 0.5:
                clip.append((child.start, child.end))
        clip += [_middle(rng, one.end, two.start, page)
                 for one, two in zip(children, children[1:], strict=False)
                 if two.start - one.end > 4 * section and rng.random() < 0.5]
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
