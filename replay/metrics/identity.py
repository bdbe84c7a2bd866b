"""When Xen keeps a 1:1 entry for a granted page, and which of them meet a scratch page.

`map_grant_ref()` adds an entry gfn = mfn for each page that another domain grants, if the mapping
domain is direct-mapped and uses an IOMMU (gnttab_need_iommu_mapping, xen/common/grant_table.c,
Xen 4.13 to 4.21); dom0's grants to itself are left out (Xen e8185c5f01, 4.15). Foreign mappings
get no such entry.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from replay.base.hashes import splitmix64
from replay.base.units import XEN_PAGE_BYTES
from replay.physmap.model import Physmap
from replay.trace.columns import NONE, Ragged, ints, is_kind, ragged

OWN_DOMIDS = (0, 0x7FF0)
"""dom0 and DOMID_SELF (xen/include/public/xen.h)."""


@dataclass(frozen=True)
class Mappings:
    """Granted pages while mapped: page `at` of the grant_map row `row`, [from_ns, to_ns)."""

    row: np.ndarray
    at: np.ndarray
    from_ns: np.ndarray
    to_ns: np.ndarray


@dataclass(frozen=True)
class Identities:
    """The 1:1 entries of a trace: frame = mfn, whose, [from_ns, to_ns); `assumed` where the
    recording does not hold the machine frame."""

    frame: np.ndarray
    domid: np.ndarray
    from_ns: np.ndarray
    to_ns: np.ndarray
    assumed: np.ndarray


def needs_identity(machine: Physmap) -> bool:
    """gnttab_need_iommu_mapping(): is_domain_direct_mapped(d) && is_iommu_enabled(d)."""
    return machine.direct_mapped and machine.iommu


class _Live:
    """Grant mappings while walking the trace: a row, the pages of it still mapped."""

    def __init__(self) -> None:
        self.left: OrderedDict[int, int] = OrderedDict()
        self.by_first: dict[int, int] = {}
        self.by_domain: dict[int, OrderedDict[int, None]] = {}
        self.spans: list[tuple[int, int, int, int]] = []  # row, first page, pages, until

    def map(self, row: int, pages: int, first: int, domid: int) -> None:
        self.left[row] = pages
        self.by_domain.setdefault(domid, OrderedDict())[row] = None
        if first >= 0:
            self.by_first[first] = row

    def end(self, row: int, pages: int, until: int, domid: int) -> int:
        """Unmap up to `pages` of a row; how many there were."""
        left = self.left.get(row, 0)
        gone = min(left, pages)
        if gone:
            self.spans.append((row, left - gone, gone, until))
        if left > gone:
            self.left[row] = left - gone
        else:
            self.left.pop(row, None)
            self.by_domain.get(domid, OrderedDict()).pop(row, None)
        return gone


def mappings(table: pa.Table, end_ns: int) -> Mappings:
    """Pair grant_map with grant_unmap at page grain, by the first frame; the rest oldest first.

    Recordings hold the first frame of a batch, and batches are unmapped in other sizes than they
    were mapped in; what the first frame does not settle ends the oldest mapping (of the same
    domain, where the unmap names it). Mappings never unmapped live to the end. Of several sources
    only the first that has grant_map rows counts: they tell of the same events.
    """
    maps, unmaps = is_kind(table, "grant_map"), is_kind(table, "grant_unmap")
    if not maps.any():
        return Mappings(*(np.zeros(0, np.int64) for _ in range(4)))
    source, time = ints(table, "source", 0), ints(table, "time_ns")
    pages, domid = np.maximum(ints(table, "nr_pages", 1), 1), ints(table, "domid")
    frames = ragged(table, "frames")
    first = _firsts(frames)
    kept = np.flatnonzero((maps | unmaps) & (source == source[maps].min()))
    live = _Live()
    for r in kept.tolist():
        if maps[r]:
            live.map(r, int(pages[r]), int(first[r]), int(domid[r]))
        else:
            _unmap(live, r, int(pages[r]), int(first[r]), int(time[r]), domid)
    for row, left in list(live.left.items()):
        live.spans.append((row, 0, left, max(end_ns, int(time[row]))))
    of_row, start, count, until = np.array(live.spans, np.int64).reshape(-1, 4).T
    span = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(span)) - np.repeat(np.cumsum(count) - count, count)
    return Mappings(of_row[span], start[span] + within, time[of_row[span]], until[span])


def _unmap(live: _Live, r: int, pages: int, first: int, now: int, domid: np.ndarray) -> None:
    row = live.by_first.pop(first, -1)
    if row >= 0:
        pages -= live.end(row, pages, now, int(domid[row]))
    whose = int(domid[r])
    pool = live.left if whose == NONE else live.by_domain.get(whose, OrderedDict())
    while pages > 0 and pool:
        row = next(iter(pool))
        pages -= live.end(row, pages, now, int(domid[row]))


def _firsts(frames: Ragged) -> np.ndarray:
    first = np.full(len(frames.start), -1, np.int64)
    some = frames.length > 0
    first[some] = frames.values[frames.start[some]]
    return first


def assumed_frames(machine: Physmap, domid: np.ndarray, nth: np.ndarray) -> np.ndarray:
    """A machine frame for the nth page that a domain grants: hashed, even over others' RAM.

    An assumption where the recording has no machine frame; -1 where the host has no such RAM.
    """
    page = machine.page_bytes
    spans = [(-(-h.start // page), h.end // page) for h in machine.host if h.type == "ram_other"]
    spans = [(a, b) for a, b in spans if b > a]
    if not spans:
        return np.full(len(nth), -1, np.int64)
    sizes = np.array([b - a for a, b in spans], np.int64)
    ends = np.cumsum(sizes)
    word = (domid.astype(np.uint64) << np.uint64(40)) + nth.astype(np.uint64)
    picked = (splitmix64(word) % np.uint64(int(ends[-1]))).astype(np.int64)
    span = np.searchsorted(ends, picked, side="right")
    return np.array([a for a, _ in spans], np.int64)[span] + picked - (ends - sizes)[span]


def identities(machine: Physmap, table: pa.Table, end_ns: int) -> Identities:
    """The 1:1 entries that a trace's grants cause on this machine, if it makes any."""
    empty = np.zeros(0, np.int64)
    if not needs_identity(machine):
        return Identities(empty, empty, empty, empty, empty.astype(bool))
    found = mappings(table, end_ns)
    domid = np.maximum(ints(table, "domid", 0x7FF4), 0)[found.row]
    foreign = ~np.isin(domid, OWN_DOMIDS)
    row, at, domid = found.row[foreign], found.at[foreign], domid[foreign]
    mfns = ragged(table, "mfns")
    known = at < mfns.length[row]
    frame = np.full(len(row), -1, np.int64)
    found_at = mfns.values[mfns.start[row][known] + at[known]]
    frame[known] = found_at * XEN_PAGE_BYTES // machine.page_bytes
    assumed = frame < 0
    order = np.lexsort((at, row))
    nth = np.empty(len(row), np.int64)
    nth[order] = np.arange(len(row))
    frame[assumed] = assumed_frames(machine, domid[assumed], nth[assumed])
    ok = frame >= 0
    return Identities(frame[ok], domid[ok], found.from_ns[foreign][ok], found.to_ns[foreign][ok],
                      assumed[ok])


def overlaps(frame: np.ndarray, start: np.ndarray, end: np.ndarray,
             other: Identities) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join of scratch pages with 1:1 entries of the same frame that live at the same time.

    Returns, per entry of `other`, how many scratch pages it meets and the first of them in the
    third array, which orders the scratch pages by (frame, time). A frame is one caller's at a
    time, so those are neighbours in that order.
    """
    numbers = np.unique(np.concatenate((frame, other.frame)))
    times = np.unique(np.concatenate((start, end, other.from_ns, other.to_ns)))
    order = np.lexsort((start, frame))
    base = np.searchsorted(numbers, frame[order]) * len(times)
    begins = base + np.searchsorted(times, start[order])
    ends = base + np.searchsorted(times, end[order])
    theirs = np.searchsorted(numbers, other.frame) * len(times)
    low = np.searchsorted(ends, theirs + np.searchsorted(times, other.from_ns), side="right")
    high = np.searchsorted(begins, theirs + np.searchsorted(times, other.to_ns), side="left")
    return np.maximum(high - low, 0), low, order
