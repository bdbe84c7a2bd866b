"""What is true of arm64: sections, the linear map's bounds, identity mappings, host memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from replay.base.units import GIB, MIB, align_down
from replay.physmap.fdt import Claim
from replay.physmap.host import paint
from replay.physmap.iomem import Entry
from replay.physmap.model import HostRange

VA_BITS_DEFAULT = 48
LARGE_BITS = 52
"""CONFIG_ARM64_{VA,PA}_BITS of a kernel that takes fewer where the processor has them not."""
ARM64_PHYS_BITS = 48
"""MAX_PHYSMEM_BITS is PHYS_MASK_SHIFT, the CONFIG_ARM64_PA_BITS of 48 or 52 (asm/sparsemem.h)."""

IOMEM_END = 1 << 62
"""arm64 leaves iomem_resource at its initial end, 2^64 - 1; addresses here stay below 2^62."""


def section_bytes(page_bytes: int, kernel: tuple[int, int]) -> int:
    """Memory section: 128 MiB with 4 and 16 KiB pages, 512 MiB with 64 KiB; 1 GiB before 5.12.

    arch/arm64/include/asm/sparsemem.h, commit f0b13ee23241 (v5.12). An unknown kernel, (0, 0), is
    taken for a current one.
    """
    if (0, 0) < kernel < (5, 12):
        return GIB
    return 512 * MIB if page_bytes == 65536 else 128 * MIB


def memstart_align(page_bytes: int, section: int) -> int:
    """ARM64_MEMSTART_ALIGN of asm/kernel-pgtable.h, at least a section.

    1 GiB with 4 KiB pages (PUD_SHIFT) and 16 KiB (CONT_PMD_SHIFT), 512 MiB with 64 KiB (PMD_SHIFT).
    """
    return max(512 * MIB if page_bytes == 65536 else GIB, section)


def pluggable_range(dram_start: int, page_bytes: int, section: int,
                    va_bits: int = VA_BITS_DEFAULT, pa_bits: int = ARM64_PHYS_BITS,
                    ) -> tuple[int, int]:
    """mhp_get_pluggable_range(true), [start, end) in bytes, without KASLR.

    arch_get_mappable_range() (arch/arm64/mm/mmu.c) gives the physical range of the linear map: it
    starts at memstart_addr, the start of DRAM rounded down (arm64_memblock_init(),
    arch/arm64/mm/init.c), and has 2^(va_bits - 1) bytes; PHYS_MASK caps it. So memory below the
    first DRAM bank can never be used, however it is advertised. KASLR moves memstart_addr down.
    """
    start = align_down(dram_start, memstart_align(page_bytes, section))
    return start, min(start + (1 << (va_bits - 1)), 1 << pa_bits)


def without_kaslr(dmesg: str, cmdline: str) -> bool:
    """Whether the kernel says, or was told, to leave its linear map where it is: kaslr_init(),
    arch/arm64/kernel/kaslr.c."""
    return "nokaslr" in cmdline.split() or "KASLR disabled" in dmesg


def identity_mapped(direct_mapped: bool, iommu: bool) -> bool:
    """Whether Xen adds a 1:1 entry for each granted page: gnttab_need_iommu_mapping().

    xen/arch/arm/include/asm/grant_table.h: is_domain_direct_mapped(d) && is_iommu_enabled(d).
    Grants only; a foreign mapping makes no second entry.
    """
    return direct_mapped and iommu


_EXTENT = r"0x([0-9a-f]+)-0x([0-9a-f]+)"
_RAM = re.compile(r"\bRAM: ([0-9a-f]{8,16}) - ([0-9a-f]{8,16})")
_XEN = re.compile(r"MODULE\[\d+\]: ([0-9a-f]+) - ([0-9a-f]+) Xen\b")
_RESERVED = re.compile(r"RESVD_?\[\d+\]: ([0-9a-f]+) - ([0-9a-f]+)")
_ALLOCATING = re.compile(r"Allocating (1:1 )?mappings (?:totalling \d+MB )?for (\w+)")
"""allocate_memory_11() of the hardware domain alone: "dom0", "d0" or whatever its number is;
allocate_memory() of others, and since 4.20 of one with LLC colours."""
_BEGINS = re.compile(r"\*\*\* LOADING (DOMAIN 0|DOMU)|Loading (d\d+) kernel")
_BANK = re.compile(r"(?:\b(d\d+):? )?(STATIC )?BANK\[(\d+)\] " + _EXTENT)
_REGION = re.compile(r"(?:\b(d\d+): )?[Ee]xtended region (\d+): 0x([0-9a-f]+)->0x([0-9a-f]+)")
_GRANT = re.compile(r"Grant table range: " + _EXTENT)
Extents = list[tuple[int, int]]


@dataclass
class Built:
    """What Xen printed of one domain that it built at boot, [start, end).

    one_to_one: whether its banks are machine addresses, None if Xen did not say. static: machine
    memory that was set aside for it. banks and regions are addresses as the domain sees them.
    """

    one_to_one: bool | None = None
    banks: Extents = field(default_factory=list)
    static: Extents = field(default_factory=list)
    regions: Extents = field(default_factory=list)
    grant_table: tuple[int, int] | None = None


@dataclass(frozen=True)
class Domains:
    """The domains that Xen built at boot, by name; dom0 is that of the hardware domain."""

    built: dict[str, Built]
    dom0: str

    @property
    def own(self) -> Built:
        """dom0, or the hardware domain in its place."""
        return self.built.get(self.dom0, Built())

    def of_others(self) -> list[tuple[str, Extents]]:
        """Machine memory that was set aside for the other domains."""
        return [(name, one.static + (one.banks if one.one_to_one else []))
                for name, one in self.built.items() if name != self.dom0]


def domains(xen_log: str) -> Domains:
    """Each domain's lines of Xen's log, of the last boot in it.

    A line names its domain ("d1: STATIC BANK[0]", "d1 BANK[0]"), or belongs to the one that is
    being built: xen/arch/arm/domain_build.c, dom0less-build.c, and xen/common/device-tree/
    {domain-build,dom0less-build,static-memory}.c, Xen 4.14 to 4.22. Of dom0 alone are the grant
    table's range, 1:1 banks, and regions without a name (4.16).
    """
    built: dict[str, Built] = {}
    dom0, at = "", "d0"
    for line in xen_log.splitlines():
        if match := _BEGINS.search(line):
            at = "d0" if match[1] == "DOMAIN 0" else match[2] or ""
        elif match := _ALLOCATING.search(line):
            at = match[2].replace("dom", "d")
            dom0 = dom0 or (at if match[1] else "")
            built[at] = Built(one_to_one=bool(match[1]))
        elif match := _BANK.search(line):
            one = built.setdefault(match[1] or at, Built())
            _put(one.static if match[2] else one.banks, match[3], match[4], match[5])
        elif match := _GRANT.search(line):
            dom0 = at or dom0
            built.setdefault(dom0, Built()).grant_table = int(match[1], 16), _end(match[2])
        elif match := _REGION.search(line):
            _put(built.setdefault(match[1] or dom0 or at, Built()).regions, *match.groups()[1:])
    return Domains(built, dom0 or "d0")


def _put(extents: Extents, number: str, start: str, end: str) -> None:
    """Add the extent of a numbered line; the first one begins the list anew."""
    if number == "0":
        extents.clear()
    extents.append((int(start, 16), _end(end)))


def _end(printed: str) -> int:
    """An odd end is the last byte, an even one is behind it: Xen 4.20 began to print the last byte
    of modules and reserved ranges, 4.17 prints both kinds."""
    end = int(printed, 16)
    return end + (end & 1)


def _found(pattern: re.Pattern[str], text: str) -> Extents:
    """Extents of a log."""
    found = [(int(a, 16), _end(b)) for a, b in pattern.findall(text)]
    return [(start, end) for start, end in found if start < end]


def log_regions(xen_log: str) -> tuple[Extents, tuple[int, int] | None]:
    """(extended regions, grant table) as Xen printed them for dom0."""
    own = domains(xen_log).own
    return own.regions, own.grant_table


def direct_mapped(xen_log: str, xen_cmdline: str) -> bool | None:
    """Whether dom0's frames are machine frames: yes unless it has LLC colours (Xen 4.20); None if
    nothing says so."""
    if (said := domains(xen_log).own.one_to_one) is not None:
        return said
    coloured = re.search(r"\bllc-coloring(?:=(\w+))?", xen_cmdline)
    if coloured and coloured[1] not in ("off", "no", "false", "0", "disable"):
        return False
    return None


def host_view(top: list[Entry], xen_log: str, claims: list[Claim], direct: bool,
              ) -> tuple[list[HostRange], list[str]]:
    """(host memory map, notes), from what Xen printed, the device tree, and Linux's tree.

    direct: whether dom0's frames are machine frames.
    """
    notes: list[str] = []
    windows = [HostRange(e.start, e.end, "mmio", e.name) for e in top
               if e.name not in ("System RAM", "Xen scratch", "reserved")]
    windows += [HostRange(c.start, c.end, "mmio", c.name) for c in claims if c.kind == "device"]
    ram = [HostRange(start, end, "ram_other") for start, end in _found(_RAM, xen_log)]
    if not ram:
        notes.append("host: no RAM lines of the hypervisor (xl dmesg); RAM of others is unknown")
    kept = _found(_RESERVED, xen_log)
    kept += [(c.start, c.end) for c in claims if c.kind == "reserved"]
    ram += [HostRange(start, end, "reserved", "reserved-memory") for start, end in kept]
    built = domains(xen_log)
    ram += [HostRange(start, end, "ram_other", name)
            for name, extents in built.of_others() for start, end in extents]
    if direct:
        banks = built.own.banks or built.own.static
        banks = banks or [(c.start, c.end) for c in claims if c.kind == "memory"]
        banks = banks or [(e.start, e.end) for e in top if e.name == "System RAM"]
        ram += [HostRange(start, end, "ram_dom0") for start, end in banks]
    else:
        notes.append("host: which machine frames are dom0's is not recorded; RAM is ram_other "
                     "throughout (dom0 is not direct-mapped)")
    ram += [HostRange(start, end, "ram_xen", "Xen") for start, end in _found(_XEN, xen_log)]
    return paint(windows + ram), notes
