"""The outcome of a run as Arrow tables and files: one row per request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.arrow import numbers
from replay.base.errors import ReplayError
from replay.costs.primitives import WORK
from replay.engine.drive import LARGEST_REQUEST, Outcome
from replay.metrics.calls import NO_CALLER, PATHS, PageWork
from replay.metrics.part import Part, whole
from replay.runs.columns import Columns, fill, room
from replay.trace.columns import encoded
from replay.trace.store import Trace

COMPRESSION = pa.ipc.IpcWriteOptions(compression="lz4", emit_dictionary_deltas=True)
"""A row of one-page requests takes 10 bytes and 64 ns of a core; zstd makes 4 of it, in 200 ns."""

MOST_WORK = (1 << 32) - 1 - LARGEST_REQUEST
"""Of a primitive, by one request, without those of its pages."""


@dataclass(frozen=True)
class Kept:
    """Requests of which a row each is kept.

    work: (some, primitives), without the list operations of pages, where rows say; see
    outcome.ROW. event: trace row of each. task: number of its name in `tasks`.
    """

    part: Part
    work: np.ndarray
    page_work: PageWork
    event: np.ndarray
    task: np.ndarray
    tasks: Sequence[str]


KINDS_OF_REQUESTS = pa.array(["alloc", "free", "target"])
ALL_PATHS = pa.array(PATHS)


def _coded(codes: np.ndarray, texts: pa.Array) -> pa.Array:
    """Texts by number; that each has one is certain, and looking took longer than writing them."""
    return pa.DictionaryArray.from_arrays(numbers(codes), texts, safe=False)


def _texts(codes: np.ndarray, texts: Sequence[str]) -> pa.Array:
    return _coded(codes.astype(np.int32, copy=False), pa.array(list(texts), pa.string()))


def _work_columns(kept: Kept, made: Columns) -> dict[str, np.ndarray]:
    """Primitives by name, with those of the pages. ReplayError for more than uint32 holds."""
    worked = kept.part.rows["worked"]
    did = np.flatnonzero(worked)
    sums, nothing = kept.work[worked[did] - 1], np.zeros(len(kept.part), np.uint32)
    if sums.max(initial=0) > MOST_WORK:
        raise ReplayError(f"one request did {int(sums.max())} of a primitive, more than {MOST_WORK}"
                          ": a file cannot hold it; replay smaller sections or requests")
    found = {}
    for k, name in enumerate(WORK):
        moved = [column for names, column in zip(kept.page_work, (made.taken, made.given),
                                                 strict=True) if name in names]
        column = sum(moved[1:], moved[0]) if moved else nothing
        if sums[:, k].any():
            column = column.copy()
            column[did] += sums[:, k].astype(np.uint32)
        found[f"work_{name}"] = column
    return found


def outcome_rows(kept: Kept, made: Columns | None = None) -> pa.Table:
    """One row per request. Times are modelled, in ns; work columns count primitives.

    first_pfn is -1 and frames_hash 0 where no frames were handed out. made: columns of as many
    requests to be filled, which the table then shows.
    """
    part = kept.part
    made = fill(part, room(len(part)) if made is None else made)
    callers = ["" if name == NO_CALLER else name for name in part.callers]
    columns: dict[str, Any] = {
        "event": kept.event, "time_ns": part.time, "kind": _coded(made.kind, KINDS_OF_REQUESTS),
        "task": _texts(kept.task, kept.tasks), "caller": _texts(part.caller, callers),
        "nr_pages": part.pages, "wait_ns": made.wait_ns, "service_ns": made.service_ns,
        "latency_ns": made.latency_ns,
        "path": _coded(made.path, ALL_PATHS),
        "errno": made.errno, "runs": made.runs, "first_pfn": made.first_pfn,
        "frames_hash": made.frames_hash, **_work_columns(kept, made)}
    return pa.table({name: numbers(column) if isinstance(column, np.ndarray) else column
                     for name, column in columns.items()})


def outcome_table(outcome: Outcome, trace: Trace) -> pa.Table:
    """The rows of a replay whose requests are all at hand."""
    event = outcome.workload.event
    codes, texts = encoded(trace.table, "task")
    part = whole(outcome, trace)
    did = np.flatnonzero(outcome.work.any(axis=1))
    rows = part.rows.copy()
    rows["worked"][did] = np.arange(1, len(did) + 1)
    return outcome_rows(Kept(replace(part, rows=rows), outcome.work[did], outcome.page_work,
                             event, codes[event], texts))


def arrow_writer(table: pa.Table) -> Callable[[Path], None]:
    """Writes a table as an Arrow IPC file."""
    def write(path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(
                sink, table.schema, options=COMPRESSION) as writer:
            writer.write_table(table)
    return write
