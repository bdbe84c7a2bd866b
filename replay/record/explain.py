"""What each probe is for, what it reads, and why that is safe: a sentence per probe."""

from __future__ import annotations

from typing import Final

from replay.record import inside
from replay.record.probes import Definition

_PURPOSE: Final = {
    "xen_alloc_p2m_entry": "a page of an allocation, or of new memory, in a PV dom0",
    "allocate_resource": "the pool looks for address space for a new section",
    "add_pages": "new memory gets its struct pages",
    "request_resource": "a section of the pool is taken from the regions that Xen names",
    "add_memory_resource": "memory is added that the balloon asked for",
    "xenmem_reservation_decrease": "memory goes back to Xen",
    "xenmem_reservation_increase": "memory is asked back from Xen",
    "decrease_reservation": "a pass of the balloon that gives memory back",
    "reserve_additional_memory": "the balloon looks for more address space",
    "balloon_set_new_target": "dom0's memory target moves",
    "gnttab_map_refs": "pages get grants mapped into them",
    "gnttab_unmap_refs": "grants leave their pages",
    "xen_xlate_remap_gfn_array": "pages get foreign frames mapped (PVH, arm64)",
    "xen_xlate_unmap_gfn_range": "foreign frames leave their pages",
    "xen_remap_pfn": "foreign frames are mapped (PV)",
    "balloon_thread": "a pass of the balloon thread",
}
_REGISTERS: Final = "arguments and result from registers"
_READS: Final = (
    ("(@", "the chain of the list's first pages, in struct pages, which no balloon takes"),
    ("@", "variables of the kernel itself"),
    ("$stack0", "the caller's address, at the top of the stack"),
    ("%lr", "the caller's address, from its register"),
    ("($stack", "a word of what the caller handed over, which is there"),
    ("(", "first words of what the caller handed over, which has at least one element"),
    ("", _REGISTERS),
)
"""By what the place of an argument contains, first match."""


def explain(one: Definition) -> str:
    """Purpose and reads of a probe."""
    purpose = _purpose(one)
    reads: list[str] = []
    for fetched in one.text.split(" ")[2:]:
        place = fetched.partition("=")[2].rpartition(":")[0]
        what = next(text for part, text in _READS if part in place)
        if what not in reads:
            reads.append(what)
    return f"{one.event}: {purpose}; reads {'; '.join(reads) or 'nothing, its time counts'}."


def _purpose(one: Definition) -> str:
    name = one.function.name
    what = _PURPOSE.get(name, "an allocation" if name in inside.ALLOCS else "a free")
    if one.place and one.place.locked:
        return f"{what} has just taken the lock, so that the order and the list are certain"
    if one.place:
        return f"{what} is about to release the lock, with the list as it leaves it"
    if name not in _PURPOSE:
        if not one.event.endswith("_ret"):
            return f"{what} begins: how many pages, into which array, for whom"
        failed = ", and whether it failed" if "$retval" in one.text else ""
        return f"{what} ends: how long it took{failed}"
    return f"{what}: how much was done" if one.event.endswith("_ret") else what
