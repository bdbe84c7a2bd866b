"""Reads /proc/iomem and gives the first-level children that a resource search walks."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from replay.base.errors import InputError
from replay.physmap.model import Physmap, Resource

SCRATCH = "Xen scratch"
"""The name drivers/xen/unpopulated-alloc.c gives to each section it adds."""

SYSTEM_RAM, UNUSABLE_MEMORY = "System RAM", "Unusable memory"
LINUX_RAM = (SYSTEM_RAM, UNUSABLE_MEMORY)
"""Names of RAM: dom0's own, and on a PVH dom0 the host's rest (pvh_setup_e820())."""

MAX_LEVEL = 5
"""kernel/resource.c: MAX_IORES_LEVEL, the deepest indentation that r_show() gives; what lies deeper
stands there as well."""

_LINE = re.compile(r"( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) :(?: (.*))?")


@dataclass
class Entry:
    """One line of /proc/iomem, [start, end), with what is nested in it."""

    start: int
    end: int
    name: str
    children: list[Entry] = field(default_factory=list)


def parse(path: Path, text: str, notes: list[str] | None = None) -> list[Entry]:
    """The first-level entries; InputError names the line that cannot be.

    notes: gets what was passed over, below the first level, which alone a search walks.
    """
    top: list[Entry] = []
    stack: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        where = f"line {number}"
        if not match:
            raise InputError(path, f"expected 'start-end : name', found {line[:60]!r}", where)
        depth = len(match[1]) // 2
        entry = Entry(int(match[2], 16), int(match[3], 16) + 1, match[4] or "")
        if depth > min(len(stack), MAX_LEVEL) or len(match[1]) % 2:
            raise InputError(path, "indented deeper than its predecessor allows", where)
        if depth == MAX_LEVEL:
            depth = _deepest(stack, entry)
        del stack[depth:]
        siblings = stack[-1].children if stack else top
        if entry.end <= entry.start or (siblings and entry.start < siblings[-1].end
                                        and entry.end != 1):
            if not depth:
                raise InputError(path, "ends before it starts, or overlaps its predecessor", where)
            if notes is not None:
                notes.append(f"{path.name}, {where}: {entry.name!r} ends before it starts, or "
                             "overlaps its predecessor; passed over")
        else:
            siblings.append(entry)
        stack.append(entry)
    if not top:
        raise InputError(path, "holds no resource")
    if all(entry.end == 1 for entry in top):
        raise InputError(path, "all addresses are zero, as the kernel shows them to other users",
                         hint="Read /proc/iomem as root")
    return top


def _deepest(stack: list[Entry], entry: Entry) -> int:
    """How deep an entry at MAX_LEVEL lies: below the last one that holds it."""
    depth = len(stack)
    while depth > MAX_LEVEL and not (stack[depth - 1].start <= entry.start
                                     and entry.end <= stack[depth - 1].end):
        depth -= 1
    return depth


def ram_pages(top: list[Entry], page: int, names: Collection[str] = (SYSTEM_RAM,)) -> int:
    """Whole pages of the first-level entries of these names."""
    return sum(max(0, e.end // page - -(-e.start // page)) for e in top if e.name in names)


def first_level(top: list[Entry]) -> tuple[tuple[Resource, ...], list[tuple[int, int]]]:
    """(children of the root as a search meets them, the "Xen scratch" sections among them).

    A section can be shown *inside* another resource. On a PVH dom0 the pool's first section is
    taken when the grant table is set up (a core initcall), before the PCI host bridge's windows
    and the e820 "Reserved" entries above 1 MiB are in the tree (e820__reserve_resources() leaves
    these to e820__reserve_resources_late()). Then there is one gap [0x7ffcb000, 0xffffffff];
    arch_remove_reservations() cuts the BIOS ROM from it and then each e820 entry, keeping the
    larger part each time, so that its lowest address becomes 0xc0000000: the dmesg of the
    recordings says so ("clipped ... for e820 entry"). Later the host bridge's window
    [0xc0000000, 0xfec00000) is added with insert_resource(), which makes the section its child.

    A search that comes after this sees the window, one that came before saw a gap. Both are had
    from one tree by splitting the window around the section: with the section as a child of the
    root nothing else fits there; without it (`without_scratch`) the gap is the one that was found.
    """
    children: list[Resource] = []
    scratch: list[tuple[int, int]] = []
    for entry in top:
        at = entry.start
        for inner in _scratch_in(entry):
            scratch.append((inner.start, inner.end))
            if at < inner.start:
                children.append(Resource(at, inner.start, entry.name))
            children.append(Resource(inner.start, inner.end, SCRATCH))
            at = inner.end
        if at < entry.end:
            children.append(Resource(at, entry.end, entry.name))
    return tuple(children), scratch


def _scratch_in(entry: Entry) -> list[Entry]:
    if entry.name == SCRATCH:
        return [entry]
    return [found for child in entry.children for found in _scratch_in(child)]


def scratch_sections(machine: Physmap) -> tuple[tuple[int, int], ...]:
    """The pool's sections that the machine's tree already holds, [start, end) in bytes."""
    return tuple((r.start, r.end) for r in machine.iomem if r.name == SCRATCH)


def without_scratch(machine: Physmap) -> Physmap:
    """The machine as it was before the pool added its first section."""
    return machine.with_changes(iomem=tuple(r for r in machine.iomem if r.name != SCRATCH))
