"""Pairing: frees become lifetimes at page grain, once, so that a replay needs no dictionary.

Each allocated page gets a slot number (its place in the stream of allocated pages, in the order of
the rows); a free names slots. Real callers free other batches than they allocated, so the tie is
the recorded frame. Where a recording holds fewer frames than pages, the rest is inferred and says
so: from the caller's page array (its address is recorded on x86), or from an allocation of the same
size with the same recorded frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay.anomalies import Anomalies
from replay.errors import ReplayError
from replay.kernel import inline, kernel
from replay.schema import Flag
from replay.trace.columns import NONE, Ragged, ints, is_kind, numbered, ragged, replace

Ints = npt.NDArray[np.int64]
UNKNOWN = -1
"""The slot of a page that the recording never saw allocated."""
MAX_PAGES = 1 << 28
"""Pages allocated, or freed, in one recording: 1 TiB of 4 KiB pages, one by one."""
MAX_DENSE = 1 << 26
"""Frame numbers up to here index a table, others are numbered first."""
_SIGNATURE_FRAMES = 64
_LOST_TRACK, _INFERRED = int(Flag.UNPAIRED), int(Flag.PAIRING_INFERRED)
_ALREADY_LIVE, _FRAMES_INFERRED, _UNKNOWN_FREED, _COUNTS = range(4)


class Requests(NamedTuple):
    """Allocs and frees in the order of lock holders. base: alloc's first slot, free's first place
    among the freed slots. frames: numbered, `start` and `length` delimit those recorded.
    array: the caller's page array, -1 if unknown; alike: equal for requests of one signature.
    """

    alloc: Ints
    nr: Ints
    failed: Ints
    base: Ints
    start: Ints
    length: Ints
    frames: Ints
    array: Ints
    alike: Ints


class Live(NamedTuple):
    """The live pages. slot, request: of a frame, -1 if it is not live. held: whether a recorded
    frame is still that of its slot. pages: live pages of a request. of_array, last, before:
    requests by array and by signature, the latter as a chain.
    """

    slot: Ints
    request: Ints
    held: Ints
    pages: Ints
    of_array: Ints
    last: Ints
    before: Ints


@inline
def _take(q, live, r, counts):  # type: ignore[no-untyped-def]
    """A successful allocation: its pages live from here."""
    for k in range(min(q.length[r], q.nr[r])):
        frame, slot = q.frames[q.start[r] + k], q.base[r] + k
        if live.slot[frame] >= 0:
            counts[_ALREADY_LIVE] += 1
            other = live.request[frame]
            live.held[q.start[other] + live.slot[frame] - q.base[other]] = 0
        live.slot[frame], live.request[frame] = slot, r
        live.held[q.start[r] + k] = 1
    live.pages[r] = q.nr[r]
    if q.array[r] >= 0:
        live.of_array[q.array[r]] = r
    if q.length[r] < q.nr[r]:
        live.before[r], live.last[q.alike[r]] = live.last[q.alike[r]], r


@inline
def _whole_request(q, live, r):  # type: ignore[no-untyped-def]
    """The live allocation that this free returns whole, where frames are missing; or -1."""
    if q.array[r] >= 0:
        other = live.of_array[q.array[r]]
        if other >= 0 and q.nr[other] == q.nr[r] and live.pages[other] != 0 and (
                q.length[other] == 0 or q.length[r] == 0
                or q.frames[q.start[other]] == q.frames[q.start[r]]):
            return other
    other = live.last[q.alike[r]] if q.alike[r] >= 0 else -1
    while other >= 0:
        live.last[q.alike[r]] = live.before[other]
        if live.pages[other] == q.nr[r]:
            return other
        other = live.last[q.alike[r]]
    return -1


@inline
def _end_life(q, live, request, slot):  # type: ignore[no-untyped-def]
    """One page of a request is free."""
    k = slot - q.base[request]
    live.pages[request] -= 1
    if k < min(q.length[request], q.nr[request]) and live.held[q.start[request] + k]:
        live.held[q.start[request] + k] = 0
        live.slot[q.frames[q.start[request] + k]] = UNKNOWN


@inline
def _give(q, live, r, slots, owners, flags, counts):  # type: ignore[no-untyped-def]
    """A free: find the slots of its pages, then end their lives."""
    nr, at, known = q.nr[r], q.base[r], min(q.length[r], q.nr[r])
    seen = True
    for k in range(known):
        seen = seen and live.slot[q.frames[q.start[r] + k]] >= 0
    # either side may hold fewer frames: before Linux 6.9 a return probe reads no array
    whole = _whole_request(q, live, r) if known < nr or not seen else -1
    if whole >= 0:
        counts[_FRAMES_INFERRED] += nr - known
    for k in range(nr):
        slots[at + k] = owners[at + k] = UNKNOWN
        if whole >= 0:
            slots[at + k], owners[at + k] = q.base[whole] + k, whole
        elif k < known:
            frame = q.frames[q.start[r] + k]
            slots[at + k], owners[at + k] = live.slot[frame], live.request[frame]
    if whole >= 0 or known < nr:
        flags[r] |= _INFERRED
    missing = 0
    for k in range(nr):
        if slots[at + k] < 0:
            missing += 1
        else:
            _end_life(q, live, owners[at + k], slots[at + k])
    if missing:
        counts[_UNKNOWN_FREED] += missing
        flags[r] |= _LOST_TRACK


@kernel()
def _walk(q, live, slots, owners, flags, counts):  # type: ignore[no-untyped-def]
    for r in range(len(q.nr)):
        if not q.alloc[r]:
            _give(q, live, r, slots, owners, flags, counts)
        elif not q.failed[r]:
            _take(q, live, r, counts)


def _numbered(frames: Ints) -> tuple[Ints, int]:
    """Frames as numbers from 0 on, and how many there may be."""
    if not len(frames):
        return frames, 0
    if frames.min() >= -1 and frames.max() < MAX_DENSE:
        return frames + 1, int(frames.max()) + 2
    different, numbers = np.unique(frames, return_inverse=True)
    return numbers.astype(np.int64), len(different)


def _alike(rows: Ints, nr: Ints, last: Ints, frames: Ragged) -> Ints:
    """Numbers equal for requests of one size with the same recorded frames and last frame.

    -1 for those that are recorded whole, and within what tells requests apart.
    """
    known: dict[tuple[Any, ...], int] = {}
    numbers = np.full(len(rows), -1, dtype=np.int64)
    length = frames.length[rows]
    short = np.flatnonzero((length < nr[rows]) | (length >= _SIGNATURE_FRAMES))
    for k in short.tolist():
        row = rows[k]
        first = frames.row(row)[:_SIGNATURE_FRAMES]
        key = (int(nr[row]), int(last[row]), first.tobytes())
        numbers[k] = known.setdefault(key, len(known))
    return numbers


def _requests(table: pa.Table, rows: Ints) -> tuple[Requests, int]:
    """The rows' requests, and how many different frames they may name."""
    nr, value = ints(table, "nr_pages", 0), ints(table, "value")
    flags, frames = ints(table, "flags", 0), ragged(table, "frames")
    alloc = is_kind(table, "alloc")
    if max(int(nr[alloc].sum()), int(nr[rows].sum() - nr[alloc].sum())) > MAX_PAGES:
        raise ReplayError(f"more than {MAX_PAGES} pages are allocated or freed in one recording")
    pages = np.where(alloc, nr, 0)
    base = (np.cumsum(pages) - pages)[rows]
    freed = np.where(alloc[rows], 0, nr[rows])
    base = np.where(alloc[rows], base, np.cumsum(freed) - freed)
    numbers, count = _numbered(frames.values)
    arrays = numbered(value[rows])[0]
    last = np.where(flags & int(Flag.ARRAY_TRUNCATED), value, NONE)
    return Requests(
        alloc[rows].astype(np.int64), nr[rows],
        (ints(table, "errno", 0)[rows] < 0).astype(np.int64), base,
        frames.start[rows], frames.length[rows], numbers,
        np.where(value[rows] == NONE, -1, arrays), _alike(rows, nr, last, frames)), count


def pair(table: pa.Table, anomalies: Anomalies) -> pa.Table:
    """The table with `slots` filled for every free, in the order of `lock_rank`.

    ReplayError for more pages than can be followed one by one.
    """
    rows = np.flatnonzero(is_kind(table, "alloc", "free"))
    rows = rows[np.argsort(ints(table, "lock_rank")[rows], kind="stable")]
    q, count = _requests(table, rows)
    empty = np.full(len(rows), -1, dtype=np.int64)
    live = Live(np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64),
                np.zeros(len(q.frames), dtype=np.int64), np.zeros(len(rows), dtype=np.int64),
                empty.copy(), empty.copy(), empty)
    flags, counts = ints(table, "flags", 0)[rows], np.zeros(_COUNTS, dtype=np.int64)
    slots = np.empty(int(q.nr[q.alloc == 0].sum()), dtype=np.int64)
    _walk(q, live, slots, np.empty_like(slots), flags, counts)
    for name, place in (("pages_already_live", _ALREADY_LIVE),
                        ("frames_inferred", _FRAMES_INFERRED),
                        ("pages_unknown_freed", _UNKNOWN_FREED)):
        anomalies.count(name, int(counts[place]))
    anomalies.count("pages_live_at_end", int(np.maximum(live.pages, 0).sum()))
    every = ints(table, "flags", 0)
    every[rows] = flags
    table = replace(table, "slots", _lists(len(table), rows, q, slots))
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
