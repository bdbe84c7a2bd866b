"""Pairing: frees become lifetimes at page grain, once, so that a replay needs no dictionary.

Each allocated page gets a slot number (its place in the stream of allocated pages, in the order of
the rows); a free names slots. Real callers free other batches than they allocated, so the tie is
the frame: recorded, or told by the order of calls (learn.py). Where neither is known it is the
caller's page array, or the one live request of the same size with the same recorded frames, and the
row says so. What cannot be tied is unknown or was live before the recording; nothing is tied that a
replay could not do (requests.impossible).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.base.compiled import compiled, inline, record
from replay.base.errors import ReplayError
from replay.engine.requests import impossible
from replay.importers.ordering.calls import Table, collect
from replay.importers.ordering.learn import HOT_RANGE, learn
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE, Ragged, encoded, ints, is_kind, ragged, replace
from replay.trace.schema import Flag
from replay.trace.start import BEFORE

UNKNOWN_SLOT = -1
"""The slot of a page of which nothing is known."""
MAX_PAIRED = 1 << 28
"""Pages allocated, or freed, in one recording: 1 TiB of 4 KiB pages, one by one."""
MAX_DENSE = 1 << 26
"""Frame numbers up to here index a table, others are numbered first."""
SHRUNK = 10
"""Pages of several allocations that one free gives back at most: gnttab_page_cache_shrink()
(drivers/xen/grant-table.c) frees batches of so many."""
_SIGNATURE_FRAMES = 64
_LOST_TRACK, _INFERRED = int(Flag.UNPAIRED), int(Flag.PAIRING_INFERRED)
_FOUND = record("pages_already_live", "frames_inferred", "pages_unknown_freed",
                "pages_live_before", "pages_freed_impossibly")
"""Counts of anomalies, by their names."""


class Requests(NamedTuple):
    """Allocs and frees in the order of lock holders. base: an alloc's first slot, a free's first
    place among the freed slots. frames: numbered from 1, 0 for unknown, of request r's pages from
    start[r] on. row: of the table, which is in the order of entry. recorded: frames that the row
    itself holds. array: for a free, the request into the same page array, or -1. alike: equal for
    requests of one signature, -1 without one.
    """

    alloc: Ints
    nr: Ints
    base: Ints
    start: Ints
    frames: Ints
    row: Ints
    recorded: Ints
    array: Ints
    alike: Ints


class Live(NamedTuple):
    """slot: of a numbered frame, -1 if it is not live. seen: whether it was ever allocated.
    owner: request of a slot. frame: of a slot, 0 if unknown. freed: whether a slot was freed.
    pages: live pages of a request. last, before: requests by signature, a chain.
    """

    slot: Ints
    seen: Ints
    owner: Ints
    frame: Ints
    freed: Ints
    pages: Ints
    last: Ints
    before: Ints


@inline
def _take(q, live, r, counts):  # type: ignore[no-untyped-def]
    """A successful allocation: its pages live from here."""
    for k in range(q.nr[r]):
        slot, frame = q.base[r] + k, q.frames[q.start[r] + k]
        live.owner[slot], live.frame[slot], live.freed[slot] = r, frame, 0
        if frame > 0:
            other = live.slot[frame]
            if other >= 0:
                counts.pages_already_live += 1
                live.frame[other] = 0
            live.slot[frame], live.seen[frame] = slot, 1
    live.pages[r] = q.nr[r]
    if q.alike[r] >= 0:  # all its frames may be known by now, and those of its free not
        live.before[r], live.last[q.alike[r]] = live.last[q.alike[r]], r


@inline
def _whole_request(q, live, r):  # type: ignore[no-untyped-def]
    """The live allocation that this free returns whole, or -1: of one array, or one signature."""
    other = q.array[r]
    if other >= 0 and live.pages[other] == q.nr[r]:
        return other
    other = live.last[q.alike[r]] if q.alike[r] >= 0 else -1
    while other >= 0:
        live.last[q.alike[r]] = live.before[other]
        if live.pages[other] == q.nr[r]:
            return other
        other = live.last[q.alike[r]]
    return -1


@inline
def _end_life(live, slot):  # type: ignore[no-untyped-def]
    live.freed[slot] = 1
    live.pages[live.owner[slot]] -= 1
    frame = live.frame[slot]
    if frame > 0 and live.slot[frame] == slot:
        live.slot[frame] = UNKNOWN_SLOT


@inline
def _from_before(q, live, r, at):  # type: ignore[no-untyped-def]
    """Whether pages of a free that nothing is tied to were live before the recording.

    A frame that was never seen allocated was, if nothing is known of an allocation into the array.
    So were the others of its array, which are freed as they were allocated, unless it can be a
    batch of single pages of all kinds.
    """
    first = q.frames[q.start[r]]
    if first <= 0 or live.seen[first] or q.array[r] >= 0:
        return False
    return q.frames[at] > 0 and not live.seen[q.frames[at]] or q.nr[r] > SHRUNK


@inline
def _give(q, live, r, slots, flags, counts):  # type: ignore[no-untyped-def]
    """A free: find the slots of its pages, then end their lives."""
    nr, at, start = q.nr[r], q.base[r], q.start[r]
    tied = True
    for k in range(nr):
        frame = q.frames[start + k]
        slots[at + k] = live.slot[frame] if frame > 0 else UNKNOWN_SLOT
        tied = tied and slots[at + k] >= 0
    whole = _whole_request(q, live, r) if not tied else -1
    if whole >= 0:
        for k in range(nr):
            slots[at + k] = q.base[whole] + k
    if whole >= 0 or q.recorded[r] < nr:
        flags[r] |= _INFERRED
        counts.frames_inferred += nr - q.recorded[r]
    missing = 0
    for k in range(nr):
        slot = slots[at + k]
        if slot >= 0 and impossible(live.freed[slot], q.row[live.owner[slot]], q.row[r]):
            counts.pages_freed_impossibly += 1
            slot = slots[at + k] = UNKNOWN_SLOT
            missing += 1
        elif slot < 0 and _from_before(q, live, r, start + k):
            slots[at + k] = BEFORE
            counts.pages_live_before += 1
        elif slot < 0:
            counts.pages_unknown_freed += 1
            missing += 1
        if slot >= 0:
            _end_life(live, slot)
    if missing:
        flags[r] |= _LOST_TRACK


@compiled()
def _walk(q, live, slots, flags, counts):  # type: ignore[no-untyped-def]
    for r in range(len(q.nr)):
        if q.alloc[r]:
            _take(q, live, r, counts)
        else:
            _give(q, live, r, slots, flags, counts)


def _numbered(frames: Ints) -> tuple[Ints, int]:
    """Frames as numbers from 1 on, 0 for unknown ones, and how many numbers there may be."""
    if not len(frames):
        return frames, 1
    if frames.max() < MAX_DENSE:
        return np.maximum(frames, -1) + 1, int(frames.max()) + 2
    different, numbers = np.unique(np.maximum(frames, -1), return_inverse=True)
    first = int(different[0] >= 0)
    return numbers.astype(np.int64) + first, len(different) + first


def _alike(rows: Ints, nr: Ints, last: Ints, frames: Ragged) -> Ints:
    """Numbers equal for requests of one size with the same recorded frames and last frame.

    -1 for those that are recorded whole, and within what tells requests apart.
    """
    known: dict[tuple[Any, ...], int] = {}
    numbers = np.full(len(rows), -1, dtype=np.int64)
    length = frames.length[rows]
    short = np.flatnonzero((length < nr) & (length > 0))
    for k in short.tolist():
        first = frames.row(rows[k])[:_SIGNATURE_FRAMES]
        key = (int(nr[k]), int(last[rows[k]]), first.tobytes())
        numbers[k] = known.setdefault(key, len(known))
    return numbers


def _requests(table: pa.Table, found: Table, order: Ints, balloon: bool
              ) -> tuple[Requests, Ints, int]:
    """The calls' requests in lock order, their rows, and how many frame numbers there may be."""
    q = found.calls
    first, frames = learn(q, order, _hot_added(table) if balloon else np.zeros(0, HOT_RANGE))
    kept = order[found.request[order]]
    rows, nr, alloc = found.rows[kept], q.nr[kept], found.alloc[kept]
    place = np.full(len(found.rows), -1, np.int64)
    place[kept] = np.arange(len(kept))
    tied = q.array[kept]
    array = np.where(tied >= 0, place[np.maximum(tied, 0)], -1)
    # a failed allocation takes slots of its own too: another strategy may serve it
    pages = np.where(alloc, ints(table, "nr_pages", 0)[rows], 0)
    by_row = np.argsort(rows)
    base = np.empty(len(rows), np.int64)
    base[by_row] = np.cumsum(pages[by_row]) - pages[by_row]
    freed = np.where(alloc, 0, nr)
    base = np.where(alloc, base, np.cumsum(freed) - freed)
    numbers, count = _numbered(frames)
    value, flags = ints(table, "value"), ints(table, "flags", 0)
    last = np.where(flags & int(Flag.ARRAY_TRUNCATED), value, NONE)
    recorded = ragged(table, "frames")
    return Requests(
        alloc.astype(np.int64), nr, base, first[kept], numbers, rows,
        np.minimum(recorded.length[rows], nr), array,
        _alike(rows, nr, last, recorded)), rows, count


def _hot_added(table: pa.Table) -> np.ndarray:
    """A HOT_RANGE per range that was hot-added as System RAM."""
    codes, labels = encoded(table, "label")
    ram = np.array([label == "System RAM" for label in labels], bool)[codes]
    rows = np.flatnonzero(ram & is_kind(table, "section"))
    first, pages = ints(table, "start_pfn", 0)[rows], ints(table, "nr_pages", 0)[rows]
    ranges = np.zeros(len(rows), HOT_RANGE)
    ranges["next_page"], ranges["end"] = first, first + np.minimum(pages, MAX_PAIRED >> 8)
    return ranges


def pair(table: pa.Table, anomalies: Anomalies, *, balloon: bool = False) -> pa.Table:
    """The table with `slots` filled for every free, in the order of `lock_rank`.

    ReplayError for more pages than can be followed one by one.
    """
    found = collect(table, balloon=balloon)
    q = found.calls
    most = max(int(q.content[-1]), int(q.pushes.sum()))
    if most > MAX_PAIRED:
        raise ReplayError(f"more than {MAX_PAIRED} pages are allocated or freed in one recording")
    order = np.argsort(ints(table, "lock_rank")[found.rows], kind="stable")
    requests, rows, count = _requests(table, found, order, balloon)
    slots_made = int(ints(table, "nr_pages", 0)[is_kind(table, "alloc")].sum())
    live = Live(np.full(count, -1, np.int64), np.zeros(count, np.int64),
                np.zeros(slots_made, np.int64), np.zeros(slots_made, np.int64),
                np.ones(slots_made, np.int64), np.zeros(len(rows), np.int64),
                np.full(len(rows), -1, np.int64), np.full(len(rows), -1, np.int64))
    flags, counts = ints(table, "flags", 0)[rows], np.zeros(1, _FOUND)[0]
    slots = np.empty(int(requests.nr[requests.alloc == 0].sum()), np.int64)
    _walk(requests, live, slots, flags, counts)
    for name in counts.dtype.names:
        anomalies.count(name, int(counts[name]))
    anomalies.count("pages_live_at_end", int(np.maximum(live.pages, 0).sum()))
    every = ints(table, "flags", 0)
    every[rows] = flags
    table = replace(table, "slots", _lists(len(table), rows, requests, slots))
    return replace(table, "flags", pa.array(every, pa.int64()))


def _lists(count: int, rows: Ints, q: Requests, slots: Ints) -> pa.ListArray:
    """The freed slots as a list per row, null but for frees."""
    free = np.flatnonzero(q.alloc == 0)
    free = free[np.argsort(rows[free])]
    length, absent = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_)
    length[rows[free]], absent[rows[free]] = q.nr[free], False
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(length)))
    first = offsets[rows[free]]
    place = np.arange(offsets[-1]) + np.repeat(q.base[free] - first, q.nr[free])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)),
                                    pa.array(slots[place], pa.int64()), mask=pa.array(absent))
