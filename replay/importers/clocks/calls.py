"""What Linux and Xen both record: calls of the one, and what each makes Xen write.

gnttab_map_refs() and gnttab_unmap_refs() of n pages, and xenmem_reservation_decrease() of n
extents, are one hypercall each; Xen writes a record per page or extent within it
(xen/common/grant_table.c, xen/common/memory.c). A PV dom0 maps a page a second time where user
space is to see it, and unmaps it twice, so that n or 2 n records follow there. Records without a
time of their own (of extents and hypercalls, up to Xen 4.20) say nothing about clocks.

A call begins at its entry. It is over at its recorded return, or by the next event of its task,
or of its CPU: a CPU is in one call at a time unless the kernel preempts it within the hypercall,
which then shows as a contradiction. Calls that may overlap are one group.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from replay.trace.columns import NONE, ints, is_kind
from replay.trace.schema import Flag


PAIRS: Final = (("grant_map", "grant_map"), ("grant_unmap", "grant_unmap"),
                ("decrease", "decrease_extent"))
"""Kinds of rows: the call, and the records it makes."""
LINUX_COLUMNS: Final = ("time_ns", "kind", "nr_pages", "errno", "latency_ns", "pid", "cpu")
XEN_COLUMNS, XEN_KINDS = ("time_ns", "kind", "domid", "flags"), tuple(kind for _, kind in PAIRS)
"""Columns that evidence() reads, and the kinds of Xen's rows."""
FAR: Final = 1 << 60
"""Nanoseconds beyond every time of a recording."""


MANY: Final = 1 << 31
"""Pages that no call has."""


class Groups(NamedTuple):
    """Groups of calls, apart in time: first entry, last end, and pages of all.

    records: times of the Xen records of that kind, ascending. Both in ns of their own clock.
    """

    start: np.ndarray
    end: np.ndarray
    pages: np.ndarray
    records: np.ndarray

    def part(self, at: np.ndarray | slice) -> Groups:
        """Some of the groups, with all records."""
        return Groups(self.start[at], self.end[at], self.pages[at], self.records)


class Evidence(NamedTuple):
    """Groups of each kind that has some; per_page: how many records a page can make; calls: of all.
    """

    kinds: tuple[Groups, ...]
    per_page: tuple[int, ...]
    calls: int

    def between(self, start: int, end: int) -> Evidence:
        """The groups that begin from `start` to `end`."""
        return self._replace(kinds=tuple(
            k.part((k.start >= start) & (k.start <= end)) for k in self.kinds))

    def every(self, step: int) -> Evidence:
        """A share of the groups, evenly spread."""
        return self._replace(kinds=tuple(k.part(slice(None, None, step)) for k in self.kinds))

    @property
    def groups(self) -> int:
        """How many, of all kinds."""
        return sum(len(k.start) for k in self.kinds)


def evidence(linux: pa.Table, xen: pa.Table, xen_ns: np.ndarray, mode: str) -> Evidence:
    """Calls in ftrace's rows and records in Xen's.

    linux: rows whose time_ns is ascending. xen_ns: time of each row of `xen` on Xen's clock.
    mode: of dom0, "" where it is not known.
    """
    end = _ends(linux)
    time, pages = ints(linux, "time_ns"), ints(linux, "nr_pages", 0)
    done = ints(linux, "errno", 0)  # of a hypercall: how many extents it got through
    own = ints(xen, "domid", 0) == 0
    timed = ints(xen, "flags", 0) & Flag.TIME_INFERRED == 0
    kinds, calls = [], 0
    for call, record in PAIRS:
        chosen = is_kind(linux, call)
        count = pages
        if call == "decrease":
            count = np.where(done > 0, done, pages)
        chosen &= (count > 0) & (count < MANY) & (end > time)
        written = is_kind(xen, record) & timed
        if call == "decrease":  # the domid is that of the domain that gave; of a grant, its owner
            written &= own
        if not written.any() or not chosen.any():
            continue
        calls += int(np.count_nonzero(chosen))
        start, last, total = _grouped(time[chosen], end[chosen], count[chosen])
        kinds.append(Groups(start, last, total, np.sort(xen_ns[written])))
    return Evidence(tuple(kinds), (1,) if mode in ("pvh", "hvm", "arm") else (1, 2), calls)


def _ends(linux: pa.Table) -> np.ndarray:
    """By when each row's call was over; the recording's last time where nothing follows."""
    time, latency = ints(linux, "time_ns"), ints(linux, "latency_ns")
    pid, rows = ints(linux, "pid"), np.arange(len(time))
    known = latency != NONE
    returns = (time + latency)[known]
    moments = np.concatenate((time, returns))
    end = np.minimum(_next(moments, np.concatenate((pid, pid[known])), rows),
                     _next(time, ints(linux, "cpu"), rows))
    end[known] = np.minimum(end[known], returns)
    return np.minimum(end, moments.max(initial=0))


def _next(moments: np.ndarray, owner: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The first later moment of the same owner, for the rows; FAR without one or an owner."""
    order = np.lexsort((np.arange(len(moments)), moments, owner))
    later = np.full(len(moments), FAR)
    follows = (owner[order][1:] == owner[order][:-1]) & (owner[order][1:] != NONE)
    later[order[:-1][follows]] = moments[order[1:][follows]]
    return later[rows]


def _grouped(start: np.ndarray, end: np.ndarray, pages: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calls that overlap become one, by ascending start."""
    if not len(start):
        return start, end, pages
    until = np.maximum.accumulate(end)
    first = np.flatnonzero(np.concatenate(([True], start[1:] > until[:-1])))
    return start[first], np.maximum.reduceat(end, first), np.add.reduceat(pages, first)
