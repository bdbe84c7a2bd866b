"""The same machine under another assumption: its IOMMU, or RAM taken out of what Linux may use."""

from __future__ import annotations

from dataclasses import asdict

from replay.base.errors import ReplayError, unknown_name
from replay.base.units import KIB, align_down
from replay.physmap import arm64
from replay.physmap.host import paint
from replay.physmap.iomem import LINUX_RAM
from replay.physmap.model import HostRange, Memory, Physmap, Resource

SWITCH = ("on", "off")
SUBTRACT = ("known", "all")
PAGE_SIZES = ("4096", "16384", "65536")
SUBTRACTED = "RAM (subtracted)"
"""Name of the children that subtract_ram() adds."""


def with_iommu(machine: Physmap, switch: str) -> Physmap:
    """The machine with its IOMMU "on" or "off", all else as it is.

    The extended regions stay those of the machine, although Xen would name others.
    """
    if switch not in SWITCH:
        raise unknown_name("IOMMU setting", switch, list(SWITCH))
    if machine.iommu == (switch == "on"):
        return machine
    return machine.with_changes(iommu=switch == "on", name=f"{machine.name}, IOMMU {switch}")


def with_pages(machine: Physmap, page_bytes: str) -> Physmap:
    """The machine with a kernel of such pages: its memory in them, sections of that kernel's size,
    and the range that can be mapped from where its linear map begins."""
    if page_bytes not in PAGE_SIZES:
        raise unknown_name("page size", page_bytes, list(PAGE_SIZES))
    old, new = machine.page_bytes, int(page_bytes)
    if old == new:
        return machine
    if machine.arch != "arm64":
        raise ReplayError(f"machine {machine.name!r}: x86 has pages of 4096 bytes alone")
    section = machine.section_bytes
    if section == arm64.section_bytes(old, (0, 0)):
        section = arm64.section_bytes(new, (0, 0))
    start, end = machine.pluggable
    ram = min((c.start for c in machine.iomem if c.name in LINUX_RAM and c.start >= start),
              default=start)
    memory = Memory(**{name: pages * old // new for name, pages in asdict(machine.memory).items()})
    return machine.with_changes(
        page_bytes=new, section_bytes=section, memory=memory,
        pluggable=(max(start, align_down(ram, arm64.memstart_align(new, section))), end),
        name=f"{machine.name}, {new // KIB} KiB pages")


def subtract_ram(machine: Physmap, which: str) -> Physmap:
    """The machine with host RAM subtracted from `iomem_resource`: a busy child over each range.

    known: what dom0 knows to be RAM, its own and what its resource tree calls so. all: also RAM of
    other domains and of Xen, which a direct-mapped dom0 is not told ("Dom0 doesn't know the regions
    used for the identity mappings", J. Grall, xen-devel, 28 July 2020); a counterfactual there.
    """
    if which not in SUBTRACT:
        raise unknown_name("RAM to subtract", which, list(SUBTRACT))
    types = ("ram_dom0",) if which == "known" else ("ram_dom0", "ram_other", "ram_xen")
    ram = [HostRange(h.start, min(h.end, machine.iomem_end), "", SUBTRACTED)
           for h in machine.host if h.type in types and h.start < machine.iomem_end]
    ram += [HostRange(c.start, c.end, "", SUBTRACTED) for c in machine.iomem
            if c.name in LINUX_RAM]
    # The tree's own children are painted over it: what is busy already stays as it is. The number
    # keeps neighbours of one name apart.
    busy = [HostRange(c.start, c.end, str(k), c.name) for k, c in enumerate(machine.iomem)]
    children = tuple(Resource(r.start, r.end, r.name) for r in paint([*ram, *busy]))
    return machine.with_changes(iomem=children, name=f"{machine.name}, {which} RAM subtracted")
