"""The compiled comparison: one random stream through a model and through the kernel's source.

After every call errno, frames in order, list length, balloon statistics, the thread's next time,
sections, gauges and every work count must be equal; the resource trees whenever one changed, the
frames of its extents after each hypercall, and the whole lists every CHECK_LIST requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.base.compiled import INT, TABLE, VECTOR, address_of, call_c, inline, template
from replay.costs.primitives import WORK
from replay.engine.state import E_WAIT, FIRST_WORK, NEVER, word_of, words
from replay.engine.tracking import frames_returned, frames_taken

NR_WORK = len(WORK)
REGISTERS = {name: word_of(register) for name, register in (
    ("list length", "count"), ("current_pages", "current"), ("target_pages", "target"),
    ("target_unpopulated", "unpopulated"), ("total_pages", "total"),
    ("thread's next time", "wake_at"), ("balloon state", "bp_state"),
    ("thread's credit", "sleep_credit"), ("sections", "section_count"), ("fault", "fault"),
    ("held pages", "gauge.held"), ("given pages", "gauge.given"), ("added pages", "gauge.added"),
    ("broken superpages", "gauge.broken"), ("whole blocks", "gauge.whole"),
    ("pinned sections", "gauge.pinned"), ("live pages", "gauge.live"))}
COMPARED = tuple(REGISTERS.values())

(
    P_SEED, P_REQUESTS, P_MOST, P_CALM, P_PEAK, P_TARGETS, P_FULL, P_LIST, P_BALLOON, P_TREE,
    P_QUICK,
) = range(11)  # fmt: skip
"""Parameters of a stream: seed, how many requests, most pages of one, percent of allocations, most
pages live, percent of target changes, pages of the highest target; addresses of replay_list(),
shim_balloon_list() and shim_tree(); percent of steps without time passing."""

(
    F_DONE, F_WHAT, F_AT, F_OURS, F_THEIRS, F_ALLOCS, F_FAILED, F_SLEPT, F_PASSES, F_TREES, F_LISTS,
    F_SECTIONS,
) = range(12)  # fmt: skip
"""What came of it: requests done, what differed (0: nothing), where, both values, counts."""

D_ERRNO, D_FRAME, D_GOT, D_TREE, D_LIST, D_SECTION = 1000, 1001, 1002, 1003, 1004, 1005
OTHERS = {D_ERRNO: "errno", D_FRAME: "frame", D_GOT: "pages got before the sleep",
          D_TREE: "resource tree", D_LIST: "free list", D_SECTION: "section"}
MAX_SLEEPERS = 6
CHECK_LIST = 1000
LOCKSTEP = INT(VECTOR, VECTOR, VECTOR, VECTOR, TABLE, VECTOR)


def difference(what: int) -> str:
    """The name of what differed."""
    if what in OTHERS:
        return OTHERS[what]
    if FIRST_WORK <= what < FIRST_WORK + NR_WORK:
        return f"work {WORK[what - FIRST_WORK]}"
    return next(name for name, register in REGISTERS.items() if register == what)


@inline
def _random(p: np.ndarray, below: int) -> Any:
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    z = np.uint64(p[P_SEED]) + np.uint64(0x9E3779B97F4A7C15)
    p[P_SEED] = np.int64(z)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) % np.uint64(below))


@inline
def _how_many(p: np.ndarray, m: np.ndarray) -> Any:
    """Pages to ask for: few or many, and every fifth time what ends with the list or a section."""
    s = words(m)
    if _random(p, 5) > 0:
        return 1 + _random(p, 1 + _random(p, p[P_MOST]))
    edge = s.count + _random(p, 4) * s.section_pages + _random(p, 3) - 1
    return min(max(edge, 1), 5000)


@inline
def _differ(f: np.ndarray, what: int, at: int, ours: int, theirs: int) -> None:
    """Keep the first difference."""
    if f[F_WHAT] == 0:
        f[F_WHAT], f[F_AT], f[F_OURS], f[F_THEIRS] = what, at, ours, theirs


@inline
def _next_row(rows: np.ndarray, at: int, k: int, count: int) -> tuple[int, int, int]:
    """A row of a resource tree joined with those that begin where it ends."""
    start, last = rows[at + 2 * k], rows[at + 2 * k + 1]
    k += 1
    while k < count and rows[at + 2 * k] == last + 1:
        last = rows[at + 2 * k + 1]
        k += 1
    return start, last, k


@inline
def _compare_trees(m: np.ndarray, p: np.ndarray, f: np.ndarray, room: np.ndarray) -> None:
    """Both resources; neighbours joined, as merge_system_ram_resource() joins them."""
    s = words(m)
    f[F_TREES] += 1
    for which in range(2):
        d = s.xen_tree if which else s.tree
        if which and d.last == 0:
            continue  # the model has no Xen resource: the kernel's target is iomem_resource
        theirs = call_c(p[P_TREE], which, room.shape[0] // 2, address_of(room))
        ours, i, j = d.count, 0, 0
        while i < ours and j < theirs:
            start_a, last_a, i = _next_row(m, d.at, i, ours)
            start_b, last_b, j = _next_row(room, 0, j, theirs)
            if start_a != start_b or last_a != last_b:
                _differ(f, D_TREE, which, start_a, start_b)
                return
        if i < ours or j < theirs:
            _differ(f, D_TREE, which, ours, theirs)


@inline
def _compare_lists(m: np.ndarray, p: np.ndarray, f: np.ndarray, room: np.ndarray,
                   most: int) -> None:
    """The free list, and the balloon's beside a pool, head first, as far as `most` frames."""
    s = words(m)
    for beside in range(1 + s.own_lock):
        count = s.other_count if beside else s.count
        at = s.other_list if beside else s.list
        listed = p[P_BALLOON] if beside else p[P_LIST]
        theirs = call_c(listed, min(most, room.shape[0]), address_of(room), 0)
        if theirs != count:
            _differ(f, D_LIST, -1 - beside, count, theirs)
            return
        for k in range(min(count, most)):
            if m[at + count - 1 - k] != room[k]:
                _differ(f, D_LIST, k, m[at + count - 1 - k], room[k])
                return


@inline
def _compare(a: np.ndarray, b: np.ndarray, p: np.ndarray, f: np.ndarray, room: np.ndarray) -> None:
    """Everything but frames; both sides' work is cleared."""
    tree = words(a).work.resource_add + words(b).work.resource_add
    moved = words(a).work.hypercall + words(b).work.hypercall
    for register in COMPARED:
        if a[register] != b[register]:
            _differ(f, register, 0, a[register], b[register])
    for k in range(FIRST_WORK, FIRST_WORK + NR_WORK):
        if a[k] != b[k]:
            _differ(f, k, 0, a[k], b[k])
        a[k] = b[k] = 0
    words(a).dirty = words(b).dirty = 0
    count = words(a).section_count
    if count > f[F_SECTIONS] and f[F_WHAT] == 0:
        for k in range(4 * f[F_SECTIONS], 4 * count):
            if a[words(a).sections + k] != b[words(b).sections + k]:
                _differ(f, D_SECTION, k, a[words(a).sections + k], b[words(b).sections + k])
        f[F_SECTIONS] = count
    if tree > 0 and f[F_WHAT] == 0:
        _compare_trees(a, p, f, room)
    if moved > 0 and f[F_WHAT] == 0:  # the extents of a hypercall are what the list begins with
        _compare_lists(a, p, f, room, words(a).page_bytes // 8)


@inline
def _same_frames(x: np.ndarray, y: np.ndarray, count: int, f: np.ndarray) -> None:
    for k in range(count):
        if x[k] != y[k]:
            _differ(f, D_FRAME, k, x[k], y[k])


@inline
def _keep(live: np.ndarray, had: int, x: np.ndarray, count: int) -> int:
    for k in range(count):
        live[had + k] = x[k]
    return had + count


@inline
def _choose(p: np.ndarray, live: np.ndarray, had: int, x: np.ndarray, y: np.ndarray) -> int:
    """Pages to free, in x and y, taken off `live`: the last ones, backwards, or any."""
    count = 1 + _random(p, min(had, 1 + _random(p, p[P_MOST])))
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
               f: np.ndarray) -> int:
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
           p: np.ndarray, f: np.ndarray, room: np.ndarray, now: int) -> None:
    """Background passes that are due; one that gets nowhere sleeps until something changes."""
    for _ in range(100):
        if words(a).wake_at > now or f[F_WHAT] != 0:
            return
        current, total, target = words(a).current, words(a).total, words(a).target
        words(a).now = words(b).now = now
        wake_a(a, now)
        wake_b(b, now)
        f[F_PASSES] += 1
        _compare(a, b, p, f, room)
        if (words(a).wake_at <= now and words(a).current == current and words(a).total == total
                and words(a).target == target):
            words(a).wake_at = words(b).wake_at = NEVER


@template
def resume(alloc_a: Callable[..., int], alloc_b: Callable[..., int], a: np.ndarray, b: np.ndarray,
           p: np.ndarray, f: np.ndarray, table: np.ndarray, room: np.ndarray, now: int,
           live: np.ndarray, nr_live: int) -> int:
    """Sleepers go on, oldest first, as long as something is listed; pages live then.

    table: row 0 holds (count, then pages and got of each sleeper), then two rows of frames each.
    """
    while table[0, 0] > 0 and words(a).count > 0 and f[F_WHAT] == 0:
        pages, had = table[0, 1], table[0, 2]
        words(a).now = words(b).now = now
        words(a).got = words(b).got = had
        words(a).resume = words(b).resume = 1
        error = step_alloc(alloc_a, alloc_b, a, b, now, pages, had, table[1], table[2], f)
        words(a).resume = words(b).resume = 0
        _compare(a, b, p, f, room)
        if error == -E_WAIT:
            table[0, 2] = words(a).got
            continue
        if error == 0:
            nr_live = _keep(live, nr_live, table[1], pages)
        table[0, 0] -= 1
        for s in range(table[0, 0]):
            table[0, 1 + 2 * s], table[0, 2 + 2 * s] = table[0, 3 + 2 * s], table[0, 4 + 2 * s]
            for k in range(table[0, 1 + 2 * s]):
                table[1 + 2 * s, k] = table[3 + 2 * s, k]
                table[2 + 2 * s, k] = table[4 + 2 * s, k]
    return nr_live


@template
def lockstep(alloc_a: Any, free_a: Any, wake_a: Any, alloc_b: Any, free_b: Any, wake_b: Any,
             a: np.ndarray, b: np.ndarray, p: np.ndarray, f: np.ndarray, table: np.ndarray,
             room: np.ndarray) -> int:
    """Drive both sides; requests done. p: P_*, f: F_*, room: scratch for lists and trees."""
    last = 2 * MAX_SLEEPERS
    x, y, live = table[last + 1], table[last + 2], table[last + 3]
    now, nr_live, asleep = 1, 0, 0
    for r in range(p[P_REQUESTS]):
        if f[F_WHAT] != 0:
            break
        words(a).request = words(b).request = r
        if _random(p, 100) >= p[P_QUICK]:
            now += 1 + _random(p, 1 << (3 * _random(p, 13)))
        passes(wake_a, wake_b, a, b, p, f, room, now)
        nr_live = resume(alloc_a, alloc_b, a, b, p, f, table, room, now, live, nr_live)
        words(a).now = words(b).now = now
        roll, asleep = _random(p, 100), table[0, 0]
        pages = _how_many(p, a)
        if roll < p[P_TARGETS]:
            target = max(0, p[P_FULL] - _random(p, 1 + _random(p, 2000)))
            slept = words(a).sleep_credit if words(a).bp_state else 0
            words(a).target = words(b).target = target
            if target - words(a).current != slept:
                words(a).wake_at = words(b).wake_at = min(words(a).wake_at, now)
        elif nr_live > 0 and (roll >= p[P_CALM] or nr_live + pages > p[P_PEAK]
                              or asleep == MAX_SLEEPERS):
            count = _choose(p, live, nr_live, x, y)
            nr_live -= count
            frames_returned(a, x, 0, count)
            frames_returned(b, y, 0, count)
            error = free_a(a, now, count, x, 0)
            other = free_b(b, now, count, y, 0)
            if error != other:
                _differ(f, D_ERRNO, count, error, other)
        elif asleep < MAX_SLEEPERS and nr_live + pages <= p[P_PEAK]:
            f[F_ALLOCS] += 1
            u, v = table[1 + 2 * asleep], table[2 + 2 * asleep]
            error = step_alloc(alloc_a, alloc_b, a, b, now, pages, 0, u, v, f)
            if error == 0:
                nr_live = _keep(live, nr_live, u, pages)
            elif error == -E_WAIT:
                f[F_SLEPT] += 1
                table[0, 1 + 2 * asleep], table[0, 2 + 2 * asleep] = pages, words(a).got
                table[0, 0] = asleep + 1
            else:
                f[F_FAILED] += 1
        _compare(a, b, p, f, room)
        if r % CHECK_LIST == 0 and f[F_WHAT] == 0:
            f[F_LISTS] += 1
            _compare_lists(a, p, f, room, room.shape[0])
        f[F_DONE] = r + 1
    if f[F_WHAT] == 0:
        f[F_LISTS] += 1
        _compare_trees(a, p, f, room)
        _compare_lists(a, p, f, room, room.shape[0])
    return f[F_DONE]
