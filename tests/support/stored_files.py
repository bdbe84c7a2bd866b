"""Trace files as they are stored: many small batches, and changes that no writer would make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.drive import Workload
from replay.engine.requests import ALLOC, FREE, Requests
from replay.trace.batches import Batches
from replay.trace.schema import STORED
from replay.trace.opening import KEY

Change = Callable[[list[dict[str, Any]]], Any]


def changed(path: Path, to: Path, rows: Change | None = None, *, size: int = 64,
            bounds: dict[str, Any] | None = None) -> Path:
    """The file in batches of `size` rows, after a change of its rows or its bounds."""
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    said = json.loads(table.schema.metadata[KEY])
    said["bounds"] = {**said["bounds"], **(bounds or {})}
    listed = table.to_pylist()
    if rows is not None:
        rows(listed)
    table = pa.Table.from_pylist(listed, STORED.with_metadata({KEY: json.dumps(said).encode()}))
    with pa.OSFile(str(to), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=size)
    return to


def with_own_slots(batches: Batches) -> Workload:
    """All batches as one workload, page k of all pages allocated as slot k; by plain Python."""
    parts = list(batches)
    now: dict[int, int] = {}
    columns: dict[str, list[int]] = {name: [] for name in ("time", "kind", "pages", "first")}
    slots: list[int] = []
    allocated = 0
    total = sum(int(p.requests.pages[p.requests.kind == ALLOC].sum()) for p in parts)
    for q in (part.requests for part in parts):
        for name in ("time", "kind", "pages"):
            columns[name] += getattr(q, name).tolist()
        for kind, pages, first in zip(q.kind.tolist(), q.pages.tolist(), q.first.tolist(),
                                      strict=True):
            columns["first"].append(
                allocated if kind == ALLOC else len(slots) if kind == FREE else 0)
            if kind == ALLOC:
                now.update(zip(range(first, first + pages),
                               range(allocated, allocated + pages), strict=True))
                allocated += pages
            elif kind == FREE:
                for slot in q.slots[first : first + pages].tolist():
                    before = slot - batches.bounds["slots"]
                    slots.append(-1 if slot < 0 else total + before if before >= 0
                                 else now.pop(slot))

    def whole(name: str) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(getattr(p, name) for p in parts)])

    nothing = np.zeros(0, np.int64)  # who asked, and how long it took, is not among what is read
    requests = Requests(*(np.array(c, np.int64) for c in (*columns.values(), slots)))
    return Workload(requests, total, batches.bounds["live_pages"], whole("event"),
                    nothing, nothing, start=batches.start)


def texts(batches: Batches, name: str) -> list[str]:
    """Of all requests the texts of `task` or `caller`."""
    return [part.texts[code] for batch in batches for part in (getattr(batch, name),)
            for code in part.codes.tolist()]


def assert_same(found: Workload, expected: Workload) -> None:
    """The same requests in the same order, the same page to each, and the same beginning."""
    for name, one, other in zip(Requests._fields, found.requests, expected.requests, strict=True):
        assert np.array_equal(one, other), name
    assert np.array_equal(found.event, expected.event)
    assert (found.nr_slots, found.peak_pages) == (expected.nr_slots, expected.peak_pages)
    one, other = found.start, expected.start
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        for name, value in vars(one).items():
            assert np.array_equal(value, getattr(other, name)), name
