"""Outcomes and traces made by hand, so that metrics and reports are tested without a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from replay.costs import profile
from replay.costs.primitives import WORK
from replay.engine.drive import Outcome, Workload
from replay.engine.gauges import AREAS
from replay.engine.histogram import HIST_BUCKETS, bucket_of
from replay.engine.outcome import HISTOGRAMS, ROW
from replay.engine.requests import ALLOC, FREE, Requests
from replay.engine.state import SECTION
from replay.engine.strategy import Strategy
from replay.physmap.model import HostRange, Memory, Physmap, Resource
from replay.trace.schema import COLUMNS, SCHEMA
from replay.trace.meta import Meta
from replay.trace.store import Trace

MIB = 1 << 20
plain_bucket_of = getattr(bucket_of, "py_func", bucket_of)

MACHINE = Physmap(
    name="toy", arch="arm64", mode="arm", page_bytes=4096, section_bytes=8 * MIB,
    direct_mapped=True, iommu=True, iomem_end=1 << 32, pluggable=(16 * MIB, 1 << 32),
    iomem=(Resource(0, 16 * MIB, "System RAM"), Resource(64 * MIB, 80 * MIB, "PCI Bus 0000:00")),
    clip=(), regions=((17 * MIB, 40 * MIB), (96 * MIB, 112 * MIB)),
    host=(HostRange(0, 16 * MIB, "ram_dom0"), HostRange(16 * MIB, 32 * MIB, "ram_other"),
          HostRange(48 * MIB, 50 * MIB, "mmio", "uart")),
    memory=Memory(available=1024, current=4096, target=4096, total=4096))

STRATEGY = Strategy(name="toy", summary="a toy", models="nothing",
                    init=None, run=None, alloc=None, free=None, wake=None)  # type: ignore


def requests(calls: list[tuple[Any, ...]]) -> Workload:
    """A workload of ("alloc", time, pages) and ("free", time, [slots])."""
    time, kind, pages, first, slots = [], [], [], [], []
    slot = 0
    for what, at, of in calls:
        time.append(at)
        kind.append(ALLOC if what == "alloc" else FREE)
        if what == "alloc":
            pages.append(of)
            first.append(slot)
            slot += of
        else:
            pages.append(len(of))
            first.append(len(slots))
            slots += of
    q = Requests(*(np.array(c, np.int64) for c in (time, kind, pages, first, slots)))
    return Workload(q, slot, slot, np.arange(len(time)))


def outcome(calls: list[tuple[Any, ...]], rows: list[tuple[int, ...]], frames: list[int],
            sections: Sequence[tuple[int, ...]] = (), **changes: Any) -> Outcome:
    """An outcome of these requests; rows are (wait, service, errno, path, runs), sections are
    (time, first frame, pages, kind).
    """
    workload = requests(calls)
    moved = [(of if row[2] == 0 else 0) if what == "alloc" else
             sum(slot >= 0 and frames[slot] >= 0 for slot in of)
             for (what, _, of), row in zip(calls, rows, strict=True)]
    table = np.array([(*row, pages, 0) for row, pages in zip(rows, moved, strict=True)], ROW)
    histograms = {name: np.zeros(HIST_BUCKETS, np.int64) for name in HISTOGRAMS}
    for kind, (wait, service, errno, path, *_) in zip(workload.requests.kind, table, strict=True):
        if kind == FREE:
            histograms["free_latency"][plain_bucket_of(int(wait + service))] += 1
        elif kind == ALLOC and errno == 0:
            histograms["alloc_latency"][plain_bucket_of(int(wait + service))] += 1
            if path:
                histograms["alloc_slow"][plain_bucket_of(int(wait + service))] += 1
            histograms["alloc_wait"][plain_bucket_of(int(wait))] += 1
            histograms["alloc_service"][plain_bucket_of(int(service))] += 1
    nothing = dict.fromkeys(AREAS, 0.0)
    made = Outcome(
        strategy=STRATEGY, options={}, machine=MACHINE, profile=profile.load("arm64"),
        mode=workload.mode, start=workload.start, workload=workload, notes=(), rows=table,
        work=np.zeros((len(workload), len(WORK)), np.int64), frames=np.array(frames, np.int64),
        sections=np.array(list(sections), SECTION), free_list=np.zeros(0, np.int64),
        histograms=histograms, areas=dict(nothing), peaks=dict(nothing), ends=dict(nothing),
        background=dict.fromkeys(WORK, 0), of_calls=dict.fromkeys(WORK, 0),
        tallies={"sleeping_at_end": 0, "freed_while_sleeping": 0, "thread_spins": 0,
                 "thread_passes": 0, "frees_skipped": 0},
        page_work=(("list_pop",), ("list_push",)), duration_ns=1000)
    return replace(made, **changes)


def named(o: Outcome, name: str) -> Outcome:
    """The same outcome under another strategy's name."""
    return replace(o, strategy=replace(o.strategy, name=name))


def trace(events: list[dict[str, Any]], **about: Any) -> Trace:
    """A trace of these rows; what a row does not name is null."""
    full = [{c.name: None for c in COLUMNS} | {"source": 0} | event for event in events]
    table = pa.Table.from_pylist(full, schema=SCHEMA)
    meta: dict[str, Any] = {
        "name": "made", "synthetic": False, "description": "", "sources": [], "clock": {},
        "provenance": {}, "recorded_strategy": "pool",
        "accounting": {"records": len(events), "imported": len(events), "skipped": {}, "lost": 0},
        "anomalies": {}, "physmap": MACHINE}
    return Trace(table, Meta(**(meta | about)))
