"""The outcome of a run as an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.costs.primitives import WORK
from replay.engine.drive import Outcome
from replay.metrics.calls import PATHS, work_of
from replay.metrics.frames import first_pfn, frames_hash
from replay.trace.columns import encoded
from replay.trace.store import Trace


def _texts(trace: Trace, name: str, event: np.ndarray) -> pa.Array:
    codes, texts = encoded(trace.table, name)
    return pa.DictionaryArray.from_arrays(pa.array(codes[event], pa.int32()), pa.array(texts))


def outcome_table(outcome: Outcome, trace: Trace) -> pa.Table:
    """One row per request. Times are modelled, in ns; work columns count primitives.

    first_pfn is -1 and frames_hash 0 where no frames were handed out.
    """
    q, rows, event = outcome.workload.requests, outcome.rows, outcome.workload.event
    work = work_of(outcome)
    kinds = pa.DictionaryArray.from_arrays(pa.array(q.kind, pa.int8()),
                                           pa.array(["alloc", "free", "target"]))
    paths = pa.DictionaryArray.from_arrays(pa.array(rows["path"], pa.int8()), pa.array(PATHS))
    columns: dict[str, Any] = {
        "event": event, "time_ns": q.time, "kind": kinds,
        **{name: _texts(trace, name, event) for name in ("task", "caller")},
        "nr_pages": q.pages, "wait_ns": rows["wait_ns"], "service_ns": rows["service_ns"],
        "latency_ns": rows["wait_ns"] + rows["service_ns"], "path": paths,
        "errno": rows["errno"].astype(np.int64), "runs": rows["runs"].astype(np.int64),
        "first_pfn": first_pfn(outcome), "frames_hash": frames_hash(outcome),
        **{f"work_{name}": work[:, k] for k, name in enumerate(WORK)}}
    table = pa.table(columns)
    about = {"times": "modelled", "profile": outcome.profile.name, "trace": trace.meta.name,
             "physmap": outcome.machine.name}
    return table.replace_schema_metadata({b"replay": json.dumps(about, sort_keys=True).encode()})


def arrow_writer(table: pa.Table) -> Callable[[Path], None]:
    """Writes a table as an Arrow IPC file."""
    def write(path: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(
                sink, table.schema, options=options) as writer:
            writer.write_table(table)
    return write
