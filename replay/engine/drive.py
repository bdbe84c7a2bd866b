"""Drives one strategy over one workload: arrays in, an Outcome out.

Everything that reaches the compiled loop is checked here first; the loop itself checks nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from replay.base.errors import ReplayError
from replay.base.units import MAX_PAGES
from replay.costs.primitives import WORK
from replay.costs.profile import Profile
from replay.engine.batches import feed, feed_all, room
from replay.engine.failing import arm, counted
from replay.engine.faults import NO_FAULTS, Faults
from replay.engine.gauges import AREAS, free_shares
from replay.engine.lock import header
from replay.engine.outcome import HISTOGRAMS, SLEPT, Out, tallies
from replay.engine.requests import (
    ALLOC, FREE, IMPOSSIBLE, TARGET, Requests, first_impossible,
)  # fmt: skip
from replay.engine.start import Start, begin
from replay.engine.state import E_WAIT, section_log, span, words
from replay.engine.strategy import Strategy
from replay.physmap.model import Physmap

MAX_TIME_NS = 1 << 53
"""104 days; bounds the background passes that a hostile gap between requests could ask for."""
LARGEST_REQUEST = (1 << 31) - 1
"""Pages of one request: 8 TiB of 4 KiB pages; an outcome's rows count them in half words."""


def _nothing() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Workload:
    """A request stream in the order in which the lock is asked for, and what belongs to it.

    requests: see requests.Requests. nr_slots: pages allocated over the whole stream; page k of the
    stream is slot k. peak_pages: most pages live at once. event: trace row of each request. task:
    id of its task, -1 if unknown; took_ns: recorded latency, -1 if unknown (arrivals.py). mode: how
    requests come and who gets the lock, in words. start: what the recording began with, if in
    mid-life; page k of start.live is slot nr_slots + k, so that frees can name it.
    """

    requests: Requests
    nr_slots: int
    peak_pages: int
    event: np.ndarray
    task: np.ndarray = field(default_factory=_nothing)
    took_ns: np.ndarray = field(default_factory=_nothing)
    mode: str = "open-loop, one mutex, first come first served"
    start: Start | None = None

    @property
    def slots(self) -> int:
        """Pages that frees can name: those of the stream, then those live before it."""
        return self.nr_slots + (len(self.start.live) if self.start else 0)

    def __len__(self) -> int:
        return len(self.requests.time)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What is left of a replay when its requests have gone by, in batches or all at once.

    sections: (n,) of state.SECTION. areas, peaks: by name, see gauges.AREAS. duration_ns: modelled.
    background, of_calls: primitives of background passes and of calls, the list operations of
    their pages aside. before: frames of the pages that were live before the first request, those
    of Start.live first. failed: (failures, calls) of what was to fail by option, by name.
    """

    strategy: Strategy
    options: dict[str, Any]
    machine: Physmap
    profile: Profile
    mode: str
    start: Start | None
    notes: tuple[str, ...]
    sections: np.ndarray
    free_list: np.ndarray
    histograms: dict[str, np.ndarray]
    areas: dict[str, float]
    peaks: dict[str, float]
    ends: dict[str, float]
    background: dict[str, int]
    of_calls: dict[str, int]
    tallies: dict[str, int]
    page_work: tuple[tuple[str, ...], tuple[str, ...]]
    duration_ns: int
    broken: tuple[str, ...] = ()
    before: np.ndarray = field(default_factory=_nothing)
    failed: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome(Ended):
    """The same with all requests, and what became of each.

    rows: (requests,) of outcome.ROW. work: (requests, primitives). frames: of each slot.
    """

    workload: Workload
    rows: np.ndarray
    work: np.ndarray
    frames: np.ndarray

    def frames_digest(self) -> str:
        """SHA-256 over all returned frames in order, little-endian int64; -1 where none was."""
        return hashlib.sha256(self.frames.astype("<i8").tobytes()).hexdigest()


def checked(workload: Workload) -> Workload:
    """The workload, or a ReplayError that says which request cannot be."""
    q = workload.requests
    for name, column in zip(q._fields, q, strict=True):
        if column.dtype != np.int64 or column.ndim != 1 or not column.flags.c_contiguous:
            raise ReplayError(f"requests.{name}: expected a contiguous int64 column")
    if len({len(c) for c in (q.time, q.kind, q.pages, q.first)}) != 1:
        raise ReplayError("requests: columns of different length")

    def first_bad(bad: np.ndarray, text: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise ReplayError(f"request {row} (event {int(workload.event[row])}): {text}")

    first_bad((q.time < 0) | (q.time > MAX_TIME_NS), f"time is not within 0 to {MAX_TIME_NS} ns")
    first_bad(np.diff(q.time, prepend=0) < 0, "time runs backwards; sort the trace")
    first_bad((q.kind < ALLOC) | (q.kind > TARGET), "unknown kind")
    moves = q.kind != TARGET
    first_bad((q.pages < 0) | (q.pages > MAX_PAGES), f"pages is not within 0 to {MAX_PAGES}")
    first_bad((q.kind != TARGET) & (q.pages > LARGEST_REQUEST),
              f"pages is not within 1 to {LARGEST_REQUEST}")
    first_bad(moves & (q.pages < 1), "a request of no pages")
    room = np.where(q.kind == ALLOC, workload.nr_slots, len(q.slots))
    # Subtracted, and not added: a sum could pass 2^63.
    first_bad(moves & ((q.first < 0) | (q.first > room - q.pages)),
              "slots beyond the stream's pages")
    _check_slots(workload, first_bad)
    return workload


def _check_slots(workload: Workload, first_bad: Any) -> None:
    """Allocations tile the slots in order, frees the slot list; a slot is freed at most once."""
    q = workload.requests
    alloc = q.kind == ALLOC
    for kind, what in ((ALLOC, "allocation"), (FREE, "free")):
        pages = np.where(q.kind == kind, q.pages, 0)
        first_bad((q.kind == kind) & (q.first != np.cumsum(pages) - pages),
                  f"slots do not run on from the {what} before")
    allocated = int(q.pages[alloc].sum())
    if allocated != workload.nr_slots:
        raise ReplayError(f"{workload.nr_slots} slots announced, {allocated} allocated")
    free = np.flatnonzero(q.kind == FREE)
    if ((q.slots < -1) | (q.slots >= workload.slots)).any():
        raise ReplayError("a free names a slot beyond the stream's pages")
    counts = q.pages[free]
    if int(counts.sum()) != len(q.slots):
        raise ReplayError("frees do not cover the slot list")
    before = np.full(workload.slots - workload.nr_slots, -1, np.int64)
    allocated_by = np.concatenate((np.repeat(np.flatnonzero(alloc), q.pages[alloc]), before))
    row, why = first_impossible(q.kind, q.pages, q.first, q.slots, allocated_by,
                                np.zeros(workload.slots, np.int8))
    first_bad(np.arange(len(q.time)) == row, IMPOSSIBLE[why])


@dataclass(frozen=True)
class Extent:
    """What a stream asks for at most. slots: numbers of its pages. live_pages: at once.
    request_pages: of one request, at least 1. target_pages: highest balloon target, else 0."""

    slots: int
    live_pages: int
    request_pages: int
    target_pages: int

    def most_pages(self, machine: Physmap) -> int:
        """Pages a strategy must have room for: live at once, and what the highest target adds."""
        return self.live_pages + max(0, self.target_pages - machine.memory.total)


def extent_of(workload: Workload) -> Extent:
    """The extent of a whole stream."""
    q = workload.requests
    return Extent(workload.nr_slots, workload.peak_pages, largest(workload),
                  int(q.pages[q.kind == TARGET].max(initial=0)))


def most_pages(workload: Workload, machine: Physmap) -> int:
    """The same of a whole stream."""
    return extent_of(workload).most_pages(machine)


def largest(workload: Workload) -> int:
    """Pages of the largest request, at least one."""
    q = workload.requests
    return int(q.pages[q.kind != TARGET].max(initial=1))


def replay(strategy: Strategy, given: Mapping[str, str], machine: Physmap, workload: Workload,
           profile: Profile, *, check: bool = False, batch: int = 0, faults: Faults = NO_FAULTS
           ) -> Outcome:
    """Replay a checked workload through one strategy.

    given: option texts (`--set strategy.name=text` without the prefix). check: also test the
    strategy's invariants at the end. batch: requests taken at a time, which changes nothing; 0 for
    all at once. faults: what fails from the first request on.
    """
    under_way = UnderWay(strategy, given, machine, extent_of(workload), workload.start, profile,
                         faults)
    # The loop writes the plan, so each replay has its own.
    q = workload.requests._replace(plan=workload.requests.plan.copy())
    fed = feed_all(strategy, under_way.state, q, under_way.out, under_way.costs, batch)
    under_way.out = fed.out
    ended = under_way.ended(workload.mode, check=check)
    return Outcome(**vars(ended), workload=_as_replayed(workload, q, fed.rows, ended.duration_ns),
                   rows=fed.rows, work=fed.work, frames=fed.frames)


class UnderWay:
    """A strategy in the middle of a replay: its state, and the arrays that are carried on.

    extent: what the stream may ask for, which is checked before.
    """

    def __init__(self, strategy: Strategy, given: Mapping[str, str], machine: Physmap,
                 extent: Extent, start: Start | None, profile: Profile,
                 faults: Faults = NO_FAULTS) -> None:
        self.strategy, self.machine, self.profile, self.start = strategy, machine, profile, start
        self.faults = faults
        self.values = strategy.values(given)
        most = extent.most_pages(machine)
        self.before = _nothing()
        if start is None:
            self.setup = strategy.init(machine, most, self.values)
        else:
            begun = begin(strategy, machine, most, self.values, start)
            self.setup, self.before = begun.setup, begun.frames
        self.state, self.costs = self.setup.state, profile.vector(self.setup.page_work)
        named = len(start.live) if start else 0
        self.out = room(extent.slots + named, extent.request_pages)
        self.out.live[extent.slots:] = self.before[:named]
        arm(self.state, faults)

    def feed(self, q: Requests, base: int, last: bool) -> Out:
        """Replay the next batch, see batches.feed()."""
        self.out = feed(self.strategy, self.state, q, self.out, self.costs, base=base, last=last)
        return self.out

    @property
    def sections(self) -> np.ndarray:
        """(n,) of state.SECTION: those added so far."""
        return np.asarray(section_log(self.state).copy())

    def ended(self, mode: str, *, check: bool = False) -> Ended:
        """What is left after the last batch. mode, check: see Workload and replay()."""
        m, out, name = self.state, self.out, self.strategy.name
        s, totals = words(m), self.out.totals
        if s.fault:
            raise ReplayError(f"{name}: an internal bound was hit (fault {int(s.fault)}); "
                              "this is a defect of the strategy")
        return Ended(
            strategy=self.strategy, options=self.values, machine=self.machine,
            profile=self.profile, mode=mode + self.faults.said(), start=self.start,
            notes=self.setup.notes,
            before=self.before, sections=self.sections, failed=counted(m),
            free_list=m[s.list : s.list + s.count].copy(),
            histograms={name: getattr(out, name) for name in HISTOGRAMS},
            areas={name: float(out.area[k]) for k, name in enumerate(AREAS)},
            peaks={name: float(out.peak[k]) for k, name in enumerate(AREAS)},
            ends=_ends(m),
            background={name: int(totals[k]) for k, name in enumerate(WORK)},
            of_calls={name: int(tallies(totals).of_calls[name]) for name in WORK},
            tallies=_tallies(totals), page_work=self.setup.page_work,
            duration_ns=int(tallies(totals).lock_free),
            broken=tuple(self.strategy.check(m)) if check else ())


def _as_replayed(workload: Workload, q: Requests, rows: np.ndarray, end: int) -> Workload:
    """The workload at the times at which its requests came.

    One whose task never got to it, behind a call asleep for ever, counts as asleep at the end.
    """
    if not len(q.plan):
        return workload
    came = q.plan[header(q.plan).arrival:][:len(workload)]
    rows["errno"][came < 0], rows["path"][came < 0] = -E_WAIT, SLEPT
    return replace(workload, requests=q._replace(time=np.where(came < 0, end, came)))


def _ends(m: np.ndarray) -> dict[str, float]:
    """Values at the end, under the names of gauges.AREAS."""
    s = words(m)
    ends = dict(zip(AREAS, map(float, m[span("gauge")]), strict=False))
    free = int(s.gauge.held - s.gauge.live)
    shares = (0.0, 0.0) if free <= 0 else free_shares(
        int(s.gauge.whole), int(s.table.top), int(s.block_pages), free)
    return {**ends, "unusable_free_index": shares[0], "largest_free_run": shares[1]}


def _tallies(totals: np.ndarray) -> dict[str, int]:
    """What the loop counted beside the requests."""
    counted = tallies(totals)
    return {"sleeping_at_end": int(counted.sleeping), "freed_while_sleeping": int(counted.early),
            "thread_spins": int(counted.busy), "thread_passes": int(counted.passes),
            "frees_skipped": int(counted.skipped)}
