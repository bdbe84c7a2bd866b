"""From a table as it is in memory to the rows of a file, in which slots are used again.

In memory page k of all pages ever allocated is slot k, and a free lists them page by page: simple
to work on, but it grows with the trace. A file tells a replay beforehand how many pages are live at
most, and what is to come of each: its slots (trace/slots.py) are used again after their page is
freed; a free names them as runs, in the order of its pages; and the free that a replay makes up
for an allocation that failed in the recording (trace/calls.py) is a row of its own, of kind
`release`, in its place in time. It is no record of a source, and no account counts it.

`Meta.bounds` then holds: slots (numbers used), live_pages (most live at once, those from before the
recording included), request_pages (of the largest request), target_pages (of the highest target),
before (pages freed that were live before the recording), last_ns (time of the last row).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from replay.base import memory
from replay.base.compiled import compiled, record
from replay.base.errors import ReplayError
from replay.engine.drive import LARGEST_REQUEST
from replay.engine.requests import IMPOSSIBLE
from replay.trace.calls import Calls, calls_of, releases
from replay.trace.columns import encoded, ragged
from replay.trace.schema import RELEASE, SCHEMA, SLOT, STORED
from replay.trace.slots import Arena, doubled, give, new_arena, take
from replay.trace.start import BEFORE, pages_of

NO_SLOTS, TAKES, GIVES, LETS_GO = 0, 1, 2, 3
"""What a row does with slots: none, an allocation, a free, a release."""
MUST_GROW, STRANGE = -1, len(IMPOSSIBLE)
"""Beside the numbers of IMPOSSIBLE: the arena is full; a free names what is no slot."""
KEPT = ("task", "pid", "caller", "nr_pages")
"""Columns of a release that are its allocation's."""

PASS = record("row", "pages", "runs", "live", "most", "before")
"""Where a pass is: rows, pages allocated and words of runs so far; pages live, most of them so far;
pages freed so far that were live before."""


class _Rows(NamedTuple):
    """By row of the file: what it does, its pages, the first of its allocation's pages among all;
    where its page numbers begin in `values`. And what comes of it: slot, and end of its runs."""

    what: np.ndarray
    pages: np.ndarray
    base: np.ndarray
    start: np.ndarray
    values: np.ndarray
    slot: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Compacted:
    """Rows of a file, to be made batch by batch; bounds: see above."""

    bounds: dict[str, int]
    rows: int
    table: pa.Table
    slot: np.ndarray
    end: np.ndarray
    runs: np.ndarray

    def batches(self, size: int) -> Iterator[pa.RecordBatch]:
        """Record batches of STORED, of `size` rows each but for the last."""
        at = STORED.names.index("slots")
        taken = pa.array(self.slot, mask=self.slot < 0)
        for a in range(0, self.rows, size):
            part = self.table.slice(a, size).combine_chunks()
            given = part["slots"]
            columns = [_whole(column) for column in part.columns]
            b = a + part.num_rows
            low = int(self.end[a - 1]) if a else 0
            ends = (np.concatenate(([low], self.end[a:b])) - low).astype(np.int32)
            columns[at - 1] = pa.ListArray.from_arrays(
                pa.array(ends), pa.array(self.runs[low : int(self.end[b - 1])]),
                mask=_whole(pc.is_null(given)))
            yield pa.RecordBatch.from_arrays(
                [*columns[: at - 1], taken[a:b], *columns[at - 1 :]], schema=STORED)


def _whole(column: Any) -> pa.Array:
    """A column in one piece."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def without_calls(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of SCHEMA that holds no allocator calls as one of STORED."""
    at = STORED.names.index(SLOT.name)
    return pa.RecordBatch.from_arrays(
        [*batch.columns[:at], pa.nulls(batch.num_rows, SLOT.type), *batch.columns[at:]],
        schema=STORED)


def compact(table: pa.Table, name: str, start: dict[str, Any]) -> Compacted:
    """A sorted table of SCHEMA as it stands in a file; start: of its Meta.

    ReplayError, in the name of the trace, where no replay could be made of it.
    """
    calls, listed = calls_of(table), ragged(table, "slots")
    calls_pages = calls.pages[calls.alloc | calls.free]
    most = int(calls_pages.max(initial=0))
    bad = (calls.alloc | calls.free) & ((calls.pages < 1) | (calls.pages > LARGEST_REQUEST))
    if bad.any():
        row = int(np.argmax(bad))
        raise ReplayError(f"trace {name!r}, row {row}: a request of {int(calls.pages[row])} pages, "
                          f"expected 1 to {LARGEST_REQUEST}")
    if (listed.length[calls.free] != calls.pages[calls.free]).any():
        raise ReplayError(f"trace {name!r}: a free without the slots of its pages; import the "
                          "recording again")
    if (np.diff(calls.time) < 0).any():
        raise ReplayError(f"trace {name!r}: time runs backwards; sort the trace")
    if listed.length[~calls.free].any():
        row = int(np.argmax((listed.length > 0) & ~calls.free))
        raise ReplayError(f"trace {name!r}, row {row}: slots on a row that is no free")
    time, origin, added = _with_releases(calls)
    what = np.where(calls.alloc, TAKES, np.where(calls.free, GIVES, NO_SLOTS))[origin]
    what[added] = LETS_GO
    base = np.cumsum(np.where(calls.alloc, calls.pages, 0)) - calls.pages
    rows = _Rows(what, calls.pages[origin], base[origin], listed.start[origin], listed.values,
                 np.full(len(origin), -1, np.int64), np.zeros(len(origin), np.int64))
    done, runs, top = _run(rows, int(calls.pages[calls.alloc].sum(dtype=np.float64)), name, start)
    bounds = {
        "slots": top, "live_pages": int(done["most"]), "request_pages": most,
        "target_pages": int(calls.goal[calls.target].max(initial=0)),
        "before": int(done["before"]), "last_ns": int(calls.time.max(initial=0))}
    return Compacted(bounds, len(origin), _taken(table, time, origin, added), rows.slot, rows.end,
                     runs[: int(done["runs"])])


def _with_releases(calls: Calls) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By row of the file, its time and the row of the table that it is from; which are releases."""
    times, failed = releases(calls)
    at = np.searchsorted(calls.time, times, side="right")
    added = np.zeros(len(calls.time) + len(failed), np.bool_)
    added[at + np.arange(len(failed))] = True
    origin = np.cumsum(~added) - 1
    origin[added] = failed
    time = calls.time[origin]
    time[added] = times
    return time, origin, added


def _run(rows: _Rows, pages: int, name: str, start: dict[str, Any]
         ) -> tuple[np.void, np.ndarray, int]:
    """The pass over all rows: where it ended, the runs, how many slots it took."""
    memory.need(memory.used() + 8 * (pages + 2 * len(rows.values)), f"trace {name!r}: {pages} "
                "pages", "split it by time")
    place, runs = np.full(pages, -1, np.int64), np.empty(2 * len(rows.values), np.int64)
    before = int(np.count_nonzero(rows.values == BEFORE))
    done = np.zeros(1, PASS)
    done["live"] = done["most"] = max(before, pages_of(start, "live"))
    arena = new_arena()
    while why := int(_place(rows, place, runs, arena, done)):
        if why == MUST_GROW:
            arena = doubled(arena)
            continue
        says = "names a slot beyond the trace's pages" if why == STRANGE else IMPOSSIBLE[why]
        row = int(np.count_nonzero(rows.what[: int(done["row"][0])] != LETS_GO))
        raise ReplayError(f"trace {name!r}, row {row}: {says}")
    return done[0], runs, int(arena.top[0])


@compiled()
def _place(  # type: ignore[no-untyped-def]
        rows: _Rows, place: np.ndarray, runs: np.ndarray, arena: Arena, done):
    """Give slots to allocations and say frees by them; 0 at the end, else why it stopped before.

    place: by page allocated its slot, -1 once it is freed.
    """
    at = done[0]
    for r in range(at.row, len(rows.what)):
        what, pages, base = rows.what[r], rows.pages[r], rows.base[r]
        at.row = r
        if what == TAKES:
            first = take(arena, pages)
            if first < 0:
                return MUST_GROW
            for k in range(pages):
                place[base + k] = first + k
            rows.slot[r] = first
            at.pages += pages
            at.live += pages
            at.most = max(at.most, at.live)
        elif what == LETS_GO:
            first = place[base]
            for k in range(pages):
                if place[base + k] < 0:
                    return 2
                place[base + k] = -1
            give(arena, first, pages)
            rows.slot[r] = first
            at.live -= pages
        elif what == GIVES:
            why = _say(rows, r, place, runs, arena, done)
            if why:
                return why
        rows.end[r] = at.runs
    return 0


@compiled()
def _say(rows, r, place, runs, arena, done):  # type: ignore[no-untyped-def]
    """The runs of a free; its slots are given back."""
    at = done[0]
    first, count, end = 0, 0, at.runs
    for k in range(rows.start[r], rows.start[r] + rows.pages[r] + 1):
        slot = 0
        last = k == rows.start[r] + rows.pages[r]
        if not last:
            page = rows.values[k]
            if page < BEFORE or page >= len(place):
                return STRANGE
            slot = page
            if page >= 0:
                if page >= at.pages:
                    return 1
                slot = place[page]
                if slot < 0:
                    return 2
                place[page] = -1
        if count and not last:
            if first < 0 and slot == first:
                count += 1
                continue
            if first >= 0 and count > 0 and slot == first + count:
                count += 1
                continue
            if first >= 0 and slot >= 0 and count <= 1 and slot == first - abs(count):
                count = -abs(count) - 1
                continue
        if count:
            runs[end], runs[end + 1] = first, count
            end += 2
            if first >= 0:
                give(arena, first if count > 0 else first + count + 1, abs(count))
            if first != -1:
                at.live -= abs(count)
            if first == BEFORE:
                at.before += count
        first, count = slot, 1
    at.runs = end
    return 0


def _taken(table: pa.Table, time: np.ndarray, origin: np.ndarray, added: np.ndarray) -> pa.Table:
    """The table's rows with those of releases between them."""
    if not added.any():
        return table
    place, made = pa.array(origin, mask=added), pa.array(added)
    columns = {name: table[name].take(pa.array(origin) if name in KEPT else place)
               for name in SCHEMA.names}
    codes, names = encoded(table, "kind")
    null = len(names) - 1  # of kinds; the place is that of a release from here on
    unknown = ~added & (codes[origin] == null)
    codes = np.where(added, null, codes[origin]).astype(np.int16)
    columns["kind"] = pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=unknown), pa.array([*names[:null], RELEASE]))
    columns["time_ns"] = pa.array(time)
    columns["value"] = pc.if_else(made, pa.array(origin), columns["value"])
    columns["flags"] = pc.if_else(made, pa.scalar(0, pa.int32()), columns["flags"])
    return pa.table(columns, schema=SCHEMA)
