"""What a recording shows of the balloon driver, in the order in which balloon_mutex was held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from replay.base.units import NS_PER_S
from replay.engine.state import word_of
from replay.trace.columns import NONE, Ragged, ints, is_kind, ragged, strings
from replay.trace.schema import BALLOON_TASK, OPEN_ORDER
from replay.trace.store import Trace

PAUSE_NS = NS_PER_S * 9 // 10
"""A pause of schedule_delay, one second at least, in jiffies."""


@dataclass(frozen=True)
class Columns:
    """The trace's columns that the comparison reads."""

    time: np.ndarray
    lock: np.ndarray
    nr: np.ndarray
    errno: np.ndarray
    moved: np.ndarray
    pid: np.ndarray
    value: np.ndarray
    start: np.ndarray
    target: np.ndarray
    stats: dict[str, np.ndarray]
    frames: Ragged
    slots: Ragged
    kind: np.ndarray
    base: np.ndarray
    ambiguous: np.ndarray


STAT_WORDS = {"list_count": word_of("count"), "current_pages": word_of("current"),
              "target_pages": word_of("target"), "target_unpopulated": word_of("unpopulated")}


def columns(table: pa.Table) -> Columns:
    """Plain arrays, one element per row; `base` is the first slot of an allocation."""
    alloc = is_kind(table, "alloc")
    nr = ints(table, "nr_pages", 0)
    pages = np.where(alloc, nr, 0)
    names = (*STAT_WORDS, "list_count_after")
    return Columns(
        ints(table, "time_ns"), ints(table, "lock_ns"), nr, ints(table, "errno", 0),
        ints(table, "errno"), ints(table, "pid"), ints(table, "value"),
        ints(table, "start_pfn"), ints(table, "target_pages"),
        {name: ints(table, name) for name in names}, ragged(table, "frames"),
        ragged(table, "slots"), strings(table, "kind"), np.cumsum(pages) - pages,
        (ints(table, "flags", 0) & int(OPEN_ORDER)) != 0)


def steps(trace: Trace, pool: bool) -> list[tuple[int, int, str, int]]:
    """(time, rank, what, row) in the order in which balloon_mutex was held.

    Requests go by their place in the order of lock holders, and among passes and targets by the
    time that each of them was entered or had the lock. A free that was entered while a pass was
    under way got the lock after it.
    """
    table = trace.table
    time, lock, rank = (ints(table, n) for n in ("time_ns", "lock_ns", "lock_rank"))
    latency = ints(table, "latency_ns", 0)
    kind, task, label = (strings(table, n) for n in ("kind", "task", "label"))
    thread = task == BALLOON_TASK
    passes = [(int(lock[r] if lock[r] != NONE else time[r]), -1, kind[r], r)
              for r in np.flatnonzero(thread & is_kind(table, "increase", "decrease")).tolist()]
    checks = np.flatnonzero(thread & is_kind(table, "hotplug_check"))
    added = np.flatnonzero(is_kind(table, "section") & (label == "System RAM"))
    passes += [(int(time[r]), -1, "hotplug", r)
               for r in (checks if len(checks) else added).tolist()]
    targets = [(int(time[r]), -1, "target", r)
               for r in np.flatnonzero(is_kind(table, "target")).tolist()]
    if pool:
        return sorted([*passes, *targets])
    busy = sorted((t, int(time[r]) + int(latency[r])) for t, _, _, r in passes)
    starts = np.array([b[0] for b in busy], np.int64)
    requests = []
    calls = np.flatnonzero(is_kind(table, "alloc", "free"))
    at = 0
    for r in calls[np.argsort(rank[calls], kind="stable")].tolist():
        # Whoever had the lock after another call had it after that one was entered.
        at = max(at, int(lock[r]) if lock[r] != NONE else int(time[r]))
        k = int(np.searchsorted(starts, at, side="right")) - 1
        if lock[r] == NONE and k >= 0 and at < busy[k][1]:
            at = busy[k][1]
        requests.append((at, int(rank[r]), kind[r], r))
    return sorted([*passes, *targets, *requests])


def hypercalls_by_alloc(trace: Trace) -> dict[int, list[int]]:
    """Decrease rows that belong to an allocation: same task, within the call."""
    table = trace.table
    time, pid = ints(table, "time_ns"), ints(table, "pid")
    task = strings(table, "task")
    events = np.flatnonzero(is_kind(table, "alloc", "decrease"))
    kind = strings(table, "kind")
    current: dict[int, int] = {}
    found: dict[int, list[int]] = {}
    for r in events[np.argsort(time[events], kind="stable")].tolist():
        if kind[r] == "alloc":
            current[int(pid[r])] = r
            found[r] = []
        elif task[r] != BALLOON_TASK and int(pid[r]) in current:
            found[current[int(pid[r])]].append(r)
    return found


def paused(table: pa.Table) -> set[int]:
    """Rows of passes after which the thread made no other for a second, or none before the target
    or the reservation changed: what BP_EAGAIN lets it do."""
    time, latency = ints(table, "time_ns"), ints(table, "latency_ns", 0)
    thread = strings(table, "task") == BALLOON_TASK
    moves = is_kind(table, "increase", "decrease")
    others = np.flatnonzero(is_kind(table, "target") | (moves & ~thread))
    passes = np.flatnonzero(thread & moves)
    found = set()
    for r, later in zip(passes.tolist(), [*passes[1:].tolist(), -1], strict=False):
        between = np.searchsorted(others, r) < np.searchsorted(others, later) if later >= 0 else 0
        pause = int(time[later] - time[r] - latency[r])  # behind the last one: to the last row
        if between or pause >= PAUSE_NS:
            found.add(r)
    return found
