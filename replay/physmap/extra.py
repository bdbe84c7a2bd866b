"""Which RAM of a PV domain's tree is extra memory: frame numbers that nothing is behind.

xen_memory_setup() (arch/x86/xen/setup.c, Linux 6.1) leaves the domain the lowest RAM of its map, as
much as Xen gave it; RAM beyond becomes xen_extra_mem[], as far as Xen's limit for the domain goes:
that of a dom0 without `dom0_mem=max:` is all RAM of the host (but not more than ten times its own).
Extra memory is "System RAM" in /proc/iomem, and memblock_reserve()d, so that alloc_page()
never gives it out. It is on the pool's list from boot in Linux 5.9 to 5.17 and since 6.9, on the
balloon's in between and wherever there is no pool (balloon_add_regions()).
"""

from __future__ import annotations

from typing import Any

from replay.base.since import has
from replay.physmap import proc
from replay.physmap.folder import Folder, read
from replay.physmap.iomem import EXTRA_MEMORY, SYSTEM_RAM, Entry, parse, ram_pages
from replay.physmap.pvh import ROUNDING, Own, at_boot, described, renamed, stated_in_xen


def split(files: Folder, top: list[Entry], facts: dict[str, Any], dmesg: str, page: int
          ) -> list[Entry]:
    """The tree with a PV domain's extra memory under a name of its own, by which models know it.

    facts: see facts_of(). dmesg: the log. page: bytes. A note tells how much it is and from where.
    """
    if facts["mode"] != "pv":
        return top
    first = _first_page(top, page)
    ram = ram_pages(at_boot(top, dmesg), page) * page + first
    own = _own(files, facts, ram, top, dmesg, page)
    if own is None or ram - own.kb * 1024 < ROUNDING:
        return top
    pages = (ram - own.kb * 1024) // page
    on_pool = has("extra_on_pool", facts["kernel"])
    files.notes.append(
        f"extra memory: {pages} pages of System RAM, beyond the {'about ' if own.about else ''}"
        f"{own.kb} KiB that the domain began with ({own.origin}), have no memory behind them; this "
        f"kernel has them on the {'pool' if on_pool else 'balloon'}'s list from boot")
    return renamed(top, own.kb * 1024 - first, dmesg, EXTRA_MEMORY)


def _first_page(top: list[Entry], page: int) -> int:
    """Bytes of RAM at address 0 that the tree calls Reserved: trim_bios_range() takes that page
    from the map after Xen's share was counted."""
    return page if len(top) > 1 and top[0].start == 0 and top[0].end == page == top[1].start \
        and top[0].name.lower() == "reserved" and top[1].name == SYSTEM_RAM else 0


def _own(files: Folder, facts: dict[str, Any], ram: int, top: list[Entry], dmesg: str, page: int
         ) -> Own | None:
    """What the domain began with, by the first of the files that tells. ram: bytes in the tree."""
    if "memory.boot" in files.overrides:
        pages = int(files.settle("memory.boot", (None, ""), 0))
        return Own(pages * (page // 1024), "--set memory.boot")
    on_pool = has("extra_on_pool", facts["kernel"])
    kb = proc.balloon_kb(files.paths["balloon"], files.text("balloon")) \
        if files.text("balloon") else {}
    if on_pool and "current_kb" in kb and "low_kb" in kb:
        # What is neither its own nor given up to the balloon is not the balloon's at all.
        out = kb["low_kb"] + kb.get("high_kb", 0)
        hot = hot_added(files, top, dmesg, page) * page // 1024
        return Own(kb["current_kb"] + out - hot,
                   f"current_kb and low_kb of {files.name('balloon')}")
    if facts["xen_cmdline"]:  # without dom0_mem= all RAM is dom0's
        return stated_in_xen(facts["xen_cmdline"], ram >> 10, near=True)
    # Else the balloon's list holds it beside what was given up, and what is listed now is no clue.
    listed = proc.dom0_list_kb(files.text("xl_list")) if on_pool else None
    return Own(listed, files.name("xl_list")) if listed is not None else described(dmesg, top)


def hot_added(files: Folder, top: list[Entry], dmesg: str, page: int) -> int:
    """Pages of System RAM that were not in the tree at boot."""
    every = ram_pages(top, page)
    early = files.path / "iomem.early"
    if early.is_file():
        return max(0, every - ram_pages(parse(early, read(early)), page))
    return every - ram_pages(at_boot(top, dmesg), page)
