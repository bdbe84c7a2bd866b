"""Hazards: what a strategy does to the machine without being able to know it.

An allocator sees Linux's resource tree only. Held against the host's memory map, a frame it hands
out can lie in a device's window, on RAM that belongs to another domain, or, on a direct-mapped Arm
dom0 behind an IOMMU, on the 1:1 entry of a granted page. What follows on a real machine is from
xen/arch/arm/p2m.c, xen/arch/x86/mm/p2m.c (p2m_add_page) and xen/common/memory.c of Xen 4.13-4.21.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from replay.engine.drive import Ended, Outcome
from replay.engine.faults import FAULT_KINDS
from replay.engine.state import E_WAIT, SECTION_HOTPLUG, SECTION_STALE
from replay.metrics.calls import NO_CALLER, lifetimes
from replay.metrics.folded import Folded
from replay.metrics.identity import identities, needs_identity, overlaps
from replay.metrics.part import whole
from replay.metrics.ranges import Ranges, foreign_ram, windows
from replay.metrics.refused import MAX_LISTED, NO_REGION, Listed
from replay.physmap.model import Physmap
from replay.trace.store import Trace

Severity = Literal["corrupts", "refuses", "stalls"]
"""What a hazard does, the gravest first: a page is, or may come to be, another's; a request gets
nothing; something waits or turns without end."""


@dataclass(frozen=True)
class Case:
    """One replay, as hazards are looked for in it.

    outcome, trace: all of its requests, and the events beside them, None where they are not at
    hand; hazards that cannot do without say so, see Hazard.whole.
    """

    ended: Ended
    folded: Folded
    outcome: Outcome | None = None
    trace: Trace | None = None

    def names(self, caller: np.ndarray) -> list[str]:
        """Callers by their numbers."""
        return [self.folded.tally.callers[k] for k in caller.tolist()]


HazardColumns = dict[str, list[Any]]
Found = tuple[int, HazardColumns]
"""How many, and a row for each that is listed; see examine()."""


@dataclass(frozen=True)
class Hazard:
    """A kind of hazard. means: what its count is of; a frame number counts once, however often it
    is handed out. brief: the same behind a number, in a sentence. find: the count and the rows of a
    replay. possible: whether it can be met at all, by the header of a summary. within: ranges in
    which the frames handed out are to be found, see Folded.within. whole: whether a trace on a
    machine must be replayed whole to look for it.
    """

    name: str
    severity: Severity
    means: str
    brief: str
    find: Callable[[Case], Found]
    possible: Callable[[Mapping[str, Any]], bool] = lambda run: True
    within: Callable[[Physmap], Ranges] | None = None
    whole: Callable[[Physmap, Collection[str]], bool] = lambda machine, kinds: False

    @property
    def label(self) -> str:
        """For a reader."""
        return self.name.replace("_", " ")


HAZARDS: dict[str, Hazard] = {}
"""Every hazard by name: a function with `@hazard` is all that one takes."""


def hazard(severity: Severity, means: str, brief: str, **more: Any
           ) -> Callable[[Callable[[Case], Found]], Callable[[Case], Found]]:
    """Register a function as the hazard of its name; more: the other fields of Hazard."""
    def register(find: Callable[[Case], Found]) -> Callable[[Case], Found]:
        name = find.__name__
        assert name not in HAZARDS, f"two hazards are called {name}"
        HAZARDS[name] = Hazard(name, severity, means, brief, find, **more)
        return find
    return register


def by_severity() -> list[Hazard]:
    """Every hazard in the order of reports: the gravest first, else as registered."""
    return sorted(HAZARDS.values(), key=lambda one: get_args(Severity).index(one.severity))


HAZARD_COLUMNS = ("kind", "time_ns", "frame", "count", "user", "other", "what", "assumed")
"""Columns of the rows."""
MAX_PAIRS = 100_000
"""Colliding pairs listed in the frame; the count is exact."""

SCRATCH_FIRST = ("the grant's 1:1 entry silently replaced the scratch mapping: the caller reads "
                 "and writes the wrong page")
ENTRY_FIRST = ("the scratch mapping silently replaced the 1:1 entry: device DMA of the grant hits "
               "the wrong page")


def found_rows(**columns: Any) -> HazardColumns:
    """Rows of these columns; one value stands for all rows. Whose they are examine() fills in."""
    size = max((len(v) for v in columns.values() if not isinstance(v, str | bool)), default=0)
    return {name: [v] * size if isinstance(v, str | bool) or v is None else
            v.tolist() if isinstance(v, np.ndarray) else list(v)
            for name in HAZARD_COLUMNS for v in (columns.get(name),)}


def _at_window(machine: Physmap) -> str:
    if machine.arch == "arm64":
        return "a device mapped there later silently replaces the scratch page, or the reverse"
    if machine.mode == "pv":
        return "the frame's p2m entry shadows the device address in the pseudo-physical map"
    return ("a device mapped there first: domain_crash() (p2m_add_page over direct MMIO); one that "
            "appears later is shadowed by the scratch page")


def _at_ram(machine: Physmap) -> str:
    if needs_identity(machine):
        return "a grant of exactly this machine frame silently replaces the scratch page"
    return "harmless as long as no IOMMU is used: no grant gets a 1:1 entry"


def _handed_out(case: Case, name: str, what: str) -> Found:
    """Distinct frames inside the ranges of a hazard, and a row for each of the first MAX_LISTED of
    them.

    A row holds the first time and user, and how often the frame was handed out.
    """
    if name not in case.folded.within:  # its frames are not frames of this machine
        return 0, found_rows()
    within = case.folded.within[name]
    found = within.entries()
    early = found[_earliest(found["begin_ns"], MAX_LISTED)]
    frame = np.ascontiguousarray(early["value"])
    return len(found), found_rows(
        time_ns=early["begin_ns"], frame=frame, count=early["count"],
        user=case.names(early["caller"]),
        other=[within.ranges.name(k) for k in within.ranges.find(frame).tolist()],
        what=what, assumed=False)


def _earliest(times: np.ndarray, most: int) -> np.ndarray:
    """Places of so many of the least, of equal ones the first, in their order."""
    if len(times) > most:
        near = np.flatnonzero(times <= np.partition(times, most - 1)[most - 1])
        return np.sort(near[np.argsort(times[near], kind="stable")[:most]])
    return np.arange(len(times))


def _sections_over(o: Ended, types: tuple[str, ...], what: str) -> Found:
    """Hot-added sections that overlap host ranges of these types: one row each, pages counted."""
    page = o.machine.page_bytes
    rows = []
    for time, start, nr, sort in o.sections.tolist():
        if sort != SECTION_HOTPLUG:
            continue
        over = [(max(0, min(start + nr, h.end // page) - max(start, h.start // page)), h)
                for h in o.machine.host if h.type in types]
        pages = sum(n for n, _ in over)
        if pages:
            names = sorted({h.name or h.type for n, h in over if n})
            rows.append((time, start, pages, ", ".join(names[:4])))
    time_ns, frame, count, other = zip(*rows, strict=True) if rows else ((), (), (), ())
    return sum(count), found_rows(time_ns=time_ns, frame=frame, count=count, user="balloon driver",
                                  other=other, what=what, assumed=False)


def _refused(case: Case, refused: Listed, what: str) -> Found:
    """These requests, a row for each that is listed, their pages counted; what failed of itself, by
    option, is named."""
    names = ["", *FAULT_KINDS]
    return refused.count, found_rows(time_ns=refused.time_ns, count=refused.pages,
                                     user=case.names(refused.caller),
                                     other=[names[k] for k in refused.reason.tolist()],
                                     what=what, assumed=False)


# -- the hazards ---------------------------------------------------------------------------------
@hazard("corrupts", "a scratch page and the 1:1 entry of a granted page had one frame number at "
        "the same time: one silently replaced the other",
        "frames were a scratch page and the 1:1 entry of a grant at one time",
        possible=lambda run: bool(run["direct_mapped"] and run["iommu"]),
        whole=lambda machine, kinds: needs_identity(machine) and "grant_map" in kinds)
def identity_collision(case: Case) -> Found:
    """Pairs of a scratch page and a 1:1 entry that share a frame at one time.

    Scratch pages live in modelled time, grants at their recorded times.
    """
    o = case.outcome
    if o is None or case.trace is None or not needs_identity(o.machine):
        return 0, found_rows()
    theirs = identities(o.machine, case.trace.table, o.duration_ns)
    frame, begin, end, request = lifetimes(o, np.isin(o.frames, theirs.frame))
    count, low, order = overlaps(frame, begin, end, theirs)
    total = int(count.sum())
    met = np.repeat(np.arange(len(count)), count)
    within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    ours = order[low[met] + within]
    since = np.maximum(begin[ours], theirs.from_ns[met])
    picked = np.lexsort((frame[ours], since))[:MAX_PAIRS]
    met, ours, since = met[picked], ours[picked], since[picked]
    scratch_first = begin[ours] <= theirs.from_ns[met]
    return total, found_rows(
        time_ns=since, frame=frame[ours], count=np.ones(len(ours), np.int64),
        user=case.names(whole(o, case.trace).caller[request[ours]]),
        other=[f"domain {d}" for d in theirs.domid[met].tolist()],
        what=[SCRATCH_FIRST if s else ENTRY_FIRST for s in scratch_first.tolist()],
        assumed=theirs.assumed[met].tolist())


@hazard("corrupts", "frames handed out inside a device window: a BAR placed there later, or a "
        "device passed through, meets them",
        "frames handed out lie inside a device window", within=windows)
def mmio_window(case: Case) -> Found:
    """Frames of device memory, or of a window in which a device may appear."""
    return _handed_out(case, "mmio_window", _at_window(case.ended.machine))


@hazard("corrupts", "frames handed out that are machine RAM of another domain or of Xen "
        "(direct-mapped dom0 only)",
        "frames handed out are RAM of another domain or of Xen", within=foreign_ram)
def ram_of_others(case: Case) -> Found:
    """Frames over RAM that is not dom0's."""
    return _handed_out(case, "ram_of_others", _at_ram(case.ended.machine))


@hazard("corrupts", "pages hot-added as System RAM over RAM of another domain or of Xen "
        "(direct-mapped dom0 only)",
        "pages were hot-added over RAM of another domain or of Xen")
def hotplug_over_foreign_ram(case: Case) -> Found:
    """Hot-added sections over RAM that is not dom0's."""
    if not case.ended.machine.direct_mapped:
        return 0, found_rows()
    return _sections_over(
        case.ended, ("ram_other", "ram_xen"),
        "populate fails (the page is not dom0's); as scratch space it meets 1:1 entries")


@hazard("corrupts", "pages hot-added as System RAM over a device window or reserved range",
        "pages were hot-added over a device window or reserved range")
def hotplug_over_mmio(case: Case) -> Found:
    """Hot-added sections over what is no RAM."""
    return _sections_over(case.ended, ("mmio", "reserved"), _at_window(case.ended.machine))


@hazard("corrupts", "pages from a run-time answer that was out of date when used",
        "pages came from an answer of the hypervisor that was out of date")
def stale_region_pages(case: Case) -> Found:
    """Sections in a range that the hypervisor had named and used itself by then."""
    added = case.ended.sections
    found = added[added["kind"] == SECTION_STALE]
    return int(found["nr_pages"].sum()), found_rows(
        time_ns=found["time_ns"], frame=found["start_pfn"], count=found["nr_pages"], user=NO_CALLER,
        other="what Xen placed there meanwhile",
        what="the mapping is refused, or replaces the newer use", assumed=False)


@hazard("refuses", "requests refused with -ENOMEM",
        "requests were refused for want of memory")
def out_of_memory(case: Case) -> Found:
    """Where own RAM ran out."""
    return _refused(case, case.folded.refused.of(errno.ENOMEM), "the mapping fails with -ENOMEM")


@hazard("refuses", "requests refused with any other error",
        "requests were refused with another error")
def refused_otherwise(case: Case) -> Found:
    """What code of a user's own returns, say. With -ENOMEM, no region and those that wait without
    end, these are all that failed."""
    refused = case.folded.refused
    named = (errno.ENOMEM, E_WAIT, *NO_REGION)
    return _refused(case, refused.of(*(e for e in refused.by_error if e not in named)),
                    "the mapping fails")


@hazard("refuses", "requests refused because no region was found (-EBUSY, -EINVAL)",
        "requests were refused because no region was found")
def no_region(case: Case) -> Found:
    """Where the resource tree had no room that Linux takes."""
    return _refused(case, case.folded.refused.of(*NO_REGION),
                    'the mapping fails ("Cannot allocate new IOMEM resource")')


@hazard("refuses", "of these: whole free sections would have covered the request, but not in one "
        "piece or not where the search looks first",
        "requests were refused while whole sections were free")
def no_region_while_free(case: Case) -> Found:
    """Where the search is at fault, not the machine."""
    return _refused(case, case.folded.refused.while_free,
                    "fails for good: the search finds the same again")


@hazard("stalls", "requests still asleep on a wait queue at the end",
        "requests wait without end")
def waits_without_end(case: Case) -> Found:
    """Tasks that hang."""
    return _refused(case, case.folded.refused.of(E_WAIT), "the task hangs")


@hazard("stalls", "passes of a background thread that got nowhere and would repeat at once",
        "passes of the balloon thread got nowhere and would repeat at once")
def thread_spins(case: Case) -> Found:
    """Of the balloon thread; counted alone, without rows."""
    return case.ended.tallies["thread_spins"], found_rows()


def ranges(machine: Physmap) -> dict[str, Ranges]:
    """By hazard, where on this machine the frames handed out are looked for."""
    return {name: one.within(machine) for name, one in HAZARDS.items() if one.within}


def examine(case: Case) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
    """Counts by kind, see HAZARDS, and of each kind met a row per hazard (the first MAX_LISTED), by
    time and frame.

    Identity collisions need the trace's grants. The rows hold the time (modelled), the frame, both
    users and what a real machine would do; `count` is how often the frame was handed out, or the
    pages of a section or of a refused request; `assumed` says that the machine frame of the grant
    is not in the recording but drawn from the RAM of others.
    """
    found = {name: one.find(case) for name, one in HAZARDS.items()}
    listed = {}
    for name, (_, columns) in found.items():
        columns["kind"] = [name] * len(columns["kind"])
        rows = [dict(zip(HAZARD_COLUMNS, row, strict=True))
                for row in zip(*columns.values(), strict=True)]
        if rows:
            listed[name] = sorted(rows, key=_when)
    return ({name: count for name, (count, _) in found.items()},
            dict(sorted(listed.items(), key=lambda one: (_when(one[1][0])[:2], one[0]))))


def _when(row: dict[str, Any]) -> tuple[bool, int, bool, int]:
    """Rows by time, then by frame; what has none comes last."""
    time_ns, frame = row["time_ns"], row["frame"]
    return time_ns is None, time_ns or 0, frame is None, frame or 0
