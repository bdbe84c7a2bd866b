"""The calls of a recording: what the recorded kernel did in each, and how long each took.

Service time is what is left of a recorded latency when nobody was waited for. That is known for a
call during which no other call and, where they share the lock, no pass of the balloon thread was
under way; such calls stand alone here. It still holds what the recording itself costs (the probes
inside the call) and whatever interrupted the call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from replay.allocators.state import WORK
from replay.costs.profile import PRIMITIVES
from replay.errors import ReplayError
from replay.metrics.calls import SIZE_CLASSES, size_class
from replay.trace.columns import NONE, ints, is_kind, strings
from replay.trace.lock_order import next_of_task
from replay.trace.store import MAX_TIME_NS, Trace
from replay.verify.recording import recorded_work

PER_PAGE = ("list_push", "list_pop", "p2m_entry")
"""Primitives of every call: one that did nothing else was fast."""

THREAD = "xen-balloon"


@dataclass(frozen=True)
class Calls:
    """Recorded calls in the order of lock holders.

    frame: time_ns, kind, pages, size, path, failed, latency_ns (null where not recorded), alone.
    work: (calls, costs.profile.PRIMITIVES) counts; each call takes the lock once.
    """

    frame: pl.DataFrame
    work: np.ndarray

    def where(self, mask: pl.Series) -> Calls:
        """The calls of a boolean column."""
        return Calls(self.frame.filter(mask), self.work[mask.to_numpy()])

    def known(self) -> Calls:
        """Those whose latency is recorded and that got what they asked for."""
        return self.where(self.frame["latency_ns"].is_not_null() & ~self.frame["failed"])

    def service(self) -> Calls:
        """Those whose latency is service time alone."""
        known = self.known()
        return known.where(known.frame["alone"])

    def used(self) -> dict[str, int]:
        """How many calls say something of service time, and why the others do not."""
        failed, known = self.frame["failed"], self.frame["latency_ns"].is_not_null()
        alone = self.frame["alone"]
        return {
            "calls": self.frame.height,
            "used": int((known & ~failed & alone).sum()),
            "failed": int(failed.sum()),
            "latency_not_recorded": int((~failed & ~known).sum()),
            "overlapping": int((~failed & known & ~alone).sum()),
        }


def _ends(time: np.ndarray, latency: np.ndarray, next_row: np.ndarray) -> np.ndarray:
    """When each call was over.

    One whose return is not recorded had returned by its task's next row, and is not taken to have
    lasted longer than nearly all others did.
    """
    known = latency != NONE
    longest = int(np.quantile(latency[known], 0.99)) if known.any() else 0
    return np.where(known, time + latency, np.minimum(next_row, time + longest))


def alone(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Which of the intervals [start, end) overlap no other one."""
    order = np.argsort(start, kind="stable")
    s, e = start[order], end[order]
    before = np.concatenate((s[:1], np.maximum.accumulate(e)[:-1]))
    after = np.concatenate((s[1:], e[-1:]))
    found = np.empty(len(start), bool)
    found[order] = (before <= s) & (e <= after)
    return found


def recorded_calls(trace: Trace) -> Calls:
    """The calls of the recorded allocator with the primitives that its model counts for each."""
    table, meta = trace.table, trace.meta
    rows, work = recorded_work(trace)
    if not is_kind(table, "alloc").any():
        raise ReplayError(f"trace {meta.name!r} holds no allocations: there is nothing to fit or "
                          "to predict")
    time, latency = ints(table, "time_ns"), ints(table, "latency_ns")
    latency = np.where((latency > 0) & (latency <= MAX_TIME_NS), latency, NONE)
    end = _ends(time, latency, next_of_task(time, ints(table, "pid")))
    busy = rows
    if meta.recorded_strategy == "balloon":
        passes = is_kind(table, "increase", "decrease") & (strings(table, "task") == THREAD)
        busy = np.concatenate((rows, np.flatnonzero(passes)))
    pages = ints(table, "nr_pages", 0)[rows]
    extra = [k for k, name in enumerate(WORK) if name not in PER_PAGE]
    kind = np.where(is_kind(table, "alloc")[rows], "alloc", "free")
    sizes = np.array(SIZE_CLASSES, object)[size_class(pages)]
    frame = pl.DataFrame({
        "time_ns": time[rows], "kind": kind.tolist(), "pages": pages,
        "size": pl.Series(sizes.tolist(), dtype=pl.Enum(SIZE_CLASSES)),
        "path": np.where(work[:, extra].any(axis=1), "slow", "fast").tolist(),
        "failed": ints(table, "errno", 0)[rows] < 0,
        "latency_ns": pl.Series(latency[rows]).replace(NONE, None),
        "alone": alone(time[busy], end[busy])[: len(rows)],
    })
    counts = np.column_stack((work, np.ones(len(rows), np.int64)))
    assert counts.shape[1] == len(PRIMITIVES)
    return Calls(frame, counts)


def joined(parts: list[Calls]) -> Calls:
    """The calls of several recordings, one behind the other."""
    return Calls(pl.concat([p.frame for p in parts]), np.concatenate([p.work for p in parts]))
