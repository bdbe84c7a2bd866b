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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base import memory
from replay.base.errors import ReplayError
from replay.base.scratch import Scratch
from replay.engine.drive import LARGEST_REQUEST
from replay.trace.calls import Calls, calls_of
from replay.trace.columns import Ragged, encoded, ragged
from replay.trace.placing import GIVES, NO_SLOTS, TAKES, Moves, Placed, place
from replay.trace.schema import RELEASE, SCHEMA, SLOT, STORED

KEPT = ("task", "pid", "caller", "nr_pages")
"""Columns of a release that are its allocation's."""
MOVES_AT_ONCE = 1 << 16



@dataclass(frozen=True)
class Compacted:
    """Rows of a file, to be made batch by batch; bounds: see above. rows: how many they are.

    source: the rows as they are in memory, in batches of about so many.
    """

    bounds: dict[str, int]
    rows: int
    moves: Moves
    placed: Placed
    source: Callable[[int], Iterator[pa.RecordBatch]]

    def batches(self, size: int) -> Iterator[pa.RecordBatch]:
        """Record batches of STORED, of `size` rows each but for the last."""
        rows = self.rows - len(self.placed.releases.time)
        return resized(_Storing(self.moves, self.placed, rows).tables(self.source(size)), size)


class _Storing:
    """Turns rows as they are in memory into those of a file."""

    def __init__(self, moves: Moves, placed: Placed, rows: int) -> None:
        self.moves, self.placed, self.rows = moves, placed, rows
        self.row = self.call = self.release = 0
        self.failed: dict[int, pa.Table] = {}
        """By call, the row of an allocation that is to be released."""

    def tables(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        """A table of STORED for each batch."""
        for batch in batches:
            yield self._table(pa.Table.from_batches([batch]))

    def _table(self, table: pa.Table) -> pa.Table:
        moves, placed, rows = self.moves, self.placed, table.num_rows
        end = self.call + int(np.searchsorted(moves.row[self.call :], self.row + rows))
        calls, at = slice(self.call, end), moves.row[self.call : end] - self.row
        slot = np.full(rows, -1, np.int64)
        slot[at] = placed.slot[calls]
        low = int(placed.end[self.call - 1]) if self.call else 0
        length = np.zeros(rows, np.int64)
        length[at] = np.diff(placed.end[calls], prepend=low)
        ends = np.concatenate(([0], np.cumsum(length)))
        given = pa.ListArray.from_arrays(
            pa.array(ends.astype(np.int32)), pa.array(placed.runs[low : low + int(ends[-1])]),
            mask=_whole(pc.is_null(table["slots"])))
        found = len(placed.releases.time) > 0
        if found:
            self._remember(table, calls, at)
            last = self.row + rows == self.rows
            table, slot, given = self._released(table, slot, given, last=last)
        self.row, self.call = self.row + rows, end
        columns = [table[name] for name in SCHEMA.names]
        place = STORED.names.index("slots")
        columns[place - 1] = given
        columns.insert(place - 1, pa.array(slot, mask=slot < 0))
        return pa.Table.from_arrays(columns, schema=STORED)

    def _remember(self, table: pa.Table, calls: slice, at: np.ndarray) -> None:
        for k in np.flatnonzero(self.moves.failed[calls]).tolist():
            self.failed[calls.start + k] = table.slice(int(at[k]), 1)

    def _released(self, table: pa.Table, slot: np.ndarray, given: pa.Array, *, last: bool
                  ) -> tuple[pa.Table, np.ndarray, pa.Array]:
        """The rows with those of the releases between them."""
        placed, time = self.placed, table["time_ns"].to_numpy()
        times = placed.releases.time[self.release :]
        due = len(times) if last else int(np.searchsorted(times, time[-1]))
        calls = placed.releases.call[self.release : self.release + due]
        times, self.release = times[:due], self.release + due
        at = np.searchsorted(time, times, side="right")
        added = np.zeros(table.num_rows + due, np.bool_)
        added[at + np.arange(due)] = True
        origin = np.cumsum(~added) - 1
        origin[added] = table.num_rows + np.arange(due)
        slot = np.concatenate((slot, placed.slot[calls]))[origin]
        rows = pa.concat_tables([table, *(self.failed.pop(call) for call in calls.tolist())])
        given = given.take(pa.array(origin, mask=added))
        return _taken(rows, times, origin, added, self.moves.row[calls]), slot, given


def resized(tables: Iterator[pa.Table], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows as batches of `size` each but for the last."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= size:
            batch, waiting = _first(waiting, size)
            rows -= size
            yield batch
    if rows:
        yield _batch(pa.concat_tables(waiting))


def _first(waiting: list[pa.Table], size: int) -> tuple[pa.RecordBatch, list[pa.Table]]:
    """A batch of the first rows, and what is left; of the others' memory nothing is held."""
    whole = waiting[0] if len(waiting) == 1 else pa.concat_tables(waiting)
    rest = [whole.slice(size)] if whole.num_rows > size else []
    return _batch(whole.slice(0, size)), rest


def _batch(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_whole(column) for column in table.combine_chunks().columns],
                                      schema=table.schema)


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
    moves = moves_of(calls, listed, name)
    pages = int(calls.pages[calls.alloc].sum(dtype=np.float64))
    memory.need(memory.used() + 8 * (pages + 2 * len(listed.values)), f"trace {name!r}: {pages} "
                "pages", "split it by time")
    return compacted(moves, table.num_rows, int(calls.goal[calls.target].max(initial=0)),
                     int(calls.time.max(initial=0)), name, start, Scratch(),
                     lambda size: iter(table.to_batches(max_chunksize=size)))


def compacted(moves: Moves, rows: int, target: int, last: int, name: str, start: dict[str, Any],
              scratch: Scratch, source: Callable[[int], Iterator[pa.RecordBatch]]) -> Compacted:
    """Rows as they stand in a file. target: the highest one; last: time of the last row; source:
    see Compacted."""
    placed = place(moves, name, start, scratch)
    most = 0
    for at in range(0, len(moves.row), MOVES_AT_ONCE):
        part = slice(at, at + MOVES_AT_ONCE)
        most = max(most, int(moves.pages[part][moves.what[part] != NO_SLOTS].max(initial=0)))
    bounds = {"slots": placed.slots, "live_pages": placed.live_pages, "request_pages": most,
              "target_pages": target, "before": placed.before, "last_ns": last}
    return Compacted(bounds, rows + len(placed.releases.time), moves, placed, source)


def moves_of(calls: Calls, listed: Ragged, name: str, first: int = 0) -> Moves:
    """The calls of a table. first: the number of its first row. ReplayError where no replay could
    be made of it."""
    bad = (calls.alloc | calls.free) & ((calls.pages < 1) | (calls.pages > LARGEST_REQUEST))
    if bad.any():
        row = int(np.argmax(bad))
        raise ReplayError(f"trace {name!r}, row {first + row}: a request of "
                          f"{int(calls.pages[row])} pages, "
                          f"expected 1 to {LARGEST_REQUEST}")
    if (listed.length[calls.free] != calls.pages[calls.free]).any():
        row = int(np.argmax(calls.free & (listed.length != calls.pages)))
        raise ReplayError(f"trace {name!r}, row {first + row}: a free without the slots of its "
                          "pages; import the recording again")
    if (np.diff(calls.time) < 0).any():
        raise ReplayError(f"trace {name!r}: time runs backwards; sort the trace")
    if listed.length[~calls.free].any():
        row = int(np.argmax((listed.length > 0) & ~calls.free))
        raise ReplayError(f"trace {name!r}, row {first + row}: slots on a row that is no free")
    rows = np.flatnonzero(calls.alloc | calls.free)
    return Moves(first + rows, calls.time[rows], np.where(calls.alloc, TAKES, GIVES)[rows],
                 calls.pages[rows], calls.pid[rows],
                 (calls.alloc & (calls.errno < 0)).astype(np.int64)[rows], listed.start[rows],
                 listed.values)


def _taken(rows: pa.Table, times: np.ndarray, origin: np.ndarray, added: np.ndarray,
           named: np.ndarray) -> pa.Table:
    """Rows in another order, some of them as releases at `times` of allocations of rows `named`."""
    place, made = pa.array(origin, mask=added), pa.array(added)
    columns = {name: rows[name].take(pa.array(origin) if name in KEPT else place)
               for name in SCHEMA.names}
    codes, names = encoded(rows, "kind")
    null = len(names) - 1  # of kinds; the place is that of a release from here on
    unknown = ~added & (codes[origin] == null)
    codes = np.where(added, null, codes[origin]).astype(np.int16)
    columns["kind"] = pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=unknown), pa.array([*names[:null], RELEASE]))
    time, alloc = rows["time_ns"].to_numpy()[origin], np.zeros(len(origin), np.int64)
    time[added], alloc[added] = times, named
    columns["time_ns"] = pa.array(time)
    columns["value"] = pc.if_else(made, pa.array(alloc), columns["value"])
    columns["flags"] = pc.if_else(made, pa.scalar(0, pa.int32()), columns["flags"])
    return pa.table(columns, schema=SCHEMA)
