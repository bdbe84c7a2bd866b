"""Pages, frames, bytes, nanoseconds: the few conversions everything else shares.

A *frame number* (pfn, gfn, mfn) counts pages from address 0. Addresses are bytes. Extents are
half-open `[start, end)` unless a name says `last`.
"""

from __future__ import annotations

from datetime import UTC, datetime

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
XEN_PAGE_BYTES = 4 * KIB
"""Of Xen's frame numbers, whatever a guest's pages are (XEN_PAGE_SIZE, include/xen/page.h)."""
BUDDY_PAGES = {4 * KIB: 1 << 10, 16 * KIB: 1 << 11, 64 * KIB: 1 << 13}
"""By page size the pages of the largest block of the buddy allocator, MAX_PAGE_ORDER (from
ARCH_FORCE_MAX_ORDER, arch/arm64/Kconfig; a kernel may be built with another)."""
SUPERPAGE_BYTES = 2 * MIB
"""The stage-2 superpage that x86 and arm64 share with a 4 KiB granule."""

MAX_PAGES = 1 << 36
"""Of a request, and of a machine: 256 TiB of 4 KiB pages."""

NS_PER_S = 1_000_000_000


def align_up(value: int, step: int) -> int:
    """The least multiple of `step` that is >= `value`."""
    return -(-value // step) * step


def align_down(value: int, step: int) -> int:
    """The greatest multiple of `step` that is <= `value`."""
    return value // step * step


def scale_ticks(ticks: int, hz: int) -> int:
    """Ticks of a counter of `hz` as nanoseconds, in integers, rounded down (exact to 1 ns)."""
    return ticks * NS_PER_S // hz


def human_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    value, sign = abs(float(count)), "-" if count < 0 else ""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            digits = f"{value:.0f}" if unit == "B" or value >= 100 else f"{value:.3g}"
            return f"{sign}{digits} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def human_ns(count: float) -> str:
    """1500 -> '1.5 us'."""
    value = float(count)
    for unit in ("ns", "us", "ms", "s"):
        if abs(value) < 1000 or unit == "s":
            return f"{value:.0f} {unit}" if unit == "ns" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def moment(text: str) -> datetime:
    """An ISO 8601 time as UTC, which it is taken for where it does not say; else ValueError."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
