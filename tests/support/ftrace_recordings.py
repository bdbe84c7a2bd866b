"""The ftrace recordings, decoded, and what their makers counted."""

from __future__ import annotations

from functools import cache
from recordings import RECORDINGS
from replay.importers.dat.read import read_trace_dat
from replay.importers.joining.normalise import Normalised, normalise
from replay.importers.source.probes import Decoded, load_table

TSC_HZ = 2_596_140_000
ARM64_BASE = 0xFFFFFDFFBD000000
TOTALS = {
    "x86-pvh-guests": (4184, 37135, 17005), "x86-pvh-churn": (3131, 74602, 7470),
    "x86-pv-churn": (3128, 73576, 6444), "x86-pv-concurrent": (6887, 121490, 6678),
    "x86-pv-blkback": (18030, 18795, 612), "x86-pv-balloon-target": (6091, 263145, 2580),
    "x86-pv-ballooned-churn": (2640, 63405, 6444), "x86-pv-ballooned-ring": (2563, 104843, 3256),
    "arm64-regions": (10602, 1191096, 258887), "arm64-no-regions": (10581, 1105080, 172839),
}
"""Recording -> allocator calls, pages, peak of live pages, as their makers counted them."""


@cache
def decoded_dat(name: str) -> Decoded:
    """One recording's trace.dat."""
    return read_trace_dat(RECORDINGS / name / "trace.dat")


def imported(decoded: Decoded) -> Normalised:
    """Its rows."""
    arm = decoded.arch == "aarch64"
    return normalise(decoded, hz=TSC_HZ, vmemmap_base=ARM64_BASE if arm else None,
                     table=load_table(), source=0)
