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

SYSTEM_RAM, UNUSABLE_MEMORY, EXTRA_MEMORY = "System RAM", "Unusable memory", "Extra memory"
LINUX_RAM = (SYSTEM_RAM, UNUSABLE_MEMORY, EXTRA_MEMORY)
"""Names of RAM: the domain's own, on a PVH dom0 the host's rest (pvh_setup_e820()), and in a PV
domain what Xen lets it grow into (xen_extra_mem), which /proc/iomem calls System RAM as well."""

MAX_LEVEL = 5
"""kernel/resource.c: MAX_IORES_LEVEL, the deepest indentation that r_show() gives; what lies deeper
stands there as well."""

PASSED_TOLD = 4
"""Lines passed over that are told one by one."""

_LINE = re.compile(r"( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) :(?: (.*))?")
_STARTS = re.compile(r"[0-9a-f]{8,16}(-|$)|[0-9a-f]{1,16}-[0-9a-f]{1,16}\b")
"""What a first-level line begins with (r_show() prints at least eight digits), whatever follows."""


@dataclass
class Entry:
    """One line of /proc/iomem, [start, end), with what is nested in it."""

    start: int
    end: int
    name: str
    children: list[Entry] = field(default_factory=list)


def parse(path: Path, text: str, notes: list[str] | None = None) -> list[Entry]:
    """The first-level entries; InputError names the line that cannot be.

    Only the first level is walked by a search. What lies below it and cannot be, and what is no
    line of the kernel's (a prompt, a heading), is passed over. notes: gets these lines by name.
    """
    lines = [(number, line.rstrip().expandtabs(8)) for number, line
             in enumerate(text.splitlines(), 1) if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for _, line in lines if _LINE.fullmatch(line)),
                 default=0)
    tree = _Tree(path)
    for number, line in lines:
        match = _LINE.fullmatch(line)
        where = f"line {number}"
        if match:
            tree.add(match, len(match[1]) - margin, where)
        elif _STARTS.match(line[margin:]):
            raise InputError(path, f"expected 'start-end : name', found {line[:60]!r}", where)
        else:
            tree.pass_over(where, line.strip()[:40], "is no 'start-end : name'")
    if not tree.top:
        found = f", found {lines[0][1][:60]!r}" if lines and tree.passed else ""
        raise InputError(path, f"holds no resource: expected 'start-end : name'{found}")
    if all(entry.end == 1 for entry in tree.top):
        raise InputError(path, "all addresses are zero, as the kernel shows them to other users",
                         hint="Read /proc/iomem as root")
    if notes is not None:
        notes += tree.passed[:PASSED_TOLD]
        if len(tree.passed) > PASSED_TOLD:
            notes.append(f"{path.name}: {len(tree.passed) - PASSED_TOLD} more lines passed over")
    return tree.top


class _Tree:
    """What the lines so far make. stack: the last entry of each level; passed: notes."""

    def __init__(self, path: Path) -> None:
        self.path, self.top = path, list[Entry]()
        self.stack: list[Entry] = []
        self.passed: list[str] = []

    def pass_over(self, where: str, name: str, why: str) -> None:
        """Note a line that tells nothing."""
        self.passed.append(f"{self.path.name}, {where}: {name!r} {why}; passed over")

    def add(self, match: re.Match[str], indent: int, where: str) -> None:
        """The next entry."""
        entry = Entry(int(match[2], 16), int(match[3], 16) + 1, match[4] or "")
        depth, stack = indent // 2, self.stack
        deep = depth > min(len(stack), MAX_LEVEL) or indent % 2
        bad = "is indented deeper than its predecessor allows" if deep else ""
        if depth == MAX_LEVEL and not bad:
            depth = _deepest(stack, entry)
        if not depth and self.top and _inside(entry, self.top[-1]):
            self.passed.append(f"{self.path.name}, {where}: {entry.name!r} lies in its predecessor "
                               "and is not indented; taken for a part of it")
            depth = 1
        siblings = stack[depth - 1].children if depth and not bad else self.top
        if not bad and (entry.end <= entry.start or (siblings and entry.end != 1
                                                     and entry.start < siblings[-1].end)):
            bad = "ends before it starts, or overlaps its predecessor"
        if bad and (not indent or entry.name == SCRATCH):
            raise InputError(self.path, bad, where)
        if bad:
            self.pass_over(where, entry.name, bad)
        else:
            siblings.append(entry)
        if not deep:  # what is nested in an entry that is passed over is so with it
            del stack[depth:]
            stack.append(entry)


def _inside(entry: Entry, other: Entry) -> bool:
    return entry.end > entry.start >= other.start and entry.end <= other.end and entry.end != 1


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
