"""Verify a whole recording: the allocator that the recorded kernel used, and its balloon driver."""

from __future__ import annotations

import numpy as np

from replay import allocators
from replay.base.errors import ReplayError, naming, unknown_name
from replay.physmap.model import Physmap
from replay.trace.columns import is_kind
from replay.trace.store import Trace
from replay.truth.verify.balloon import balloon_work, verify_balloon
from replay.truth.verify.pool import pool_work, verify_pool
from replay.truth.verify.result import Verification


def _recorded(trace: Trace) -> tuple[str, Physmap]:
    """The strategy of the recorded kernel, and its machine."""
    meta = trace.meta
    if meta.synthetic or not meta.recorded_strategy:
        raise ReplayError(f"trace {meta.name!r} shows no kernel's allocator: nothing to verify "
                          "or to calibrate with")
    if meta.physmap is None:
        raise ReplayError(f"trace {meta.name!r} has no physmap: import it with --machine DIR")
    # A name, and no path of a strategy file: a trace must not say what code to run.
    if meta.recorded_strategy not in allocators.DEFAULT:
        wrong = unknown_name("recorded strategy", meta.recorded_strategy, list(allocators.DEFAULT))
        raise ReplayError(f"trace {meta.name!r}: {wrong}")
    return meta.recorded_strategy, meta.physmap


def verify_recording(trace: Trace) -> list[Verification]:
    """One verification per part of the kernel that the recording shows."""
    with naming(f"trace {trace.meta.name!r}"):
        results = _verified(trace)
    for result in results:
        result.notes.extend(_open_points(trace))
    return results


def _verified(trace: Trace) -> list[Verification]:
    strategy, machine = _recorded(trace)
    if strategy == "balloon":
        results = [verify_balloon(trace, machine, pool=False)]
    else:
        results = [verify_pool(trace, allocators.load(strategy), machine)]
        if is_kind(trace.table, "increase", "decrease").any():
            results.append(verify_balloon(trace, machine, pool=True))
    return results


def recorded_work(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(rows, work) of the recorded allocator: its calls in the order of lock holders, and the
    primitives of each.

    The free list and the resource tree are those that the recording shows, so a call that was fast
    in the recording is fast here.
    """
    strategy, machine = _recorded(trace)
    if strategy == "balloon":
        return balloon_work(trace, machine)
    return pool_work(trace, allocators.load(strategy), machine)


def _open_points(trace: Trace) -> list[str]:
    notes = []
    moved = meta_count(trace, "lock_order_recovered")
    if moved:
        notes.append(f"{moved} frees were moved from their order of entry to the place in the lock "
                     "order that the recorded frames show; that place is thus not checked by them")
    contradicted = meta_count(trace, "lock_order_contradicted")
    if contradicted:
        notes.append(f"allocations whose frames no order of calls explains: {contradicted}; from "
                     "the first of them on the list is not known, and a difference need not be "
                     "the model's")
    return notes


def meta_count(trace: Trace, name: str) -> int:
    """An anomaly counter of the import."""
    return int(trace.meta.anomalies.get(name, 0))
