"""What has been found out about calls, put into their rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from replay.importers.ordering.ledger import OF_FREE, Ledger
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE, ints, replace

LISTED = {"listed": "list_count", "listed_after": "list_count_after", "head": "list_head",
          "head_after": "list_head_after"}
"""What is read of a list: columns of the ledger, and of rows."""


def hide_lists(ledger: Ledger) -> int:
    """Take out the length of the pool's list where the balloon driver served the call: without
    balloon_stats beside it, it is not that of the driver's list. How many calls had one."""
    hidden = 0
    for part in ledger.parts():
        other = (ledger.kind[part] <= OF_FREE) & (ledger.listed[part] != NONE) & (
            ledger.current[part] == NONE)
        hidden += int(other.sum())
        for name in LISTED:
            getattr(ledger, name)[part][other] = NONE
    return hidden


def told(batches: Iterator[pa.RecordBatch], ledger: Ledger, *, lists: bool, paired: bool
         ) -> Iterator[pa.RecordBatch]:
    """Rows with what the ledger says of their calls.

    lists: whether lengths and heads of lists are among it; paired: whether rank, flags and slots.
    """
    begin = row = 0
    for batch in batches:
        end = begin + int(np.searchsorted(ledger.row[begin:], row + batch.num_rows))
        calls = slice(begin, end)
        table, at = pa.Table.from_batches([batch]), ledger.row[calls] - row
        if lists:
            for name, column in LISTED.items():
                values = ints(table, column)
                absent = values == NONE
                absent[at] = getattr(ledger, name)[calls] == NONE
                table = replace(table, column, pa.array(values, pa.int64(), mask=absent))
        if paired:
            table = _paired(table, at, ledger, calls)
        begin, row = end, row + batch.num_rows
        ledger.scratch.relax()
        yield table.combine_chunks().to_batches()[0]


def _paired(table: pa.Table, at: Ints, ledger: Ledger, calls: slice) -> pa.Table:
    rank, flags = np.full(len(table), NONE, dtype=np.int64), ints(table, "flags", 0)
    rank[at], flags[at] = ledger.rank[calls], ledger.flags[calls]
    table = replace(table, "flags", pa.array(flags, pa.int64()))
    table = replace(table, "lock_rank", pa.array(rank, pa.int64(), mask=rank == NONE))
    return replace(table, "slots", _lists(len(table), at, ledger, calls))


def _lists(count: int, at: Ints, ledger: Ledger, calls: slice) -> pa.ListArray:
    """The freed slots as a list per row, null but for frees."""
    length, absent = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_)
    sizes = ledger.slot_count[calls]
    length[at], absent[at] = np.maximum(sizes, 0), sizes < 0
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(length)))
    start = np.zeros(count, dtype=np.int64)
    start[at] = ledger.slot_at[calls]
    place = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)),
                                    pa.array(ledger.slots[place], pa.int64()),
                                    mask=pa.array(absent))
