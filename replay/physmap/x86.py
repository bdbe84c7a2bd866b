"""What is true of x86-64: sections, bounds of a search, ranges cut from it, the host's memory.

Each constant names the kernel header or source it is from (Linux 6.1 and 6.12 are the same here
unless a line says otherwise).
"""

from __future__ import annotations

import re

from replay.base.errors import InputError
from replay.base.units import MIB
from replay.physmap.host import paint
from replay.physmap.iomem import LINUX_RAM, Entry
from replay.physmap.model import DOM0, HostRange

SECTION_BYTES = 128 * MIB
"""arch/x86/include/asm/sparsemem.h: SECTION_SIZE_BITS 27 on 64-bit."""

PLUGGABLE = (0, 1 << 46)
"""mhp_get_pluggable_range(true): [0, 2^MAX_PHYSMEM_BITS), 46 bits with four-level page tables, 52
with five (asm/sparsemem.h). Since 6.11 a KASLR kernel may stop at the end of its direct map
(ea72ce5da228); the recorded kernels ran without KASLR."""

BIOS_ROM = (0xFFE00000, 0x100000000)
"""arch/x86/include/asm/e820/types.h: BIOS_ROM_BASE, BIOS_ROM_END (inclusive there)."""

X86_PHYS_BITS = 39
"""iomem_resource ends at 2^boot_cpu_data.x86_phys_bits (arch/x86/kernel/setup.c); /proc/cpuinfo
names the number ("address sizes"). Client CPUs have 39; more is assumed where the tree holds more.
"""

_E820_BASE = re.compile(r"(BIOS-\w+|Xen|user|modified|extended|reserve setup_data): "
                        r"\[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] +"
                        r"(?:\d+(?:\.\d)? +[KMGT]B +)?(\S.*)")
_E820_CHANGE = re.compile(r"e820: (update|remove) \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] *"
                          r"(?:(\S.*?) ==> )?(.*)")
"""arch/x86/kernel/e820.c: e820__print_table(), __e820__range_update(), e820__range_remove()."""
_E820_NAMES = {"System RAM": "usable", "kernel usable RAM": "usable",
               "device reserved": "reserved", "soft reserved": "soft reserved"}
"""What e820_print_type() calls some types since 2025, and what it did before; development kernels
of that year printed a size before it, too."""
_XEN_MAP_BEGINS = re.compile(r"(?:e820|e801|EFI) RAM map:")
_XEN_MAP_ENDS = re.compile(r"System RAM: \d+MB|memory map:")
_XEN_MAP = re.compile(r"\[([0-9a-f]{8,16}), ([0-9a-f]{8,16})\] \(?((?:type )?\w[\w ]*)\)?")
_XEN_MAP_OLD = re.compile(r"(?:^|\)) *([0-9a-f]{8,16}) - ([0-9a-f]{8,16}) "
                          r"\(?((?:type )?\w[\w ]*)\)?")
"""xen/arch/x86/e820.c: print_e820_memory_map(). A type without a name has no brackets."""

NOT_MMIO = (*LINUX_RAM, "RAM buffer", "Xen scratch", "ACPI Tables",
            "ACPI Non-volatile Storage", "Reserved", "Soft Reserved", "Persistent Memory",
            "Persistent Memory (legacy)", "Unknown E820 type")
"""e820_type_to_string(), arch/x86/kernel/e820.c, and what else is no device's."""

E820 = list[tuple[int, int, str]]


def e820_table(dmesg: str) -> E820:
    """The kernel's e820_table, (start, end, type), sorted as e820__update_table() leaves it.

    From the lines that print it, with the later updates and removals applied. A "user-defined" or
    "modified" map replaces the firmware's.
    """
    table: E820 = []
    kind = ""
    for line in dmesg.splitlines():
        match = _E820_BASE.search(line)
        if match:
            if match[1] != kind:
                kind, table = match[1], []
            table.append((int(match[2], 16), int(match[3], 16) + 1, _type(match[4])))
            continue
        match = _E820_CHANGE.search(line)
        if match and table:
            span = int(match[2], 16), int(match[3], 16) + 1
            old = _type(match[4] or match[5])
            new = _type(match[5]) if match[1] == "update" else None
            table = _change(table, span, old, new)
    return _merged(table)


def _type(printed: str) -> str:
    """A type as it was called before 2025."""
    return _E820_NAMES.get(printed.strip(), printed.strip())


def _change(table: E820, span: tuple[int, int], old: str, new: str | None) -> E820:
    """e820__range_update(), e820__range_remove(): `span` of type `old` becomes `new` or none."""
    out: E820 = []
    for start, end, kind in table:
        low, high = max(start, span[0]), min(end, span[1])
        if low >= high or (old and kind != old):
            out.append((start, end, kind))
            continue
        parts = [(start, low, kind), (low, high, new), (high, end, kind)]
        out += [(a, b, k) for a, b, k in parts if a < b and k is not None]
    return out


def _merged(table: E820) -> E820:
    out: E820 = []
    for start, end, kind in sorted(table):
        if out and out[-1][2] == kind and out[-1][1] == start:
            out[-1] = (out[-1][0], end, kind)
        else:
            out.append((start, end, kind))
    return out


def clip_list(table: E820, use_e820: bool = True) -> tuple[tuple[int, int], ...]:
    """What arch_remove_reservations() cuts from a candidate gap, in its order.

    arch/x86/kernel/resource.c: the BIOS ROM, then every entry of e820_table, whatever its type,
    keeping the larger part each time. Taken out and restored within 2022 (4c5e242d3e93,
    a2b36ffbf5b6). `use_e820` is pci_use_e820, true until pci_acpi_crs_quirks() clears it on
    firmware of 2023 and later.
    """
    return (BIOS_ROM, *((start, end) for start, end, _ in table if use_e820 and start < end))


def uses_e820(dmesg: str) -> bool | None:
    """What the kernel says of e820 entries once PCI is set up; None if nothing.

    pci_acpi_crs_quirks(), arch/x86/pci/acpi.c, since 5.19: "PCI: Using E820 reservations for host
    bridge windows", or Ignoring.
    """
    found = re.search(r"PCI: (Using|Ignoring) E820 reservations for host bridge windows", dmesg)
    return found[1] == "Using" if found else None


def xen_ram_map(xen_log: str) -> E820:
    """The machine's own memory map from Xen's log ("Xen-e820 RAM map:"); empty if not in it."""
    return _xen_map(xen_log, _XEN_MAP_BEGINS)


def dom0_map(xen_log: str) -> E820:
    """The memory map that Xen made for a PVH dom0, which `dom0=verbose` has it print."""
    return _xen_map(xen_log, re.compile(r"Dom0 memory map:"))


def _xen_map(xen_log: str, begins: re.Pattern[str]) -> E820:
    """The entries of the last map of a kind; lines of something else may stand among them."""
    out: E820 = []
    inside = False
    for line in xen_log.splitlines():
        if begins.search(line):
            inside, out = True, []
        elif _XEN_MAP_ENDS.search(line) or _XEN_MAP_BEGINS.search(line):
            inside = False
        elif inside and (match := _XEN_MAP.search(line)):
            out.append((int(match[1], 16), int(match[2], 16) + 1, match[3]))
        elif inside and (match := _XEN_MAP_OLD.search(line)):  # older Xen: the end is exclusive
            out.append((int(match[1], 16), int(match[2], 16), match[3]))
    return out


def host_view(top: list[Entry], xen_log: str, domain: str = DOM0
              ) -> tuple[list[HostRange], list[str]]:
    """(host memory map, notes). MMIO is what Linux's tree calls neither RAM nor reserved. domain:
    see Physmap."""
    notes: list[str] = []
    windows = [HostRange(e.start, e.end, "mmio", e.name) for e in top if e.name not in NOT_MMIO]
    windows += [HostRange(child.start, child.end, "mmio", child.name)
                for e in top if e.name == "Reserved" for child in e.children
                if child.name.startswith("PCI Bus")]
    ranges: list[HostRange] = []
    table = xen_ram_map(xen_log)
    if table:
        reserved = [HostRange(s, e, "reserved", k) for s, e, k in table if k != "usable"]
        ranges = reserved + windows + [HostRange(s, e, "ram_other") for s, e, k in table
                                       if k == "usable"]
    else:
        notes.append("host: no RAM map of the hypervisor (xl dmesg); Linux's own tree stands in")
        ranges = windows + [HostRange(e.start, e.end, "ram_other") for e in top
                            if e.name in LINUX_RAM]
    notes.append(f"host: which machine frames are {domain}'s is not recorded; RAM is ram_other "
                 f"throughout (x86 {domain} is not direct-mapped)")
    return paint(ranges), notes


def phys_bits(top: list[Entry], cpuinfo: str) -> tuple[int, bool]:
    """(x86_phys_bits, whether it was read and not assumed)."""
    match = re.search(r"^address sizes\s*: (\d+) bits physical", cpuinfo, re.MULTILINE)
    if match:
        return int(match[1]), True
    highest = max(entry.end for entry in top)
    if highest > 1 << 52:
        raise InputError("iomem", f"a resource ends at {highest:#x}, beyond 52 bits")
    return max(X86_PHYS_BITS, (highest - 1).bit_length()), False
