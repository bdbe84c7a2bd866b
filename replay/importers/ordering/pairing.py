"""Pairing: frees become lifetimes at page grain, once, so that a replay needs no dictionary.

Each allocated page gets a slot number (its place in the stream of allocated pages, in the order of
the rows); a free names slots. Real callers free other batches than they allocated, so the tie is
the frame: recorded, or told by the order of calls (learn.py). Where neither is known it is the
caller's page array, or the one live request of the same size with the same recorded frames, and the
row says so. What cannot be tied is unknown or was live before the recording; nothing is tied that a
replay could not do (requests.impossible).
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.base.compiled import compiled, inline, record
from replay.base.errors import ReplayError
from replay.base.scratch import Scratch
from replay.base.units import BUDDY_PAGES, XEN_PAGE_BYTES
from replay.engine.requests import impossible
from replay.importers.ordering.calls import Numbering, Table, collect, number_of
from replay.importers.ordering.ledger import OF_ALLOC, PART_CALLS, Ledger, read_ledger
from replay.importers.ordering.learn import HOT_RANGE, WALKED_CALLS, learn
from replay.importers.ordering.told import told
from replay.importers.source.probes import Ints
from replay.importers.source.rows import Rows
from replay.trace.columns import NONE
from replay.trace.schema import Flag
from replay.trace.start import BEFORE

UNKNOWN_SLOT = -1
"""The slot of a page of which nothing is known."""
MAX_PAIRED = 1 << 28
"""Pages allocated, or freed, in one recording: 1 TiB of 4 KiB pages, one by one."""
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
    place among the freed slots. frames: -1 for unknown, of request r's pages from start[r] on;
    different: of a Numbering of them. row: place in the ledger, which is in the order of entry.
    recorded: frames that the row itself holds. array: for a free, the request into the same page
    array, or -1. alike: equal for requests of one signature, -1 without one.
    """

    alloc: Ints
    nr: Ints
    base: Ints
    start: Ints
    frames: Ints
    different: Ints
    row: Ints
    recorded: Ints
    array: Ints
    alike: Ints


class Live(NamedTuple):
    """slot: one more than that of a numbered frame, 0 if it is not live. seen: whether it was ever
    allocated. owner: one more than the request of a slot. frame: of a slot, one more than its
    number, 0 if unknown. freed: whether a slot was freed; one without an owner was. pages: live
    pages of a request. last, before: requests by signature, a chain.
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
def _number(q, place):  # type: ignore[no-untyped-def]
    """One more than the number of a page's frame, 0 where it is not known."""
    frame = q.frames[place]
    return 0 if frame < 0 else 1 + number_of(frame, q.different)


@inline
def _live_slot(q, live, place):  # type: ignore[no-untyped-def]
    """The slot of a page by its frame, UNKNOWN_SLOT where that is not known or not live."""
    number = _number(q, place)
    return live.slot[number - 1] - 1 if number > 0 else UNKNOWN_SLOT


@inline
def _take(q, live, r, counts):  # type: ignore[no-untyped-def]
    """A successful allocation: its pages live from here."""
    for k in range(q.nr[r]):
        slot, number = q.base[r] + k, _number(q, q.start[r] + k)
        live.owner[slot], live.frame[slot], live.freed[slot] = r + 1, number, 0
        if number > 0:
            other = live.slot[number - 1] - 1
            if other >= 0:
                counts.pages_already_live += 1
                live.frame[other] = 0
            live.slot[number - 1], live.seen[number - 1] = slot + 1, 1
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
    live.pages[live.owner[slot] - 1] -= 1
    number = live.frame[slot]
    if number > 0 and live.slot[number - 1] == slot + 1:
        live.slot[number - 1] = 0


@inline
def _from_before(q, live, r, at):  # type: ignore[no-untyped-def]
    """Whether pages of a free that nothing is tied to were live before the recording.

    A frame that was never seen allocated was, if nothing is known of an allocation into the array.
    So were the others of its array, which are freed as they were allocated, unless it can be a
    batch of single pages of all kinds.
    """
    first = _number(q, q.start[r])
    if first <= 0 or live.seen[first - 1] or q.array[r] >= 0:
        return False
    number = _number(q, at)
    return number > 0 and not live.seen[number - 1] or q.nr[r] > SHRUNK


@inline
def _give(q, live, r, slots, flags, counts):  # type: ignore[no-untyped-def]
    """A free: find the slots of its pages, then end their lives."""
    nr, at, start = q.nr[r], q.base[r], q.start[r]
    tied = True
    for k in range(nr):
        slots[at + k] = _live_slot(q, live, start + k)
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
        if slot >= 0 and (live.owner[slot] == 0 or impossible(
                live.freed[slot], q.row[live.owner[slot] - 1], q.row[r])):
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


@compiled
def _walk(q, live, slots, flags, counts, begin, end):  # type: ignore[no-untyped-def]
    for r in range(begin, end):
        if q.alloc[r]:
            _take(q, live, r, counts)
        else:
            _give(q, live, r, slots, flags, counts)


def _alike(ledger: Ledger, rows: Ints, nr: Ints) -> Ints:
    """Numbers equal for requests of one size with the same recorded frames and last frame.

    -1 for those that are recorded whole, and within what tells requests apart.
    """
    known: dict[bytes, int] = {}
    numbers = ledger.scratch.full(len(rows), -1)
    for at in range(0, len(rows), PART_CALLS):
        mine, sizes = rows[at : at + PART_CALLS], nr[at : at + PART_CALLS]
        cut = ledger.flags[mine] & int(Flag.ARRAY_TRUNCATED)
        last = np.where(cut, ledger.value[mine], NONE)
        length = ledger.frame_count[mine]
        for k in np.flatnonzero((length < sizes) & (length > 0)).tolist():
            first = ledger.frames_of(int(mine[k]))[:_SIGNATURE_FRAMES]
            key = blake2b(struct.pack("<qq", sizes[k], last[k]) + first.tobytes(), digest_size=16)
            numbers[at + k] = known.setdefault(key.digest(), len(known))
        ledger.scratch.relax()
    return numbers


def _requests(ledger: Ledger, found: Table, order: Ints, hot: np.ndarray) -> tuple[Requests, int]:
    """The calls' requests in lock order, and how many numbers their frames may have. hot: a
    HOT_RANGE per range that was hot-added."""
    q, scratch = found.calls, ledger.scratch
    first, frames = learn(q, order, hot, scratch)
    kept = order[found.request[order]]
    size, numbering = len(kept), Numbering(frames, scratch)
    rows = scratch.made(size, lambda part: found.rows[kept[part]])
    nr = scratch.made(size, lambda part: q.nr[kept[part]])
    alloc = scratch.made(size, lambda part: found.alloc[kept[part]])
    return Requests(
        alloc, nr, _bases(ledger, rows, alloc, nr),
        scratch.made(size, lambda part: first[kept[part]]), frames, numbering.different, rows,
        scratch.made(size, lambda part: np.minimum(ledger.frame_count[rows[part]], nr[part])),
        _same_array(q.array, kept, scratch), _alike(ledger, rows, nr)), numbering.count


def _same_array(array: Ints, kept: Ints, scratch: Scratch) -> Ints:
    """Of each request the one into the same page array, by their places among the kept calls."""
    place = np.full(len(array), -1, np.int64)
    place[kept] = np.arange(len(kept))

    def of(part: slice) -> Ints:
        tied = array[kept[part]]
        return np.where(tied >= 0, place[np.maximum(tied, 0)], -1)

    return scratch.made(len(kept), of)


def _bases(ledger: Ledger, rows: Ints, alloc: Ints, nr: Ints) -> Ints:
    """The first slot of each allocation, in the order of the rows; where a free's pages begin among
    all freed ones."""
    total = freed = 0

    def of_row(part: slice) -> Ints:
        # a failed allocation takes slots of its own too: another strategy may serve it
        nonlocal total
        pages = np.where(ledger.kind[part] == OF_ALLOC, np.maximum(ledger.nr[part], 0), 0)
        ends = total + np.cumsum(pages)
        total = int(ends[-1])
        return np.asarray(ends - pages)

    by_row = ledger.scratch.made(len(ledger.row), of_row)

    def of_request(part: slice) -> Ints:
        nonlocal freed
        pages = np.where(alloc[part], 0, nr[part])
        ends = freed + np.cumsum(pages)
        freed = int(ends[-1])
        return np.where(alloc[part], by_row[rows[part]], ends - pages)

    return ledger.scratch.made(len(rows), of_request)


def _hot_added(ledger: Ledger, page_bytes: int) -> np.ndarray:
    """A HOT_RANGE per range that was hot-added as System RAM."""
    ours = ledger.sections.ram != 0
    first, pages = ledger.sections.start[ours], ledger.sections.nr[ours]
    ranges = np.zeros(len(first), HOT_RANGE)
    first = np.where(first == NONE, 0, first)
    ranges["next_page"], ranges["end"] = first, first + np.minimum(pages, MAX_PAIRED >> 8)
    ranges["block"] = BUDDY_PAGES[page_bytes]
    return ranges


def tie(ledger: Ledger, found: Table, anomalies: Anomalies, *, balloon: bool = False,
        page_bytes: int = XEN_PAGE_BYTES) -> None:
    """Fill in the slots of every free, in the order of the ranks. found: the ledger's calls.

    ReplayError for more pages than can be followed one by one.
    """
    scratch, q = ledger.scratch, found.calls
    most = max(int(q.content[-1]), int(q.pushes.sum()))
    if most > MAX_PAIRED:
        raise ReplayError(f"more than {MAX_PAIRED} pages are allocated or freed in one recording")
    order = np.argsort(ledger.rank[found.rows], kind="stable")
    hot = _hot_added(ledger, page_bytes) if balloon else np.zeros(0, HOT_RANGE)
    requests, count = _requests(ledger, found, order, hot)
    del order
    made = sum(int(np.maximum(ledger.nr[part], 0)[ledger.kind[part] == OF_ALLOC].sum())
               for part in ledger.parts())
    size = len(requests.row)
    live = Live(np.zeros(count, np.int64), np.zeros(count, np.int64), scratch.array(made),
                scratch.array(made), scratch.array(made), scratch.array(size),
                scratch.full(size, -1), scratch.full(size, -1))
    flags = scratch.made(size, lambda part: ledger.flags[requests.row[part]])
    counts = np.zeros(1, _FOUND)[0]
    slots = scratch.array(int(np.where(requests.alloc, 0, requests.nr).sum()))
    for at in range(0, size, WALKED_CALLS):
        _walk(requests, live, slots, flags, counts, at, min(at + WALKED_CALLS, size))
        scratch.relax()
    for name in counts.dtype.names:
        anomalies.count(name, int(counts[name]))
    live_at_end = 0
    for at in range(0, size, PART_CALLS):
        part = slice(at, at + PART_CALLS)
        live_at_end += int(np.maximum(live.pages[part], 0).sum())
        rows, free = requests.row[part], requests.alloc[part] == 0
        ledger.flags[rows] = flags[part]
        ledger.slot_at[rows[free]] = requests.base[part][free]
        ledger.slot_count[rows[free]] = requests.nr[part][free]
        scratch.relax()
    anomalies.count("pages_live_at_end", live_at_end)
    ledger.slots = slots


def pair(table: pa.Table, anomalies: Anomalies, *, balloon: bool = False) -> pa.Table:
    """A table with `slots` filled for every free, see tie()."""
    scratch = Scratch()
    rows = Rows.of(table, scratch)
    ledger = read_ledger(rows, scratch)
    tie(ledger, collect(ledger, balloon=balloon), anomalies, balloon=balloon)
    return pa.Table.from_batches(told(rows.batches(), ledger, lists=False, paired=True),
                                 table.schema).combine_chunks()
