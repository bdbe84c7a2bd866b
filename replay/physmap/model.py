"""The machine a trace runs on: three address views as plain data.

1. `host`: what each machine frame is (RAM of dom0, RAM of others, MMIO, reserved);
2. stage 2, dom0's guest-physical map, is derived (physmap/stage2.py): it changes during a replay;
3. `iomem`: Linux's first-level resource tree, plus `regions`, which the hypervisor advertises.

An allocator sees view 3 only; what it cannot know shows up as a typed overwrite in view 2.
All addresses are bytes; extents are half-open [start, end).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from replay.base.errors import ReplayError

MOST_SHOWN = 60
"""Letters of a value that cannot be."""
DOM0, DRIVER_DOMAIN = "dom0", "driver domain"
DOMAIN_NAMES = (DOM0, DRIVER_DOMAIN)
HOST_TYPES = ("ram_dom0", "ram_other", "ram_xen", "mmio", "reserved")


@dataclass(frozen=True)
class Resource:
    """One first-level child of `iomem_resource`: [start, end) in bytes and its name."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class HostRange:
    """One range of the host's machine memory, [start, end) in bytes, of a HOST_TYPES type."""

    start: int
    end: int
    type: str
    name: str = ""


@dataclass(frozen=True)
class Memory:
    """dom0's memory at the start, in pages; what the balloon's decisions depend on.

    available: si_mem_available(). total_reserve: totalreserve_pages. current, target, total,
    unpopulated: the fields of balloon_stats; low: pages on the balloon's list (balloon_low and
    balloon_high), so none that callers hold. Source: /proc/meminfo, /proc/zoneinfo, sysfs.
    """

    available: int
    current: int
    target: int
    total: int
    total_reserve: int = 0
    unpopulated: int = 0
    low: int = 0


@dataclass(frozen=True)
class Physmap:
    """One machine, as far as the allocators and the hazards depend on it.

    mode: pv, pvh, hvm or arm. section_bytes: Linux's memory section (SECTION_SIZE_BITS).
    pluggable: mhp_get_pluggable_range(true). clip: ranges arch_remove_reservations() cuts from a
    candidate (x86: BIOS ROM, then e820 entries in table order; empty elsewhere). regions: extended
    regions, in device-tree order, unchecked. iomem_end: end of the root resource. unusable_known:
    of a PVH dom0, whether "Unusable memory" in iomem is all that the pool's list is seeded with;
    what Linux 6.9 and later made RAM at boot may be among the "System RAM" otherwise. domain: one
    of DOMAIN_NAMES; a driver domain maps pages of others as dom0 does, and is a guest to Xen.
    """

    name: str
    arch: Literal["x86", "arm64"]
    mode: Literal["pv", "pvh", "hvm", "arm"]
    page_bytes: int
    section_bytes: int
    direct_mapped: bool
    iommu: bool
    iomem_end: int
    pluggable: tuple[int, int]
    iomem: tuple[Resource, ...]
    clip: tuple[tuple[int, int], ...]
    regions: tuple[tuple[int, int], ...]
    host: tuple[HostRange, ...]
    memory: Memory
    grant_table: tuple[int, int] | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())
    unusable_known: bool = True
    domain: str = DOM0

    @property
    def top_pfn(self) -> int:
        """The first frame beyond the address space."""
        return max(self.iomem_end, self.pluggable[1]) // self.page_bytes

    @property
    def section_pages(self) -> int:
        """Pages of one memory section."""
        return self.section_bytes // self.page_bytes

    def with_changes(self, **changes: Any) -> Physmap:
        """A copy with other fields; validated again."""
        return validated(replace(self, **changes))

    def to_json(self) -> str:
        """The metadata form; `from_json` reads it back."""
        data = asdict(self)
        for name, usual in (("unusable_known", True), ("domain", DOM0)):
            if data[name] == usual:  # as of machines from before there was this field
                del data[name]
        return json.dumps(data, separators=(",", ":"))

    @property
    def assumed(self) -> tuple[str, ...]:
        """Facts that were in no file, and what stands for them, from the notes."""
        found = (re.match(r"([\w.]+): ([\w.+ ]{1,30}?) is assumed\b", note) for note in self.notes)
        return tuple(f"{match[1]} {match[2]}" for match in found if match)


def _odd(name: str, value: Any, expected: str) -> ReplayError:
    said = repr(value)
    said = said if len(said) <= MOST_SHOWN else f"{said[:MOST_SHOWN]}..."
    return ReplayError(f"physmap: {name} is {said}, expected {expected}")


def _whole(value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise _odd(name, value, "a whole number") from None


def _extent(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _odd(name, value, "[start, end]")
    return _whole(value[0], name), _whole(value[1], name)


def _each(value: Any, name: str, kind: Any) -> Iterator[tuple[str, Any]]:
    """The entries of a list by their place, all of one kind."""
    if not isinstance(value, list | tuple):
        raise _odd(name, value, "a list")
    for k, one in enumerate(value):
        if not isinstance(one, kind):
            raise _odd(f"{name}[{k}]", one, "a table" if kind is dict else "a list")
        yield f"{name}[{k}]", one


def _extents(data: dict[str, Any], name: str) -> tuple[tuple[int, int], ...]:
    return tuple(_extent(one, at)
                 for at, one in _each(data.get(name) or (), name, list | tuple))


def _memory(value: Any) -> Memory:
    names = [one.name for one in fields(Memory)]
    if not isinstance(value, dict) or not set(value) <= set(names):
        raise _odd("memory", value, f"a table of {', '.join(names)}")
    return Memory(**{name: _whole(pages, f"memory.{name}") for name, pages in value.items()})


def from_dict(data: dict[str, Any]) -> Physmap:
    """A physmap from its JSON or TOML form; ReplayError names the field that is missing or odd."""
    try:
        table = data.get("grant_table")
        return validated(Physmap(
            name=str(data["name"]), arch=data["arch"], mode=data["mode"],
            page_bytes=_whole(data["page_bytes"], "page_bytes"),
            section_bytes=_whole(data["section_bytes"], "section_bytes"),
            direct_mapped=bool(data["direct_mapped"]), iommu=bool(data["iommu"]),
            iomem_end=_whole(data["iomem_end"], "iomem_end"),
            pluggable=_extent(data["pluggable"], "pluggable"),
            iomem=tuple(Resource(_whole(r["start"], f"{at}.start"), _whole(r["end"], f"{at}.end"),
                                 str(r["name"])) for at, r in _each(data["iomem"], "iomem", dict)),
            clip=_extents(data, "clip"), regions=_extents(data, "regions"),
            host=tuple(HostRange(_whole(h["start"], f"{at}.start"), _whole(h["end"], f"{at}.end"),
                                 str(h["type"]), str(h.get("name", "")))
                       for at, h in _each(data["host"], "host", dict)),
            memory=_memory(data["memory"]),
            grant_table=_extent(table, "grant_table") if table else None,
            source=str(data.get("source", "")),
            notes=tuple(str(note) for _, note in _each(data.get("notes") or (), "notes", object)),
            unusable_known=bool(data.get("unusable_known", True)),
            domain=str(data.get("domain", DOM0)),
        ))
    except KeyError as error:
        raise ReplayError(f"physmap: field {error} is missing") from None
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise ReplayError(f"physmap: a field is not of its type ({error})") from None


def from_json(text: str) -> Physmap:
    """A physmap from the trace's metadata."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReplayError(f"physmap: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise ReplayError("physmap: expected a JSON object")
    return from_dict(data)


def validated(machine: Physmap) -> Physmap:
    """The same physmap, or a ReplayError that says which field cannot be.

    Kernels trust these bounds: addresses are below 2^62 so that int64 sums cannot overflow.
    """
    def fail(text: str) -> None:
        raise ReplayError(f"physmap {machine.name!r}: {text}")

    top = 1 << 62
    if machine.arch not in ("x86", "arm64") or machine.mode not in ("pv", "pvh", "hvm", "arm"):
        fail(f"unknown arch or mode {machine.arch!r}, {machine.mode!r}")
    if machine.domain not in DOMAIN_NAMES:
        fail(f"domain is {machine.domain!r}, expected one of {', '.join(DOMAIN_NAMES)}")
    if machine.page_bytes not in (4096, 16384, 65536):
        fail(f"page_bytes is {machine.page_bytes}, expected 4096, 16384 or 65536")
    section = machine.section_bytes
    if section < machine.page_bytes or section & (section - 1) or section > 1 << 40:
        fail(f"section_bytes is {section}, expected a power of two above the page size")
    if not 0 < machine.iomem_end <= top:
        fail(f"iomem_end {machine.iomem_end:#x} is not within (0, 2^62]")
    if not 0 <= machine.pluggable[0] <= machine.pluggable[1] <= top:
        fail(f"pluggable range {machine.pluggable} is not an extent below 2^62")
    last = 0
    for child in machine.iomem:
        if not last <= child.start < child.end <= machine.iomem_end:
            fail(f"iomem child {child.name!r} [{child.start:#x}, {child.end:#x}) is out of order, "
                 "overlaps its predecessor, or lies beyond the root")
        last = child.end
    for what, extents in (("clip", machine.clip), ("regions", machine.regions)):
        for start, end in extents:
            if not 0 <= start < end <= top:
                fail(f"{what} entry [{start:#x}, {end:#x}) is not an extent below 2^62")
    for entry in machine.host:
        if not 0 <= entry.start < entry.end <= top:
            fail(f"host range [{entry.start:#x}, {entry.end:#x}) is not an extent below 2^62")
        if entry.type not in HOST_TYPES:
            fail(f"host range type {entry.type!r} is not one of {', '.join(HOST_TYPES)}")
    for name, pages in asdict(machine.memory).items():
        if not 0 <= pages < 1 << 50:
            fail(f"memory.{name} is {pages} pages")
    return machine
