"""The domain's memory at the start, in pages, as the files of its folder tell it."""

from __future__ import annotations

import re
from typing import Any

from replay.base.since import has
from replay.physmap import iomem, proc
from replay.physmap.extra import hot_added
from replay.physmap.folder import Folder
from replay.physmap.iomem import Entry, ram_pages
from replay.physmap.model import DOM0, Memory


_XENSTORE = re.compile(r'^\s*(?:.*/)?(static-max|memory_static_max|target)\s*[=:]?\s*"?(\d+)"?'
                       r"[ .]*(?:\(.*\))?\s*$", re.MULTILINE)
"""Of `xenstore-ls`, -f (whole paths) and -p (with a line of dots, and the permissions)."""


def _counted(top: list[Entry], page: int, facts: dict[str, Any]) -> tuple[int, str]:
    """What balloon_init() takes for the domain's memory where no file shows it, and what that is.
    """
    mode, kernel = facts["mode"], facts["kernel"]
    ram, every = ram_pages(top, page), ram_pages(top, page, iomem.LINUX_RAM)
    if (mode == "pvh" and every > ram and has("unusable_seeding", kernel)
            and not has("target_without_unusable", kernel)):
        return every, "the System RAM of /proc/iomem, all of which Linux 6.9 to 6.14 counts"
    return ram, "the System RAM of /proc/iomem" if every == ram else (
        f"the System RAM of /proc/iomem that is {facts['domain']}'s")


def _target(files: Folder, counted: int, page: int, facts: dict[str, Any]) -> int | None:
    """The target as xenstore has it (`xenstore-ls memory`: static-max, target, in KiB).

    A guest that is not PV was built with more than it may use (for video memory, say), and counts
    all RAM of its map: watch_target() of drivers/xen/xen-balloon.c takes the difference between
    static-max and its first target from every target. counted: that first target, in pages.
    """
    said = {name: int(kb) * 1024 // page for name, kb in _XENSTORE.findall(files.text("xenstore"))}
    if "target" not in said:
        return None
    # without it the kernel takes what it has counted, so that there is no difference
    offset = said.get("static-max", said.get("memory_static_max", counted)) - counted
    whole = facts["mode"] in ("pv", "arm") or facts["domain"] == DOM0
    return max(0, said["target"] - (0 if whole else offset))


def _given_up_at_boot(files: Folder, asked: int | None, counted: int, facts: dict[str, Any]) -> int:
    """Pages that a guest with a target below its RAM has on the balloon's list before any program
    runs: balloon_wait_finish() of drivers/xen/balloon.c waits until the target is reached, and
    panics where nothing has moved for xen.balloon_boot_timeout seconds. A PV domain waits for
    nothing, and dom0 has its target from its own driver."""
    waits = facts["mode"] != "pv" and facts["domain"] != DOM0 and has(
        "waits_for_target", facts["kernel"])
    if asked is None or asked >= counted or not waits:
        return 0
    limit = proc.first(r"(?:^|\s)xen\.balloon_boot_timeout=(\d{1,10})(?=\s|$)",
                       facts["dom0_cmdline"])
    said = f"xen.balloon_boot_timeout={limit}" if limit else "xen.balloon_boot_timeout, 180 s,"
    files.notes.append(
        f"memory: {counted - asked} pages were given up at boot: Linux 5.16 and later wait for "
        f"their target before any program runs ({said} ends in a panic, not in a recording)")
    return counted - asked


def memory_of(files: Folder, top: list[Entry], page: int, facts: dict[str, Any], dmesg: str
              ) -> Memory:
    """The counters. top: the tree, in which what is "System RAM" is the domain's own."""
    ram = ram_pages(top, page)
    told: dict[str, Any] = dict.fromkeys(("available", "current", "target", "total", "low"))
    if files.text("meminfo"):
        told["available"] = proc.meminfo_pages(
            files.paths["meminfo"], files.text("meminfo"), "MemAvailable", page)
    if files.text("balloon"):
        kb = proc.balloon_kb(files.paths["balloon"], files.text("balloon"), files.notes)
        per = page // 1024
        told |= {n: kb[f"{n}_kb"] // per for n in ("current", "target") if f"{n}_kb" in kb}
        out = (kb.get("low_kb", 0) + kb.get("high_kb", 0)) // per  # both are on the one list
        told["low"] = out if "low_kb" in kb else None
        if "current_kb" in kb:
            # total_pages is not shown: it is what dom0 began with plus what the balloon hot-added;
            # a hot-added block is in low_kb only once it is online.
            told["total"] = told["current"] + max(out, hot_added(files, top, dmesg, page))
    counted, why = _counted(top, page, facts)
    asked = _target(files, counted, page, facts)
    source = "balloon"
    if told["current"] is None and (up := _given_up_at_boot(files, asked, counted, facts)):
        source = "xenstore"
        told |= {"current": counted - up, "low": up, "total": counted}
    current = files.settle("memory.current", (told["current"], source), counted, why)
    reserve = proc.total_reserve_pages(files.paths["zoneinfo"], files.text("zoneinfo")) \
        if files.text("zoneinfo") else None
    return Memory(
        available=files.settle("memory.available", (told["available"], "meminfo"),
                               min(current, ram or current) * 3 // 4,
                               f"three quarters of {facts['domain']}'s memory"),
        current=current,
        target=files.settle("memory.target", (told["target"], "balloon")
                            if told["target"] is not None else
                            (asked, "xenstore"), current),
        total=files.settle("memory.total", (told["total"], source), current),
        total_reserve=files.settle("memory.total_reserve", (reserve, "zoneinfo"), 0),
        unpopulated=files.settle("memory.unpopulated", (None, ""), 0, "no file shows it"),
        low=files.settle("memory.low", (told["low"], source), 0),
    )
