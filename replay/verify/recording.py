"""Verify a whole recording: the allocator that the recorded kernel used, and its balloon driver."""

from __future__ import annotations

from replay import allocators
from replay.errors import ReplayError, unknown_name
from replay.trace.columns import is_kind
from replay.trace.store import Trace
from replay.verify.balloon import verify_balloon
from replay.verify.pool import verify_pool
from replay.verify.result import Verification


def verify_recording(trace: Trace) -> list[Verification]:
    """One verification per part of the kernel that the recording shows."""
    meta = trace.meta
    if meta.synthetic or not meta.recorded_strategy:
        raise ReplayError(f"trace {meta.name!r} shows no kernel's allocator: nothing to verify")
    if meta.physmap is None:
        raise ReplayError(f"trace {meta.name!r} has no physmap: import it with --machine DIR")
    # A name, never the path of a strategy file: a trace must not say what code to run.
    if meta.recorded_strategy not in allocators.DEFAULT:
        raise unknown_name("recorded strategy", meta.recorded_strategy, list(allocators.DEFAULT))
    if meta.recorded_strategy == "balloon":
        results = [verify_balloon(trace, meta.physmap, pool=False)]
    else:
        results = [verify_pool(trace, allocators.load(meta.recorded_strategy), meta.physmap)]
        if is_kind(trace.table, "increase", "decrease").any():
            results.append(verify_balloon(trace, meta.physmap, pool=True))
    for result in results:
        result.notes.extend(_open_points(trace))
    return results


def _open_points(trace: Trace) -> list[str]:
    notes = []
    moved = meta_count(trace, "lock_order_recovered")
    if moved:
        notes.append(f"{moved} frees were moved from their order of entry to the place in the lock "
                     "order that the recorded frames show; that place is thus not checked by them")
    open_order = meta_count(trace, "lock_order_ambiguous")
    if open_order:
        notes.append(f"{open_order} neighbouring frees could stand in either order")
    return notes


def meta_count(trace: Trace, name: str) -> int:
    """An anomaly counter of the import."""
    return int(trace.meta.anomalies.get(name, 0))
