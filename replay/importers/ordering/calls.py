"""The calls that change the allocator's free list, as the search for their order needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from replay.base.compiled import compiled, inline, record
from replay.base.scratch import Scratch
from replay.importers.ordering.ledger import OF_ALLOC, OF_DECREASE, OF_FREE, PART_CALLS, Ledger
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE, numbered
from replay.trace.start import MOST_FRAME, MOST_PAGES

NEVER: Final = 1 << 62
PART_FRAMES: Final = 1 << 20
MAX_DENSE: Final = 1 << 26
"""Frame numbers up to here index a table, others are numbered first."""

ADDED_SECTION = record("first", "pages")
"""A section that a call added to the pool: its first frame, and how many."""


class Calls(NamedTuple):
    """Calls in the order of entry; every column has one element per call.

    pops, pushes: pages that leave and reach the list. entered: entry; held: a time within the lock,
    NONE if unknown; over: by when it had let the lock go. whole: pages popped are all that was
    listed. listed, head, listed_after, head_after: what was read of the list, NONE if nothing.
    start, known: its frames within `frames`, in the order of its page array, -1 if unknown; of
    nr pages the others are unknown. origin: like frames; for a page that an allocation got, the
    call that freed it last; -1 if none was seen, or not all allocations are recorded whole. array:
    for a free, the allocation into
    the same page array, or -1. content: first place of an allocation's pages among all allocated
    ones. section: its first one in `sections`, an ADDED_SECTION each; one more at the end.
    """

    pops: Ints
    pushes: Ints
    nr: Ints
    entered: Ints
    held: Ints
    over: Ints
    whole: Ints
    listed: Ints
    head: Ints
    listed_after: Ints
    head_after: Ints
    start: Ints
    known: Ints
    frames: Ints
    origin: Ints
    array: Ints
    content: Ints
    section: Ints
    sections: np.ndarray


@dataclass(frozen=True)
class Table:
    """The calls with what does not go into compiled loops: the place of each in the ledger, whether
    it is an allocation or a free (the balloon thread's passes are neither), and which.
    """

    calls: Calls
    rows: Ints
    request: np.ndarray
    alloc: np.ndarray


def next_of_task(time: Ints, pid: Ints) -> Ints:
    """Per row, the time of the same task's next row, by which the row's call was over."""
    task, count = numbered(pid)
    latest = np.empty(len(time), dtype=np.int64)
    _next_of_task(time, task, np.full(count, NEVER, dtype=np.int64), latest)
    return latest


@compiled
def _next_of_task(time, task, following, latest):  # type: ignore[no-untyped-def]
    for r in range(len(time) - 1, -1, -1):
        latest[r] = following[task[r]]
        following[task[r]] = time[r]


@compiled
def _arrays(  # type: ignore[no-untyped-def]
        calls, alloc, array, of_array, found, begin, end):
    """For each free of a whole page array, the last allocation into it; -1 if there is none.

    Where both have recorded frames they agree, or the array is another one at the same address.
    """
    for c in range(begin, end):
        found[c] = -1
        if array[c] < 0:
            continue
        if alloc[c]:
            of_array[array[c]] = c if calls.nr[c] > 0 else -1
            continue
        other = of_array[array[c]]
        if other < 0 or calls.nr[other] != calls.nr[c] or calls.over[other] > calls.entered[c]:
            continue
        same = True
        for k in range(min(calls.known[c], calls.known[other])):
            ours, theirs = calls.frames[calls.start[c] + k], calls.frames[calls.start[other] + k]
            same = same and (ours == theirs or ours < 0 or theirs < 0)
        of_array[array[c]] = -1
        if same:
            found[c] = other


@compiled
def _origins(calls, alloc, events, freed_by, different):  # type: ignore[no-untyped-def]
    """Of each allocated page the call that freed it last; events: frees at their entry as -1 - c,
    allocations when over. different: of a Numbering; freed_by: per number, one more than the call,
    0 at the start."""
    for n in range(len(events)):
        c = events[n]
        free = c < 0
        if free:
            c = -1 - c
        first, known = calls.start[c], calls.known[c]
        if free and calls.array[c] >= 0 and known < calls.nr[c]:
            first, known = calls.start[calls.array[c]], calls.known[calls.array[c]]
        for k in range(known):
            if calls.frames[first + k] < 0:
                continue
            f = number_of(calls.frames[first + k], different)
            if free:
                freed_by[f] = c + 1
            else:
                calls.origin[first + k] = freed_by[f] - 1
                freed_by[f] = 0


class _Outer:
    """The calls of the balloon driver that may be around others, by task and time."""

    def __init__(self, ledger: Ledger, rows: Ints, over: Ints) -> None:
        self._time, self._over = ledger.time[rows], over
        pid = ledger.pid[rows]
        self._order = np.lexsort((self._time, pid))
        self._pid = pid[self._order]

    def around(self, pid: int, time: int) -> int:
        """The last one of a task that has begun by then and is not over; -1 if there is none."""
        low, high = np.searchsorted(self._pid, pid), np.searchsorted(self._pid, pid, side="right")
        k = low + int(np.searchsorted(self._time[self._order[low:high]], time, side="right")) - 1
        if k < low or time > self._over[self._order[k]]:
            return -1
        return int(self._order[k])


def _nested(ledger: Ledger, rows: Ints, over: Ints) -> Ints:
    """Pages of the decrease hypercalls made within each call of the balloon driver."""
    pages, outer = np.zeros(len(rows), np.int64), _Outer(ledger, rows, over)
    for part in ledger.parts():
        inner = np.flatnonzero(ledger.kind[part] == OF_DECREASE) + part.start
        pids, times, sizes = (column[inner].tolist()
                              for column in (ledger.pid, ledger.time, ledger.nr))
        for pid, time, size in zip(pids, times, sizes, strict=True):
            call = outer.around(pid, time)
            if call >= 0:
                pages[call] += size if size != NONE else 0
    return pages


def _sections(ledger: Ledger, rows: Ints, alloc: np.ndarray, over: Ints
              ) -> dict[int, list[tuple[int, int]]]:
    """New sections of the pool, by the call that added each: the first of its task around it."""
    found: dict[int, list[tuple[int, int]]] = {}
    seen: set[tuple[int, int]] = set()
    columns = ledger.sections
    for k in np.flatnonzero(columns.scratch).tolist():
        section = (int(columns.start[k]), int(columns.nr[k]))
        possible = 0 <= section[0] <= MOST_FRAME and 0 < section[1] <= MOST_PAGES
        if not possible or section in seen:
            continue
        call = _first_around(ledger, rows, alloc, over, int(columns.pid[k]), int(columns.time[k]))
        if call >= 0:
            seen.add(section)
            found.setdefault(call, []).append(section)
    return found


def _first_around(ledger: Ledger, rows: Ints, alloc: np.ndarray, over: Ints, pid: int, time: int
                  ) -> int:
    """The first allocation of a task that had begun by then and was not over; -1 without."""
    for at in range(0, len(rows), PART_CALLS):
        part = slice(at, at + PART_CALLS)
        mine = alloc[part] & (ledger.pid[rows[part]] == pid) & (over[part] >= time) & (
            ledger.time[rows[part]] <= time)
        if mine.any():
            return at + int(np.argmax(mine))
    return -1


def _entered(ledger: Ledger, rows: Ints) -> Ints:
    """When each call was entered: a hypercall's was, at the latest, when it had the lock."""
    time, lock = ledger.time[rows], ledger.lock[rows]
    request = ledger.kind[rows] <= OF_FREE
    return np.where(request | (lock == NONE), time, np.minimum(time, lock))


def _chosen(ledger: Ledger, balloon: bool) -> Ints:
    """Which calls change the recorded allocator's list, in the order of entry."""
    picked = [np.zeros(0, np.int64)]
    for part in ledger.parts():
        kind, thread = ledger.kind[part], ledger.thread[part] != 0
        ours = (kind <= OF_FREE) | (thread if balloon else False)
        picked.append(np.flatnonzero(ours & (ledger.nr[part] > 0)) + part.start)
        ledger.scratch.relax()
    rows = np.concatenate(picked)
    entry = np.concatenate([np.zeros(0, np.int64), *(
        _entered(ledger, rows[at : at + PART_CALLS]) for at in range(0, len(rows), PART_CALLS))])
    if (entry[1:] >= entry[:-1]).all():
        return rows
    return np.asarray(rows[np.argsort(entry, kind="stable")])


def _over(ledger: Ledger, rows: Ints, entry: Ints, held: Ints) -> Ints:
    took = ledger.took[rows]
    over = np.where(took != NONE, ledger.time[rows] + took, ledger.next[rows])
    return np.maximum(over, np.maximum(entry, held))


def collect(ledger: Ledger, *, balloon: bool) -> Table:
    """The calls of a recording whose allocator is the pool, or the balloon driver."""
    scratch, rows = ledger.scratch, _chosen(ledger, balloon)
    size = len(rows)
    alloc, request = np.empty(size, bool), np.empty(size, bool)
    names = ("pops", "pushes", "nr", "entered", "held", "over", "listed", "head", "listed_after",
             "head_after", "start", "known")
    q = {name: scratch.array(size) for name in (*names, "whole")}
    parts = [slice(at, min(at + PART_CALLS, size)) for at in range(0, size, PART_CALLS)]
    for part in parts:
        alloc[part], request[part] = _part(ledger, rows[part], q, part, balloon)
        scratch.relax()
    if balloon:
        fresh = np.where(alloc, np.minimum(_nested(ledger, rows, q["over"]), q["nr"]), 0)
        for part in parts:
            q["pops"][part] -= fresh[part]
            q["whole"][part] = fresh[part] > 0
    scratch.relax()
    added = _sections(ledger, rows, alloc, q["over"]) if not balloon else {}
    section = scratch.array(size + 1)
    for c, some in added.items():
        section[c + 1 :] += len(some)
    sections = np.array([s for c in sorted(added) for s in added[c]], ADDED_SECTION)
    content = scratch.array(size + 1)
    for part in parts:
        taken = np.where(alloc[part], q["nr"][part], 0)
        content[part.start + 1 : part.stop + 1] = content[part.start] + np.cumsum(taken)
        scratch.relax()
    calls = Calls(
        **q, frames=ledger.frames, origin=scratch.full(len(ledger.frames), -1),
        array=scratch.full(size, -1), content=content,
        section=section, sections=sections)
    _tie(ledger, calls, rows, alloc, request & ~alloc)
    return Table(calls, rows, request, alloc)


def _part(ledger: Ledger, rows: Ints, q: dict[str, Ints], part: slice, balloon: bool
          ) -> tuple[np.ndarray, np.ndarray]:
    """Columns of some calls, but for what the hypercalls within them change; which of them are
    allocations, and requests."""
    kind, nr, errno = ledger.kind[rows], ledger.nr[rows], ledger.errno[rows]
    request, alloc = kind <= OF_FREE, kind == OF_ALLOC
    grows = (kind == OF_FREE) | (kind == OF_DECREASE)
    entry = _entered(ledger, rows)
    held = np.where(request, ledger.lock[rows], ledger.time[rows])
    # a hypercall returns how many extents it did, and only so many pages move
    known = np.where(errno == NONE, 0, errno)
    done = np.where(request | (errno < 0), nr, known)
    size = np.where(alloc & (known < 0), 0, np.minimum(nr, done))
    q["pops"][part], q["pushes"][part] = np.where(grows, 0, size), np.where(grows, size, 0)
    q["nr"][part], q["entered"][part], q["held"][part] = size, entry, held
    q["over"][part] = _over(ledger, rows, entry, held)
    for name in ("listed", "head", "listed_after", "head_after"):
        read = getattr(ledger, name)[rows]
        if balloon:  # where the pool falls back, these are the pool's, whose list stays empty
            read = np.where(request & (held != NONE), read, NONE)
        q[name][part] = read
    q["start"][part] = ledger.frame_at[rows]
    q["known"][part] = np.minimum(ledger.frame_count[rows], size)
    return alloc, request


def _tie(ledger: Ledger, calls: Calls, rows: Ints, alloc: np.ndarray, free: np.ndarray) -> None:
    """Fill `array` and `origin`: which pages of frees and allocations are the same."""
    ledger.scratch.relax()
    array, different = _page_arrays(ledger.value[rows], alloc | free)
    of_array = np.full(different, -1, np.int64)
    for at in range(0, len(rows), PART_CALLS):
        _arrays(calls, alloc, array, of_array, calls.array, at, min(at + PART_CALLS, len(rows)))
        ledger.scratch.relax()
    del array
    if (calls.known < calls.nr)[alloc].any():
        return  # a page may have been allocated and freed again unseen
    # allocations first: what a task frees at once after a call it got by that call
    codes = np.concatenate((np.flatnonzero(alloc), -1 - np.flatnonzero(free)))
    events = codes[np.argsort(_moments(ledger, calls, rows, codes), kind="stable")]
    frames = Numbering(calls.frames, ledger.scratch)
    freed_by = np.zeros(frames.count, np.int64)
    for at in range(0, len(events), PART_CALLS):
        _origins(calls, alloc, events[at : at + PART_CALLS], freed_by, frames.different)
        ledger.scratch.relax()


def _page_arrays(value: Ints, requests: np.ndarray) -> tuple[Ints, int]:
    """A number for each address of a page array, -1 without; how many differ."""
    numbers, different = numbered(value)
    return np.where((value == NONE) | ~requests, -1, numbers), different


def _moments(ledger: Ledger, calls: Calls, rows: Ints, codes: Ints) -> Ints:
    """When calls took effect, of _origins()."""
    found = np.empty(len(codes), np.int64)
    for at in range(0, len(codes), PART_CALLS):
        part = codes[at : at + PART_CALLS]
        c = np.where(part < 0, -1 - part, part)
        held, entered = calls.held[c], calls.entered[c]
        got = np.where(ledger.took[rows[c]] != NONE, calls.over[c], entered)
        got = np.where(held != NONE, held, got)
        found[at : at + PART_CALLS] = np.where(part < 0, entered, got)
        ledger.scratch.relax()
    return found


def has_origins(calls: Calls, scratch: Scratch) -> bool:
    """Whether it is known of any allocated page who freed it last."""
    for at in range(0, len(calls.origin), PART_FRAMES):
        if (calls.origin[at : at + PART_FRAMES] >= 0).any():
            return True
        scratch.relax()
    return False


class Numbering:
    """Frames as numbers of a table: themselves where they are small, else places among all.

    count: numbers there are. different: all frames, in order, or none where they stand for
    themselves.
    """

    def __init__(self, frames: Ints, scratch: Scratch) -> None:
        parts = [frames[at : at + PART_FRAMES] for at in range(0, len(frames), PART_FRAMES)]
        most = -1
        for part in parts:
            most = max(most, int(part.max()))
            scratch.relax()
        self.different = np.zeros(0, np.int64)
        if most < MAX_DENSE:
            self.count = most + 1
            return
        for part in parts:
            self.different = np.union1d(self.different, part)
            scratch.relax()
        self.count = len(self.different)


@inline
def number_of(frame, different):  # type: ignore[no-untyped-def]
    """The number of a frame that is known."""
    if len(different) == 0:
        return frame
    low, high = 0, len(different)
    while low < high:
        middle = (low + high) >> 1
        if different[middle] < frame:
            low = middle + 1
        else:
            high = middle
    return low
