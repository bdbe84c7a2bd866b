"""Facts out of the text files of a running dom0: /proc/meminfo, zoneinfo, `xl info`, logs."""

from __future__ import annotations

import re
from pathlib import Path

from replay.base.errors import InputError


def meminfo_pages(path: Path, text: str, field: str, page_bytes: int) -> int | None:
    """One field of /proc/meminfo in pages; None if the file has no such line."""
    for number, line in enumerate(text.splitlines(), 1):
        name, _, rest = line.partition(":")
        if name.strip() != field:
            continue
        parts = rest.split()
        if len(parts) != 2 or not parts[0].isdecimal() or parts[1] != "kB":
            raise InputError(path, f"expected '{field}: N kB', found {line.strip()!r}",
                             f"line {number}")
        return int(parts[0]) * 1024 // page_bytes
    return None


def total_reserve_pages(path: Path, text: str) -> int:
    """totalreserve_pages from /proc/zoneinfo.

    calculate_totalreserve_pages() in mm/page_alloc.c (Linux 6.12): over all zones, the high
    watermark plus the largest lowmem reserve ("protection"), at most the zone's managed pages.
    """
    total = 0
    high = managed = 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and words[0] in ("high", "managed"):
            if len(words) != 2 or not words[1].isdecimal():
                raise InputError(path, f"expected '{words[0]} N', found {line.strip()!r}",
                                 f"line {number}")
            if words[0] == "high":
                high = int(words[1])
            else:
                managed = int(words[1])
        elif words and words[0] == "protection:":
            reserves = [int(word) for word in re.findall(r"\d+", line)]
            if not reserves:
                raise InputError(path, "expected 'protection: (N, ...)'", f"line {number}")
            total += min(high + max(reserves), managed)
            high = managed = 0
    return total


def balloon_kb(path: Path, text: str, notes: list[str] | None = None) -> dict[str, int]:
    """The balloon's sysfs values in KiB by name: lines of "PATH:N" or "PATH N", as `grep` shows
    several files, or "==> PATH <==" and N below it, as `head` and `tail` do.

    notes: gets the names of lines of other values, which are passed over.
    """
    out: dict[str, int] = {}
    others: list[str] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if (head := re.fullmatch(r"==> (\S+) <==", line.strip())) and number < len(lines):
            line, lines[number] = f"{head[1]} {lines[number]}", ""
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(?:.*/)?(\w+_kb)[:\s]\s*(\d+)\s*", line)
        other = re.fullmatch(r"\s*(?:.*/)?(\w+)(?:[:\s].*)?", line)
        if match:
            out[match[1]] = int(match[2])
        elif other and not other[1].endswith("_kb"):
            others.append(other[1])
        else:
            raise InputError(path, f"expected '.../NAME_kb N', found {line.strip()[:60]!r}",
                             f"line {number}")
    if others and notes is not None:
        listed = ", ".join(sorted(set(others))[:4])
        notes.append(f"{path.name}: values other than NAME_kb are passed over ({listed})")
    return out


def dom0_list_kb(text: str) -> int | None:
    """dom0's memory as `xl list` shows it, in MiB there, in KiB here; None if it is not in it."""
    found = re.search(r"^\S+ +0 +(\d+) +\d+ +[-a-z]{6}", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def memory_kb(dmesg: str) -> tuple[int, int] | None:
    """(available, CMA's included, and all) KiB of mem_init_print_info(): "Memory: 1K/2K available
    (..., 3K cma-reserved)"."""
    found = re.search(r"Memory: (\d+)K/(\d+)K available(?:.*?(\d+)K cma-reserved)?", dmesg)
    return (int(found[1]) + int(found[3] or 0), int(found[2])) if found else None


def size_kb(text: str) -> int | None:
    """parse_size_and_unit() of Xen, whose dom0_mem= counts KiB without a unit; None if it is no
    size: a share of the host ("25%"), all but a size ("-1G")."""
    found = re.fullmatch(r"(0x[0-9a-f]+|\d+)([bkmgt]?)", text.strip().lower())
    if not found:
        return None
    unit = {"b": 0, "k": 10, "": 10, "m": 20, "g": 30, "t": 40}[found[2]]
    return (int(found[1], 0) << unit) >> 10


def xl_info(text: str) -> dict[str, str]:
    """`xl info` as a table of its "name : value" lines."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def mhz_to_hz(text: str) -> int:
    """'2596.144' MHz in Hz, through integers only."""
    whole, _, part = text.partition(".")
    return int(whole) * 1_000_000 + int((part + "000000")[:6])


def first(pattern: str, text: str) -> str | None:
    """Group 1 of the first match, over lines."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1].strip() if match else None
