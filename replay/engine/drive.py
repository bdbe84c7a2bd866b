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
from replay.engine.batches import feed_all, room
from replay.engine.gauges import AREAS, free_shares
from replay.engine.lock import header
from replay.engine.outcome import HISTOGRAMS, SLEPT, tallies
from replay.engine.requests import (
    ALLOC, FREE, IMPOSSIBLE, TARGET, Requests, first_impossible,
)  # fmt: skip
from replay.engine.start import Start, begin
from replay.engine.state import E_WAIT, section_log, span, words
from replay.engine.strategy import Setup, Strategy
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


@dataclass(frozen=True)
class Outcome:
    """All that one replay gives; the metrics are computed from it.

    rows: (requests,) of outcome.ROW. work: (requests, primitives). sections: (n,) of
    state.SECTION. areas, peaks: by name, see gauges.AREAS. duration_ns: modelled.
    frames: of each slot; before: of each page that was live before the first request, those of
    Start.live first.
    """

    strategy: Strategy
    options: dict[str, Any]
    machine: Physmap
    profile: Profile
    workload: Workload
    notes: tuple[str, ...]
    rows: np.ndarray
    work: np.ndarray
    frames: np.ndarray
    sections: np.ndarray
    free_list: np.ndarray
    histograms: dict[str, np.ndarray]
    areas: dict[str, float]
    peaks: dict[str, float]
    ends: dict[str, float]
    background: dict[str, int]
    tallies: dict[str, int]
    page_work: tuple[tuple[str, ...], tuple[str, ...]]
    duration_ns: int
    broken: tuple[str, ...] = ()
    before: np.ndarray = field(default_factory=_nothing)

    @property
    def every_frame(self) -> np.ndarray:
        """By slot, the frames of the stream's pages, then of those live before it."""
        return np.concatenate((self.frames, self.before)) if len(self.before) else self.frames

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


def most_pages(workload: Workload, machine: Physmap) -> int:
    """Pages a strategy must have room for: live at once, and what the highest target adds."""
    q = workload.requests
    target = int(q.pages[q.kind == TARGET].max(initial=0))
    return workload.peak_pages + max(0, target - machine.memory.total)


def largest(workload: Workload) -> int:
    """Pages of the largest request, at least one."""
    q = workload.requests
    return int(q.pages[q.kind != TARGET].max(initial=1))


def replay(strategy: Strategy, given: Mapping[str, str], machine: Physmap, workload: Workload,
           profile: Profile, *, check: bool = False, batch: int = 0) -> Outcome:
    """Replay a checked workload through one strategy.

    given: option texts (`--set strategy.name=text` without the prefix). check: also test the
    strategy's invariants at the end. batch: requests taken at a time, which changes nothing; 0 for
    all at once.
    """
    values = strategy.values(given)
    out = room(workload.slots, largest(workload))
    setup, before = _at_start(strategy, machine, workload, values)
    out.live[workload.nr_slots:] = before[:workload.slots - workload.nr_slots]
    m = setup.state
    s = words(m)
    # The loop writes the plan, so each replay has its own.
    q = workload.requests._replace(plan=workload.requests.plan.copy())
    fed = feed_all(strategy, m, q, out, profile.vector(setup.page_work), batch)
    out, end = fed.out, int(tallies(fed.out.totals).lock_free)
    if s.fault:
        raise ReplayError(f"{strategy.name}: an internal bound was hit (fault {int(s.fault)}); "
                          "this is a defect of the strategy")
    return Outcome(
        strategy=strategy, options=values, machine=machine, profile=profile,
        workload=_as_replayed(workload, q, fed.rows, end),
        notes=setup.notes, rows=fed.rows, work=fed.work, frames=fed.frames,
        before=before, sections=section_log(m).copy(),
        free_list=m[s.list : s.list + s.count].copy(),
        histograms={name: getattr(out, name) for name in HISTOGRAMS},
        areas={name: float(out.area[k]) for k, name in enumerate(AREAS)},
        peaks={name: float(out.peak[k]) for k, name in enumerate(AREAS)},
        ends=_ends(m),
        background={name: int(out.totals[k]) for k, name in enumerate(WORK)},
        tallies=_tallies(out.totals), page_work=setup.page_work, duration_ns=end,
        broken=tuple(strategy.check(m)) if check else (),
    )


def _at_start(strategy: Strategy, machine: Physmap, workload: Workload, values: dict[str, Any]
              ) -> tuple[Setup, np.ndarray]:
    """The strategy before the first request, and the frames of the pages live by then."""
    most = most_pages(workload, machine)
    if workload.start is None:
        return strategy.init(machine, most, values), _nothing()
    begun = begin(strategy, machine, most, values, workload.start)
    return begun.setup, begun.frames


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
