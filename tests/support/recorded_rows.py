"""Small recordings of the pool and of the balloon, as traces."""

from __future__ import annotations

import pyarrow as pa
from replay.base.anomalies import Anomalies
from replay.importers.ordering.order import recover
from replay.importers.ordering.pairing import pair
from replay.physmap import presets
from replay.trace.schema import SCHEMA
from replay.trace.meta import Meta
from replay.trace.store import Trace



def trace_of(rows: list[dict], machine: str, strategy: str) -> Trace:
    table = pa.Table.from_pylist(
        [{name: row.get(name, 0 if name in ("flags", "source") else None) for name in SCHEMA.names}
         for row in rows], SCHEMA)
    anomalies = Anomalies()
    balloon = strategy == "balloon"
    table = pair(recover(table, anomalies, balloon=balloon), anomalies, balloon=balloon)
    return Trace(table, Meta(
        name="inline", synthetic=False, description="", sources=[], clock={}, provenance={},
        recorded_strategy=strategy, accounting={"lost": 0}, anomalies=dict(anomalies.counts),
        physmap=presets.load(machine)))


def pool_rows(first: int = 0x6FFFF) -> list[dict]:
    """A pool's first section on the PV machine: frames come from its end, downwards."""
    base = {"pid": 1, "errno": 0}
    return [
        {**base, "time_ns": 0, "lock_ns": 5, "kind": "alloc", "nr_pages": 2, "list_count": 0,
         "frames": [first, first - 1]},
        {"time_ns": 2, "kind": "section", "pid": 1, "start_pfn": 0x68000, "nr_pages": 32768,
         "label": "Xen scratch"},
        {"time_ns": 10, "kind": "free", "pid": 1, "nr_pages": 2, "frames": [first, first - 1]},
        {**base, "time_ns": 20, "lock_ns": 21, "kind": "alloc", "nr_pages": 3, "list_count": 32768,
         "frames": [first - 1, first, first - 2]},
    ]


def balloon_rows() -> list[dict]:
    """Two pages ballooned out by an allocation, freed, and given back by the thread."""
    stats = {"current_pages": 262144, "target_pages": 262144, "target_unpopulated": 0}
    return [
        {"time_ns": 0, "lock_ns": 1, "kind": "alloc", "pid": 1, "errno": 0, "nr_pages": 2,
         "frames": [500, 501], "list_count": 0, "list_count_after": 0, **stats},
        {"time_ns": 2, "kind": "decrease", "pid": 1, "task": "xl", "nr_pages": 2, "errno": 2,
         "frames": [501, 500]},
        {"time_ns": 100, "lock_ns": 101, "kind": "free", "pid": 1, "nr_pages": 2,
         "frames": [500, 501]},
        {"time_ns": 200, "kind": "increase", "pid": 9, "task": "xen-balloon", "nr_pages": 2,
         "errno": 2, "frames": [501, 500]},
    ]
