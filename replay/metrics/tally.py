"""Allocations counted by caller, size and path, and their modelled times added up, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from replay.base.compiled import (
    compiled, index, inline, likely, record, seen_as, unlikely, words_in,
)  # fmt: skip
from replay.engine.histogram import HIST_SUB_BITS, bucket_of
from replay.engine.requests import ALLOC, FREE
from replay.metrics.calls import PATHS, SIZE_CLASSES, SIZE_LIMITS
from replay.metrics.counted import Counted, place_of
from replay.metrics.part import Part

MOST_DISTINCT = 1 << 18
"""Distinct latencies of callers, sizes and paths that are kept as they are; of more, the greatest
value of their bucket is, see histogram.bucket_of()."""

LIMB = 60
"""Bits of the lower word of a sum."""

SUM = record("count", "high", "low", "most")
"""Of times in ns: how many, their sum as high << LIMB | low, the greatest."""
TIMES = ("latency_ns", "wait_ns", "service_ns", "slow", "free_latency_ns")
ALL_CALLS = record("allocations", "frees", "targets", "failed", "freed_pages", "live_pages",
                *((name, SUM) for name in TIMES))
"""Requests by kind, allocations without pages, pages named by frees; pages that allocations have
got less those given back; sums over all requests."""
totals_of = seen_as(ALL_CALLS)

OF_GROUP = record("calls", "failed", "pages", "served_pages", "runs", "most_runs", ("took", SUM))
"""Allocations of one caller, size class and path: pages asked for and got; runs of frames."""
PER_CALLER = len(SIZE_CLASSES) * len(PATHS)


@inline
def _add(into: Any, ns: int) -> None:
    low = into.low + ns
    into.count += 1
    if unlikely(low >= 1 << LIMB):
        into.high += low >> LIMB
        low &= (1 << LIMB) - 1
    into.low = low
    into.most = max(into.most, ns)


@inline
def _size_class(pages: int) -> int:
    size = 0
    for limit in SIZE_LIMITS:
        size += int(pages > limit)
    return size


@inline
def top_of_bucket(ns: int) -> int:
    """The greatest value in the histogram's bucket of a value."""
    shift = max((bucket_of(ns) >> HIST_SUB_BITS) - 1, 0)
    return (((ns >> shift) + 1) << shift) - 1


@inline
def _again(seen: Any, last: int, group: int, value: int) -> int:
    """Where an entry is, or is to be. last: where the one before is, which mostly is this one's
    too: then nothing is hashed."""
    entry = seen[index(last)]
    if likely(entry.value == value and entry.group == group and entry.count > 0):
        return last
    return int(place_of(seen, group, value))


@inline
def _count(seen: Any, at: int, group: int, value: int) -> int:
    """Count the value of an entry; 1 if it was not there before."""
    entry = seen[index(at)]
    new = int(entry.count == 0)
    entry.group, entry.value = group, value
    entry.count += 1
    return new


@inline
def _serve(group: Any, totals: Any, row: Any, pages: int, ns: int) -> None:
    """An allocation that got its pages."""
    totals.live_pages += row.pages
    group.served_pages += pages
    group.runs += row.runs
    group.most_runs = max(group.most_runs, np.int64(row.runs))
    _add(group.took, ns)
    _add(totals.latency_ns, ns)
    _add(totals.wait_ns, row.wait_ns)
    _add(totals.service_ns, row.service_ns)
    if unlikely(row.path != 0):
        _add(totals.slow, ns)


@compiled
def _tally(begin: int, rough: int, kind: np.ndarray, pages: np.ndarray, caller: np.ndarray,
           rows: Any, groups: Any, words: np.ndarray, times: Any, nr_times: np.ndarray,
           runs: Any, nr_runs: np.ndarray) -> int:
    """Take requests in from `begin` on; up to which, before a table must grow."""
    totals = totals_of(words)
    of_time = of_run = 0
    time_room = (times.shape[0] >> 1) - nr_times[0]
    run_room = (runs.shape[0] >> 1) - nr_runs[0]
    end = kind.shape[0]
    for r in range(index(begin), index(end)):
        if unlikely(time_room <= 0 or run_room <= 0):
            end = int(r)
            break
        row, nr = rows[r], pages[r]
        ns = row.wait_ns + row.service_ns
        if likely(kind[r] == ALLOC):
            totals.allocations += 1
            size = 0 if likely(nr == 1) else _size_class(nr)
            at = (np.int64(caller[r]) * len(SIZE_CLASSES) + size) * len(PATHS) + row.path
            group = groups[index(at)]
            group.calls += 1
            group.pages += nr
            if unlikely(row.errno < 0):
                group.failed += 1
                totals.failed += 1
                continue
            _serve(group, totals, row, nr, ns)
            value = top_of_bucket(ns) if rough else ns
            of_time = _again(times, of_time, at, value)
            time_room -= _count(times, of_time, at, value)
            of_run = _again(runs, of_run, size, row.runs)
            run_room -= _count(runs, of_run, size, row.runs)
        elif kind[r] == FREE:
            totals.frees += 1
            totals.freed_pages += nr
            totals.live_pages -= row.pages
            _add(totals.free_latency_ns, ns)
        else:
            totals.targets += 1
    nr_times[0] = (times.shape[0] >> 1) - time_room
    nr_runs[0] = (runs.shape[0] >> 1) - run_room
    return end


class Tally:
    """What is counted of a replay's requests; see fold().

    exact: whether `times` holds latencies as they are, and not their buckets' greatest values.
    """

    def __init__(self) -> None:
        self.words = np.zeros(words_in(ALL_CALLS), np.int64)
        self.groups = np.zeros(0, OF_GROUP)
        self.times, self.runs = Counted(), Counted()
        self.callers: tuple[str, ...] = ()
        self.exact = True

    @property
    def totals(self) -> Any:
        """A record of ALL_CALLS."""
        return totals_of(self.words)

    def fold(self, part: Part) -> None:
        """Take a part in; the order of parts makes no difference."""
        self.callers = tuple(part.callers)
        if missing := len(part.callers) * PER_CALLER - len(self.groups):
            self.groups = np.concatenate((self.groups, np.zeros(missing, OF_GROUP)))
        done = 0
        while done < len(part):
            done = _tally(done, int(not self.exact), part.kind, part.pages, part.caller, part.rows,
                          self.groups, self.words, self.times.seen, self.times.filled,
                          self.runs.seen, self.runs.filled)
            if done < len(part):
                self._make_room()

    def _make_room(self) -> None:
        if self.runs.full():
            self.runs.grow()
        if not self.times.full():
            return
        if self.exact and int(self.times.filled[0]) >= MOST_DISTINCT:
            self.exact = False
            self.times.change(_tops)
        else:
            self.times.grow()

    def names(self, key: str) -> Sequence[str]:
        """What the codes of `caller`, `size` or `path` stand for."""
        return {"caller": self.callers, "size": SIZE_CLASSES, "path": PATHS}[key]

    def codes(self, at: np.ndarray, key: str) -> np.ndarray:
        """The caller, size or path of groups by their numbers; of callers of one name the first."""
        rest, path = np.divmod(at, len(PATHS))
        caller, size = np.divmod(rest, len(SIZE_CLASSES))
        if key == "caller":
            first: dict[str, int] = {}
            same = [first.setdefault(name, k) for k, name in enumerate(self.callers)]
            return np.array(same, np.int64)[caller]
        return size if key == "size" else path


def _tops(ns: np.ndarray) -> np.ndarray:
    return np.array([top_of_bucket(value) for value in ns.tolist()], np.int64)
