"""Which RAM of a PVH dom0 is its own: since Linux 6.9 its tree shows the rest as System RAM too.

Xen gives dom0 the host's lowest RAM and marks what is beyond as UNUSABLE (pvh_setup_e820(),
xen/arch/x86/hvm/dom0_build.c). pvh_reserve_extra_memory() (arch/x86/xen/enlighten_pvh.c) turns that
into RAM at boot, before anything prints it, and the pool's list is seeded with it. An earlier
kernel shows "Unusable memory". So the tail of the System RAM is what an earlier kernel would call
so, and this gives it that name, by which the models know it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from replay.base.since import has, version_of
from replay.base.units import MIB
from replay.physmap import proc, x86
from replay.physmap.folder import Folder
from replay.physmap.iomem import SYSTEM_RAM, UNUSABLE_MEMORY, Entry, ram_pages

ROUNDING = 16 * MIB
"""What the tree may have beyond dom0's memory without any of it being scratch: holes, and pages
that a number in MiB rounds off."""
BOOT_SHARE = 20
"""The kernel of a dom0 without scratch memory has made all but a twentieth of its RAM available."""


class Own(NamedTuple):
    """dom0's memory at boot in KiB, and from where; about: whether it is an estimate."""

    kb: int
    origin: str
    about: bool = False


class Split(NamedTuple):
    """The tree with dom0's RAM and scratch memory apart; whether it could be told."""

    top: list[Entry]
    known: bool


def split(files: Folder, top: list[Entry], facts: dict[str, Any], xen: str, dmesg: str,
          page: int) -> Split:
    """Set a PVH dom0's scratch memory apart, with a note on how it was told, or that it was not.

    facts: see facts_of(). xen, dmesg: the logs. page: bytes.
    """
    shown = any(e.name == UNUSABLE_MEMORY for e in top)
    if facts["mode"] != "pvh" or not has("unusable_seeding", facts["kernel"]) or (
            shown and version_of(facts["kernel"]) is None):  # so it is an earlier one
        return Split(top, True)
    ram = ram_pages(at_boot(top, dmesg), page) * page
    if "memory.boot" in files.overrides:
        pages = int(files.settle("memory.boot", (None, ""), 0))
        own: Own | None = Own(pages * (page // 1024), "--set memory.boot")
    else:
        own = _own(files, facts, xen, dmesg, ram) or described(dmesg, top)
    if own is None:
        files.notes.append(
            "scratch memory: Linux 6.9 and later make RAM of the UNUSABLE ranges that Xen gives a "
            "PVH dom0, and no file tells how much of the System RAM is dom0's own "
            "(--set memory.boot=PAGES states it)")
        return Split(top, shown)
    beyond = ram - own.kb * 1024
    if beyond < ROUNDING:
        return Split(top, True)
    files.notes.append(
        f"scratch memory: {beyond // page} pages of System RAM, beyond the "
        f"{'about ' if own.about else ''}{own.kb} KiB of dom0 ({own.origin}), are UNUSABLE "
        "ranges to Xen; Linux 6.9 and later seed the pool's list with them")
    return Split(renamed(top, own.kb * 1024 // page * page, dmesg, UNUSABLE_MEMORY), True)


def at_boot(top: list[Entry], dmesg: str) -> list[Entry]:
    """The System RAM of the boot's memory map: not what was hot-added since."""
    usable = [(s, e) for s, e, kind in x86.e820_table(dmesg) if kind == "usable"]
    return [e for e in top if e.name == SYSTEM_RAM and (
        not usable or any(start < e.end and e.start < end for start, end in usable))]


def _own(files: Folder, facts: dict[str, Any], xen: str, dmesg: str, ram: int) -> Own | None:
    """dom0's memory at boot, by the first of the files that tells. ram: bytes in the tree."""
    table = x86.dom0_map(xen)
    if any(kind == "unusable" for _, _, kind in table):
        mapped = sum(end - start for start, end, kind in table if kind == "usable")
        return Own(mapped >> 10, f"Dom0 memory map of {files.name('xen_log')}")
    if stated := stated_in_xen(facts["xen_cmdline"], ram >> 10):
        return stated
    kb = proc.balloon_kb(files.paths["balloon"], files.text("balloon")).get("current_kb") \
        if files.text("balloon") else None
    # up to 6.14 the balloon counts all of it, and so may say nothing
    if kb is not None and (has("target_without_unusable", facts["kernel"])
                           or ram - kb * 1024 >= ROUNDING):
        return Own(kb, f"current_kb of {files.name('balloon')}")
    if (listed := proc.dom0_list_kb(files.text("xl_list"))) is not None:
        return Own(listed, files.name("xl_list"))
    return None


def described(dmesg: str, top: list[Entry]) -> Own | None:
    """dom0's memory at boot as about what mem_init() has made available, where that is so much less
    than all RAM that nothing but scratch memory explains it."""
    if (found := proc.memory_kb(dmesg)) is None:
        return None
    available, every = found
    # struct pages take 64 bytes for 4 KiB; of scratch memory too
    own = available + every // 64 + sum(child.end - child.start for e in top for child in e.children
                                        if child.name == "Crash kernel") // 1024
    if every - own <= every // BOOT_SHARE:
        return None
    return Own(own, f"Memory: {available}K/{every}K available", True)


def stated_in_xen(xen_cmdline: str, ram_kb: int, near: bool = False) -> Own | None:
    """What dom0_mem= gives where it names a size below the host's RAM; near: or about as much.

    parse_dom0_mem(): "[min:MIN,][max:MAX,][SIZE]", in any order, the last of each counts.
    """
    size = least = most = None
    words = re.findall(r"(?:^|\s)dom0_mem=(\S+)", xen_cmdline)
    for part in ",".join(words).split(","):
        if part.startswith("min:"):
            least = proc.size_kb(part[4:])
        elif part.startswith("max:"):
            most = proc.size_kb(part[4:])
        elif part:
            size = proc.size_kb(part)
            if size is None:
                return None
    given = size if size is not None else most
    if not given:
        return None
    given = max(min(given, most or given), least or 0)
    # Near all RAM of the host Xen's own needs decide.
    return Own(given, f"dom0_mem={','.join(words)} of Xen's command line") \
        if near or given <= ram_kb * 15 // 16 else None


def renamed(top: list[Entry], own: int, dmesg: str, name: str) -> list[Entry]:
    """The tree whose System RAM at boot has another name beyond the first `own` bytes."""
    boot = {id(e) for e in at_boot(top, dmesg)}
    out: list[Entry] = []
    for entry in top:
        size = entry.end - entry.start
        if id(entry) not in boot or own >= size:
            own -= size if id(entry) in boot else 0
            out.append(entry)
            continue
        middle = entry.start + max(own, 0)
        if own > 0:
            out.append(Entry(entry.start, middle, entry.name,
                             [c for c in entry.children if c.start < middle]))
        out.append(Entry(middle, entry.end, name,
                         [c for c in entry.children if c.start >= middle]))
        own = 0
    return out
