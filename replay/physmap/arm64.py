"""What is true of arm64: sections, the linear map's bounds, identity mappings, host memory."""

from __future__ import annotations

import re

from replay.base.units import GIB, MIB, align_down
from replay.physmap.fdt import Claim
from replay.physmap.host import paint
from replay.physmap.iomem import Entry
from replay.physmap.model import HostRange

VA_BITS_DEFAULT = 48
ARM64_PHYS_BITS = 48
"""MAX_PHYSMEM_BITS is PHYS_MASK_SHIFT, the CONFIG_ARM64_PA_BITS of 48 or 52 (asm/sparsemem.h)."""

IOMEM_END = 1 << 62
"""arm64 leaves iomem_resource at its initial end, 2^64 - 1; addresses here stay below 2^62."""

GENERIC_COUNTER_HZ = 62_500_000
"""QEMU's default CNTFRQ; `xl dmesg` names the machine's own ("Generic Timer ... Freq")."""


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


def identity_mapped(direct_mapped: bool, iommu: bool) -> bool:
    """Whether Xen adds a 1:1 entry for each granted page: gnttab_need_iommu_mapping().

    xen/arch/arm/include/asm/grant_table.h: is_domain_direct_mapped(d) && is_iommu_enabled(d).
    Grants only; a foreign mapping makes no second entry.
    """
    return direct_mapped and iommu


_RAM = re.compile(r"RAM: ([0-9a-f]{8,16}) - ([0-9a-f]{8,16})")
_BANK = re.compile(r"BANK\[\d+\] 0x([0-9a-f]+)-0x([0-9a-f]+)")
_XEN = re.compile(r"MODULE\[\d+\]: ([0-9a-f]+) - ([0-9a-f]+) Xen\b")
_RESERVED = re.compile(r"RESVD\[\d+\]: ([0-9a-f]+) - ([0-9a-f]+)")
_REGION = re.compile(r"d0: extended region \d+: 0x([0-9a-f]+)->0x([0-9a-f]+)")
_GRANT = re.compile(r"Grant table range: 0x([0-9a-f]+)-0x([0-9a-f]+)")


def _found(pattern: re.Pattern[str], text: str, last_inclusive: bool) -> list[tuple[int, int]]:
    return [(int(a, 16), int(b, 16) + last_inclusive) for a, b in pattern.findall(text)]


def dom0_banks(xen_log: str) -> list[tuple[int, int]]:
    """dom0's RAM banks from `xl dmesg`, [start, end)."""
    log = xen_log.split("Allocating 1:1 mappings", 1)
    return _found(_BANK, log[1], False) if len(log) == 2 else []


def log_regions(xen_log: str) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
    """(extended regions, grant table) as Xen printed them for dom0."""
    table = _found(_GRANT, xen_log, False)
    return _found(_REGION, xen_log, False), table[0] if table else None


def host_view(top: list[Entry], xen_log: str, claims: list[Claim],
              ) -> tuple[list[HostRange], list[str]]:
    """(host memory map, notes), from what Xen printed, the device tree, and Linux's tree."""
    notes: list[str] = []
    windows = [HostRange(e.start, e.end, "mmio", e.name) for e in top
               if e.name not in ("System RAM", "Xen scratch", "reserved")]
    windows += [HostRange(c.start, c.end, "mmio", c.name) for c in claims if c.kind == "device"]
    ram = [HostRange(start, end, "ram_other") for start, end in _found(_RAM, xen_log, True)]
    if not ram:
        notes.append("host: no RAM lines of the hypervisor (xl dmesg); RAM of others is unknown")
    kept = _found(_RESERVED, xen_log, False)
    kept += [(c.start, c.end) for c in claims if c.kind == "reserved"]
    ram += [HostRange(start, end, "reserved", "reserved-memory") for start, end in kept]
    banks = dom0_banks(xen_log) or [(c.start, c.end) for c in claims if c.kind == "memory"]
    banks = banks or [(e.start, e.end) for e in top if e.name == "System RAM"]
    ram += [HostRange(start, end, "ram_dom0") for start, end in banks]
    ram += [HostRange(start, end, "ram_xen", "Xen") for start, end in _found(_XEN, xen_log, False)]
    return paint(windows + ram), notes
