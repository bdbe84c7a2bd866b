"""The calls of a recording: what the recorded kernel did in each, and how long each took.

Service time is what is left of a recorded latency without the wait for the lock. A call that no
other call and, where they share the lock, no pass of the balloon thread overlaps did not wait. Of
another one the wait is known where a probe inside the lock shows a time at which it was held: what
passed until then, less the median of what passes in calls that did not wait. All else of the
latency is service: what the probes inside the call take, and whatever interrupted it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from replay.base.errors import ReplayError
from replay.costs.fitted import PAUSES_NS
from replay.costs.primitives import PRIMITIVES
from replay.costs.primitives import WORK
from replay.costs.profile import MAX_NS
from replay.importers.ordering.calls import next_of_task
from replay.metrics.calls import SIZE_CLASSES, size_class
from replay.trace.columns import NONE, ints, is_kind, strings
from replay.trace.schema import BALLOON_TASK
from replay.trace.store import Trace
from replay.truth.verify.recording import recorded_work

PER_PAGE = ("list_push", "list_pop", "p2m_entry")
"""Primitives of every call: one that did nothing else was fast."""


@dataclass(frozen=True)
class Calls:
    """Recorded calls in the order of lock holders.

    frame: time_ns, pid, kind, pages, size, path, cold (how many of PAUSES_NS had passed since an
    allocation on the same CPU), failed, latency_ns, service_ns (both null where not known).
    work: (calls, costs.profile.PRIMITIVES) counts; each call takes the lock once.
    """

    frame: pl.DataFrame
    work: np.ndarray

    def where(self, mask: pl.Series) -> Calls:
        """The calls of a boolean column."""
        return Calls(self.frame.filter(mask), self.work[mask.to_numpy()])

    def counts(self) -> np.ndarray:
        """(calls, PRIMITIVES and STEPS): the work, and which steps apply."""
        cold = self.frame["cold"].to_numpy()[:, None] > np.arange(len(PAUSES_NS))
        return np.column_stack((self.work, cold, (self.frame["kind"] == "alloc").to_numpy()))

    def service(self) -> Calls:
        """Those whose service time is known and that got what they asked for."""
        return self.where(self.frame["service_ns"].is_not_null() & ~self.frame["failed"])

    def used(self) -> dict[str, int]:
        """How many calls say something of service time, and why the others do not."""
        failed, returned = self.frame["failed"], self.frame["latency_ns"].is_not_null()
        served = self.frame["service_ns"].is_not_null()
        return {
            "calls": self.frame.height,
            "used": int((served & ~failed).sum()),
            "failed": int(failed.sum()),
            "latency_not_recorded": int((~failed & ~returned).sum()),
            "overlapping": int((~failed & returned & ~served).sum()),
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


def _service(time: np.ndarray, lock: np.ndarray, latency: np.ndarray,
             free: np.ndarray) -> np.ndarray:
    """Latency without the wait for the lock, NONE where not known; free: calls that met nobody."""
    shown = (lock != NONE) & (lock >= time)
    entry = lock - time
    usual = int(np.median(entry[shown & free])) if (shown & free).any() else 0
    wait = np.where(free, 0, np.maximum(entry - usual, 0))
    return np.where((latency != NONE) & (free | shown) & (latency > wait), latency - wait, NONE)


def _cold(time: np.ndarray, end: np.ndarray, cpu: np.ndarray, alloc: np.ndarray) -> np.ndarray:
    """How many of PAUSES_NS have passed since the CPU's allocation before; all at its first."""
    ends = pl.when("alloc").then("end").forward_fill().shift(1).over("cpu").fill_null(-(1 << 60))
    order = np.argsort(time, kind="stable")
    frame = pl.DataFrame({"end": end, "cpu": cpu, "alloc": alloc})[order].select(ends)
    found = np.empty(len(time), np.int64)
    found[order] = np.searchsorted(np.array(PAUSES_NS), time[order] - frame["end"].to_numpy(),
                                   side="right")
    return found


def recorded_calls(trace: Trace) -> Calls:
    """The calls of the recorded allocator with the primitives that its model counts for each."""
    table, meta = trace.table, trace.meta
    rows, work = recorded_work(trace)
    if not is_kind(table, "alloc").any():
        raise ReplayError(f"trace {meta.name!r} holds no allocations: there is nothing to fit or "
                          "to predict")
    time, latency, pid = (ints(table, name) for name in ("time_ns", "latency_ns", "pid"))
    latency = np.where((latency > 0) & (latency <= MAX_NS), latency, NONE)
    end = _ends(time, latency, next_of_task(time, pid))
    busy = rows
    if meta.recorded_strategy == "balloon":
        passes = is_kind(table, "increase", "decrease") & (strings(table, "task") == BALLOON_TASK)
        busy = np.concatenate((rows, np.flatnonzero(passes)))
    free = alone(time[busy], end[busy])[: len(rows)]
    pages, alloc = ints(table, "nr_pages", 0)[rows], is_kind(table, "alloc")[rows]
    extra = [k for k, name in enumerate(WORK) if name not in PER_PAGE]
    sizes = np.array(SIZE_CLASSES, object)[size_class(pages)]
    service = _service(time[rows], ints(table, "lock_ns")[rows], latency[rows], free)
    frame = pl.DataFrame({
        "time_ns": time[rows], "pid": pid[rows], "pages": pages,
        "kind": np.where(alloc, "alloc", "free").tolist(),
        "cold": _cold(time[rows], end[rows], ints(table, "cpu")[rows], alloc),
        "size": pl.Series(sizes.tolist(), dtype=pl.Enum(SIZE_CLASSES)),
        "path": np.where(work[:, extra].any(axis=1), "slow", "fast").tolist(),
        "failed": ints(table, "errno", 0)[rows] < 0,
        "latency_ns": pl.Series(latency[rows]).replace(NONE, None),
        "service_ns": pl.Series(service).replace(NONE, None),
    })
    counts = np.column_stack((work, np.ones(len(rows), np.int64)))
    assert counts.shape[1] == len(PRIMITIVES)
    return Calls(frame, counts)


def joined(parts: list[Calls]) -> Calls:
    """The calls of several recordings, one behind the other."""
    return Calls(pl.concat([p.frame for p in parts]), np.concatenate([p.work for p in parts]))
