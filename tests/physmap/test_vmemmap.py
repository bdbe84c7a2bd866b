"""Where the array of struct page begins, by the constants of the kernels' own headers."""

from __future__ import annotations

import pytest

from replay.base.units import GIB, KIB
from replay.physmap.vmemmap import LAYOUTS, Layout, arm64_base, arm64_start, layout_of

BEFORE_5_4, FROM_5_4, FROM_5_11, FROM_6_9 = LAYOUTS


@pytest.mark.parametrize(("layout", "kib", "va_bits", "start"), [
    # asm/memory.h of 5.1, 5.10, 6.1, 6.12 and 7.3, compiled
    (BEFORE_5_4, 4, 48, 0xFFFF7E0000000000), (BEFORE_5_4, 64, 42, 0xFFFFFDFF80000000),
    (FROM_5_4, 4, 48, 0xFFFFFDFFFFE00000), (FROM_5_4, 4, 39, 0xFFFFFFFEFFE00000),
    (FROM_5_4, 16, 47, 0xFFFFFFBFFFE00000), (FROM_5_4, 64, 48, 0xFFFFFFDFFFE00000),
    (FROM_5_4, 64, 52, 0xFFFFFC1FFFE00000),
    (FROM_5_11, 4, 48, 0xFFFFFC0000000000), (FROM_5_11, 4, 39, 0xFFFFFFFE00000000),
    (FROM_5_11, 16, 47, 0xFFFFFF8000000000), (FROM_5_11, 64, 42, 0xFFFFFFFF00000000),
    (FROM_5_11, 64, 52, 0xFFFFFC0000000000),
    (FROM_6_9, 4, 48, 0xFFFFFDFFC0000000), (FROM_6_9, 4, 39, 0xFFFFFFFEC0000000),
    (FROM_6_9, 4, 52, 0xFFFFC1FFC0000000), (FROM_6_9, 16, 47, 0xFFFFFFBFC0000000),
    (FROM_6_9, 16, 36, 0xFFFFFFFFB8000000), (FROM_6_9, 16, 52, 0xFFFFF03FC0000000),
    (FROM_6_9, 64, 48, 0xFFFFFFDFC0000000), (FROM_6_9, 64, 52, 0xFFFFFC1FC0000000),
])
def test_the_array_begins_where_the_kernels_header_has_it(
        layout: Layout, kib: int, va_bits: int, start: int) -> None:
    assert arm64_start(layout, kib * KIB, va_bits) == start


@pytest.mark.parametrize(("kib", "layout", "less"), [
    (4, FROM_6_9, 48), (16, FROM_6_9, 47), (64, FROM_6_9, 48), (64, FROM_5_4, 48),
    (64, FROM_5_11, 48)])
def test_a_kernel_of_52_bits_on_a_processor_without_has_the_frames_of_a_smaller_one(
        kib: int, layout: Layout, less: int) -> None:
    """arm64_memblock_init(): memstart_addr -= _PAGE_OFFSET(vabits_actual) - _PAGE_OFFSET(52)."""
    page, dram = kib * KIB, 3 * GIB
    memstart = dram - ((1 << 52) - (1 << less))
    assert arm64_base(arm64_start(layout, page, 52), memstart, page) == arm64_base(
        arm64_start(layout, page, less), dram, page)


def test_releases_and_their_layouts() -> None:
    assert [layout_of(k) for k in ("4.19.1", "5.3.18-lp", "5.4.0", "5.10.262-1", "5.11", "6.8.12",
                                   "6.9.0-rc1", "7.3.4+deb14-arm64", "", "next")] == [
        BEFORE_5_4, BEFORE_5_4, FROM_5_4, FROM_5_4, FROM_5_11, FROM_5_11, FROM_6_9, FROM_6_9,
        None, None]
