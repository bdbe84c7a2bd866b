"""Where a kernel's array of struct page begins, by version, page size and address bits."""

from __future__ import annotations

from typing import Final, NamedTuple

from replay.base.since import version_of
from replay.base.units import GIB, KIB, MIB

STRUCT_PAGE_BYTES: Final = 64
"""sizeof(struct page); STRUCT_PAGE_MAX_SHIFT of linux/mm_types.h is its order."""

X86_BASES: Final = {"4 levels of page tables": 0xFFFFEA0000000000,
                    "5 levels of page tables": 0xFFD4000000000000}
"""__VMEMMAP_BASE_L4 and _L5, arch/x86/include/asm/pgtable_64_types.h. kernel_randomize_memory()
moves them where the boot loader's decompressor ran with KASLR: not in a PV or PVH guest."""

ARM64_VA_BITS: Final = {4 * KIB: (48, 39, 52), 16 * KIB: (48, 47, 36, 52), 64 * KIB: (48, 42, 52)}
"""By page size what CONFIG_ARM64_VA_BITS can be (arch/arm64/Kconfig). One of 52 on a processor that
has but 48, or 47 with 16 KiB pages, comes to the same array as one of so few, see arm64_start()."""


class Layout(NamedTuple):
    """One picture of the kernel's half of the address space. since: the first version with it."""

    since: tuple[int, int]
    said: str


LOW_LINEAR_MAP: Final = Layout((0, 0), "Linux before 5.4")
BELOW_TWO_MIB: Final = Layout((5, 4), "Linux 5.4 to 5.10")
PROJECTION: Final = Layout((5, 11), "Linux 5.11 to 6.8")
BELOW_A_GIB: Final = Layout((6, 9), "Linux 6.9 or later")
LAYOUTS: Final = (LOW_LINEAR_MAP, BELOW_TWO_MIB, PROJECTION, BELOW_A_GIB)
"""14c127c957c1 "arm64: mm: Flip kernel VA space" (5.4), 8c96400d6a39 "arm64: mm: make vmemmap
region a projection of the linear region" (5.11), 031e011d8b22 "arm64: mm: Move PCI I/O emulation
region above the vmemmap region" (6.9)."""


def layout_of(kernel: str) -> Layout | None:
    """The layout of a release such as 6.12.95-amd64; None where it does not begin with a number."""
    version = version_of(kernel)
    return max(x for x in LAYOUTS if x.since <= version) if version else None


def arm64_start(layout: Layout, page_bytes: int, va_bits: int) -> int:
    """VMEMMAP_START of arch/arm64/include/asm/memory.h: the struct page of memstart_addr's frame.

    va_bits: those in use (vabits_actual). A kernel of 52 on a processor with fewer has its array
    begin lower and memstart_addr lower as well (arm64_memblock_init()), by as many pages: the frame
    of an address is the same as with VA_BITS = vabits_actual.
    """
    pages = page_bytes // STRUCT_PAGE_BYTES
    if layout == LOW_LINEAR_MAP:  # PAGE_OFFSET, which is the middle, minus VMEMMAP_SIZE
        start = -(1 << (va_bits - 1)) - (1 << (va_bits - 1)) // pages
    elif layout == PROJECTION:
        start = -((1 << va_bits) // pages)
    else:
        least = min(va_bits, 47 if page_bytes == 16 * KIB and va_bits == 52 else 48)  # VA_BITS_MIN
        size = ((1 << va_bits) - (1 << (least - 1))) // pages
        start = -size - (2 * MIB if layout == BELOW_TWO_MIB else GIB)
    return start % (1 << 64)


def arm64_base(start: int, memstart: int, page_bytes: int) -> int:
    """The address of frame 0's struct page: `vmemmap` of asm/pgtable.h."""
    return start - memstart // page_bytes * STRUCT_PAGE_BYTES
