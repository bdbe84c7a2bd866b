"""Which rows of a table are requests of a replay, and which frees it has to make up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from replay.trace.columns import NONE, ints, is_kind
from replay.trace.schema import Flag


@dataclass(frozen=True)
class Calls:
    """Columns of the table that requests are made of, NONE (pages, errno: 0) where null; masks of
    its allocs and frees, and of targets that state a goal."""

    time: np.ndarray
    pages: np.ndarray
    pid: np.ndarray
    goal: np.ndarray
    errno: np.ndarray
    alloc: np.ndarray
    free: np.ndarray
    target: np.ndarray


def calls_of(table: pa.Table) -> Calls:
    """The requests of a table; a call without a size, which import leaves out by name, is none."""
    pages, goal = ints(table, "nr_pages", 0), ints(table, "target_pages")
    left_out = (pages < 1) & ((ints(table, "flags", 0) & int(Flag.UNPAIRED)) != 0)
    return Calls(
        time=ints(table, "time_ns"), pages=pages, pid=ints(table, "pid"), goal=goal,
        errno=ints(table, "errno", 0), alloc=is_kind(table, "alloc") & ~left_out,
        free=is_kind(table, "free") & ~left_out,
        target=is_kind(table, "target") & (goal != NONE))


def releases(time: np.ndarray, pid: np.ndarray, failed: np.ndarray, free: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray]:
    """Times and places of a free for each allocation that failed in the recording, by time.

    failed, free: not 0 for such a call. Another strategy may serve it; its caller then gives the
    pages back when the recording shows the task's last free, or at once where there is none (a task
    that got nothing frees nothing).
    """
    rows = np.flatnonzero(failed)
    times = time[rows]
    if not len(rows):
        return times, rows
    frees = np.flatnonzero(free)[::-1]
    pids, last = np.unique(pid[frees], return_index=True)
    at = np.searchsorted(pids, pid[rows])
    known = np.isin(pid[rows], pids)
    ends = time[frees[last[at[known]]]]
    times[known] = np.maximum(times[known], ends)
    order = np.argsort(times, kind="stable")
    return times[order], rows[order]
