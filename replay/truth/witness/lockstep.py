"""The compiled comparison: one random stream through a model and through the kernel's source.

After every call errno, frames in order, list length, balloon statistics, the thread's next time,
sections, gauges and every work count must be equal; the resource trees whenever one changed, the
frames of its extents after each hypercall, and the whole lists every CHECK_LIST requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from replay.base.compiled import (
    address_of, call_c, inline, record, row_at, seen_as, template, words_in,
)  # fmt: skip
from replay.base.hashes import GAMMA, finalized
from replay.costs.primitives import WORK
from replay.engine.faults import FAULT_KINDS
from replay.engine.state import (
    E_WAIT, FIRST_WORK, NEVER, NR_WORK, section_at, word_of, words,
)  # fmt: skip
from replay.engine.tracking import frames_returned, frames_taken
from replay.physmap.resource import RANGE_WORDS, range_at

COMPARED_REGISTERS = {name: word_of(register) for name, register in (
    ("list length", "count"), ("current_pages", "current"), ("target_pages", "target"),
    ("target_unpopulated", "unpopulated"), ("total_pages", "total"),
    ("thread's next time", "wake_at"), ("balloon state", "bp_state"),
    ("thread's credit", "sleep_credit"), ("sections", "section_count"), ("fault", "fault"),
    ("held pages", "gauge.held"), ("given pages", "gauge.given"), ("added pages", "gauge.added"),
    ("broken superpages", "gauge.broken"), ("whole blocks", "gauge.whole"),
    ("pinned sections", "gauge.pinned"), ("live pages", "gauge.live"),
    ("fault met", "faults.reason"),
    *((f"calls of {kind}", f"faults.{kind}.calls") for kind in FAULT_KINDS))}
COMPARED = tuple(COMPARED_REGISTERS.values())
COMPARED_WORK = dict(enumerate(WORK, FIRST_WORK))

STREAM = record(
    "seed",
    "requests",
    "most",  # pages of one request
    "calm",  # percent of allocations
    "peak",  # pages that are live at most
    "targets",  # percent of target changes
    "full",  # pages of the highest target
    # Addresses of replay_list() and of shim_balloon_list(), shim_tree(), shim_lost().
    "list", "balloon_list", "tree", "lost",
    "quick",  # percent of steps without time passing
    "asleep",  # how many sleep now
)  # fmt: skip
"""What a stream is made by."""
stream_in = seen_as(STREAM)

FOUND = record(
    "requests", "allocations", "failed", "slept", "thread_passes", "trees_compared",
    "lists_compared", "sections",
    "what", "at", "ours", "theirs",  # what differed (0: nothing), where, both values
)  # fmt: skip
"""What came of it: counts, and the first difference."""
found_in = seen_as(FOUND)

SLEEPER = record("pages", "got")
"""An allocation that sleeps: pages it asked for, and those that it has."""
sleeper_at = row_at(SLEEPER)


class Room(NamedTuple):
    """What a stream works on beside the two states.

    sleepers: a SLEEPER each, oldest first. ours, theirs: the frames of each, in the last row those
    of the call under way. live: frames that callers have. scratch: for lists and trees.
    """

    sleepers: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    live: np.ndarray
    scratch: np.ndarray


D_ERRNO, D_FRAME, D_GOT, D_TREE, D_LIST, D_SECTION, D_LOST = range(1000, 1007)
OTHERS = {D_ERRNO: "errno", D_FRAME: "frame", D_GOT: "pages got before the sleep",
          D_TREE: "resource tree", D_LIST: "free list", D_SECTION: "section",
          D_LOST: "kernel objects lost"}
MAX_SLEEPERS = 6
CHECK_LIST = 1000


def difference(what: int) -> str:
    """The name of what differed."""
    if what in OTHERS:
        return OTHERS[what]
    if what in COMPARED_WORK:
        return f"work {COMPARED_WORK[what]}"
    return next(name for name, register in COMPARED_REGISTERS.items() if register == what)


def room_for(state: int, peak: int) -> Room:
    """Room for a stream on states of so many words, with `peak` pages live."""
    shape = MAX_SLEEPERS + 1, peak
    return Room(np.zeros(MAX_SLEEPERS * words_in(SLEEPER), np.int64), np.zeros(shape, np.int64),
                np.zeros(shape, np.int64), np.zeros(peak, np.int64), np.zeros(state, np.int64))


_finalized = inline(finalized)


@inline
def _random(p: Any, below: int) -> Any:
    """The next number of SplitMix64, below a bound."""
    state = np.uint64(p.seed) + GAMMA
    p.seed = np.int64(state)
    return np.int64(_finalized(state) % np.uint64(below))


@inline
def _how_many(p: Any, m: np.ndarray) -> Any:
    """Pages to ask for: few or many, and every fifth time what ends with the list or a section."""
    s = words(m)
    if _random(p, 5) > 0:
        return 1 + _random(p, 1 + _random(p, p.most))
    edge = s.count + _random(p, 4) * s.section_pages + _random(p, 3) - 1
    return min(max(edge, 1), 5000)


@inline
def _differ(f: Any, what: int, at: int, ours: int, theirs: int) -> None:
    """Keep the first difference."""
    if f.what == 0:
        f.what, f.at, f.ours, f.theirs = what, at, ours, theirs


@inline
def _next_row(rows: np.ndarray, at: int, k: int, count: int) -> tuple[int, int, int]:
    """A row of a resource tree joined with those that begin where it ends."""
    first = range_at(rows, at, k)
    start, last = first.start, first.last
    k += 1
    while k < count and range_at(rows, at, k).start == last + 1:
        last = range_at(rows, at, k).last
        k += 1
    return start, last, k


@inline
def _compare_trees(m: np.ndarray, p: Any, f: Any, scratch: np.ndarray) -> None:
    """Both resources; neighbours joined, as merge_system_ram_resource() joins them. What the
    kernel has of them in memory is counted, too."""
    s = words(m)
    f.trees_compared += 1
    lost = call_c(p.lost, 0, 0, 0)
    if lost != 0:
        _differ(f, D_LOST, 0, 0, lost)
    for which in range(2):
        d = s.xen_tree if which else s.tree
        if which and d.last == 0:
            continue  # the model has no Xen resource: the kernel's target is iomem_resource
        theirs = call_c(p.tree, which, scratch.shape[0] // RANGE_WORDS, address_of(scratch))
        ours, i, j = d.count, 0, 0
        while i < ours and j < theirs:
            start_a, last_a, i = _next_row(m, d.at, i, ours)
            start_b, last_b, j = _next_row(scratch, 0, j, theirs)
            if start_a != start_b or last_a != last_b:
                _differ(f, D_TREE, which, start_a, start_b)
                return
        if i < ours or j < theirs:
            _differ(f, D_TREE, which, ours, theirs)


@inline
def _compare_lists(m: np.ndarray, p: Any, f: Any, scratch: np.ndarray, most: int) -> None:
    """The free list, and the balloon's beside a pool, head first, as far as `most` frames."""
    s = words(m)
    for beside in range(1 + s.own_lock):
        count = s.other_count if beside else s.count
        at = s.other_list if beside else s.list
        listed = p.balloon_list if beside else p.list
        theirs = call_c(listed, min(most, scratch.shape[0]), address_of(scratch), 0)
        if theirs != count:
            _differ(f, D_LIST, -1 - beside, count, theirs)
            return
        for k in range(min(count, most)):
            if m[at + count - 1 - k] != scratch[k]:
                _differ(f, D_LIST, k, m[at + count - 1 - k], scratch[k])
                return


@inline
def _compare(a: np.ndarray, b: np.ndarray, p: Any, f: Any, scratch: np.ndarray) -> None:
    """Everything but frames; both sides' work is cleared."""
    tree = words(a).work.resource_add + words(b).work.resource_add
    moved = words(a).work.hypercall + words(b).work.hypercall + words(a).faults.reason
    for register in COMPARED:
        if a[register] != b[register]:
            _differ(f, register, 0, a[register], b[register])
    for k in range(FIRST_WORK, FIRST_WORK + NR_WORK):
        if a[k] != b[k]:
            _differ(f, k, 0, a[k], b[k])
        a[k] = b[k] = 0
    words(a).dirty = words(b).dirty = 0
    words(a).faults.reason = words(b).faults.reason = 0
    count = words(a).section_count
    if count > f.sections and f.what == 0:
        for k in range(f.sections, count):
            x, y = section_at(a, words(a).sections, k), section_at(b, words(b).sections, k)
            for ours, theirs in ((x.time_ns, y.time_ns), (x.start_pfn, y.start_pfn),
                                 (x.nr_pages, y.nr_pages), (x.kind, y.kind)):
                if ours != theirs:
                    _differ(f, D_SECTION, k, ours, theirs)
        f.sections = count
    if tree > 0 and f.what == 0:
        _compare_trees(a, p, f, scratch)
    # The extents of a hypercall are what the list begins with, and what was put back is, too.
    if moved > 0 and f.what == 0:
        _compare_lists(a, p, f, scratch, words(a).page_bytes // 8)


@inline
def _same_frames(x: np.ndarray, y: np.ndarray, count: int, f: Any) -> None:
    for k in range(count):
        if x[k] != y[k]:
            _differ(f, D_FRAME, k, x[k], y[k])


@inline
def _keep(live: np.ndarray, had: int, x: np.ndarray, count: int) -> int:
    for k in range(count):
        live[had + k] = x[k]
    return had + count


@inline
def _choose(p: Any, live: np.ndarray, had: int, x: np.ndarray, y: np.ndarray) -> int:
    """Pages to free, in x and y, taken off `live`: the last ones, backwards, or any."""
    count = 1 + _random(p, min(had, 1 + _random(p, p.most)))
    how = _random(p, 3)
    for k in range(count):
        at = had - 1 - k if how == 0 else had - count + k if how == 1 else _random(p, had - k)
        x[k] = y[k] = live[at]
        if how == 2:
            live[at] = live[had - 1 - k]
    return count


@template
def step_alloc(alloc_a: Callable[..., int], alloc_b: Callable[..., int], a: np.ndarray,
               b: np.ndarray, now: int, pages: int, had: int, x: np.ndarray, y: np.ndarray,
               f: Any) -> int:
    """One allocation, or the resumption of one that has `had` pages; the errno."""
    error = alloc_a(a, now, pages, x, 0)
    other = alloc_b(b, now, pages, y, 0)
    if error != other:
        _differ(f, D_ERRNO, pages, error, other)
        return error
    got = pages if error == 0 else 0
    if error == -E_WAIT:
        got = words(a).got
        if got != words(b).got:
            _differ(f, D_GOT, pages, got, words(b).got)
    _same_frames(x, y, got, f)
    if got > had:
        frames_taken(a, x, had, got - had)
        frames_taken(b, y, had, got - had)
    elif got == 0 and had > 0:
        frames_returned(a, x, 0, had)
        frames_returned(b, y, 0, had)
    return error


@template
def passes(wake_a: Callable[..., int], wake_b: Callable[..., int], a: np.ndarray, b: np.ndarray,
           p: Any, f: Any, scratch: np.ndarray, now: int) -> None:
    """Background passes that are due; one that gets nowhere sleeps until something changes."""
    for _ in range(100):
        if words(a).wake_at > now or f.what != 0:
            return
        current, total, target = words(a).current, words(a).total, words(a).target
        words(a).now = words(b).now = now
        wake_a(a, now)
        wake_b(b, now)
        f.thread_passes += 1
        _compare(a, b, p, f, scratch)
        if (words(a).wake_at <= now and words(a).current == current and words(a).total == total
                and words(a).target == target):
            words(a).wake_at = words(b).wake_at = NEVER


@inline
def _wake_oldest(p: Any, room: Room) -> None:
    """The oldest sleeper is none any more; those behind it move up."""
    p.asleep -= 1
    for s in range(p.asleep):
        here = sleeper_at(room.sleepers, 0, s)
        following = sleeper_at(room.sleepers, 0, s + 1)
        here.pages, here.got = following.pages, following.got
        for k in range(here.pages):
            room.ours[s, k] = room.ours[s + 1, k]
            room.theirs[s, k] = room.theirs[s + 1, k]


@template
def resume(alloc_a: Callable[..., int], alloc_b: Callable[..., int], a: np.ndarray, b: np.ndarray,
           p: Any, f: Any, room: Room, now: int, nr_live: int) -> int:
    """Sleepers go on, oldest first, as long as something is listed; pages live then."""
    while p.asleep > 0 and words(a).count > 0 and f.what == 0:
        oldest = sleeper_at(room.sleepers, 0, 0)
        pages, had = oldest.pages, oldest.got
        words(a).now = words(b).now = now
        words(a).got = words(b).got = had
        words(a).resume = words(b).resume = 1
        error = step_alloc(alloc_a, alloc_b, a, b, now, pages, had, room.ours[0], room.theirs[0], f)
        words(a).resume = words(b).resume = 0
        _compare(a, b, p, f, room.scratch)
        if error == -E_WAIT:
            oldest.got = words(a).got
            continue
        if error == 0:
            nr_live = _keep(room.live, nr_live, room.ours[0], pages)
        _wake_oldest(p, room)
    return nr_live


@template
def lockstep(alloc_a: Any, free_a: Any, wake_a: Any, alloc_b: Any, free_b: Any, wake_b: Any,
             a: np.ndarray, b: np.ndarray, stream: np.ndarray, found: np.ndarray, room: Room
             ) -> int:
    """Drive both sides; requests done. stream: a STREAM. found: a FOUND."""
    p, f, live, scratch = stream_in(stream), found_in(found), room.live, room.scratch
    x, y = room.ours[-1], room.theirs[-1]
    now, nr_live = 1, 0
    for r in range(p.requests):
        if f.what != 0:
            break
        words(a).request = words(b).request = r
        if _random(p, 100) >= p.quick:
            now += 1 + _random(p, 1 << (3 * _random(p, 13)))
        passes(wake_a, wake_b, a, b, p, f, scratch, now)
        nr_live = resume(alloc_a, alloc_b, a, b, p, f, room, now, nr_live)
        words(a).now = words(b).now = now
        roll, asleep = _random(p, 100), p.asleep
        pages = _how_many(p, a)
        if roll < p.targets:
            target = max(0, p.full - _random(p, 1 + _random(p, 2000)))
            slept = words(a).sleep_credit if words(a).bp_state else 0
            words(a).target = words(b).target = target
            if target - words(a).current != slept:
                words(a).wake_at = words(b).wake_at = min(words(a).wake_at, now)
        elif nr_live > 0 and (roll >= p.calm or nr_live + pages > p.peak
                              or asleep == MAX_SLEEPERS):
            count = _choose(p, live, nr_live, x, y)
            nr_live -= count
            frames_returned(a, x, 0, count)
            frames_returned(b, y, 0, count)
            error = free_a(a, now, count, x, 0)
            other = free_b(b, now, count, y, 0)
            if error != other:
                _differ(f, D_ERRNO, count, error, other)
        elif asleep < MAX_SLEEPERS and nr_live + pages <= p.peak:
            f.allocations += 1
            u, v = room.ours[asleep], room.theirs[asleep]
            error = step_alloc(alloc_a, alloc_b, a, b, now, pages, 0, u, v, f)
            if error == 0:
                nr_live = _keep(live, nr_live, u, pages)
            elif error == -E_WAIT:
                f.slept += 1
                sleeper = sleeper_at(room.sleepers, 0, asleep)
                sleeper.pages, sleeper.got = pages, words(a).got
                p.asleep = asleep + 1
            else:
                f.failed += 1
        _compare(a, b, p, f, scratch)
        if r % CHECK_LIST == 0 and f.what == 0:
            f.lists_compared += 1
            _compare_lists(a, p, f, scratch, scratch.shape[0])
        f.requests = r + 1
    if f.what == 0:
        f.lists_compared += 1
        _compare_trees(a, p, f, scratch)
        _compare_lists(a, p, f, scratch, scratch.shape[0])
    return f.requests
