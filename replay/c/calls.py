"""A C allocator's three calls in the form of a strategy, for the same loop as the models.

What comes back is checked here, frame by frame: after a fault every call fails, and the engine's
caller asks fault() what it was.
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np

from replay.base.compiled import (
    address_of, call_c, compiled, inline, record, row_at, seen_at, words_in,
)  # fmt: skip
from replay.costs.primitives import WORK
from replay.engine.loop import loop
from replay.engine.state import (
    BEYOND_LIST, E_ADDING, E_WAIT, NR_WORK, SECTION_HOTPLUG, SECTION_POOL, SECTION_SEED,
    log_section, words, work_words,
)  # fmt: skip
from replay.engine.strategy import own_record
from replay.engine.tracking import break_block, enter_range, leave_range

CALLS_OF_C = ("alloc", "free", "resume", "wake", "target")
"""Addresses of the C functions, 0 if missing."""
OWN, options = own_record(
    {}, *CALLS_OF_C,
    "report",  # first word of the report
    "limit",  # frames are below this
    "live",  # first word of one word per frame: whether a caller has it
    "told",  # the target that the allocator knows
    "bad", "bad_request",  # the frame, event or value of a fault
    "calling", "pages",  # for whoever watches from outside: the call under way and its pages
)  # fmt: skip

REPORT = record(
    ("work", record(*WORK)), "dirty", "listed", "wake_at", "got", "per_page", "own_lock", "current",
    "target", "total", "unpopulated", "state", "sleep_credit", "nr_events", "max_events", "events",
    "may_let_go", "request", "faults",
)  # fmt: skip
"""struct replay_report; the events follow it at once."""
REPORT_WORDS = words_in(REPORT)
report_at = seen_at(REPORT)
C_EVENT = record("kind", "first", "pages")
"""What the allocator tells of, see ENTERED and those after it; the first frame."""
event_at = row_at(C_EVENT)

ENTERED, LEFT, GIVEN, BROKEN, POOL_SECTION, HOTPLUG_SECTIONS, SEED = range(7)

IN_NONE, IN_ALLOC, IN_FREE, IN_RESUME, IN_WAKE, IN_TARGET, IN_INIT = range(7)
CALLS = ("", "replay_alloc", "replay_free", "replay_resume", "replay_wake", "replay_target",
         "replay_init")

TWICE, OUTSIDE, POSITIVE, EVENTS, EVENT_RANGE, GOT_RANGE, NO_RESUME, LISTED_RANGE, LET_GO = range(
    10, 19)
FAULTS = {
    TWICE: "handed out frame {bad:#x}, which a caller has already",
    OUTSIDE: "handed out frame {bad:#x}, which lies outside the physmap (end {limit:#x})",
    POSITIVE: "returned {bad}; expected 0 or a negative errno",
    EVENTS: "told of {bad} events in one call, more than its pages can cause",
    EVENT_RANGE: "told of an event of an unknown kind or with frames outside the physmap "
                 "(event {bad})",
    GOT_RANGE: "fell asleep with {bad} pages, fewer than before or as many as it was asked for",
    NO_RESUME: "fell asleep (REPLAY_ASLEEP), but there is no replay_resume()",
    LET_GO: "let go of the lock (REPLAY_ADDING) although report->may_let_go was 0",
    LISTED_RANGE: "listed {bad} free frames; expected 0 or more",
}


@inline
def _fail(m: np.ndarray, fault: int, bad: int) -> None:
    """Remember the first fault."""
    s, own = words(m), options(m)
    if s.fault == 0:
        s.fault = fault
        own.bad = bad
        own.bad_request = s.request


@inline
def _enter(m: np.ndarray, call: int, pages: int) -> None:
    """Tell whoever watches what is being called, and the allocator when its thread is due."""
    s, own = words(m), options(m)
    own.calling, own.pages = call, pages
    report = report_at(m, own.report)
    report.wake_at = s.wake_at
    report.may_let_go, report.request = s.split, s.request


@compiled
def _take_events(m: np.ndarray) -> int:
    """What entered and left, regions added, superpages broken."""
    s, own = words(m), options(m)
    report = report_at(m, own.report)
    count = report.nr_events
    report.nr_events = 0
    if count < 0 or count > report.max_events:
        _fail(m, EVENTS, count)
        return 0
    for k in range(count):
        event = event_at(m, own.report + REPORT_WORDS, k)
        kind, first, pages = event.kind, event.first, event.pages
        inside = 0 <= first < own.limit and 0 <= pages <= own.limit - first
        if kind == GIVEN:
            s.gauge.given += pages
            s.moved = 1
        elif kind < 0 or kind > SEED or not inside:
            _fail(m, EVENT_RANGE, k)
        elif kind == ENTERED:
            enter_range(m, first, pages)
        elif kind == LEFT:
            leave_range(m, first, pages)
        elif kind == BROKEN:
            shift = s.table.block_shift
            for b in range(first >> shift, ((first + pages - 1) >> shift) + 1):
                break_block(m, b)
        elif kind == POOL_SECTION:
            log_section(m, first, pages, SECTION_POOL)
        elif kind == HOTPLUG_SECTIONS:
            log_section(m, first, pages, SECTION_HOTPLUG)
        else:
            log_section(m, first, pages, SECTION_SEED)
    return 0


@inline
def absorb(m: np.ndarray) -> None:
    """Take over what the allocator reported in the call that has just returned."""
    s, own = words(m), options(m)
    report = report_at(m, own.report)
    woken = report.wake_at < s.wake_at and own.calling != IN_WAKE and own.calling != IN_INIT
    own.calling = IN_NONE
    if report.dirty:
        work = work_words(m)
        for k in range(NR_WORK):
            work[k] += m[own.report + k]
            m[own.report + k] = 0
        report.dirty = 0
        s.dirty |= BEYOND_LIST
    if report.nr_events:
        _take_events(m)
    if report.listed < 0:
        _fail(m, LISTED_RANGE, report.listed)
    s.count = max(0, report.listed)
    if woken:  # once it is awake; one whose pass goes on starts over when it is done
        awake = report.wake_at + s.wake_ns if report.wake_at >= s.thread_free else s.thread_free
        s.wake_at, s.woken = min(s.wake_at, awake), int(own.target != 0)
    else:
        s.wake_at = max(report.wake_at, s.thread_free)
    if own.target != 0:
        s.target = own.told = report.target
    s.current = report.current
    s.total = report.total
    s.unpopulated = report.unpopulated
    s.bp_state = report.state
    s.sleep_credit = report.sleep_credit


@inline
def _tell_target(m: np.ndarray, now: int) -> None:
    """The loop only notes a new target; the allocator hears of it before anything else."""
    s, own = words(m), options(m)
    if own.told != s.target:
        own.told = s.target
        if own.target != 0:
            _enter(m, IN_TARGET, s.target)
            call_c(own.target, now, s.target, 0)
            absorb(m)


@inline
def _mark(m: np.ndarray, frames: np.ndarray, first: int, count: int) -> None:
    """Frames that a caller gets: each within the physmap, and nobody else's."""
    own = options(m)
    live, limit = own.live, own.limit
    for k in range(first, first + count):
        frame = frames[k]
        if frame < 0 or frame >= limit:
            _fail(m, OUTSIDE, frame)
            frames[k] = -1
        elif m[live + frame]:
            _fail(m, TWICE, frame)
        else:
            m[live + frame] = 1


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """replay_alloc(), or replay_resume() when a sleeper goes on."""
    s, own = words(m), options(m)
    if s.fault:
        return -errno.EFAULT
    _tell_target(m, now)
    had = s.got if s.resume else 0
    where = address_of(frames) + 8 * at
    if s.resume:
        _enter(m, IN_RESUME, nr_pages)
        error = call_c(own.resume, now, nr_pages, where)
    else:
        _enter(m, IN_ALLOC, nr_pages)
        error = call_c(own.alloc, now, nr_pages, where)
    absorb(m)
    got = nr_pages if error == 0 else 0
    if error > 0:
        _fail(m, POSITIVE, error)
    elif error == -E_WAIT or error == -E_ADDING:
        if error == -E_ADDING and s.split == 0:
            _fail(m, LET_GO, 0)
        got = report_at(m, own.report).got
        s.got = got
        if own.resume == 0:
            _fail(m, NO_RESUME, 0)
        if got < had or got >= nr_pages:
            _fail(m, GOT_RANGE, got)
    elif error < 0:
        for k in range(at, at + had):  # a sleeper that fails gives back what it had
            if 0 <= frames[k] < own.limit:
                m[own.live + frames[k]] = 0
    if s.fault:
        return -errno.EFAULT
    if error == 0 or error == -E_WAIT or error == -E_ADDING:
        _mark(m, frames, at + had, got - had)
    return -errno.EFAULT if s.fault else error


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """replay_free()."""
    s, own = words(m), options(m)
    if s.fault:
        return -errno.EFAULT
    _tell_target(m, now)
    for k in range(at, at + nr_pages):
        m[own.live + frames[k]] = 0
    _enter(m, IN_FREE, nr_pages)
    error = call_c(own.free, now, nr_pages, address_of(frames) + 8 * at)
    absorb(m)
    if error > 0:
        _fail(m, POSITIVE, error)
    return -errno.EFAULT if s.fault else error


@inline
def wake(m: np.ndarray, now: int) -> int:
    """replay_wake(), where there is one."""
    s, own = words(m), options(m)
    if s.fault or own.wake == 0:
        s.wake_at = 1 << 62
        return 0
    _tell_target(m, now)
    _enter(m, IN_WAKE, 0)
    error = call_c(own.wake, now, 0, 0)
    absorb(m)
    if error == -E_ADDING and s.split == 0:
        _fail(m, LET_GO, 0)
    return error


@compiled
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around a C allocator."""
    return loop(alloc, free, wake, m, q, out, cost)
