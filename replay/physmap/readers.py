"""Reads a machine from the files one can copy off its dom0, or off a recording's folder.

Missing files are permitted: the fact then comes from `--set NAME=VALUE`, or from a default that
the notes name. What is needed and malformed is refused: InputError says which line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.base.errors import InputError, ReplayError
from replay.base.since import has, version_of
from replay.physmap import arm64, extra, fdt, iomem, logs, pvh, x86
from replay.physmap.facts import (
    FEATURE_DIRECT_MAPPED, FEATURE_NOT_DIRECT_MAPPED, facts_of, feature, iommu, pa_bits, page_bytes,
    va_bits, xen_log,
)  # fmt: skip
from replay.physmap.folder import MACHINE_FILES, Folder, read
from replay.physmap.model import DOM0, HostRange, Physmap, validated
from replay.physmap.pages import memory_of

OVERRIDES = {
    "name": "name of the machine",
    "arch": "x86 or arm64",
    "mode": "pv, pvh, hvm or arm",
    "domain": "dom0, or driver domain: a guest that maps pages of others",
    "page_bytes": "page size of the dom0 kernel",
    "section_bytes": "memory section of the dom0 kernel",
    "direct_mapped": "yes or no: dom0's guest frames are its machine frames",
    "iommu": "yes or no: Xen uses the IOMMU",
    "phys_bits": "physical address bits of the CPU",
    "va_bits": "virtual address bits of an arm64 kernel",
    "cpu_hz": "frequency of the time stamps in xentrace, in Hz",
    "kernel": "release of the dom0 kernel",
    "xen_version": "version of the hypervisor, such as 4.17.7",
    "memory.boot": "pages that Xen gave a PV or PVH domain at boot: RAM beyond has none behind it",
    "memory.available": "si_mem_available() in pages",
    "memory.current": "balloon_stats.current_pages",
    "memory.target": "balloon_stats.target_pages",
    "memory.total": "balloon_stats.total_pages",
    "memory.total_reserve": "totalreserve_pages",
    "memory.unpopulated": "balloon_stats.target_unpopulated",
    "memory.low": "pages on the balloon's list (balloon_low + balloon_high)",
}
"""What `--set` can state about a machine."""


@dataclass(frozen=True)
class Machine:
    """A physmap and where its facts come from."""

    physmap: Physmap
    provenance: dict[str, Any]


@dataclass(frozen=True)
class _Read:
    """What both architectures read. top: the tree; xen, dmesg: the lines of Xen and of dom0."""

    files: Folder
    top: list[iomem.Entry]
    facts: dict[str, Any]
    xen: str
    dmesg: str
    page: int

    def common(self, section: int) -> dict[str, Any]:
        """Fields of a Physmap that mean the same on both."""
        files = self.files
        return {"name": files.overrides.get("name", files.path.resolve().name),
                "mode": self.facts["mode"], "domain": self.facts["domain"],
                "page_bytes": self.page, "section_bytes": section,
                "iommu": iommu(files, self.xen)}


def read_machine(directory: Path, overrides: dict[str, str] | None = None) -> Machine:
    """The machine described by the files in `directory`; see MACHINE_FILES for their names."""
    if not directory.is_dir():
        raise InputError(directory, "is not a folder",
                         hint="It should hold a copy of /proc/iomem, dmesg and the like")
    files = Folder(directory, dict(overrides or {}))
    if not files.text("iomem"):
        raise InputError(directory, "holds no copy of /proc/iomem",
                         hint="looked for " + ", ".join(MACHINE_FILES["iomem"]))
    top = iomem.parse(files.paths["iomem"], files.text("iomem"), files.notes)
    xen, dmesg = xen_log(files), logs.kernel_log(files.text("dmesg"))
    facts = facts_of(files, xen, dmesg)
    found = _Read(files, top, facts, xen, dmesg, page_bytes(files, facts["arch"], dmesg))
    try:
        machine = validated(_arm64(found) if facts["arch"] == "arm64" else _x86(found))
    except InputError:
        raise
    except ReplayError as error:
        raise InputError(directory, str(error)) from None
    facts |= {"page_bytes": found.page,
              "scratch": [list(s) for s in iomem.scratch_sections(machine)],
              "files": dict(files.origin)}
    return Machine(machine, facts)


def with_linear_map(machine: Machine, bits: int, memstart: int | None = None) -> Machine:
    """The machine of an arm64 kernel that was found to have so many bits of virtual address: what
    its linear map reaches follows from them, and from memstart_addr, where a probe has read it.

    Before Linux 6.16 KASLR moves that down, so that more than without can be mapped; below 0 it
    counts as 0 (arch_get_mappable_range()). Of a kernel of 52 bits it does not tell, which takes
    off more on a processor that has fewer (arm64_memblock_init()).
    """
    its = machine.physmap
    start, end = its.pluggable
    notes = [note for note in its.notes if not note.startswith("va_bits: ")]
    notes.append(f"va_bits: {bits}, by the addresses of struct pages")
    reach = start + (1 << (bits - 1))
    if memstart is not None and bits < arm64.LARGE_BITS:
        below = max(memstart, 0)
        if below < memstart + (1 << (bits - 1)):
            start, reach = below, memstart + (1 << (bits - 1))
            notes = [note for note in notes if not note.startswith("kaslr: ")]
            notes.append(f"linear map: from {start:#x} on, by memstart_addr ({memstart:#x}), which "
                         "the recording holds")
    ends = min(reach, max(end, 1 << arm64.ARM64_PHYS_BITS))
    return Machine(validated(its.with_changes(pluggable=(start, ends), notes=tuple(notes))),
                   machine.provenance | {"va_bits": bits})


def _x86(found: _Read) -> Physmap:
    files, facts, page = found.files, found.facts, found.page
    table = x86.e820_table(found.dmesg)
    use_e820 = _uses_e820(files, table, found.dmesg, facts["kernel"])
    top, known = pvh.split(files, found.top, facts, found.xen, found.dmesg, page)
    top = extra.split(files, top, facts, found.dmesg, page)
    host, notes = x86.host_view(top, found.xen, facts["domain"])
    bits, is_read = x86.phys_bits(top, files.text("cpuinfo"))
    bits = int(files.settle("phys_bits", (bits if is_read else None, "cpuinfo"), bits,
                            "the least that holds the resource tree"))
    if not 32 <= bits <= 64:
        raise ReplayError(f"phys_bits is {min(bits, 65)}{' or more' * (bits > 64)}, expected 32 to "
                          "64 (--set phys_bits=...)")
    children, scratch = iomem.first_level(top)
    if scratch:
        notes.append(_scratch_note(scratch))
    section = int(files.settle("section_bytes", (x86.SECTION_BYTES, "x86"), 0))
    direct = bool(files.settle("direct_mapped", (False, "x86"), False))
    common = found.common(section)
    memory = memory_of(files, top, page, facts, found.dmesg)
    return Physmap(
        **common, arch="x86", direct_mapped=direct, iomem_end=1 << bits, pluggable=x86.PLUGGABLE,
        iomem=children, clip=x86.clip_list(table, use_e820), regions=(), host=tuple(host),
        memory=memory, source=_source(files), notes=(*files.notes, *notes), unusable_known=known,
    )


def _uses_e820(files: Folder, table: x86.E820, dmesg: str, kernel: str) -> bool:
    """Whether the kernel cuts e820 entries from a candidate, with a note where that is not all."""
    said = x86.uses_e820(dmesg)
    if not table:
        files.notes.append("clip: no e820 lines in dmesg; only the BIOS ROM is cut from candidates")
    elif said is False:
        files.notes.append("clip: the kernel ignores e820 entries once PCI is set up (firmware of "
                           "2023 or later); searches before that are not modelled")
    elif said is None and has("says_whether_e820", kernel):
        files.notes.append("clip: yes is assumed of e820 entries once PCI is set up; dmesg does "
                           "not say whether the kernel uses them then")
    return said is not False


def _scratch_note(scratch: list[tuple[int, int]]) -> str:
    spans = ", ".join(f"{start:#x}-{end:#x}" for start, end in scratch)
    return f"the pool had sections before the recording began: {spans}"


def _arm64(found: _Read) -> Physmap:
    files, facts, top, page = found.files, found.facts, found.top, found.page
    claims, regions, table = _device_tree(files, found.xen)
    direct = _direct_mapped(found)
    host, notes = arm64.host_view(top, found.xen, claims, direct)
    fixed = version_of(facts["kernel"]) and has("fixed_linear_map", facts["kernel"])
    if not (fixed or arm64.without_kaslr(found.dmesg, facts["dom0_cmdline"])):
        notes.append("kaslr: no is assumed of the linear map; with it the range that can be mapped "
                     "may begin lower (before Linux 6.16)")
    section = _section(files, page, facts["kernel"])
    facts["va_bits"] = va_bits(files, found.dmesg, page)
    children, scratch = iomem.first_level(top)
    if scratch:
        notes.append(_scratch_note(scratch))
    common = found.common(section)
    memory = memory_of(files, top, page, facts, found.dmesg)
    return Physmap(
        **common, arch="arm64", direct_mapped=direct, iomem_end=arm64.IOMEM_END,
        pluggable=arm64.pluggable_range(
            _dram_start(top, host), page, section,
            facts["va_bits"], pa_bits(files)),
        iomem=children, clip=(), regions=tuple(regions), host=tuple(host), memory=memory,
        grant_table=table, source=_source(files), notes=(*files.notes, *notes),
    )


def _direct_mapped(found: _Read) -> bool:
    """Whether an Arm domain's frames are machine frames: by its features, else by Xen's log. A dom0
    is, unless it has LLC colours; another domain only with `direct-map` in Xen's device tree."""
    files = found.files
    mapped = feature(files, FEATURE_DIRECT_MAPPED)
    told = True if mapped else False if feature(files, FEATURE_NOT_DIRECT_MAPPED) else None
    log = arm64.direct_mapped(found.xen, found.facts["xen_cmdline"])
    return bool(files.settle("direct_mapped", (log, "xen_log") if told is None else
                             (told, "features"), found.facts["domain"] == DOM0))


def _section(files: Folder, page: int, kernel: str) -> int:
    """Bytes of a memory section, which depend on the kernel."""
    version = version_of(kernel)
    section = arm64.section_bytes(page, version or (0, 0))
    return int(files.settle("section_bytes", (section if version else None, "arm64"), section,
                            "as since Linux 5.12"))


def _dram_start(top: list[iomem.Entry], host: list[HostRange]) -> int:
    """Where dom0's RAM began at boot: System RAM outside its banks was hot-added since."""
    banks = [h for h in host if h.type == "ram_dom0"]
    ram = [e for e in top if e.name == "System RAM"]
    own = [e for e in ram if any(b.start < e.end and e.start < b.end for b in banks)]
    starts = [e.start for e in (own or ram or banks)]
    if starts:
        return min(starts)
    raise ReplayError("no System RAM in /proc/iomem and no dom0 bank in the Xen log")


Regions = list[tuple[int, int]]


Tree = tuple[list[fdt.Claim], Regions, tuple[int, int] | None]


def _device_tree(files: Folder, xen: str) -> Tree:
    """(address claims, extended regions, grant table): the device tree, else Xen's own log.

    bindings/arm/xen.txt: reg[0] of the node "xen,xen" is the grant table, reg[1..] unused regions.
    """
    claims: list[fdt.Claim] = []
    raw: bytes | None = None
    cells: tuple[int, int] | None = None
    if where := files.find("dtb"):
        root = fdt.parse(where)
        claims = list(fdt.claims(root))
        node = fdt.find_compatible(root, "xen,xen")
        raw = node.props.get("reg") if node else None
        cells = root.cells("#address-cells", 2), root.cells("#size-cells", 1)
    if raw is None and (where := files.find("hypervisor_reg")):
        raw = where.read_bytes() if where.suffix != ".xxd" else _xxd(where, read(where))
        if cells is None:
            likely = fdt.likely_cells(raw)
            cells = (likely or fdt.CELLS)[0]
            if len(likely) != 1:
                files.notes.append(f"cells: {cells[0]} + {cells[1]} is assumed of the root node; "
                                   f"{where.name} does not tell (its device tree would)")
    if raw is None or where is None or cells is None:
        regions, table = arm64.log_regions(xen)
        if regions or table:
            files.notes.append("regions: from Xen's log; no device tree")
        else:
            files.notes.append("regions: none is assumed, there is no device tree, and Xen's log "
                               "does not show how it built dom0")
        return claims, regions, table
    files.origin["regions"] = str(where.relative_to(files.path))
    try:
        spans = [(start, start + size) for start, size in fdt.pairs(raw, *cells)]
    except ValueError as error:
        raise InputError(where, f"hypervisor reg: {error} (address and size cells)") from None
    for number, (start, end) in enumerate(spans):
        if not start < end <= 1 << 62:
            raise InputError(where, f"hypervisor reg[{number}] is [{start:#x}, {end:#x})")
    return claims, spans[1:], spans[0] if spans else None


def _xxd(path: Path, text: str) -> bytes:
    """The bytes of a hex dump: offset, colon, groups of hex digits, two spaces, the text."""
    out = b""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        at, colon, rest = line.partition(": ")
        digits = rest.split("  ")[0].replace(" ", "")
        try:
            if not colon or int(at, 16) != len(out):
                raise ValueError
            out += bytes.fromhex(digits)
        except ValueError:
            raise InputError(path, f"expected 'offset: hex bytes', found {line[:40]!r}",
                             f"line {number}") from None
    return out


def _source(files: Folder) -> str:
    return f"read from {files.path.resolve().name}/: " + ", ".join(
        sorted(str(p.relative_to(files.path)) for p in files.paths.values()))
