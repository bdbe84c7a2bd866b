"""The outcome of a run as Arrow tables and files: one row per request."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.costs.primitives import WORK
from replay.costs.profile import Profile
from replay.engine.drive import Outcome
from replay.engine.requests import ALLOC, FREE
from replay.metrics.calls import NO_CALLER, PATHS, PageWork
from replay.metrics.frames import first_pfn, frames_hash
from replay.metrics.part import Part, whole
from replay.physmap.model import Physmap
from replay.trace.columns import encoded
from replay.trace.store import Trace

COMPRESSION = pa.ipc.IpcWriteOptions(compression="lz4", emit_dictionary_deltas=True)
"""A row of one-page requests takes 10 bytes and 64 ns of a core; zstd makes 4 of it, in 200 ns."""


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


def about(name: str, profile: Profile, machine: Physmap) -> dict[bytes, bytes]:
    """Metadata of the file. name: of the trace."""
    said = {"times": "modelled", "profile": profile.name, "trace": name, "physmap": machine.name}
    return {b"replay": json.dumps(said, sort_keys=True).encode()}


def _texts(codes: np.ndarray, texts: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list(texts)))


def _work_columns(kept: Kept) -> dict[str, np.ndarray]:
    """Primitives by name, with those of the pages."""
    part, worked = kept.part, kept.part.rows["worked"]
    did = np.flatnonzero(worked)
    sums, nothing = kept.work[worked[did] - 1], np.zeros(len(part), np.int64)
    moved = part.rows["pages"].astype(np.int64)
    found = {}
    for k, name in enumerate(WORK):
        column = nothing
        for names, kind in zip(kept.page_work, (ALLOC, FREE), strict=True):
            if name in names:
                column = column + np.where(part.kind == kind, moved, 0)
        if sums[:, k].any():
            column = column.copy()
            column[did] += sums[:, k]
        found[f"work_{name}"] = column
    return found


def outcome_rows(kept: Kept) -> pa.Table:
    """One row per request. Times are modelled, in ns; work columns count primitives.

    first_pfn is -1 and frames_hash 0 where no frames were handed out.
    """
    part = kept.part
    rows = part.rows
    callers = ["" if name == NO_CALLER else name for name in part.callers]
    wait, service = (np.ascontiguousarray(rows[name]) for name in ("wait_ns", "service_ns"))
    kinds = pa.DictionaryArray.from_arrays(pa.array(part.kind, pa.int8()),
                                           pa.array(["alloc", "free", "target"]))
    paths = pa.DictionaryArray.from_arrays(pa.array(rows["path"], pa.int8()), pa.array(PATHS))
    columns: dict[str, Any] = {
        "event": kept.event, "time_ns": part.time, "kind": kinds,
        "task": _texts(kept.task, kept.tasks), "caller": _texts(part.caller, callers),
        "nr_pages": part.pages, "wait_ns": wait, "service_ns": service,
        "latency_ns": wait + service, "path": paths,
        "errno": rows["errno"].astype(np.int64), "runs": rows["runs"].astype(np.int64),
        "first_pfn": first_pfn(part), "frames_hash": frames_hash(part), **_work_columns(kept)}
    return pa.table(columns)


def outcome_table(outcome: Outcome, trace: Trace) -> pa.Table:
    """The rows of a replay whose requests are all at hand."""
    event = outcome.workload.event
    codes, texts = encoded(trace.table, "task")
    part = whole(outcome, trace)
    did = np.flatnonzero(outcome.work.any(axis=1))
    rows = part.rows.copy()
    rows["worked"][did] = np.arange(1, len(did) + 1)
    table = outcome_rows(Kept(replace(part, rows=rows), outcome.work[did], outcome.page_work,
                              event, codes[event], texts))
    return table.replace_schema_metadata(about(
        trace.meta.name, outcome.profile, outcome.machine))


def arrow_writer(table: pa.Table) -> Callable[[Path], None]:
    """Writes a table as an Arrow IPC file."""
    def write(path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(
                sink, table.schema, options=COMPRESSION) as writer:
            writer.write_table(table)
    return write
