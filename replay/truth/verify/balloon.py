"""Verify the balloon driver: statistics, hypercalls and frames at each step, in lock order.

The pages that alloc_page() picks are the buddy allocator's affair: the recorded ones are fed. The
balloon thread is stepped when the recording shows it at work; how many pages it moves, which, and
what it leaves behind is then the model's to say.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from replay.base.progress import many
from replay.allocators import balloon
from replay.costs.primitives import WORK
from replay.engine.requests import ALLOC, FREE
from replay.engine.state import NEVER, section_log, span, word_of, words
from replay.importers.ordering.calls import next_of_task
from replay.metrics.calls import with_page_work
from replay.physmap.model import Physmap
from replay.trace.columns import NONE, ints, is_kind, strings
from replay.trace.start import pages_of, sentences
from replay.trace.store import Trace
from replay.truth.verify.balloon_steps import (
    STAT_WORDS, columns, hypercalls_by_alloc, paused, steps,
)  # fmt: skip
from replay.truth.verify.hot_added import HotAdded
from replay.truth.verify.result import ANONYMOUS, PLACEHOLDER, Frames, Verification

PLENTY = 1 << 40
"""si_mem_available() of the moment is not recorded: never short, unless the call failed."""


class _Stepper:
    """The model's state, stepped along the recording."""

    def __init__(self, trace: Trace, machine: Physmap, result: Verification) -> None:
        self.c = columns(trace.table)
        self.result = result
        self.pv = machine.mode == "pv"
        moved = self.c.kind == "decrease"
        supply = int(self.c.nr[moved].sum()) + 4096
        defaults = {name: option.default for name, option in balloon.OPTIONS.items()}
        total = int(self.c.nr[self.c.kind == "alloc"].sum())
        listed = pages_of(trace.meta.start, "balloon", "listed")
        hot = int(self.c.nr[self.c.kind == "section"].sum())
        self.m = balloon.balloon_state(machine, total + supply + listed + hot, defaults)
        self.hot_added = HotAdded(self.m)
        self.out = np.full(max(1, total), -1, np.int64)
        m = self.m
        s = words(m)
        self._begin(trace, listed, PLACEHOLDER + supply)
        # alloc_page() hands out a new placeholder each time; freed RAM does not come back by name.
        m[s.ram : s.ram + supply] = PLACEHOLDER + np.arange(supply)
        s.ram_count, s.ram_capacity = supply, 0
        s.available = PLENTY
        self.frames = Frames(result)
        self.frames.is_listed = self.is_listed
        self.scratch = np.zeros(int(self.c.nr.max(initial=1)) + 1, np.int64)
        self.paused = paused(trace.table)
        self.stops = self.refusals = 0
        self.done: dict[int, np.ndarray] = {}
        """By row, the primitives of each call beyond those of its pages."""

    def _begin(self, trace: Trace, listed: int, first: int) -> None:
        """The state as the recording found it; frames of the list are learned at first sight."""
        m, start = self.m, trace.meta.start
        s = words(m)
        m[s.list : s.list + listed] = first + np.arange(listed)
        s.count = listed
        for name, register in (("current", word_of("current")), ("target", word_of("target"))):
            if name in start.get("balloon", {}):
                m[register] = pages_of(start, "balloon", name)
        if trace.meta.recorded_strategy == "balloon" and start:
            s.unpopulated = pages_of(start, "live")
            s.total = max(int(s.total), int(s.current + s.unpopulated) + listed)

    def run_short(self, pages: int) -> int:
        """Leave alloc_page() so many pages to give; returns what to pass to run_on()."""
        m = self.m
        s = words(m)
        left = int(s.ram_count) - pages
        s.ram += left
        s.ram_count = pages
        return left

    def run_on(self, left: int) -> None:
        """Undo run_short()."""
        words(self.m).ram -= left
        words(self.m).ram_count += left

    def work(self) -> np.ndarray:
        """The primitives since the last look."""
        work = self.m[span("work")]
        done = work.copy()
        work[:] = 0
        return done

    def is_listed(self, frame: int) -> bool:
        """Whether a frame is on the free list now."""
        m = self.m
        s = words(m)
        return bool((m[s.list : s.list + s.count] == frame).any())

    def last_freed(self, r: int) -> int:
        """The last page of a free, which goes to the list's head; -1 where it is not known."""
        slots = self.c.slots.row(r)
        if len(slots) and slots[-1] >= 0:
            return self.frames.known(int(self.out[slots[-1]]))
        frames = self.c.frames.row(r)
        return int(frames[-1]) if len(frames) == self.c.nr[r] else -1

    def head(self, count: int) -> np.ndarray:
        """The first `count` frames of the list, head first."""
        top = int(words(self.m).list + words(self.m).count)
        return self.m[max(int(words(self.m).list), top - count) : top][::-1].copy()

    def compare_stats(self, r: int) -> None:
        """balloon_stats as the recorded kernel read them in the lock, before the call."""
        for name, register in STAT_WORDS.items():
            recorded = int(self.c.stats[name][r])
            if recorded != NONE:
                self.result.compare("stats", self.c.time[r], r, {name: recorded},
                                    {name: int(self.m[register])})

    def compare_length_after(self, r: int) -> None:
        """The length of the list when the call let the lock go."""
        after = int(self.c.stats["list_count_after"][r])
        if after != NONE:
            self.result.compare("stats", self.c.time[r], r, {"list_count_after": after},
                                {"list_count_after": int(words(self.m).count)})

    def alloc(self, at: int, r: int, nested: list[int]) -> None:
        """xen_alloc_ballooned_pages(). nested: rows of the decrease hypercalls within it.

        It fails where si_mem_available() is too low, before or between its batches, or where
        alloc_page() fails within one: then what was got is given to Xen, and the call undone.
        """
        m, c = self.m, self.c
        s = words(m)
        self.hot_added.before(int(c.stats["list_count"][r]), c.frames.row(r))
        self.compare_stats(r)
        nr, base = int(c.nr[r]), int(c.base[r])
        s.now = at
        failed = c.errno[r] < 0
        s.available = PLENTY if nested or not failed else 0
        left = self.run_short(int(c.nr[nested].sum())) if failed and nested else 0
        error = int(balloon.alloc(m, at, nr, self.out, base))
        self.run_on(left)
        s.available = PLENTY
        self.result.compare("errnos", c.time[r], r, int(c.errno[r]), error)
        if error == 0:
            self.compare_length_after(r)
            got = self.out[base : base + nr]
            recorded = c.frames.row(r)[:nr]
            self.frames.check(int(c.time[r]), r, recorded, got)
            if len(recorded) < nr and c.value[r] != NONE and not self.pv:
                self.frames.check(int(c.time[r]), r, c.value[r : r + 1], got[-1:])

    def free(self, at: int, r: int) -> None:
        """xen_free_ballooned_pages(): the model's own frames of the slots; unknown ones by name."""
        m, c = self.m, self.c
        s = words(m)
        slots, recorded = c.slots.row(r), c.frames.row(r)
        if c.lock[r] != NONE:
            self.hot_added.before(int(c.stats["list_count"][r]), recorded[:0])
            self.compare_stats(r)
        pages = np.where(slots >= 0, self.out[np.maximum(slots, 0)], -1)
        for k in np.flatnonzero(pages < 0).tolist():
            known = int(recorded[k]) if k < len(recorded) else -1
            self.frames.unnamed += known < 0
            pages[k] = self.frames.stands_for.get(known, ANONYMOUS + r * 65536 + k)
        s.now = at
        self.scratch[: len(pages)] = pages
        balloon.free(m, at, len(pages), self.scratch, 0)
        if c.lock[r] != NONE:
            self.compare_length_after(r)

    def stopped(self, r: int, what: str) -> bool:
        """Whether alloc_page() failed in a pass: it moved fewer pages than a batch, and the thread
        then paused (BP_EAGAIN: for a second at least, unless the credit changes)."""
        m, c = self.m, self.c
        s = words(m)
        asked = min(int(s.current - s.target), int(s.page_bytes) // 8)
        return what == "decrease" and int(c.nr[r]) < asked and r in self.paused

    def refused(self, at: int, r: int, offered: np.ndarray) -> None:
        """A pass for which Xen populated fewer pages than it was asked for: which ones it refuses
        is Xen's affair (hot-added ones, of a direct-mapped dom0), so their number is fed."""
        m, c, got = self.m, self.c, int(self.c.moved[r])
        s = words(m)
        self.refusals += 1
        asked = min(max(0, int(s.target - s.current)), int(s.page_bytes) // 8,
                    int(s.count))
        if not self.result.compare("thread_passes", c.time[r], r, {"increase": int(c.nr[r])},
                                   {"increase": asked}):
            return
        self.frames.check(int(c.time[r]), r, c.frames.row(r), offered)
        target = int(s.target)
        s.target = s.current + got
        if got:
            balloon.wake(m, at)
        s.target, s.wake_at = target, NEVER
        self.work()
        for frame in offered[:got].tolist():
            self.frames.forget(frame)

    def thread(self, at: int, r: int, what: str) -> None:
        """One pass of the balloon thread, at the time the recording shows it at work."""
        m, c = self.m, self.c
        s = words(m)
        popped = c.frames.row(r)[: c.nr[r] if what == "increase" else 0]
        self.hot_added.before(int(c.stats["list_count"][r]), popped)
        offered = self.head(512)
        s.now = at
        before = int(s.count)
        if what == "increase" and 0 <= c.moved[r] < c.nr[r]:
            self.refused(at, r, offered)
            return
        short = self.stopped(r, what)
        self.stops += short
        left = self.run_short(int(c.nr[r])) if short else 0
        balloon.wake(m, at)
        self.run_on(left)
        s.wake_at = NEVER
        done = self.work()
        moved = {"increase": int(done[WORK.index("extent_populate")]),
                 "decrease": int(done[WORK.index("extent_decrease")])}
        if what == "hotplug":
            self.result.compare("thread_passes", c.time[r], r, {"increase": 0, "decrease": 0},
                                moved)
            return
        same = self.result.compare("thread_passes", c.time[r], r, {what: int(c.nr[r])},
                                   {what: moved[what]})
        if same and what == "increase":
            self.frames.check(int(c.time[r]), r, c.frames.row(r), offered)
            for frame in offered[: moved[what]].tolist():
                self.frames.forget(frame)
        elif same and not self.pv:
            held = m[s.list + before : s.list + s.count]
            self.frames.check(int(c.time[r]), r, c.frames.row(r), held)


def _nested_hypercalls(stepper: _Stepper, alloc_row: int, rows: list[int]) -> None:
    """The decrease hypercalls of one allocation: as many, of the same sizes, as the model made."""
    c = stepper.c
    done = stepper.done[alloc_row]
    recorded = {"hypercalls": len(rows), "pages": int(sum(c.nr[r] for r in rows))}
    calls = int(done[WORK.index("hypercall")])
    if c.errno[alloc_row] < 0 and rows and calls == len(rows) + 1:
        calls -= 1  # refused by si_mem_available() between batches, where the model finds no page
    model = {"hypercalls": calls, "pages": int(done[WORK.index("extent_decrease")])}
    stepper.result.compare("hypercalls", c.time[alloc_row], alloc_row, recorded, model)


def _comes_later(stepper: _Stepper, free: int, step: tuple[int, int, str, int],
                 latest: int) -> bool:
    """Whether a free of unknown lock time got the lock only after the thread's next pass.

    What the pass moved tells: how many pages, and which one was at the head of the list.
    """
    at, _, what, r = step
    if what not in ("increase", "hotplug") or latest <= at:
        return False
    c, m = stepper.c, stepper.m
    s = words(m)
    listed, nr = int(s.count), int(c.nr[free])
    credit = int(s.target - s.current)
    batch = 512 * int(s.page_bytes) // 4096
    if what == "hotplug":
        return listed == 0
    moved = int(c.nr[r])
    with_it, without = min(credit, batch, listed + nr), min(credit, batch, listed)
    if with_it != without:
        return moved == without
    head, last = c.frames.row(r)[:1], stepper.last_freed(free)
    return len(head) > 0 and last >= 0 and int(head[0]) != last


def _reordered(stepper: _Stepper, steps: list[tuple[int, int, str, int]],
               latest: np.ndarray, unknown: np.ndarray) -> Iterator[tuple[int, int, str, int]]:
    """The steps, frees moved behind a thread pass where what it moved shows that they were."""
    waiting = list(reversed(steps))
    moved = 0
    while waiting:
        step = waiting.pop()
        if (step[2] == "free" and unknown[step[3]] and waiting
                and _comes_later(stepper, step[3], waiting[-1], int(latest[step[3]]))):
            first = waiting.pop()
            waiting.append(step)
            moved += 1
            yield first
            continue
        yield step
    if moved:
        stepper.result.notes.append(
            f"{moved} frees were placed behind a pass of the balloon thread, as its moves show")


def _stepped(trace: Trace, machine: Physmap, result: Verification, *, pool: bool) -> _Stepper:
    """The model after all steps; what differs on the way is counted in the result."""
    stepper = _Stepper(trace, machine, result)
    nested = {} if pool else hypercalls_by_alloc(trace)
    table = trace.table
    latest = next_of_task(ints(table, "time_ns"), ints(table, "pid"))
    events = steps(trace, pool)
    ordered = _reordered(stepper, events, latest, ints(table, "lock_ns") == NONE)
    for at, _, what, r in many(ordered, len(events), "stepping", "events"):
        stepper.work()
        result.begin(ambiguous=bool(stepper.c.ambiguous[r]))
        if what == "alloc":
            stepper.alloc(at, r, nested.get(r, []))
            stepper.done[r] = stepper.work()
            _nested_hypercalls(stepper, r, nested.get(r, []))
        elif what == "free":
            stepper.free(at, r)
            stepper.done[r] = stepper.work()
        elif what == "target":
            words(stepper.m).target = stepper.c.target[r]
        else:
            stepper.thread(at, r, what)
    result.begin(ambiguous=False)
    return stepper


def balloon_work(trace: Trace, machine: Physmap) -> tuple[np.ndarray, np.ndarray]:
    """(rows, work): the primitives of each recorded call, as the recorded kernel did them."""
    stepper = _stepped(trace, machine, Verification("balloon"), pool=False)
    c, rows = stepper.c, np.array(list(stepper.done), np.int64)
    work = np.array(list(stepper.done.values()), np.int64).reshape(-1, len(WORK))
    moved = np.where(c.errno[rows] >= 0, c.nr[rows], 0)
    kind = np.where(c.kind[rows] == "alloc", ALLOC, FREE)
    return rows, with_page_work(work, kind, moved, balloon.page_work(machine))


def verify_balloon(trace: Trace, machine: Physmap, *, pool: bool) -> Verification:
    """Step the balloon model along the recording.

    pool: the recorded allocator is the pool, so only targets and the thread concern the balloon.
    """
    result = Verification("balloon driver" if pool else "balloon")
    stepper = _stepped(trace, machine, result, pool=pool)
    _compare_sections(trace, stepper, result)
    if stepper.stops:
        result.notes.append(f"alloc_page() failed in {stepper.stops} passes, as the pause behind "
                            "a short one shows; the pages it gave are taken from the recording")
    if stepper.refusals:
        result.notes.append(f"in {stepper.refusals} passes Xen populated fewer pages than it was "
                            "asked for; how many is taken from the recording")
    if stepper.hot_added.blocks:
        result.notes.append(f"{stepper.hot_added.blocks} blocks of hot-added pages were put on the "
                            "list when the recording shows them there")
    if trace.meta.start:
        result.notes.append("began with " + "; ".join(
            s for s in sentences(trace.meta.start) if not s.startswith("the pool")))
    result.notes.append("frames from alloc_page() are fed from the recording; the balloon thread "
                        "is stepped when the recording shows it at work")
    return result


def _compare_sections(trace: Trace, stepper: _Stepper, result: Verification) -> None:
    table, c = trace.table, stepper.c
    rows = np.flatnonzero(is_kind(table, "section") & (strings(table, "label") == "System RAM"))
    model = [(int(row.start_pfn), int(row.nr_pages)) for row in section_log(stepper.m)]
    for k, r in enumerate(rows.tolist()):
        result.compare("sections", c.time[r], r, (int(c.start[r]), int(c.nr[r])),
                       model[k] if k < len(model) else None)
    for extra in model[len(rows):]:
        result.compare("sections", -1, -1, None, extra)
