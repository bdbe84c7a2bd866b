"""How requests come, and how the lock is passed on: an option of a replay, made into a plan.

open loop: at recorded times, whatever the allocator does: no request waits for one before it to
return, so a stall is charged to all behind it. closed loop: a task asks again when its call before
has returned and it has thought as long as in the recording (recorded return to next entry); a first
request comes at its recorded time. As fast as possible: a closed loop without thinking, all tasks
at once. Requests without a task, and new balloon targets, come at recorded times; without thinking
a target comes when the request before it has returned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np

from replay.base.errors import ReplayError, unknown_name
from replay.engine.drive import MAX_TIME_NS, Workload, checked
from replay.engine.lock import DISCIPLINES, PLAN_HEADER, header
from replay.engine.requests import ALLOC, FREE, TARGET
from replay.engine.state import NEVER

OPEN, CLOSED, ASAP = LOOPS = ("open", "closed", "asap")
MAX_SCALE: Final = 1_000_000


@dataclass(frozen=True)
class Arrivals:
    """loop: one of LOOPS. lock: one of lock.DISCIPLINES. time_scale: factor of all recorded
    times between requests; 2 is half the load."""

    loop: str = OPEN
    lock: str = DISCIPLINES[0]
    time_scale: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if self.loop not in LOOPS:
            raise unknown_name("loop", self.loop, list(LOOPS))
        if self.lock not in DISCIPLINES:
            raise unknown_name("lock discipline", self.lock, list(DISCIPLINES))
        scale = self.time_scale
        if not (0 < scale <= MAX_SCALE and scale.denominator <= MAX_SCALE):
            raise ReplayError(f"--time-scale {scale}: expected a number from 0.000001 to "
                              f"{MAX_SCALE:,} with at most six decimals")

    def __str__(self) -> str:
        how = {OPEN: "open-loop", CLOSED: "closed loop per task with recorded thinking times",
               ASAP: "as fast as possible (closed loop per task, no thinking times)"}[self.loop]
        lock = {"fifo": "first come first served", "lifo": "last come first served (a bound)",
                "spin": "optimistic spinning (a bound)"}[self.lock]
        scale = "" if self.time_scale == 1 else f", recorded times x {float(self.time_scale):g}"
        return f"{how}{scale}, one mutex, {lock}"


def parse_scale(text: str) -> Fraction:
    """The factor that --time-scale gives."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ReplayError(f"--time-scale {text}: expected a number such as 0.5 or 1/3") from None


def scaled(ns: np.ndarray, scale: Fraction) -> np.ndarray:
    """ns x scale, rounded down, without passing 2^63."""
    whole, rest = np.divmod(ns, scale.denominator)
    if len(ns) and int(whole.max()) * scale.numerator > MAX_TIME_NS:
        raise ReplayError(f"--time-scale {scale}: the trace would last longer than 2^53 ns")
    return np.asarray(whole * scale.numerator + rest * scale.numerator // scale.denominator)


def arrange(workload: Workload, how: Arrivals) -> Workload:
    """The workload with its times scaled and, where it takes one, with a plan."""
    q = workload.requests
    if how.time_scale != 1:
        q = q._replace(time=scaled(q.time, how.time_scale))
    if how.loop != OPEN or how.lock != DISCIPLINES[0]:
        q = q._replace(plan=_plan(replace(workload, requests=q), how))
    return checked(replace(workload, requests=q, mode=str(how)))


def _chains(workload: Workload, how: Arrivals) -> tuple[np.ndarray, np.ndarray]:
    """Per request: the task's one before it, or -1; ns between that one's return and it."""
    q, n = workload.requests, len(workload)
    before, think = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    if how.loop == OPEN:
        return before, think
    own = np.flatnonzero((workload.task >= 0) & (q.kind != TARGET))
    order = own[np.argsort(workload.task[own], kind="stable")]
    same = workload.task[order[1:]] == workload.task[order[:-1]]
    later, earlier = order[1:][same], order[:-1][same]
    before[later] = earlier
    if how.loop == CLOSED:
        took = scaled(np.maximum(workload.took_ns[earlier], 0), how.time_scale)
        think[later] = np.maximum(q.time[later] - q.time[earlier] - took, 0)
    return before, think


def _waits(workload: Workload, how: Arrivals) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (request, one that waits for it to return): frees for their pages' allocations."""
    q, n = workload.requests, len(workload)
    allocs, frees = np.flatnonzero(q.kind == ALLOC), np.flatnonzero(q.kind == FREE)
    by = np.repeat(frees, q.pages[frees])
    known = (q.slots >= 0) & (q.slots < workload.nr_slots)
    of = np.repeat(allocs, q.pages[allocs])[q.slots[known]]
    pairs = of * max(n, 1) + by[known]
    if how.loop == ASAP:
        targets = np.flatnonzero(q.kind == TARGET)
        targets = targets[targets > 0]
        pairs = np.concatenate((pairs, (targets - 1) * n + targets))
    return np.divmod(np.unique(pairs), max(n, 1))


def _plan(workload: Workload, how: Arrivals) -> np.ndarray:
    """The packed array of lock.py, before the first request."""
    q, n = workload.requests, len(workload)
    before, think = _chains(workload, how)
    first, waiting = _waits(workload, how)
    after, missing = np.full(n, -1, np.int64), np.bincount(waiting, minlength=n)
    after[before[before >= 0]] = np.flatnonzero(before >= 0)
    at = np.zeros(n, np.int64) if how.loop == ASAP else q.time
    heads = np.flatnonzero((before < 0) & (missing == 0))
    heads = heads[np.argsort(at[heads], kind="stable")]
    turn = np.where((before < 0) & (missing > 0), at, -1)
    arrival, times, who = np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    arrival[heads], times[:len(heads)], who[:len(heads)] = at[heads], at[heads], heads
    starts = np.concatenate(([0], np.cumsum(np.bincount(first, minlength=n))))
    ring = np.zeros(n + 1, np.int64)
    segments = {"arrival": arrival, "after": after, "think": think, "missing": missing,
                "ready": np.zeros(n, np.int64), "turn": turn, "first": starts, "frees": waiting,
                "times": times, "who": who}
    packed = np.concatenate((np.zeros(PLAN_HEADER, np.int64), *segments.values(), ring, ring))
    plan, end = header(packed), PLAN_HEADER
    plan.discipline, plan.requests = DISCIPLINES.index(how.lock), n
    plan.coming, plan.awake_at = len(heads), NEVER
    for name, segment in segments.items():
        setattr(plan, name, end)
        end += len(segment)
    plan.queue.at, plan.asleep.at = end, end + len(ring)
    return packed
