"""What Linux does since when: the dated facts that models and the recorder branch on.

A fact is named for what a kernel from that version on does. Stable kernels may have it earlier.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Change(NamedTuple):
    """version: the first with it. subject: of the commit, or of the series. without: versions that
    had it no longer, from the first of them to the first that has it again."""

    version: tuple[int, int]
    subject: str
    without: tuple[tuple[int, int], tuple[int, int]] | None = None


SINCE: Final = {
    "pool": Change((5, 9), "xen: add helpers to allocate unpopulated memory"),
    "extra_on_pool": Change(  # out by 262fc47ac174, back by a series of April 2024
        (5, 9), "xen: add helpers to allocate unpopulated memory", ((5, 18), (6, 9))),
    "balloon_names": Change((5, 16), "xen/balloon: rename alloc/free_xenballooned_pages"),
    "waits_for_target": Change(
        (5, 16), "xen/balloon: add late_initcall_sync() for initial ballooning done"),
    "bounded_search": Change((5, 17), "xen/unpopulated-alloc: Add mechanism to use Xen resource"),
    "extended_regions": Change(
        (5, 17), "arm/xen: Read extended regions from DT and init Xen resource"),
    "says_whether_e820": Change((5, 19), "x86/PCI: Disable E820 reserved region clipping "
                                "starting in 2023"),
    "unusable_seeding": Change((6, 9), "x86/xen: attempt to inflate the memory balloon on PVH"),
    "fixed_linear_map": Change((6, 16), "arm64/mm: Remove randomization of the linear map"),
    "target_without_unusable": Change(
        (6, 15), "x86/xen: fix balloon target initialization for PVH dom0"),
}


def version_of(kernel: str) -> tuple[int, int] | None:
    """'6.1.0-54-amd64' as (6, 1); None where it does not begin with a version."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", kernel)
    return (int(found[1]), int(found[2])) if found else None


def has(fact: str, kernel: str) -> bool:
    """Whether a kernel does it; one of unknown version is taken for the newest."""
    version, change = version_of(kernel), SINCE[fact]
    if version is None:
        return True
    gone, again = change.without or (change.version, change.version)
    return version >= change.version and not gone <= version < again
