"""How long the balloon thread takes from the wake_up() to its pass, as recordings show it.

A free, or a new target, wakes the thread where the credit is another than that with which it went
to sleep (balloon_thread_cond(); 0 where it had nothing left to do). An allocation that gives RAM up
changes the credit and wakes nobody. A thread that waits for memory or for Xen sleeps a second at a
time, with the credit at its reserve_additional_memory() where that is recorded; behind a hot-add it
does not show. Where none is recorded, a change counts that is RECENT_NS old at most. The pass shows
with its hypercall, which comes first where it populates, or with that look for memory; where it
gives up, pages are allocated and cleared before. Those passes are left out, and so are those from a
second on, which a time-out may have begun. The wait for the mutex is part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replay.base.units import NS_PER_S
from replay.trace.columns import NONE, ints, is_kind, strings
from replay.trace.schema import BALLOON_TASK
from replay.trace.start import pages_of
from replay.trace.store import Trace

MIN_WAKES = 20
"""Fewer have no quantiles worth telling."""
WAKE_SHARES = (0.05, 0.5, 0.95)
RECENT_NS = NS_PER_S // 20


def wake_latencies(trace: Trace) -> np.ndarray:
    """(wake-ups,) ns from each wake_up() that the recording shows to the pass that followed."""
    table, memory = trace.table, trace.meta.physmap and trace.meta.physmap.memory
    if memory is None:
        return np.zeros(0, np.int64)
    found = trace.meta.start.get("balloon", {})
    current, goal = (pages_of(found, name) if name in found else getattr(memory, name)
                     for name in ("current", "target"))
    credit = goal - current
    gives, takes = is_kind(table, "decrease"), is_kind(table, "increase")
    moved = np.maximum(np.where(gives | takes, ints(table, "errno", 0), 0), 0)
    thread = (gives | takes) & (strings(table, "task") == BALLOON_TASK)
    free, target = is_kind(table, "free"), is_kind(table, "target")
    time, pages = ints(table, "time_ns"), ints(table, "target_pages")
    served = trace.meta.recorded_strategy == "balloon"
    checks = is_kind(table, "hotplug_check") & (strings(table, "task") == BALLOON_TASK)
    adds = is_kind(table, "section") & (strings(table, "task") == BALLOON_TASK) & checks.any()
    took, woken, changed = [], NONE, -NS_PER_S
    slept_with = 0 if credit == 0 else None
    for r in np.flatnonzero(gives | takes | target | checks | adds | (free & served)).tolist():
        if target[r] and pages[r] != NONE:
            credit = int(pages[r]) - current
        recent = not checks.any() and time[r] - changed < RECENT_NS
        wakes = recent if slept_with is None else credit != slept_with
        if (target[r] or free[r]) and credit and wakes and woken == NONE:
            woken = int(time[r])
        if target[r] or free[r]:
            continue
        change = int(moved[r]) if takes[r] else -int(moved[r])
        current += change
        credit -= change
        if not (thread[r] or checks[r] or adds[r]):
            changed = int(time[r])
            continue
        if woken != NONE and (takes[r] or checks[r]) and time[r] - woken < NS_PER_S:
            took.append(int(time[r]) - woken)
        woken = NONE
        slept_with = None if adds[r] else credit if checks[r] or credit == 0 else None
    return np.array(took, np.int64)


def wake_cost(traces: Sequence[Trace]) -> tuple[int, tuple[float, float, float]] | None:
    """(wake-ups, quantiles at WAKE_SHARES in ns) of all recordings; None where there are too few.
    """
    every = np.concatenate([wake_latencies(trace) for trace in traces])
    if len(every) < MIN_WAKES:
        return None
    low, middle, high = np.quantile(every, WAKE_SHARES).tolist()
    return len(every), (low, middle, high)
